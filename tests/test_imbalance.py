"""Classes of unequal size: weights, focal loss, losses made of modules, and the sampling of training clips."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

import seqclf
from seqclf import Clips, Data, Experiment, FrameSequenceClassifier, SeqclfError, labelling, losses, samplers
from seqclf.batch import IGNORE
from seqclf.data import Shards, Video, Videos
from seqclf.data.class_counts import class_counts
from seqclf.data.frames.array_file import ArrayFile
from seqclf.experiment.build_loss import ModuleLoss, build_loss
from seqclf.training.checks import label_warnings

CPU = torch.device("cpu")
WEIGHTS = (0.5, 2.0, 0.0)


def batch(seed=0):
    """Logits ``(6, 4, 3)`` and labels, of which some are unknown."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (6, 4), generator=rng)
    return torch.randn(6, 4, 3, generator=rng), labels.masked_fill(torch.rand(6, 4, generator=rng) < 0.3, IGNORE)


def focal_by_hand(logits, labels, gamma, weights):
    p = logits.double().softmax(-1)
    rows = [
        -weights[k] * (1 - p[b, t, k]) ** gamma * p[b, t, k].log()
        for b, row in enumerate(labels.tolist())
        for t, k in enumerate(row)
        if k != IGNORE
    ]
    return sum(rows) / len(rows)


def test_weighted_cross_entropy_is_torchs_sum_over_the_number_of_labelled_frames():
    logits, labels = batch()
    known = labels != IGNORE
    summed = F.cross_entropy(logits[known], labels[known], torch.tensor(WEIGHTS), reduction="sum", label_smoothing=0.1)
    found = losses.cross_entropy(logits, labels, smoothing=0.1, weights=WEIGHTS)
    assert found.item() == pytest.approx((summed / known.sum()).item())


def test_weights_of_the_steady_loss_are_those_of_the_cross_entropy():
    logits, labels = batch()
    change = losses.steady_cross_entropy(logits, labels) - losses.cross_entropy(logits, labels)
    found = losses.steady_cross_entropy(logits, labels, smoothing=0.1, weights=WEIGHTS)
    torch.testing.assert_close(found, losses.cross_entropy(logits, labels, smoothing=0.1, weights=WEIGHTS) + change)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_that_of_the_paper(gamma):
    logits, labels = batch()
    expected = focal_by_hand(logits, labels, gamma, WEIGHTS)
    assert losses.focal_loss(logits, labels, gamma=gamma, weights=WEIGHTS).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    plain, weighted = losses.cross_entropy(logits, labels), losses.focal_loss(logits, labels, gamma=0)
    assert plain.item() == pytest.approx(weighted.item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_has_a_gradient_where_the_model_is_certain(gamma):
    logits = torch.tensor([[[200.0, -200.0], [-200.0, 200.0]]], requires_grad=True)
    losses.focal_loss(logits, torch.tensor([[0, 0]]), gamma=gamma).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[0, 1] != 0).all()


ALL = {
    "weighted": partial(losses.cross_entropy, weights=WEIGHTS),
    "focal": partial(losses.focal_loss, weights=WEIGHTS),
    "steady": partial(losses.steady_cross_entropy, weights=WEIGHTS),
    "module": ModuleLoss(nn.CrossEntropyLoss(label_smoothing=0.1)),
    "module_weights": ModuleLoss(nn.CrossEntropyLoss(torch.tensor(WEIGHTS))),
}


@pytest.mark.parametrize("name", ALL)
def test_parts_of_a_batch_add_up_and_unlabelled_frames_have_no_gradient(name):
    loss, (logits, labels) = ALL[name], batch()
    total = (labels != IGNORE).sum()
    whole, split = (logits.clone().requires_grad_() for _ in range(2))
    loss(whole, labels).backward()
    parts = sum(loss(split[i : i + 2], labels[i : i + 2], total) for i in (0, 2, 4))
    parts.backward()
    torch.testing.assert_close(parts, loss(logits, labels))
    torch.testing.assert_close(split.grad, whole.grad)
    assert (whole.grad[labels == IGNORE] == 0).all()
    assert loss(logits, torch.full_like(labels, IGNORE)) == 0


# ------------------------------------------------------------------------------------------------------- class counts


def videos_of(labels, tmp_path, **settings):
    """A video of two frames, or of as many as it has labels, for each item of ``labels``."""
    found = []
    for i, own in enumerate(labels):
        own = torch.tensor(own) if isinstance(own, list) else own
        np.save(tmp_path / f"{i}.npy", np.zeros((len(own) if isinstance(own, torch.Tensor) else 2, 2), "float32"))
        found.append(Video(f"{i}", ArrayFile(tmp_path / f"{i}.npy", (2,)), own))
    return Videos(found, **{"training": True} | settings)


