"""The laws of labels, loss, metrics, the order of samples and schedules; most against plain definitions of them."""

from __future__ import annotations

import itertools
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from hypothesis import given as given_cases
from hypothesis import strategies as st
from torch import Tensor

from seqclf import load_experiment
from seqclf.batch import IGNORE, Batch, SeqclfError, valid_frames
from seqclf.data import Clips, Data, Video, Videos, every_frame, given, last_frame, last_frames, sample_order
from seqclf.data.frames.array_file import ArrayFile
from seqclf.evaluation.classification import classification_metrics
from seqclf.evaluation.metrics import Metrics
from seqclf.experiment.losses import cross_entropy, steady_cross_entropy
from seqclf.experiment.schedules import constant, one_cycle, warmup_cosine, warmup_linear

quick = partial(settings, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
OF_CLASSES = {name[2:] for name in classification_metrics(torch.eye(2), "x")}
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
_ = IGNORE  # short, for tables of labels


# ----------------------------------------------------------------------------------------------------------- labelling


@pytest.mark.parametrize(
    ("labelling", "lengths", "expected"),
    [
        (last_frame, None, [[_, _, _, 2], [_, _, _, 0], [_, _, _, 1]]),
        (last_frame, [4, 1, 2], [[_, _, _, 2], [0, _, _, _], [_, 1, _, _]]),
        (partial(last_frames, n=2), None, [[_, _, 2, 2], [_, _, 0, 0], [_, _, 1, 1]]),
        (partial(last_frames, n=2), [4, 1, 3], [[_, _, 2, 2], [0, _, _, _], [_, 1, 1, _]]),
        (every_frame, None, [[2, 2, 2, 2], [0, 0, 0, 0], [1, 1, 1, 1]]),
        (every_frame, [4, 1, 2], [[2, 2, 2, 2], [0, _, _, _], [1, 1, _, _]]),
    ],
)
def test_the_label_of_a_clip_is_at_its_last_valid_frame_or_at_every_valid_frame(labelling, lengths, expected):
    labels = labelling(torch.tensor([2, 0, 1]), None if lengths is None else torch.tensor(lengths), 4)
    assert labels.dtype == torch.int64
    assert labels.tolist() == expected


def test_given_labels_are_kept_except_at_padding():
    labels = torch.tensor([[0, _, 2], [1, 1, 1], [_, 2, 0]])
    assert given(labels, None, 3).tolist() == labels.tolist()
    assert given(labels, torch.tensor([3, 1, 2]), 3).tolist() == [[0, _, 2], [1, _, _], [_, 2, _]]


@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 1, 5])])
def test_last_frames_lies_between_last_frame_and_every_frame(lengths):
    labels = torch.tensor([2, 0, 1])
    assert torch.equal(last_frames(labels, lengths, 5, n=1), last_frame(labels, lengths, 5))
    assert torch.equal(last_frames(labels, lengths, 5, n=5), every_frame(labels, lengths, 5))
    per_frame = torch.tensor([[0, 1, _, 2, 1]] * 3)
    kept = last_frames(per_frame, lengths, 5, n=2)
    chosen = last_frames(labels, lengths, 5, n=2) != IGNORE
    assert torch.equal(kept, per_frame.masked_fill(~chosen, IGNORE))
    for n in (0, 2.5):
        with pytest.raises(SeqclfError, match=f"n={n}"):
            last_frames(labels, lengths, 5, n=n)


@pytest.mark.parametrize(
    ("labelling", "rule"),
    [
        (last_frame, "last"),
        (partial(last_frames, n=2), "last"),
        (partial(last_frames, n=4), "mean"),
        (every_frame, "mean"),
    ],
)
@pytest.mark.parametrize("from_videos", [False, True])
def test_clips_are_classified_by_their_last_frame_where_only_their_end_is_trained(
    labelling, rule, from_videos, tmp_path
):
    clips = clips_of([0, 1], labelling=labelling)
    if from_videos:
        for k in range(2):
            np.save(tmp_path / f"{k}.npy", clips.frames[k].numpy())
        sources = [ArrayFile(tmp_path / f"{k}.npy", frame_shape=(2,)) for k in range(2)]
        clips = Videos([Video(str(k), sources[k], k) for k in range(2)], training=True, labelling=labelling)
    assert Data(clips, clips, "ab", "toy", allow_shared=True).decision_rule() == rule


