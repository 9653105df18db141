"""FrameSequenceClassifier: its parts, preprocessing, padding, frames in chunks; groups of parameters."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from temporal_models import bools, classifier, close
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models import LSTM, Chain, Flatten, FrameSequenceClassifier, Identity, Normalize, param_groups


class Conv(nn.Module):
    """A small frame encoder that does not declare ``out_features``."""

    def __init__(self, frame_shape, batch_norm: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(2) if batch_norm else nn.Identity()
        self.net = nn.Sequential(nn.Conv2d(frame_shape[0], 2, 3), norm, nn.Tanh(), nn.Flatten())

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames)


def conv_classifier(**kwargs) -> FrameSequenceClassifier:
    torch.manual_seed(3)
    return FrameSequenceClassifier(
        partial(Normalize, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]),
        partial(Conv, **kwargs),
        partial(LSTM, hidden=4, layers=2),
        frame_shape=(3, 5, 4),
        num_classes=6,
    )


def test_parts_are_modules_or_classes_that_build_them():
    built = conv_classifier()
    assert built.temporal.input_size == 2 * 3 * 2
    assert (built.head.in_features, built.head.out_features) == (4, 6)
    given_modules = FrameSequenceClassifier(
        Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), Conv((3, 5, 4)), LSTM(12, 4, 2), nn.Linear(4, 6)
    )
    given_modules.load_state_dict(built.state_dict(), strict=True)
    frames = torch.rand(2, 3, 3, 5, 4)
    assert torch.equal(built(frames)[0], given_modules(frames)[0])


@pytest.mark.parametrize("frame_shape", [(7,), (3, 5, 4)], ids=str)
def test_vectors_and_images_get_logits_at_every_frame(frame_shape):
    """Compared with frames normalised and encoded one by one, ``torch.nn.LSTM`` and the head."""
    torch.manual_seed(0)
    encoder = Flatten if len(frame_shape) == 1 else Conv
    model = FrameSequenceClassifier(
        partial(Normalize, 0.4, 0.2), encoder, partial(LSTM, hidden=4), frame_shape=frame_shape, num_classes=5
    )
    frames = torch.rand(2, 3, *frame_shape)
    logits, (h, c) = model(frames)
    assert logits.shape == (2, 3, 5)
    assert h.shape == c.shape == (1, 2, 4)
    lstm = nn.LSTM(model.temporal.input_size, 4, batch_first=True)
    lstm.load_state_dict(model.temporal.state_dict())
    features = torch.stack([model.encoder((frames[:, t] - 0.4) / 0.2) for t in range(3)], 1)
    hidden, (expected_h, expected_c) = lstm(features)
    close(logits, model.head(hidden))
    close(h, expected_h)
    close(c, expected_c)


def test_uint8_frames_equal_float_frames_divided_by_255():
    model = conv_classifier()
    frames = torch.randint(0, 256, (2, 3, 3, 5, 4), dtype=torch.uint8)
    close(model(frames)[0], model(frames.float() / 255)[0])
    assert (model(frames)[0] - model(frames.float())[0]).abs().max() > 1e-3


def test_normalize_subtracts_the_mean_and_divides_by_std_per_channel():
    frames = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    y = Normalize(mean, std)(frames)
    for c in range(3):
        close(y[:, c], (frames[:, c].float() / 255 - mean[c]) / std[c])
    close(Normalize()(frames), frames.float() / 255)


def test_an_encoder_with_batch_norm_does_not_see_padding():
    """Values in padding change neither the logits in training nor the running statistics."""
    frames, lengths = torch.randn(3, 4, 3, 5, 4), torch.tensor([2, 4, 1])
    frames[torch.arange(4) >= lengths[:, None]] = 1e6
    model = conv_classifier(batch_norm=True)
    assert model.training
    logits, _ = model(frames, lengths=lengths)
    norm = model.encoder.net[1]
    valid = torch.cat([frames[b, :n] for b, n in enumerate(lengths.tolist())])
    seen = model.encoder.net[0](model.preprocess(valid))
    close(norm.running_mean, 0.1 * seen.mean((0, 2, 3)))
    close(norm.running_var, 0.9 + 0.1 * seen.transpose(0, 1).flatten(1).var(1))
    assert norm.num_batches_tracked == 1  # finding the size of the features is no training step

    again = conv_classifier(batch_norm=True)
    further = torch.cat([frames, torch.full((3, 2, 3, 5, 4), 1e6)], 1)
    more, _ = again(further, lengths=lengths)
    close(more[:, :4], logits)
    close(again.encoder.net[1].running_var, norm.running_var)


def test_one_frame_at_a_time_equals_one_call():
    model, frames, is_first = conv_classifier(), torch.rand(3, 6, 3, 5, 4), bools(3, 6)
    assert is_first[:, 1:].any()
    whole, final = model(frames, is_first)
    state, logits = None, []
    for t in range(6):
        y, state = model(frames[:, t : t + 1], is_first[:, t : t + 1], state)
        logits.append(y)
    close(torch.cat(logits, 1), whole)
    for a, b in zip(state, final, strict=True):
        close(a, b)


def test_the_single_frame_model_classifies_each_frame_on_its_own():
    model = classifier("identity")
    frames = torch.randn(3, 4, 3)
    logits, state = model(frames)
    assert state is None
    close(logits, torch.stack([model(frames[:, t : t + 1])[0][:, 0] for t in range(4)], 1))
    changed = frames.clone()
    changed[:, 0] += 1
    assert torch.equal(model(changed)[0][:, 1:], logits[:, 1:])
    assert not torch.equal(model(changed)[0][:, 0], logits[:, 0])


def test_the_state_dict_holds_the_preprocessing():
    trained, frames = conv_classifier(), torch.rand(2, 3, 3, 5, 4)
    saved = trained.state_dict()
    assert saved["preprocess.mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert saved["preprocess.std"].flatten().tolist() == pytest.approx([0.5, 0.6, 0.7])
    other = conv_classifier()
    other.preprocess = Normalize([0.0] * 3, [1.0] * 3)
    assert not torch.allclose(other(frames)[0], trained(frames)[0])
    other.load_state_dict(saved)
    assert torch.equal(other(frames)[0], trained(frames)[0])


@pytest.mark.parametrize(
    "parts",
    [dict(encoder=Flatten(), temporal=partial(LSTM, hidden=4)), dict(temporal=Identity())],
    ids=["Flatten()", "Identity()"],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_sizes_are_found_behind_modules_that_do_not_declare_theirs(parts):
    model = FrameSequenceClassifier(**parts, frame_shape=(7,), num_classes=3)
    assert model(torch.zeros(2, 3, 7))[0].shape == (2, 3, 3)


def test_building_the_classifier_leaves_the_modes_of_the_encoder():
    """As with a pretrained encoder whose batch norm is frozen."""
    encoder = Conv((3, 5, 4), batch_norm=True)
    encoder.net[1].eval()
    modes = [module.training for module in encoder.modules()]
    FrameSequenceClassifier(encoder=encoder, temporal=partial(LSTM, hidden=4), frame_shape=(3, 5, 4), num_classes=2)
    assert [module.training for module in encoder.modules()] == modes


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_an_encoder_in_chunks_computes_the_same(frozen, ragged):
    torch.manual_seed(0)
    parts = {"conv": partial(nn.Conv2d, 3, 4, 3), "relu": nn.ReLU, "drop": partial(nn.Dropout, 0.5), "flat": nn.Flatten}
    model = FrameSequenceClassifier(
        encoder=partial(Chain, parts=parts), temporal=partial(LSTM, hidden=5), frame_shape=(3, 6, 6), num_classes=3
    ).eval()
    model.encoder.requires_grad_(not frozen)
    frames, lengths = torch.randn(2, 7, 3, 6, 6), torch.tensor([7, 4]) if ragged else None
    found = []
    for chunk in (None, 3, 1):
        model.chunk = chunk
        model.zero_grad()
        logits, _ = model(frames, lengths=lengths)
        logits.square().sum().backward()
        found.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == (7 if frozen else 9)
    for other in found[1:]:
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found[0], other, strict=True))
    with pytest.raises(SeqclfError, match=r"chunk .* not 0"):
        FrameSequenceClassifier(frame_shape=(3,), num_classes=2, chunk=0)


def test_parameters_are_grouped_by_the_first_matching_pattern():
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=5), frame_shape=(3,), num_classes=2)
    model.temporal.bias_hh_l0.requires_grad_(False)
    rules = {"head.bias": {"lr_mult": 20.0}, "*bias*": {"lr_mult": 2.0}}
    groups = param_groups(model, rules)
    assert [group.get("lr_mult") for group in groups] == [20.0, 2.0, None]
    assert [p is model.head.bias for p in groups[0]["params"]] == [True]
    assert [p is model.temporal.bias_ih_l0 for p in groups[1]["params"]] == [True]
    assert len(groups[2]["params"]) == 3
    with pytest.raises(SeqclfError, match=r"'tail\.\*'.* temporal.weight"):
        param_groups(model, {"tail.*": {}})