PER_FRAME = [[0, 1, 1], [2, 0, IGNORE], [IGNORE, IGNORE, IGNORE], [1, 2, 2]]


def test_class_counts(tmp_path):
    frames = torch.zeros(4, 3, 2)
    per_clip, lengths = torch.tensor([2, 0, 2, 2]), torch.tensor([3, 2, 1, 1])
    for clips in (Clips(frames, per_clip), videos_of(per_clip.tolist(), tmp_path)):
        assert class_counts(clips, 4).tolist() == [1, 0, 3, 0]
    for clips in (Clips(frames, PER_FRAME, labelling=labelling.given), videos_of(PER_FRAME, tmp_path)):
        assert class_counts(clips, 3).tolist() == [2, 3, 3]
    padded = Clips(frames, PER_FRAME, lengths, labelling=labelling.given)
    assert class_counts(padded, 3).tolist() == [2, 3, 1]
    last = Clips(frames, PER_FRAME, labelling=partial(labelling.last_frames, n=1))
    assert class_counts(last, 3).tolist() == [0, 1, 1]


def toy(labels, **settings):
    """Data of clips of 3 frames with these labels in both parts, which are easy to tell apart."""
    labels = torch.as_tensor(labels)
    frames = (
        torch.randn(len(labels), 3, 2, generator=torch.Generator().manual_seed(0))
        + labels.view(len(labels), -1)[:, :1, None]
    )
    clips = Clips(frames, labels, **settings)
    return Data(clips, clips, ["a", "b", "c"], "toy")


def run_of(data, loss=losses.cross_entropy, **settings):
    model = partial(FrameSequenceClassifier, temporal=partial(seqclf.GRU, hidden=3))
    return Experiment(
        data, model, partial(torch.optim.SGD, lr=0.1), **{"steps": 3, "batch_size": 4} | settings, loss=loss
    )


def trained(experiment, folder):
    seqclf.train(experiment, folder, "cpu")
    found = torch.load(folder / f"checkpoints/step_{experiment.steps}.pt", weights_only=True)["model"]
    return found, json.loads((folder / "run.json").read_text())


LABELS = [0, 0, 0, 0, 0, 1, 1, 2]


def test_balanced_weights_are_scikit_learns_and_reach_the_loss_and_the_record(tmp_path):
    data = toy(LABELS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert losses.balanced_weights(data) == pytest.approx(tuple(expected))
    loss = partial(losses.cross_entropy, weights="balanced")
    balanced, record = trained(run_of(data, loss), tmp_path / "balanced")
    given, _ = trained(run_of(data, partial(loss, weights=tuple(expected))), tmp_path / "given")
    assert record["fitted"]["class_weights"] == pytest.approx(expected)
    assert all(torch.equal(balanced[name], given[name]) for name in given)
    assert "weights='balanced'" in (tmp_path / "balanced/config.py").read_text()


def test_weights_change_on_resuming_only_if_allowed(tmp_path):
    data = toy(LABELS)
    seqclf.train(run_of(data, partial(losses.cross_entropy, weights="balanced")), tmp_path, "cpu")
    with pytest.raises(SeqclfError, match=r"loss\.weights"):
        seqclf.train(run_of(data, steps=4), tmp_path, "cpu", resume=True)


def test_a_class_without_training_labels_is_named_and_has_weight_0(tmp_path, capsys):
    data = toy([0, 0, 2])
    assert losses.balanced_weights(data) == pytest.approx((0.75, 0, 1.5))
    seqclf.train(run_of(data), tmp_path, "cpu")
    assert "warning: no training label for 1 of 3 classes: b" in capsys.readouterr().out


def test_warnings_name_a_class_without_a_positive_label_and_the_only_class():
    clips = Clips(torch.zeros(2, 3, 2), torch.tensor([[0, 1], [IGNORE, 0]]), multi_label=True)
    assert label_warnings(Data(clips, clips, ["a", "b"], "toy")) == ["no positive training label for 1 of 2 classes: a"]
    clips = Clips(torch.zeros(2, 3, 2), [0, 0])
    assert "a is the only class" in label_warnings(Data(clips, clips, ["a"], "toy"))[0]


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss, partial(nn.CrossEntropyLoss, reduction="sum"), nn.CrossEntropyLoss()]
)
@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}])
def test_a_module_is_a_loss_however_it_is_given(loss, settings, tmp_path):
    data = toy([[0, 1, IGNORE]] * 6, labelling=labelling.given)
    expected, _ = trained(run_of(data), tmp_path / "function")
    found, _ = trained(run_of(data, loss, **settings), tmp_path / "module")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


