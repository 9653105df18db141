"""``check_temporal``: our models keep every law, and a model that breaks one is refused by the name of the law."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from temporal_models import MODELS
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models import LSTM, FrameSequenceClassifier, Identity, check_temporal, check_user_temporal
from seqclf.models.contract import can_stream
from seqclf.models.laws import LAWS


class Stateful(nn.Module):
    """A leaky mean, computed step by step: ``h_t = a h_{t-1} + x_t``. It keeps every law; subclasses break one."""

    causal, carries_state = True, True

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.out_features = input_size
        self.scale = nn.Parameter(torch.tensor(0.7))

    def reset(self, h: Tensor, first: Tensor) -> Tensor:
        return h.where(~first[:, None], 0.0)

    def update(self, h: Tensor, new: Tensor, valid: Tensor) -> Tensor:
        return new.where(valid[:, None], h)

    def inputs(self, features: Tensor) -> Tensor:
        return features

    def forward(self, features, is_first=None, state=None, lengths=None):
        x = self.inputs(features)
        h = torch.zeros_like(x[:, 0]) if state is None else state
        valid = valid_frames(lengths, x.shape, x.device)
        outputs = []
        for t in range(x.shape[1]):
            if is_first is not None:
                h = self.reset(h, is_first[:, t])
            h = self.update(h, self.scale * h + x[:, t], valid[:, t])
            outputs.append(h)
        return torch.stack(outputs, 1), h


class ForgetsResets(Stateful):
    def reset(self, h, first):
        return h


class ForgetsPadding(Stateful):
    """Outputs at valid frames are right, but the final state is that after the padding."""

    def update(self, h, new, valid):
        return new


class LooksAhead(Stateful):
    def inputs(self, features):
        return features + torch.cat([features[:, 1:], features[:, :1]], 1)


class LosesTheState(Stateful):
    def forward(self, features, is_first=None, state=None, lengths=None):
        return super().forward(features, is_first, None, lengths)


class DetachesTheState(Stateful):
    """Right outputs, but no gradient crosses from piece to piece."""

    def forward(self, features, is_first=None, state=None, lengths=None):
        return super().forward(features, is_first, None if state is None else state.detach(), lengths)


class CountsCalls(Stateful):
    """The first frame of each call is treated as the first of its sequence."""

    def inputs(self, features):
        return features * torch.linspace(0.1, 1, features.shape[1])[:, None]


class MixesClips(Stateful):
    def inputs(self, features):
        return features - features.mean(0)


class DoublesGradients(Stateful):
    """Outputs of single clips and batches agree, but not their gradients."""

    def inputs(self, features):
        return features if len(features) == 1 else features.detach() + 2 * (features - features.detach())


class Unused(Stateful):
    def __init__(self, input_size):
        super().__init__(input_size)
        self.unused = nn.Parameter(torch.zeros(3))


class NormalizesInTraining(Stateful):
    """Batch norm over padding: right in evaluation, wrong in training."""

    def __init__(self, input_size):
        super().__init__(input_size)
        self.norm = nn.BatchNorm1d(input_size)

    def inputs(self, features):
        return self.norm(features.transpose(1, 2)).transpose(1, 2)


class Convolution(nn.Module):
    """Not causal and without state; ``masked`` says whether it keeps padding out."""

    def __init__(self, input_size: int, masked: bool = False) -> None:
        super().__init__()
        self.out_features, self.masked = input_size, masked
        self.one, self.two = (nn.Conv1d(input_size, input_size, 9, padding=4) for _ in range(2))

    def forward(self, features, is_first=None, state=None, lengths=None):
        valid = valid_frames(lengths, features.shape, features.device)[:, None]
        x = features.transpose(1, 2)
        for layer in (self.one, self.two):
            x = layer(x.where(valid, 0.0) if self.masked else x)
        return x.transpose(1, 2), None


class Bidirectional(nn.Module):
    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(input_size, 4, batch_first=True, bidirectional=True)

    def forward(self, features, is_first=None, state=None, lengths=None):
        B, T = features.shape[:2]
        counts = torch.full((B,), T) if lengths is None else lengths.cpu()
        packed = pack_padded_sequence(features, counts, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=T)[0], None


class Attention(nn.Module):
    """Causal by its declaration only."""

    causal = True

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.out_features = input_size
        self.inner = nn.MultiheadAttention(input_size, 1, batch_first=True)

    def forward(self, features, is_first=None, state=None, lengths=None):
        return self.inner(features, features, features)[0], None


BROKEN = {
    ForgetsResets: {"resets"},
    ForgetsPadding: {"state"},
    LooksAhead: {"padding", "resets", "causality", "streaming", "state"},
    LosesTheState: {"streaming", "state"},
    DetachesTheState: {"streaming", "state"},
    CountsCalls: {"padding", "resets", "streaming", "state"},
    MixesClips: {"padding", "neighbours", "resets", "state"},
    DoublesGradients: {"padding", "neighbours", "resets"},
    Unused: {"gradients"},
    NormalizesInTraining: {"padding"},
    Convolution: {"padding", "resets"},
    partial(Convolution, masked=True): {"resets"},
    Bidirectional: {"resets"},
    Attention: {"padding", "resets", "causality"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_our_models_keep_every_law(name):
    report = check_temporal(MODELS[name], 5)
    assert report.passed
    model = MODELS[name](5)
    streaming = {"streaming", "state"} if not can_stream(model) else set()
    skipped = streaming | ({"causality"} if not model.causal else set())
    assert [result.law for result in report.results] == list(LAWS)
    assert {result.law for result in report.results if result.difference is None} == skipped


def test_a_model_written_by_a_user_keeps_every_law():
    assert check_temporal(Stateful(5), 5).passed


@pytest.mark.parametrize("temporal", BROKEN, ids=lambda t: getattr(t, "__name__", "masked Convolution"))
def test_exactly_the_broken_laws_are_reported(temporal):
    report = check_temporal(temporal, 4, frames=12, raise_error=False)
    assert {result.law for result in report.results if not result.passed} == BROKEN[temporal]
    with pytest.raises(SeqclfError, match=rf"^{report.name} .*{min(BROKEN[temporal])}"):
        check_temporal(temporal, 4, frames=12)


def test_the_largest_difference_is_reported_and_compared_with_the_tolerance():
    (result,) = check_temporal(Convolution, 4, laws=["padding"], raise_error=False).results
    assert 0.1 < result.difference < 100
    assert check_temporal(Convolution, 4, laws=["padding"], tolerance=1.01 * result.difference).passed
    assert "padding" in str(check_temporal(Stateful, 4)) and "BROKEN" not in str(check_temporal(Stateful, 4))


@pytest.mark.parametrize("law", ["causality", "streaming", "state"])
def test_laws_of_causal_models_do_not_apply_to_others(law):
    (result,) = check_temporal(Bidirectional, 4, laws=[law]).results
    assert result.difference is None and result.passed


def test_a_model_for_clips_of_equal_length_need_not_keep_padding_out():
    module = Convolution(4)
    module.equal_lengths = True
    assert check_temporal(module, 4, laws=["shape", "padding", "neighbours"]).passed
    model = FrameSequenceClassifier(temporal=module, frame_shape=(4,), num_classes=3)
    check_user_temporal(model)
    model(torch.zeros(2, 5, 4), lengths=torch.tensor([5, 5]))
    with pytest.raises(SeqclfError, match=r"Convolution .*\[5, 4\]"):
        model(torch.zeros(2, 5, 4), lengths=torch.tensor([5, 4]))


def test_the_check_leaves_the_module_and_the_random_state_as_they_are():
    module = NormalizesInTraining(4)
    weights, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    check_temporal(module, 4, raise_error=False)
    assert module.training and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert check_temporal(Stateful, 4).passed


@pytest.mark.parametrize(("name", "value"), [("laws", ["paddings"]), ("frames", 4)])
def test_a_wrong_argument_is_refused(name, value):
    with pytest.raises(SeqclfError, match=f"{name.rstrip('s')}.*{value[0] if name == 'laws' else value}"):
        check_temporal(LSTM(4, 4), 4, **{name: value})


def test_a_module_that_fails_or_cannot_be_copied_is_named():
    class Fails(Stateful):
        def forward(self, features):
            return features, None

    with pytest.raises(SeqclfError, match=r"^Fails .*'shape'"):
        check_temporal(Fails, 4)
    module = Stateful(4)
    module.kept = module.scale * 2
    with pytest.raises(SeqclfError, match=r"^Stateful .*cop"):
        check_temporal(module, 4)


def test_outputs_of_another_dtype_than_the_features_are_refused():
    class Doubles(Stateful):
        def inputs(self, features):
            return features.double()

    with pytest.raises(SeqclfError, match=r"^Doubles .*float32.*float64"):
        check_user_temporal(FrameSequenceClassifier(temporal=Doubles, frame_shape=(4,), num_classes=3))


def test_training_checks_a_user_written_model_before_it_starts():
    torch.manual_seed(0)
    model = FrameSequenceClassifier(temporal=Convolution, frame_shape=(4,), num_classes=3)
    with pytest.raises(SeqclfError, match=r"^Convolution .*padding"):
        check_user_temporal(model)
    for temporal in (Stateful, Bidirectional, LSTM(4, 3), Identity):
        check_user_temporal(FrameSequenceClassifier(temporal=temporal, frame_shape=(4,), num_classes=3))
    check_user_temporal(nn.Linear(3, 3))


def test_training_checks_a_declared_state():
    class Claims(nn.Module):
        """A causal convolution whose state holds nothing."""

        causal = carries_state = True

        def __init__(self, input_size):
            super().__init__()
            self.conv, self.out_features = nn.Conv1d(input_size, 4, 3), 4

        def forward(self, x, is_first=None, state=None, lengths=None):
            return self.conv(nn.functional.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2), torch.zeros(1, len(x), 1)

    with pytest.raises(SeqclfError, match=r"^Claims .*streaming .*carries_state"):
        check_user_temporal(FrameSequenceClassifier(temporal=Claims, frame_shape=(4,), num_classes=3))
