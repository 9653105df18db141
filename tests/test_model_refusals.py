"""Wrong arguments of models are refused with what was expected and what was given."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from temporal_models import classifier, make
from torch import nn

from seqclf.batch import SeqclfError
from seqclf.models import (
    GRU,
    LSTM,
    RNN,
    TCN,
    Attention,
    FrameSequenceClassifier,
    Normalize,
    TemporalChain,
    check_temporal,
)


@pytest.mark.parametrize("name", ["dropout", "dropout_after"])
@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_dropout_out_of_range_is_refused(name, p):
    with pytest.raises(SeqclfError, match=rf"{name} .* not {p}"):
        LSTM(3, 4, **{name: p})


@pytest.mark.parametrize(("hidden", "layers"), [(0, 1), (4, 0)])
def test_a_net_without_units_or_layers_is_refused(hidden, layers):
    with pytest.raises(SeqclfError, match=r"(hidden|layers) .*not 0"):
        GRU(3, hidden, layers)


def test_an_unknown_nonlinearity_is_refused():
    with pytest.raises(SeqclfError, match="'sigmoid'"):
        RNN(3, 4, nonlinearity="sigmoid")


def test_a_residual_connection_needs_a_layer_that_has_one():
    with pytest.raises(SeqclfError, match=r"residual=True .*layers=2.*projection=True"):
        LSTM(3, 4, residual=True)
    assert LSTM(3, 4, residual=True, projection=True)(torch.zeros(1, 2, 3))[0].shape == (1, 2, 4)


def test_a_bidirectional_model_refuses_a_state():
    with pytest.raises(SeqclfError, match=r"LSTM.*bidirectional.*state"):
        LSTM(3, 4, bidirectional=True)(torch.zeros(1, 2, 3), state=(torch.zeros(1, 1, 4),) * 2)


WRONG = {
    "frame shape": (dict(frames=torch.zeros(2, 3, 8)), r"\(B, T, 7\).*\(2, 3, 8\)"),
    "one frame, no clip": (dict(frames=torch.zeros(2, 7)), r"\(B, T, 7\).*\(2, 7\)"),
    "images for vectors": (dict(frames=torch.zeros(2, 3, 7, 1, 1)), r"\(B, T, 7\).*\(2, 3, 7, 1, 1\)"),
    "no clips": (dict(frames=torch.zeros(0, 3, 7)), r"at least one.*\(0, 3, 7\)"),
    "no frames": (dict(frames=torch.zeros(2, 0, 7)), r"at least one.*\(2, 0, 7\)"),
    "is_first shape": (dict(is_first=torch.zeros(3, 2).bool()), r"bool \(2, 3\).*\(3, 2\)"),
    "is_first dtype": (dict(is_first=torch.zeros(2, 3)), r"bool \(2, 3\).*float32"),
    "state shape": (dict(state=(torch.zeros(1, 3, 4),) * 2), r"\(1, 2, 4\).*\(1, 3, 4\)"),
    "state of one part": (dict(state=torch.zeros(1, 2, 4)), r"pair.*\(1, 2, 4\)"),
    "state of three parts": (dict(state=(torch.zeros(1, 2, 4),) * 3), r"pair.*\(1, 2, 4\)"),
    "length 0": (dict(lengths=torch.tensor([0, 3])), r"from 1 to 3, not \[0, 3\]"),
    "length above T": (dict(lengths=torch.tensor([3, 4])), r"from 1 to 3, not \[3, 4\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused(case):
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=4), frame_shape=(7,), num_classes=3)
    arguments, words = WRONG[case]
    with pytest.raises(SeqclfError, match=words):
        model(**{"frames": torch.zeros(2, 3, 7), **arguments})


@pytest.mark.parametrize("kind", ["gru", "rnn_tanh"])
def test_a_pair_of_states_is_refused_where_the_state_is_one_tensor(kind):
    with pytest.raises(SeqclfError, match=r"one tensor \(2, 3, 4\)"):
        make(kind)(torch.zeros(3, 2, 5), state=(torch.zeros(2, 3, 4),) * 2)


def test_features_of_the_wrong_size_are_refused():
    with pytest.raises(SeqclfError, match=r"LSTM .*\(B, T, 5\).*\(2, 3, 6\)"):
        make("lstm")(torch.zeros(2, 3, 6))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(num_classes=3), "frame_shape= to build its encoder"),
        (
            dict(encoder=nn.Flatten(), temporal=partial(LSTM, hidden=4), num_classes=3),
            "frame_shape= to find .* Flatten",
        ),
        (dict(temporal=partial(LSTM, hidden=4), frame_shape=(7,)), "num_classes="),
    ],
)
def test_a_missing_size_is_refused_by_the_name_of_its_argument(kwargs, words):
    with pytest.raises(SeqclfError, match=words):
        FrameSequenceClassifier(**kwargs)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (partial(check_temporal, nn.GRU, input_size=3), r"GRU\(3\) .*hidden_size"),
        (partial(GRU, 3, "4"), "GRU: hidden .* '4'"),
        (partial(FrameSequenceClassifier, temporal=partial(GRU, hiden=4), frame_shape=(7,)), "temporal: GRU .*'hiden'"),
        (partial(Attention, 4, hidden="8"), "Attention: hidden .*'8'"),
        (partial(GRU, 4, hidden=8, dropout="0.5"), "GRU: dropout .*'0.5'"),
        (partial(TCN, 4, dropout=1), "TCN: dropout .*1"),
        (partial(FrameSequenceClassifier, encoder=lambda shape: 3, frame_shape=(7,)), "encoder: .* module"),
        (partial(check_temporal, lambda size: size, input_size=3), "must return a module, not int"),
        (partial(TemporalChain, 4, parts=[TCN]), "TemporalChain: parts"),
        (partial(TemporalChain, 4, parts={"a.b": TCN}), "'a.b'"),
        (partial(TemporalChain, 4, parts={"forward": TCN}), "'forward'"),
        (partial(Attention, 4, hidden=8, window=2.5), "Attention: window .*2.5"),
        (partial(Normalize, std=(1.0, 0.0)), "Normalize: std"),
        (partial(FrameSequenceClassifier, frame_shape=(7,), num_classes=3, refine=TCN), "refine must be a list"),
        (partial(FrameSequenceClassifier, frame_shape=(7,), num_classes=3, activation="relu"), "activation .*'relu'"),
    ],
)
def test_wrong_arguments_are_refused_when_a_model_is_built(build, words):
    with pytest.raises(SeqclfError, match=words):
        build()


WRONG_LENGTHS = {
    "too many": torch.tensor([1, 2, 3]),
    "too few": torch.tensor([2]),
    "none": torch.zeros(0, dtype=torch.int64),
    "not whole": torch.tensor([2.5, 3.0]),
}


@pytest.mark.parametrize("case", WRONG_LENGTHS)
def test_wrong_lengths_are_refused(case):
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=4), frame_shape=(7,), num_classes=3)
    with pytest.raises(SeqclfError, match=r"lengths .* 2 .* 1 to 3"):
        model(torch.zeros(2, 3, 7), lengths=WRONG_LENGTHS[case])


@pytest.mark.parametrize("case", ["is_first shape", "is_first dtype", "length 0", "length above T"])
def test_the_single_frame_model_refuses_the_same(case):
    arguments, words = WRONG[case]
    with pytest.raises(SeqclfError, match=words):
        classifier("identity", (7,))(**{"frames": torch.zeros(2, 3, 7), **arguments})