class Counting(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, logits, labels):
        self.calls += 1
        return super().forward(logits, labels)


class Trained(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class OneNumber(nn.Module):
    def forward(self, logits, labels):
        return F.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (partial(losses.cross_entropy, weights=(1.0, 2.0)), "weights has 2 numbers.*3 classes"),
        (partial(losses.focal_loss, weights=(1.0, -2.0, 1.0)), "at least 0"),
        (partial(losses.focal_loss, gamma=-1.0), "gamma=-1"),
        (partial(losses.steady_cross_entropy, penalty=-1.0), "penalty=-1"),
        (partial(losses.cross_entropy, smoothing=2.0), "smoothing=2"),
        (partial(losses.cross_entropy, weights="equal"), "weights='equal'"),
        (Counting, "buffer calls"),
        (Trained, "Trained has parameters"),
        (OneNumber, "one loss per frame"),
        (partial(nn.CrossEntropyLoss, smoothing=0.1), "'smoothing'"),
        (partial(losses.cross_entropy, weights=np.ones(2)), "weights has 2 numbers.*3 classes"),
    ],
)
def test_a_wrong_loss_is_refused_before_the_run_begins(loss, words, tmp_path):
    with pytest.raises(SeqclfError, match=f"setting loss: .*{words}"):
        seqclf.train(run_of(toy(LABELS), loss), tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_balanced_weights_outside_a_run_are_refused():
    with pytest.raises(SeqclfError, match="balanced_weights"):
        losses.cross_entropy(*batch(), weights="balanced")


@pytest.mark.parametrize(
    ("wrong", "right"), [(nn.NLLLoss, "CrossEntropyLoss"), (partial(nn.BCELoss), "BCEWithLogitsLoss")]
)
def test_losses_of_probabilities_are_refused(wrong, right):
    for loss in (wrong, wrong()):
        with pytest.raises(SeqclfError, match=f"setting loss=.*torch.nn.{right}"):
            build_loss(run_of(toy, loss), toy(LABELS), CPU)


def test_build_loss_keeps_any_other_function():
    def mine(logits, labels, total):
        return logits.sum()

    assert build_loss(run_of(toy, mine), toy(LABELS), CPU) is mine


# ------------------------------------------------------------------------------------------------------------ samplers


def drawn(clips, sampler, batch_size, steps, seed=0):
    return torch.cat([sampler(clips, batch_size, seed, step) for step in range(steps)])


@pytest.mark.parametrize("batch_size", [4, 7, 50])
def test_balanced_draws_each_class_equally_often_and_its_clips_in_turn(batch_size, tmp_path):
    classes = torch.tensor(LABELS)
    for clips in (toy(LABELS).train, videos_of(LABELS, tmp_path)):
        rows = drawn(clips, samplers.balanced, batch_size, 420 // batch_size)
        counts = classes[rows].bincount()
        assert (counts - len(rows) / 3).abs().max() <= 3
        for k in range(3):
            of_class, count = rows[classes[rows] == k], int((classes == k).sum())
            turns = of_class[: len(of_class) // count * count].view(-1, count)  # also across passes
            assert all(len(turn.unique()) == count for turn in turns)
        one_by_one = drawn(clips, samplers.balanced, 1, batch_size)
        assert torch.equal(one_by_one, samplers.balanced(clips, batch_size, 0, 0))


def test_clips_with_labels_per_frame_count_by_their_most_frequent_class(tmp_path):
    """Clip 1 by the first of equals; clip 2 has no label and is never drawn."""
    clips = Clips(torch.zeros(4, 3, 2), PER_FRAME, labelling=labelling.given)
    for data in (clips, videos_of(PER_FRAME, tmp_path), videos_of(PER_FRAME, tmp_path, training=False)):
        assert drawn(data, samplers.balanced, 3, 4).bincount(minlength=4).tolist() == [4, 4, 0, 4]


def test_clips_count_by_the_frames_that_the_labelling_keeps():
    """Clip 0 has class 1 in its last frame only, and clip 1 has a label before its last frame only."""
    last = partial(labelling.last_frames, n=1)
    for labels in ([[0, 0, 1], [0, 0, IGNORE], [2, 2, 2]], [[0, 1, 1], [2, 2, IGNORE], [0, 0, 2]]):
        clips = Clips(torch.zeros(3, 3, 2), labels, labelling=last)
        assert drawn(clips, samplers.balanced, 2, 3).bincount(minlength=3).tolist() == [3, 0, 3]


def test_weights_are_shares_of_the_draws():
    clips = toy([*LABELS, IGNORE]).train
    rows = drawn(clips, partial(samplers.weighted, weights=(1, 3, 0)), 16, 40)
    counts = torch.tensor([*LABELS, IGNORE])[rows]
    assert set(counts.tolist()) == {0, 1}
    assert (counts == 1).double().mean() == pytest.approx(0.75, abs=0.01)
    rows = drawn(clips, partial(samplers.weighted, weights=(1, 1000, 0.1)), len(LABELS) + 2, 1)
    assert set(torch.tensor(LABELS)[rows].tolist()) == {0, 1, 2}  # a small share is one draw of a pass, not none


def test_samplers_depend_on_the_seed_and_the_step_only():
    first, other = toy(LABELS).train, toy([2, 2, 1, 1, 0, 0, 1, 0]).train
    torch.manual_seed(5)
    state = torch.get_rng_state()
    expected = samplers.balanced(first, 5, 1, 9)
    samplers.balanced(other, 5, 1, 9)
    samplers.balanced(first, 3, 2, 30).add_(1)
    assert torch.equal(samplers.balanced(first, 5, 1, 9), expected)
    assert not torch.equal(samplers.balanced(first, 5, 2, 9), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_shuffled_is_the_default_and_a_run_resumes_with_its_sampler(tmp_path):
    data = toy(LABELS)
    default, _ = trained(run_of(data), tmp_path / "default")
    shuffled, _ = trained(run_of(data, sampler=samplers.shuffled), tmp_path / "shuffled")
    assert all(torch.equal(default[name], shuffled[name]) for name in default)
    whole, _ = trained(run_of(data, sampler=samplers.balanced, steps=6), tmp_path / "whole")
    seqclf.train(run_of(data, sampler=samplers.balanced), tmp_path / "parts", "cpu")
    with pytest.raises(SeqclfError, match="sampler"):
        seqclf.train(run_of(data, steps=6), tmp_path / "parts", "cpu", resume=True)
    seqclf.train(run_of(data, sampler=samplers.balanced, steps=6), tmp_path / "parts", "cpu", resume=True)
    parts = torch.load(tmp_path / "parts/checkpoints/step_6.pt", weights_only=True)["model"]
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    assert any(not torch.equal(whole[name], shuffled[name]) for name in whole)


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (partial(samplers.weighted, weights=(1.0, 1.0)), "weights has 2 numbers.*class 2"),
        (partial(samplers.weighted, weights=(1.0, 1.0, -1.0)), "at least 0"),
        (partial(samplers.weighted, weights=(0, 0, 0)), "one above 0"),
        (partial(samplers.weighted, weights=(1, 1, 1, 1)), "class 3.*no training clip"),
        (lambda clips, batch_size, seed, step: torch.randint(0, 8, (batch_size,)), "differ from call to call"),
        (lambda clips, batch_size, seed, step: torch.full((batch_size,), 8), "from 0 to 7"),
        (lambda clips: None, "TypeError"),
    ],
)
def test_a_wrong_sampler_is_refused_before_the_run_begins(sampler, words, tmp_path):
    with pytest.raises(SeqclfError, match=f"setting sampler: .*{words}"):
        seqclf.train(run_of(toy(LABELS), sampler=sampler), tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_a_module_is_no_loss_of_multi_label_data(tmp_path):
    data = toy(np.eye(3, dtype=int)[LABELS], multi_label=True)
    with pytest.raises(SeqclfError, match=r"setting loss: BCEWithLogitsLoss .*binary_cross_entropy"):
        seqclf.train(run_of(data, nn.BCEWithLogitsLoss), tmp_path, "cpu")


@pytest.mark.parametrize(
    "settings", [{"sampler": samplers.balanced}, {"loss": partial(losses.cross_entropy, weights="balanced")}]
)
def test_multi_label_data_has_no_balance_of_classes(settings, tmp_path):
    clips = Clips(torch.zeros(2, 3, 2), torch.tensor([[0, 1, 1], [1, 0, 0]]), multi_label=True)
    with pytest.raises(SeqclfError, match="multi-label"):
        seqclf.train(run_of(Data(clips, clips, ["a", "b", "c"], "toy"), **settings), tmp_path, "cpu")


def test_shards_keep_their_order(tmp_path):
    shards = Shards([videos_of(LABELS, tmp_path).videos], training=True)
    assert torch.equal(samplers.shuffled(shards, 4, 0, 1), shards.order(4, 0, 1))
    with pytest.raises(SeqclfError, match="shards"):
        samplers.balanced(shards, 4, 0, 1)