def test_the_command_line_sets_how_many_frames_are_labelled():
    settings = ["data.source=digits", "data.labelling=last_frames", "data.labelling.n=3"]
    data = load_experiment("mnist_lastframe", settings).data()
    assert "last_frames(n=3)" in data.source and data.decision_rule() == "last"
    assert (data.train.batch(torch.arange(2)).labels != IGNORE).sum(1).tolist() == [3, 3]


@pytest.mark.parametrize("labelling", [last_frame, every_frame, given])
def test_a_labelling_refuses_labels_of_the_other_form(labelling):
    labels = torch.zeros(3, dtype=torch.int64) if labelling is given else torch.zeros(3, 4, dtype=torch.int64)
    words = r"\(B, T\).*\(3,\)" if labelling is given else r"\(B,\).*\(3, 4\)"
    with pytest.raises(SeqclfError, match=f"{labelling.__name__}.*{words}"):
        labelling(labels, None, 4)


def test_valid_frames_are_those_before_the_length():
    assert valid_frames(torch.tensor([1, 3]), torch.Size([2, 3, 9]), torch.device("cpu")).tolist() == [
        [True, False, False],
        [True, True, True],
    ]
    assert valid_frames(None, torch.Size([2, 3, 9]), torch.device("cpu")).tolist() == [[True] * 3] * 2


# ---------------------------------------------------------------------------------------------------------------- loss


@st.composite
def batches(draw, max_clips=7):
    """Random logits, and labels with frames that have none, clips of one label and of several, lengths and indices."""
    B, T, K = draw(st.integers(1, max_clips)), draw(st.integers(1, 6)), draw(st.integers(2, 7))
    lengths = draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B).map(torch.tensor))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    share = draw(st.sampled_from([0.0, 0.4, 0.9]))
    labels = torch.randint(0, K, (B, T), generator=rng)
    one = torch.rand(B, generator=rng) < 0.6
    labels = torch.where(one[:, None], labels[:, :1], labels)
    labels = labels.masked_fill(torch.rand(B, T, generator=rng) < share, IGNORE)
    labels = given(labels, lengths, T)
    indices = torch.randperm(1000, generator=rng)[:B]
    logits = torch.randn(B, T, K, generator=rng) * 2
    return logits, Batch(torch.zeros(B, T, 1), labels, lengths, None, indices)


