"""What a user-written temporal model or encoder declares and returns, and the errors for one that does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models import GRU, LSTM, RNN, FrameSequenceClassifier, Identity, require_streaming


class Bidirectional(nn.Module):
    """Declares nothing, as a first attempt would."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(input_size, 3, batch_first=True, bidirectional=True)

    def forward(self, features, is_first=None, state=None, lengths=None):
        outputs, state = self.rnn(features)
        return outputs, state


class Declared(Bidirectional):
    """Declares whatever it is given."""

    def __init__(self, input_size: int, **flags: object) -> None:
        super().__init__(input_size)
        for name, value in flags.items():
            setattr(self, name, value)


class Returns(nn.Module):
    """Returns what ``make`` makes of the features."""

    def __init__(self, make, **attributes: object) -> None:
        super().__init__()
        self.make = make
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, features, is_first=None, state=None, lengths=None):
        return self.make(features)


def classifier(temporal, **kwargs) -> FrameSequenceClassifier:
    torch.manual_seed(0)
    return FrameSequenceClassifier(temporal=temporal, **{"frame_shape": (5,), "num_classes": 3, **kwargs})


@pytest.mark.parametrize("temporal", [LSTM(5, 4), GRU(5, 4), RNN(5, 4)], ids=["lstm", "gru", "rnn"])
def test_recurrent_models_are_causal_carry_state_and_stream(temporal):
    model = classifier(temporal)
    assert (model.causal, model.carries_state, model.streams) == (True, True, True)
    require_streaming(model, "truncate=4")


def test_the_single_frame_model_streams_without_state():
    model = classifier(Identity)
    assert (model.causal, model.carries_state, model.streams) == (True, False, True)
    require_streaming(model, "truncate=4")
    with pytest.raises(SeqclfError, match="Identity"):
        model(torch.zeros(2, 3, 5), state=torch.zeros(1, 2, 4))


@pytest.mark.parametrize("flags", [{}, {"causal": True}, {"carries_state": True}, {"frame_wise": True}], ids=str)
def test_a_model_that_does_not_declare_causality_and_state_does_not_stream(flags):
    model = classifier(Declared(5, **flags))
    assert not model.streams
    with pytest.raises(SeqclfError, match=r"^truncate=4 .*Declared"):
        require_streaming(model, "truncate=4")


@pytest.mark.parametrize("flags", [{}, {"causal": True}], ids=str)
def test_a_model_without_state_refuses_one(flags):
    with pytest.raises(SeqclfError, match="Declared"):
        classifier(Declared(5, **flags))(torch.zeros(2, 3, 5), state=torch.zeros(1, 2, 4))


@pytest.mark.parametrize("flags", [{"causal": True, "carries_state": True}, {"causal": True, "frame_wise": True}])
def test_a_declared_model_streams(flags):
    assert classifier(Declared(5, **flags)).streams


def test_any_other_model_streams_if_it_declares_so():
    model = nn.Linear(2, 2)
    with pytest.raises(SeqclfError, match=r"^stream.*Linear"):
        require_streaming(model, "stream()")
    model.streams = True
    require_streaming(model, "stream()")


@pytest.mark.parametrize("flag", ["causal", "carries_state", "frame_wise"])
def test_a_declaration_that_is_not_a_bool_is_refused(flag):
    model = classifier(Declared(5, causal=True) if flag != "causal" else Declared(5))
    setattr(model.temporal, flag, "yes")
    with pytest.raises(SeqclfError, match=rf"Declared.{flag} .*'yes'"):
        _ = model.streams


def test_missing_out_features_are_found_by_a_trial_run_that_leaves_no_trace():
    torch.manual_seed(0)
    plain = Bidirectional(5)
    state, modes = torch.get_rng_state(), [m.training for m in plain.modules()]
    model = FrameSequenceClassifier(temporal=plain, head=lambda D, K: nn.Identity(), frame_shape=(5,), num_classes=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.temporal.modules()] == modes
    assert classifier(Bidirectional).head.in_features == 6
    assert classifier(Bidirectional)(torch.zeros(2, 4, 5))[0].shape == (2, 4, 3)


def test_a_trial_run_that_fails_asks_for_out_features():
    def fail(features: Tensor):
        raise RuntimeError("needs more than 20 frames")

    with pytest.raises(SeqclfError, match=r"Returns .*out_features.* 20 frames"):
        classifier(Returns(fail))


@pytest.mark.parametrize("size", [4, 7])
def test_a_wrong_out_features_is_refused(size):
    model = classifier(Returns(lambda x: (x, None), out_features=size))
    with pytest.raises(SeqclfError, match=rf"Returns.*\(2, 3, {size}\).*\(2, 3, 5\)"):
        model(torch.zeros(2, 3, 5))


WRONG_RESULTS = {
    "a tensor": lambda x: x,
    "three values": lambda x: (x, None, None),
    "a list": lambda x: [x, None],
    "no tensor": lambda x: (x.tolist(), None),
    "one output": lambda x: (x[:, -1], None),
    "fewer frames": lambda x: (x[:, 1:], None),
    "time first": lambda x: (x.transpose(0, 1), None),
    "integers": lambda x: (x.long(), None),
    "a dict for a state": lambda x: (x, {"h": x}),
    "a named tuple for a state": lambda x: (x, torch.max(x, 1)),
}


@pytest.mark.parametrize("case", WRONG_RESULTS)
@pytest.mark.parametrize("found", [True, False])
def test_a_result_of_the_wrong_form_is_refused_by_the_modules_name(case, found):
    """In the trial run, and in a call where ``out_features`` is declared."""
    temporal = Returns(WRONG_RESULTS[case], **({} if found else {"out_features": 5}))
    with pytest.raises(SeqclfError, match=r"^Returns must return"):
        classifier(temporal)(torch.zeros(2, 3, 5))


def test_a_declared_state_that_is_not_returned_is_refused():
    model = classifier(Returns(lambda x: (x, None), out_features=5, causal=True, carries_state=True))
    with pytest.raises(SeqclfError, match=r"Returns .*carries_state"):
        model(torch.zeros(2, 3, 5))


WRONG_FEATURES = {
    "images": lambda x: x[..., None],
    "one vector": lambda x: x.mean(0),
    "integers": lambda x: x.long(),
    "fewer": lambda x: x[1:],
}


class Encodes(nn.Module):
    def __init__(self, make, out_features: int | None) -> None:
        super().__init__()
        self.make, self.out_features = make, out_features

    def forward(self, frames: Tensor) -> Tensor:
        return self.make(frames)


@pytest.mark.parametrize("case", WRONG_FEATURES)
@pytest.mark.parametrize("size", [None, 5])
def test_an_encoder_that_returns_no_vector_per_frame_is_refused_by_name(case, size):
    with pytest.raises(SeqclfError, match="encoder Encodes"):
        classifier(LSTM(5, 4), encoder=Encodes(WRONG_FEATURES[case], size))(torch.zeros(2, 3, 5))


def test_an_encoder_with_a_wrong_out_features_is_refused():
    with pytest.raises(SeqclfError, match=r"Encodes .*\(6, 7\).*\(6, 5\)"):
        classifier(LSTM(7, 4), encoder=Encodes(lambda x: x, 7))(torch.zeros(2, 3, 5))
