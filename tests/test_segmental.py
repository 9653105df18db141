"""Segment metrics: equal to their public definition, which is written out here; laws; cases it leaves open."""

from __future__ import annotations

from functools import partial
from itertools import groupby, pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, settings
from hypothesis import given as given_cases
from hypothesis import strategies as st

from seqclf.batch import IGNORE, SeqclfError
from seqclf.evaluation.segment_metrics import SegmentMetrics, segments

quick = partial(settings, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
_ = IGNORE  # short, for tables of labels


# ----------------------------------------------------------------------------------- the definition, word for word


def plain_segments(labels, background):
    """(class, set of its frames) of each run of one class, frame by frame."""
    runs, frame = [], 0
    for k, run in groupby(labels):
        length = len(list(run))
        if k not in background:
            runs.append((k, set(range(frame, frame + length))))
        frame += length
    return runs


def plain_edit(predicted, labels, background):
    """100 (1 - Levenshtein / the longer), by the recursion that defines the distance; both sides have a segment."""
    a, b = ([k for k, _ in plain_segments(x, background)] for x in (predicted, labels))
    table = {}
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if i == 0 or j == 0:
                table[i, j] = i + j
            else:
                away = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
                table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, away)
    return 100 * (1 - table[len(a), len(b)] / max(len(a), len(b)))


def plain_counts(predicted, labels, background, share):
    """True positives, false positives and false negatives, segment by segment."""
    true, taken = plain_segments(labels, background), set()
    hits = misses = 0
    for k, frames in plain_segments(predicted, background):
        overlaps = [len(frames & other) / len(frames | other) if k == c else 0.0 for c, other in true]
        best = max(range(len(true)), key=lambda i: overlaps[i])  # the first of equals
        if overlaps[best] >= share and best not in taken:
            taken.add(best)
            hits += 1
        else:
            misses += 1
    return hits, misses, len(true) - len(taken)


def plain_figures(videos, background):
    right = [p == y for predicted, labels in videos for p, y in zip(predicted, labels, strict=True)]
    figures = {
        "frame_accuracy": 100 * sum(right) / len(right),
        "edit": sum(plain_edit(p, y, background) for p, y in videos) / len(videos),
    }
    for k in (10, 25, 50):
        hits, misses, missed = map(sum, zip(*(plain_counts(p, y, background, k / 100) for p, y in videos), strict=True))
        precision, recall = hits / (hits + misses), hits / (hits + missed)
        figures[f"f1_{k}"] = 100 * 2 * precision * recall / (precision + recall) if hits else 0.0
    return figures


def measured(videos, background=()):
    metrics = SegmentMetrics(background)
    for predicted, labels in videos:
        metrics.add(predicted, labels)
    return metrics.result()