@quick(max_examples=50)
@given_cases(batches(), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_loss_is_torchs_mean_over_labelled_frames_smoothed_as_torch_smooths(case, smoothing):
    logits, batch = case
    loss = cross_entropy(logits, batch.labels, smoothing=smoothing)
    labelled = batch.labels != IGNORE
    if not labelled.any():
        assert loss == 0
        return
    close(loss, F.cross_entropy(logits[labelled], batch.labels[labelled], label_smoothing=smoothing))
    log_p = logits.double().log_softmax(-1)[labelled]
    truth = F.one_hot(batch.labels[labelled], logits.shape[-1]).double()
    by_hand = -((truth * (1 - smoothing) + smoothing / logits.shape[-1]) * log_p).sum(-1).mean()
    close(loss.double(), by_hand)


@quick(max_examples=30)
@given_cases(batches(), st.sampled_from([0.0, 0.1]))
def test_frames_without_a_label_get_exactly_zero_gradient_and_all_others_some(case, smoothing):
    logits, batch = case
    logits.requires_grad_()
    cross_entropy(logits, batch.labels, smoothing=smoothing).backward()
    assert logits.grad is not None
    assert (logits.grad[batch.labels == IGNORE] == 0).all()
    assert (logits.grad[batch.labels != IGNORE] != 0).any(-1).all()


@quick(max_examples=40)
@given_cases(batches(), st.integers(1, 9), st.booleans())
def test_losses_of_the_parts_of_a_batch_sum_to_the_loss_of_the_whole(case, parts, as_number):
    """Given the whole's count of labelled frames; so do their gradients. Parts without any label add nothing."""
    logits, batch = case
    total = (batch.labels != IGNORE).sum()
    whole, split = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    cross_entropy(whole, batch.labels).backward()
    pieces = batch.split(parts)
    assert 1 <= len(pieces) <= parts
    summed, start = torch.zeros(()), 0
    for piece in pieces:
        loss = cross_entropy(split[start : start + len(piece)], piece.labels, total=int(total) if as_number else total)
        loss.backward()
        summed, start = summed + loss.detach(), start + len(piece)
    assert start == len(batch)
    close(summed, cross_entropy(logits, batch.labels))
    close(split.grad, whole.grad)


def test_the_smoothing_loss_equals_its_definition_and_its_parts_sum_to_the_whole():
    torch.manual_seed(0)
    logits = (3 * torch.randn(4, 6, 3)).requires_grad_()
    labels = torch.randint(0, 3, (4, 6)).masked_fill(torch.rand(4, 6) < 0.3, IGNORE)
    total = int((labels != IGNORE).sum())
    p, price = logits.log_softmax(-1).tolist(), 0.0
    for b, t, k in itertools.product(range(4), range(1, 6), range(3)):
        if IGNORE not in labels[b, t - 1 : t + 1].tolist():
            price += min(abs(p[b][t][k] - p[b][t - 1][k]), 2.5) ** 2 / 3 / total
    loss = partial(steady_cross_entropy, penalty=0.5, largest=2.5)
    whole = loss(logits, labels)
    assert whole.item() == pytest.approx(cross_entropy(logits, labels).item() + 0.5 * price, rel=1e-5)
    halves = [loss(logits[i : i + 2], labels[i : i + 2], total) for i in (0, 2)]
    assert sum(halves).item() == pytest.approx(whole.item(), rel=1e-6)
    assert steady_cross_entropy(logits[:, :1], labels[:, :1]).item() == pytest.approx(
        cross_entropy(logits[:, :1], labels[:, :1]).item()
    )


def test_only_the_later_frame_has_a_gradient_of_the_smoothing_loss():
    logits = torch.randn(1, 2, 3, requires_grad=True)
    labels = torch.tensor([[0, 1]])
    (steady_cross_entropy(logits, labels) - cross_entropy(logits, labels)).backward()
    assert logits.grad[0, 0].abs().max() < 1e-7 < logits.grad[0, 1].abs().max()


def test_split_cuts_every_field_into_consecutive_clips():
    batch = Batch(
        torch.randn(7, 2, 3), torch.arange(14).view(7, 2), torch.arange(7), torch.rand(7, 2) < 0.5, torch.arange(7) * 10
    )
    for parts in (1, 2, 3, 7, 20):
        pieces = batch.split(parts)
        assert len(pieces) <= parts
        assert all(len(piece) > 0 for piece in pieces)
        for name in ("frames", "labels", "lengths", "is_first", "indices"):
            assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(batch, name))
    bare = Batch(batch.frames, batch.labels).split(3)
    assert [len(piece) for piece in bare] == [3, 3, 1]
    assert all(piece.lengths is piece.is_first is piece.indices is None for piece in bare)


def test_a_batch_goes_to_a_device_with_all_its_fields():
    fields = dict(lengths=torch.tensor([1, 2]), is_first=torch.ones(2, 2).bool(), indices=torch.arange(2))
    batch = Batch(torch.randn(2, 2, 3), torch.zeros(2, 2, dtype=torch.int64), **fields)
    for name in ("frames", "labels", *fields):
        assert torch.equal(getattr(batch.to("cpu"), name), getattr(batch, name))
        assert getattr(batch.to("meta"), name).device.type == "meta"
    assert Batch(batch.frames, batch.labels).to("meta").lengths is None


def test_the_loss_is_computed_in_float32_whatever_the_dtype_of_the_logits():
    logits = (torch.randn(3, 4, 5) * 3).bfloat16()
    labels = torch.randint(0, 5, (3, 4))
    loss = cross_entropy(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits.float(), labels))


