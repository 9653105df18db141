"""The pictures of a report, drawn from the metrics of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqclf.batch import SeqclfError
from seqclf.evaluation.metrics import clips_have_one_label
from seqclf.reporting.metrics import MULTI_LABEL, RULES, TITLES, ranked_labels
from seqclf.reporting.style import add_axes, drawable, new_figure, point_size, text_width
from seqclf.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = tuple[str, str, "Figure"]
"""Title, caption and figure."""

Array = np.ndarray[Any, Any]

COLOURS = {
    "train": "#888888",
    "loss": "#d1495b",
    "frame_accuracy": "#3477b5",
    "clip_last": "#d1495b",
    "clip_mean": "#2a9d6f",
    "frame_map": "#3477b5",
    "clip_last_map": "#d1495b",
    "clip_mean_map": "#2a9d6f",
}
DRAWN = {name: title for name, title in (TITLES | MULTI_LABEL).items() if name in COLOURS}
"""The metrics that have a curve."""


def curves_by_part(lines: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines of ``metrics.jsonl`` by part of the data."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        parts.setdefault(line["part"], []).append(line)
    return parts


def learning_picture(parts: dict[str, list[dict[str, Any]]], best: dict[str, Any] | None) -> Picture | None:
    """Loss and accuracies by step, from ``curves_by_part``."""
    from matplotlib.ticker import MaxNLocator

    if not parts:
        return None
    figure = new_figure(10, 3.8)
    left, right = (add_axes(figure, x, 0.55, 4.1, 2.9) for x in (0.75, 5.75))
    for part, lines in parts.items():
        titles = {"accuracy": "frame accuracy", "label_accuracy": "label accuracy"} if part == "train" else DRAWN
        names = {name: title for name, title in titles.items() if name in lines[0]}
        for axes, name in ((left, "loss"), *((right, name) for name in names)):
            values = np.array([line[name] for line in lines], dtype=float)  # None becomes NaN
            if not np.isnan(values).all():
                colour = COLOURS["train" if part == "train" else name]
                label = f"{part}, {names[name]}" if axes is right else part
                scaled = 100 * values if axes is right else values
                axes.plot(
                    [line["step"] for line in lines], scaled, ".-", ms=point_size(len(lines)), color=colour, label=label
                )
    measured = "mAP and accuracy (%)" if any("frame_map" in lines[0] for lines in parts.values()) else "accuracy (%)"
    for axes, title in ((left, "loss (nats)"), (right, measured)):
        axes.set(title=title, xlabel="step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if best is not None:
            axes.axvline(best["step"], color="gray", linewidth=0.8, linestyle=":", label="best on validation")
        axes.legend(handles=axes.lines, frameon=False, fontsize=8)
    caption = "Training metrics are means over the steps since the previous point. The others cover a whole part."
    return "Learning curves", caption, figure


def known_picture(metrics: dict[str, Any]) -> Picture | None:
    """Accuracy by frame index, if clips have more than one frame."""
    from matplotlib.ticker import MaxNLocator

    known = metrics["known_by_frame"] if clips_have_one_label(metrics) else []
    labelled = metrics["accuracy_by_frame"]
    total = max(len(known), len(labelled))
    if total < 2:
        return None
    figure = new_figure(10, 3.8)
    axes = add_axes(figure, 0.7, 0.55, 9.1, 2.9)
    curves = (("-", known, "clip_last", "class of the clip"), ("o", labelled, "frame_accuracy", "labelled frames"))
    for style, shares, colour, label in curves:
        if shares:
            values = 100 * np.array(shares, dtype=float)
            axes.plot(range(len(values)), values, style, color=COLOURS[colour], ms=3.5, lw=2, label=label)
    axes.axhline(100 / len(metrics["confusion"]), color="gray", linewidth=0.8, linestyle=":", label="chance")
    axes.set(xlabel="frame (the first is 0)", ylabel="correct at this frame (%)")
    axes.set(ylim=(0, 103), xlim=(-0.5, total - 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    if not known:
        return "Accuracy by frame", "Accuracy over labelled test frames by their index in the clip.", figure
    reached = [(s, next((t for t, x in enumerate(known, 1) if x is not None and x >= s), 0)) for s in (0.5, 0.9, 0.95)]
    early = "; ".join(f"{100 * s:.0f} % at frame {frame} of {total}" for s, frame in reached if frame)
    caption = "Share of the test clips whose class is predicted at each frame."
    return "Accuracy by frame seen", f"{caption}{early and f' It first reaches {early}.'}", figure


def confusion_picture(counts: list[list[int]], classes: Sequence[str]) -> Picture:
    """The confusion matrix, with counts above 0 for up to 20 classes, and some of the class names for more than 25."""
    K, cells = len(counts), np.array(counts)
    shares = 100 * cells / cells.sum(1, keepdims=True).clip(1)
    ticks = range(0, K, math.ceil(K / 25))
    labels = drawable(classes, 20)[:: ticks.step]
    upright = max(map(len, labels)) > 3
    side, room = 7.0 if K > 20 else max(2.4, 0.42 * K), text_width(labels, 9)
    left, bottom = 0.55 + room, 0.52 + (room if upright else 0.12)
    figure = new_figure(left + side + 1.15, bottom + side + 0.15)
    axes, scale = (add_axes(figure, x, bottom, wide, side) for x, wide in ((left, side), (left + side + 0.25, 0.2)))
    colours: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "vmax": 100, "aspect": "auto"}
    axes.imshow(shares, **colours)
    scale.imshow(np.arange(100, -1, -1)[:, None], extent=(0, 1, 0, 100), **colours)
    scale.yaxis.set(ticks_position="right", label_position="right")
    scale.set(xticks=[], ylabel="share of the true class (%)")
    axes.set_xticks(ticks, labels, rotation=90 if upright else 0, parse_math=False)
    axes.set_yticks(ticks, labels, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.grid(False)
    scale.grid(False)
    for i, j in np.argwhere(cells) if K <= 20 else ():
        ink = "white" if shares[i, j] > 55 else "black"
        axes.text(j, i, str(cells[i, j]), ha="center", va="center", size=7, color=ink)
    return "Confusion matrix", "Labelled test frames by true class (rows) and predicted class (columns).", figure


def average_precision_picture(metrics: dict[str, Any], classes: Sequence[str]) -> Picture | None:
    """The average precision of each class of multi-label data as bars, the highest above."""
    ranked = [row for row in ranked_labels(classes, metrics) if row[2] is not None]
    if not ranked:
        return None
    names, aps = drawable((row[0] for row in ranked), 28), [100 * (row[2] or 0) for row in ranked]
    room, high = text_width(names, 9), 0.5 + 0.24 * len(ranked)
    figure = new_figure(10, 0.75 + high)
    axes = add_axes(figure, 0.3 + room, 0.55, 9.5 - room, high)
    axes.barh(range(len(ranked)), aps, color=COLOURS["frame_map"], height=0.7)
    axes.axvline(100 * metrics["frame_map"], color="gray", linewidth=0.8, linestyle=":", label="mAP")
    for place, (ap, (_, positives, *_)) in enumerate(zip(aps, ranked, strict=True)):
        axes.text(ap + 0.7, place, f"{ap:.1f} ({positives:,})", va="center", size=8)
    axes.set_yticks(range(len(ranked)), names, parse_math=False)
    axes.set(xlabel="average precision (%)", xlim=(0, 112), ylim=(-0.6, len(ranked) - 0.4))
    axes.grid(False, axis="y")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    without = len(classes) - len(ranked)
    caption = "Average precision over labelled test frames, in brackets the frames that have the class."
    return "Average precision", caption + (f" {without} classes are in no test frame." if without else ""), figure


def most_wrong_picture(
    run: RunFolder, metrics: dict[str, Any], decision: str, classes: Sequence[str]
) -> Picture | None:
    """The misclassified test clips with the highest loss, if each clip has one label."""
    rows = metrics["most_wrong"]
    if not (rows and clips_have_one_label(metrics)):
        return None
    clips, samples = run.read_most_wrong()
    if samples != [row[0] for row in rows]:
        raise SeqclfError(f"{run.most_wrong}: its samples are not those of results.json")
    way = "from top to bottom" if clips[0].ndim == 2 else "from left to right"
    clips = [_tile(clip) for clip in clips]
    tall, wide = (max(clip.shape[axis] for clip in clips) for axis in (0, 1))
    shape = min(max(wide / tall, 0.25), 8.0)  # longer ones are stretched
    columns = 2 if shape > 3 else 4 if shape > 1.5 else 6
    names = drawable(classes, 28 if columns == 2 else 16)
    cell, lines = 10 / columns, math.ceil(len(clips) / columns)
    captions = [_caption(row, names, round(14 * cell)) for row in rows]
    high = min((cell - 0.2) / shape, 3)
    across, gap = high * shape, 0.52 if any("\n" in caption for caption in captions) else 0.34
    figure = new_figure(10, lines * (high + gap) + 0.1)
    axes = add_axes(figure, 0, 0, 10, lines * (high + gap) + 0.1)  # a unit is an inch
    axes.axis("off")
    for place, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        middle, bottom = (place % columns + 0.5) * cell, (lines - 1 - place // columns) * (high + gap) + 0.1
        left, top = middle - across / 2, bottom + high
        right, end = left + across * clip.shape[1] / wide, top - high * clip.shape[0] / tall
        axes.imshow(clip, cmap="gray", extent=(left, right, end, top), aspect="auto")
        axes.text(middle, top + 0.06, caption, ha="center", size=8, parse_math=False)
    axes.set(xlim=(0, 10), ylim=(0, lines * (high + gap) + 0.1))
    caption = f"Test clips that are misclassified by their {RULES[decision]}, highest loss first. Time runs {way}."
    return "Highest loss", caption, figure


def _caption(row: Sequence[Any], names: Sequence[str], letters: int) -> str:
    """The true and the predicted class of a clip, in one line if there is room for that many letters, else in two."""
    number, true, predicted, *rest = row
    if isinstance(true, list):  # multi-label: the classes of the clip
        sets = (" + ".join(names[k] for k in each) or "none" for each in (true, predicted))
        true, predicted = (text if len(text) + 10 < letters else text[: letters - 11] + "…" for text in sets)
    else:
        true, predicted = names[true], f"{names[predicted]} ({100 * rest[0]:.0f} %)"
    between = " " if len(true + predicted) + 24 < letters else "\n"
    return f"#{number} true {true},{between}predicted {predicted}"


def _tile(clip: Array) -> Array:
    """A clip ``(T, D)`` as it is, or up to 8 frames of a clip ``(T, C, H, W)`` side by side; from 0 to 1."""
    clip = clip.astype(np.float32)
    low, high = clip.min(), clip.max()
    clip = (clip - low) / max(high - low, 1e-9)
    if clip.ndim != 4:
        return clip.reshape(len(clip), -1)
    chosen = clip[np.linspace(0, len(clip) - 1, min(len(clip), 8)).round().astype(int)]
    chosen = chosen if clip.shape[1] == 3 else chosen.mean(1, keepdims=True).repeat(3, 1)
    spaced = np.pad(chosen, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)  # a white line after each frame
    return np.concatenate(list(spaced.transpose(0, 2, 3, 1)), axis=1)[:, :-1]