def runs(classes, longest):
    """Runs of classes, each drawn from one number, which is faster than two."""
    codes = st.lists(st.integers(0, (classes + 1) * longest - 1), min_size=1, max_size=8)
    return codes.map(lambda drawn: [code // longest for code in drawn for _ in range(code % longest + 1)])


@st.composite
def pairs(draw, classes=4, longest=6):
    """A prediction and its labels: runs of classes, or the labels themselves with some frames wrong."""
    labels = draw(runs(classes, longest))
    T = len(labels)
    if draw(st.booleans()):
        predicted = list(labels)
        for code in draw(st.lists(st.integers(0, T * (classes + 1) - 1), max_size=4)):
            predicted[code % T] = code // T
    else:
        predicted = np.resize(draw(runs(classes, longest)), T).tolist()
    return predicted, labels


def both_have_segments(pair, background):
    return all(plain_segments(x, background) for x in pair)


@pytest.mark.slow
@quick(max_examples=1000)
@given_cases(pairs(), st.sampled_from([(), (0,), (0, 2)]))
def test_one_video_has_the_metrics_of_the_definition(pair, background):
    assume(both_have_segments(pair, background))  # the definition has no figure elsewhere
    assert measured([pair], background) == pytest.approx(plain_figures([pair], background), abs=1e-9)


@quick(max_examples=40)
@given_cases(st.lists(pairs(classes=2), min_size=2, max_size=5))
def test_of_many_videos_the_edit_is_the_mean_and_f1_comes_from_pooled_counts(videos):
    assume(all(both_have_segments(pair, [0]) for pair in videos))
    assert measured(videos, [0]) == pytest.approx(plain_figures(videos, [0]), abs=1e-9)


# --------------------------------------------------------------------------------------------------------------- laws

PERFECT = {"frame_accuracy": 100, "edit": 100, "f1_10": 100, "f1_25": 100, "f1_50": 100}


@quick(max_examples=40)
@given_cases(pairs(), st.sampled_from([(), (0,)]))
def test_a_perfect_prediction_gives_100_everywhere_and_none_gives_more(pair, background):
    predicted, labels = pair
    assert measured([(labels, labels)], background) == PERFECT
    figures = measured([(predicted, labels)], background)
    assert all(0 <= value <= 100 for value in figures.values())
    assert figures["f1_10"] >= figures["f1_25"] >= figures["f1_50"]


@quick(max_examples=40)
@given_cases(st.lists(pairs(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_videos_and_the_numbers_of_classes_change_nothing(videos, random):
    figures = measured(videos, [0])
    shuffled = random.sample(videos, len(videos))
    assert measured(shuffled, [0]) == pytest.approx(figures)
    other = {0: 0, 1: 3, 2: 1, 3: 4, 4: 2}
    assert measured([([other[k] for k in p], [other[k] for k in y]) for p, y in videos], [0]) == figures


@quick(max_examples=40)
@given_cases(pairs())
def test_joined_segments_are_the_labels(pair):
    labels = pair[0]
    found = segments(labels)
    assert [k for k, start, end in found for _ in range(end - start)] == labels
    assert all(a[2] == b[1] and a[0] != b[0] for a, b in pairwise(found))
    assert segments(labels, background=[0]) == [run for run in found if run[0] != 0]


@quick(max_examples=40)
@given_cases(pairs(), st.integers(0, 80), st.integers(1, 20))
def test_frames_without_label_count_as_background_on_both_sides(pair, start, length):
    """The prediction there has no influence. Frame accuracy does not count these frames."""
    predicted, labels = (list(x) for x in pair)
    gap = range(start, min(start + length, len(labels)))
    ignored = [IGNORE if t in gap else k for t, k in enumerate(labels)]
    agreed = [([9 if t in gap else k for t, k in enumerate(x)]) for x in (predicted, labels)]
    figures, expected = measured([(predicted, ignored)], [0]), measured([agreed], [0, 9])
    if len(gap) == len(labels):
        assert set(figures.values()) == {None}
        return
    kept = [p == y for p, y in zip(predicted, ignored, strict=True) if y != IGNORE]
    assert figures.pop("frame_accuracy") == pytest.approx(100 * sum(kept) / len(kept))
    expected.pop("frame_accuracy")
    assert figures == expected


# -------------------------------------------------------------------------------------------- what was left open


@pytest.mark.parametrize(
    ("predicted", "labels", "accuracy", "edit", "f1"),
    [
        ([0, 0], [0, 0], 100, 100, 100),  # background only, predicted as such
        ([0, 1], [0, 0], 50, 0, 0),  # a predicted segment without a true one
        ([0, 0, 0], [0, 1, 1], 100 / 3, 0, 0),  # no segment predicted
        ([2], [2], 100, 100, 100),  # one frame
        ([1], [2], 0, 0, 0),
        ([0], [0], 100, 100, 100),
        ([1, 1, 1], [1, _, 1], 100, 100, 100),  # two segments on both sides
        ([1, 2, 1], [1, _, _], 100, 100, 100),
        ([_, _, 1], [0, 1, 1], 100 / 3, 100, 100),  # a prediction without label is wrong, and no segment
        ([1, 2, 1, 2], [1, 1, 2, 2], 50, 50, 200 / 3),  # each true segment is counted once
    ],
)
def test_cases_that_the_definition_leaves_open(predicted, labels, accuracy, edit, f1):
    figures = measured([(predicted, labels)], [0])
    assert figures["frame_accuracy"] == pytest.approx(accuracy)
    assert figures["edit"] == pytest.approx(edit)
    assert figures["f1_50"] == pytest.approx(f1)


def test_overlap_at_the_threshold_counts():
    for k, T in ((10, 10), (25, 4), (50, 2)):
        figures = measured([([1] + [2] * (T - 1), [1] * T)])
        assert figures[f"f1_{k}"] == pytest.approx(200 / 3)


def test_metrics_are_none_if_nothing_was_counted():
    metrics = SegmentMetrics()
    metrics.add([], [])
    metrics.add([1, 2], [_, _])
    assert metrics.result() == dict.fromkeys(PERFECT)


def test_a_video_without_labels_is_not_in_the_mean():
    videos = [([1, 2], [1, 2]), ([1, 2], [_, _])]
    assert measured(videos) == PERFECT


def test_tensors_arrays_and_lists_are_the_same():
    predicted, labels = [0, 1, 1, 2], [0, 1, 2, 2]
    expected = measured([(predicted, labels)])
    assert measured([(torch.tensor(predicted), torch.tensor(labels))]) == expected
    assert measured([(np.array(predicted, np.uint8), np.array(labels, np.int32))]) == expected
    assert segments(torch.tensor([_, 3, 3, 0])) == [(3, 1, 3), (0, 3, 4)]
    assert segments([]) == []


@pytest.mark.parametrize(
    ("predicted", "labels", "words"),
    [
        ([1, 2], [1], "2 predicted classes.*1 labels"),
        ([1.0], [1], r"predicted classes are float64 of shape \(1,\)"),
        ([1], [[1]], r"labels are int64 of shape \(1, 1\)"),
    ],
)
def test_invalid_label_sequences_are_refused(predicted, labels, words):
    with pytest.raises(SeqclfError, match=words):
        SegmentMetrics().add(predicted, labels)


def test_long_videos_of_noise_are_fast():
    """Each frame its own segment on one side: the cost is that of the segments, not of all pairs of frames."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(50) % 7, 200)
    for _ in range(20):
        figures = measured([(rng.integers(0, 7, 10_000), labels)])
    assert figures["edit"] < 1