# ------------------------------------------------------------------------------------------------------------- figures


def brute_force(pairs: list[tuple[Tensor, Batch]], K: int, top_k: int, worst: int) -> dict:
    """The metrics of ``Metrics``, one frame and one clip at a time, in float64, except those of ``test_metrics``."""
    frames = right = in_top = clips = mixed = last_right = mean_right = 0
    loss = 0.0
    confusion, of_clips = np.zeros((2, K, K), dtype=int)
    by_frame: dict[int, list[int]] = {}
    known: dict[int, list[int]] = {}
    wrong = []
    for logits, batch in pairs:
        scores = logits.double().numpy()
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        for b in range(len(batch)):
            labels = batch.labels[b].tolist()
            n = len(labels) if batch.lengths is None else int(batch.lengths[b])
            clip_losses = []
            for t, label in enumerate(labels):
                if label == IGNORE:
                    continue
                ranked = np.argsort(-scores[b, t])
                frames += 1
                right += ranked[0] == label
                in_top += label in ranked[:top_k]
                confusion[label, ranked[0]] += 1
                by_frame.setdefault(t, []).append(int(ranked[0] == label))
                clip_losses.append(-np.log(p[b, t, label]))
            loss += sum(clip_losses)
            different = len({label for label in labels if label != IGNORE})
            mixed += different > 1
            if different != 1:
                continue
            truth = next(label for label in labels if label != IGNORE)
            clips += 1
            last = int(p[b, n - 1].argmax())
            last_right += last == truth
            of_clips[truth, last] += 1
            mean_right += int(p[b, :n].mean(0).argmax()) == truth
            for t in range(n):
                known.setdefault(t, []).append(int(p[b, t].argmax() == truth))
            if last != truth:
                wrong.append([int(batch.indices[b]), truth, last, p[b, n - 1].max(), np.mean(clip_losses)])

    def share(part, whole):
        return part / whole if whole else None

    def listed(hits):
        return [share(sum(hits.get(t, [])), len(hits.get(t, []))) for t in range(max(hits, default=-1) + 1)]

    return {
        "frames": frames,
        "clips": clips,
        "mixed_clips": mixed,
        "loss": share(loss, frames),
        "frame_accuracy": share(right, frames),
        **({f"top{top_k}_accuracy": share(in_top, frames)} if top_k < K else {}),
        "clip_last": share(last_right, clips),
        "clip_mean": share(mean_right, clips),
        "class_accuracy": [share(confusion[k, k], confusion[k].sum()) for k in range(K)],
        "confusion": confusion.tolist(),
        "clip_confusion": of_clips.tolist(),
        "accuracy_by_frame": listed(by_frame),
        "known_by_frame": listed(known),
        "most_wrong": sorted(wrong, key=lambda row: -row[4])[:worst],
    }


def assert_same_figures(figures: dict, expected: dict, rel: float = 1e-5) -> None:
    of_classes = {name for name in figures if name.partition("_")[2] in OF_CLASSES}
    assert [name for name in figures if name not in of_classes] == [name for name in expected if name not in of_classes]
    for name, figure in figures.items():
        if name not in expected:
            continue
        if name == "most_wrong":
            assert [row[:3] for row in figure] == [row[:3] for row in expected[name]]
            for row, other in zip(figure, expected[name], strict=True):
                assert row[3:] == pytest.approx(other[3:], rel=rel)
        elif name == "loss" and figure is not None:
            assert figure == pytest.approx(expected[name], rel=rel)
        else:
            assert figure == expected[name], name


@quick(max_examples=80)
@given_cases(batches(max_clips=9), st.integers(1, 5), st.integers(1, 4))
def test_metrics_equal_their_plain_definitions(case, top_k, worst):
    logits, batch = case
    K = logits.shape[-1]
    metrics = Metrics(K, top_k=top_k, worst=worst)
    metrics.update(logits, batch)
    assert_same_figures(metrics.result(), brute_force([(logits, batch)], K, top_k, worst))


@quick(max_examples=40)
@given_cases(batches(max_clips=9), st.integers(1, 9), st.integers(1, 4))
def test_batching_does_not_change_the_metrics(case, size, worst):
    """The last incomplete batch included; and clips of the last batch may be padded less than those of the first."""
    logits, batch = case
    K, whole, parts = logits.shape[-1], Metrics(logits.shape[-1], worst=worst), Metrics(logits.shape[-1], worst=worst)
    whole.update(logits, batch)
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        lengths = None if batch.lengths is None else batch.lengths[rows]
        T = logits.shape[1] if lengths is None else int(lengths.max())
        part = Batch(batch.frames[rows, :T], batch.labels[rows, :T], lengths, None, batch.indices[rows])
        parts.update(logits[rows, :T], part)
    assert_same_figures(parts.result(), whole.result(), rel=1e-6)
    assert_same_figures(parts.result(), brute_force([(logits, batch)], K, 5, worst))


def test_clips_of_several_labels_count_in_no_clip_figure_and_unlabelled_clips_in_none():
    labels = torch.tensor([[0, 1], [1, _], [_, _]])
    logits = F.one_hot(torch.tensor([[0, 1], [1, 0], [0, 0]]), 3).float() * 5
    metrics = Metrics(3)
    metrics.update(logits, Batch(torch.zeros(3, 2, 1), labels, indices=torch.arange(3)))
    figures = metrics.result()
    assert (figures["frames"], figures["clips"], figures["mixed_clips"]) == (3, 1, 1)
    assert figures["frame_accuracy"] == 1.0
    assert figures["clip_last"] == 0.0  # the one clip of one label: class 0 at its last frame, label 1
    assert figures["known_by_frame"] == [1.0, 0.0]
    assert figures["accuracy_by_frame"] == [1.0, 1.0]
    assert [row[:3] for row in figures["most_wrong"]] == [[1, 1, 0]]


def test_clip_mean_is_the_mean_of_probabilities_not_of_logits():
    """Two frames for class 0, and one whose huge logit for class 1 is worth no more than a probability of 1."""
    logits = torch.tensor([[[3.0, 0.0], [3.0, 0.0], [0.0, 100.0]]])
    metrics = Metrics(2)
    metrics.update(logits, Batch(torch.zeros(1, 3, 1), torch.tensor([[0, 0, 0]])))
    assert (metrics.result()["clip_mean"], metrics.result()["clip_last"]) == (1.0, 0.0)


def test_metrics_without_labels_are_none():
    metrics = Metrics(3)
    assert metrics.result()["loss"] is None
    metrics.update(
        torch.randn(2, 4, 3), Batch(torch.zeros(2, 4, 1), torch.full((2, 4), IGNORE), indices=torch.arange(2))
    )
    figures = metrics.result()
    assert (figures["frames"], figures["clips"]) == (0, 0)
    assert all(figures[name] is None for name in ("loss", "frame_accuracy", "clip_last", "clip_mean", "clip_macro_f1"))
    assert figures["class_accuracy"] == [None] * 3
    assert figures["accuracy_by_frame"] == figures["known_by_frame"] == figures["most_wrong"] == []


def test_only_the_list_of_the_most_wrong_needs_indices():
    metrics = Metrics(2)
    metrics.update(torch.tensor([[[0.0, 1.0]]]), Batch(torch.zeros(1, 1, 1), torch.tensor([[0]])))
    assert metrics.result()["clip_last"] == 0.0
    assert metrics.result()["most_wrong"] == []


# ---------------------------------------------------------------------------------------------------------------- order


@quick(max_examples=60)
@given_cases(st.integers(1, 30), st.integers(1, 70), st.integers(0, 2**40), st.integers(1, 5))
def test_every_sample_comes_once_per_pass_for_any_batch_size(size, batch_size, seed, passes):
    """Batches that end one pass and begin the next, and batches larger than the data set, among them."""
    steps = -(-size * passes // batch_size)
    stream = torch.cat([sample_order(size, batch_size, seed, step) for step in range(steps)])
    assert len(stream) == steps * batch_size
    for i in range(passes):
        assert sorted(stream[i * size : (i + 1) * size].tolist()) == list(range(size))
    one_by_one = torch.cat([sample_order(size, 1, seed, step) for step in range(size)])
    assert torch.equal(stream[:size], one_by_one)


def test_the_order_is_a_function_of_its_arguments_only():
    arguments = [(n, b, seed, step) for n in (5, 12) for b in (3, 12, 40) for seed in (0, 1) for step in (0, 7)]
    forward = [sample_order(*a) for a in arguments]
    torch.manual_seed(123)
    backward = [sample_order(*a) for a in reversed(arguments)]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert all(order.dtype == torch.int64 and len(order) == a[1] for order, a in zip(forward, arguments, strict=True))


def test_the_order_does_not_change_pytorchs_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    sample_order(17, 5, 3, 2)
    assert torch.equal(torch.rand(3), expected)


def test_seeds_and_passes_differ_in_order():
    orders = [sample_order(50, 50, seed, step) for seed in range(8) for step in range(8)]
    assert len({tuple(order.tolist()) for order in orders}) == 64
    assert not any(torch.equal(order, torch.arange(50)) for order in orders)


# ------------------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("steps", [4, 10, 37, 1000])
@pytest.mark.parametrize("settings_of_both", [{}, {"warmup": 0.5, "start": 0.1, "end": 1e-3}])
def test_one_cycle_equals_torchs(steps, settings_of_both):
    """Its defaults are those of ``OneCycleLR``: a share of 0.3 up, from 1/25, down to 1/25 of 1/10,000."""
    theirs = {}
    if settings_of_both:
        theirs = dict(
            pct_start=settings_of_both["warmup"],
            div_factor=1 / settings_of_both["start"],
            final_div_factor=settings_of_both["start"] / settings_of_both["end"],
        )
    rate = 0.3
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, **theirs)
    for step in range(steps):
        expected = optimizer.param_groups[0]["lr"] / rate
        assert one_cycle(step, steps, **settings_of_both) == pytest.approx(expected, rel=1e-6), step
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()


share = st.floats(0, 1, allow_nan=False)


@quick(max_examples=80)
@given_cases(st.integers(1, 400), share, share)
def test_schedules_stay_from_0_to_1_and_go_up_once_then_down(steps, warmup, floor):
    for schedule in (
        constant,
        partial(warmup_cosine, warmup=warmup, floor=floor),
        partial(warmup_linear, warmup=warmup, floor=floor),
        partial(one_cycle, warmup=warmup, start=0.04, end=0.04 * floor),
    ):
        factors = [schedule(step, steps) for step in range(steps)]
        assert all(0 <= factor <= 1 for factor in factors)
        top = factors.index(max(factors))
        up, down = factors[: top + 1], factors[top:]
        assert all(a <= b + 1e-12 for a, b in pairwise(up))
        assert all(a >= b - 1e-12 for a, b in pairwise(down))


@pytest.mark.parametrize("schedule", [warmup_cosine, warmup_linear])
def test_warm_up_rises_linearly_to_1_and_ends_near_the_floor(schedule):
    factors = [schedule(step, 1000, warmup=0.1, floor=0.2) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 101)
    assert np.diff(factors[:101]) == pytest.approx(1 / 101)
    assert factors[100] == max(factors) == 1
    half = factors[550]
    assert half == pytest.approx(0.6)
    assert factors[-1] == pytest.approx(0.2, abs=2e-3)
    assert all(factor >= 0.2 for factor in factors[100:])


def test_warmup_linear_falls_linearly_and_warmup_cosine_on_a_cosine():
    linear = np.array([warmup_linear(step, 100, warmup=0.2) for step in range(20, 100)])
    assert np.diff(linear) == pytest.approx(-1 / 80)
    cosine = np.array([warmup_cosine(step, 100, warmup=0.2) for step in range(20, 100)])
    assert cosine == pytest.approx((1 + np.cos(np.pi * np.arange(80) / 80)) / 2)


# ---------------------------------------------------------------------------------------------------------------- clips


def clips_of(labels, frames: int = 4, **kwargs) -> Clips:
    labels = torch.as_tensor(labels)
    return Clips(torch.arange(len(labels) * frames * 2).view(len(labels), frames, 2).float(), labels, **kwargs)


def test_a_batch_holds_the_frames_labels_and_lengths_of_its_samples():
    clips = clips_of([2, 0, 1], lengths=torch.tensor([4, 1, 2]), labelling=every_frame)
    batch = clips.batch(torch.tensor([2, 0]))
    assert torch.equal(batch.frames, clips.frames[[2, 0]])
    assert batch.labels.tolist() == [[1, 1, _, _], [2, 2, 2, 2]]
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [2, 4]
    assert batch.indices is not None
    assert batch.indices.tolist() == [2, 0]
    assert batch.is_first is None
    assert (len(clips), clips.num_frames, clips.frame_shape) == (3, 4, (2,))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("labels", "labelling", "words"),
    [
        ([0, 1, 3], last_frame, "label 3 of sample 2"),
        ([0, -1, 2], last_frame, "label -1 of sample 1"),
        ([[0, _, 2, 2], [1, 7, _, 1]], given, "label 7 of sample 1"),
    ],
)
def test_data_refuses_labels_out_of_range_and_names_them(part, labels, labelling, words):
    good = clips_of([0, 1, 2])
    parts = {"train": good, "validation": good, "test": good, part: clips_of(labels, labelling=labelling)}
    with pytest.raises(SeqclfError, match=f"toy, {part} part: {words} .*3 classes, 0 to 2"):
        Data(classes=("a", "b", "c"), source="toy", **parts)


def test_data_takes_frames_without_a_label_and_does_without_a_validation_part():
    train = clips_of([[0, _, 2, 2], [_, 1, _, 1]], labelling=given)
    data = Data(train, clips_of([0, 1, 2]), ("a", "b", "c"), "toy")
    assert data.num_classes == 3
    assert list(data.parts()) == ["train", "test"]


def test_the_fingerprint_changes_with_frames_labels_and_lengths_and_with_nothing_else():
    base = clips_of([0, 1, 2])
    assert base.fingerprint() == clips_of([0, 1, 2]).fingerprint()
    others = [
        clips_of([0, 1, 1]),
        Clips(base.frames + 1, base.labels),
        clips_of([0, 1, 2], lengths=torch.tensor([4, 4, 4])),
        clips_of([0, 1, 2], lengths=torch.tensor([4, 3, 4])),
    ]
    assert len({clips.fingerprint() for clips in [base, *others]}) == 5


# ---------------------------------------------------------------------------------------- once faults, now laws


def test_writing_into_an_order_does_not_change_the_next():
    before = sample_order(10, 4, 987654321, 0).clone()
    sample_order(10, 4, 987654321, 0).add_(1)
    assert torch.equal(sample_order(10, 4, 987654321, 0), before)


def test_nan_logits_are_wrong_everywhere():
    metrics = Metrics(10)
    metrics.update(torch.full((2, 3, 10), float("nan")), Batch(torch.zeros(2, 3, 1), torch.ones(2, 3).long()))
    assert metrics.result()["top5_accuracy"] == 0


def test_top_1_accuracy_is_frame_accuracy_where_logits_are_equal():
    """As happens in bf16, and in a model that answers the same for all."""
    metrics = Metrics(10, top_k=1)
    metrics.update(torch.zeros(10, 1, 10), Batch(torch.zeros(10, 1, 1), torch.arange(10)[:, None]))
    assert metrics.result()["top1_accuracy"] == metrics.result()["frame_accuracy"]


def test_a_logit_of_minus_infinity_at_a_frame_without_label_does_not_change_the_loss():
    logits = torch.zeros(1, 2, 3)
    logits[0, 0, 0] = -float("inf")
    metrics = Metrics(3)
    metrics.update(logits, Batch(torch.zeros(1, 2, 1), torch.tensor([[_, 1]])))
    assert metrics.result()["loss"] == pytest.approx(np.log(3))
