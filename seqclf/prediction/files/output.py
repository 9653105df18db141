"""Output of predictions: values for ``predictions.json``, and a CSV and a timeline picture for each file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from torch import Tensor

from seqclf.data.input_spec import DecisionRule
from seqclf.prediction.clips import Clip
from seqclf.prediction.files.frames import FileFrames, FilePrediction
from seqclf.prediction.prediction import Prediction
from seqclf.reporting.label_timeline import label_timeline
from seqclf.reporting.timeline import timeline
from seqclf.runtime.files import check_table_path, write_csv

FRAME_COLUMNS = ("frame", "time")
"""The first columns of a table of frames."""


def as_plain(found: FilePrediction) -> dict[str, Any]:
    """The entry of a file in ``predictions.json``; frame numbers and times are those of the file."""
    prediction, frames = found.prediction, found.frames
    ranking, segments = prediction.ranking(most=5), []
    for name, start, end in prediction.segments():
        segments.append({"class": name, **_span(frames, start, end)})
    return {
        "frames": len(prediction.probabilities),
        "fps": frames.fps,
        **frames.rate,
        **_labelled(prediction),
        "decision": prediction.decision,
        "last_frame": _labelled(prediction, "last"),
        "mean_of_frames": _labelled(prediction, "mean"),
        "top": [{"class": name, "probability": round(p, 7)} for name, p in ranking],
        "clips": [_clip(clip, frames) for clip in prediction.clips],
        "segments": segments,
    }


def describe_rate(plain: dict[str, Any]) -> str:
    """A description of how the frames of a file were sampled, and of those left out; "" where all were read."""
    notes = []
    if "sample_rate" in plain:
        notes.append(f"one frame of {plain['sample_rate']} read")
    if "resampled_fps" in plain:
        notes.append(f"read at {plain['resampled_fps']:g} fps")
    if "left_out" in plain:
        notes.append(f"left out: {plain['left_out']}")
    return "; ".join(notes)


def labelled(labels: Sequence[tuple[str, float]], multi_label: bool) -> dict[str, Any]:
    """The predicted class and its probability; of a multi-label prediction those of all predicted classes."""
    if multi_label:
        return {"labels": [{"class": name, "probability": round(p, 7)} for name, p in labels]}
    ((name, p),) = labels
    return {"label": name, "probability": round(p, 7)}


def _labelled(prediction: Prediction, rule: DecisionRule | None = None) -> dict[str, Any]:
    return labelled(prediction.label_set(rule), prediction.multi_label)


def _clip(clip: Clip, frames: FileFrames) -> dict[str, Any]:
    return {
        "first_frame": int(frames.numbers[clip.numbers[0]]),
        "last_frame": int(frames.numbers[clip.numbers[-1]]),
        **_labelled(clip.prediction),
        "probabilities": {rule: [round(x, 7) for x in p.tolist()] for rule, p in clip.prediction.by_rule.items()},
    }


def _span(frames: FileFrames, start: int, end: int) -> dict[str, Any]:
    """A segment in frame numbers and seconds of the file; ``end`` is exclusive."""
    span: dict[str, Any] = {"start": int(frames.numbers[start]), "end": int(frames.numbers[end - 1]) + 1}
    if frames.starts is not None:
        span["start_seconds"] = round(float(frames.starts[start]), 4)
        span["end_seconds"] = round(float(frames.starts[end]), 4)
    return span


def write_frames(path: Path, found: FilePrediction) -> Path:
    """Writes a CSV with a row for each frame: number, time, class, its probability, the probabilities of all classes.

    A multi-label prediction has one column "classes" in place of class and probability, with "|" between the predicted
    classes. For frames that no clip contains, all fields after the time are empty.

    Raises:
        SeqclfError: the file can't be written, or there is another table.
    """
    check_table_path(path, FRAME_COLUMNS)
    prediction, frames = found.prediction, found.frames
    classes, rows = list(prediction.classes), []
    head = ["classes"] if prediction.multi_label else ["class", "probability"]
    for n, (p, label) in enumerate(zip(prediction.probabilities.tolist(), prediction.labels().tolist(), strict=True)):
        at = "" if frames.starts is None else f"{frames.starts[n]:.4f}"
        if prediction.seen is not None and not prediction.seen[n]:
            cells = [""] * (len(head) + len(p))
        else:
            own = (
                ["|".join(compress(classes, label))] if prediction.multi_label else [classes[label], f"{p[label]:.6f}"]
            )
            cells = [*own, *(f"{x:.6f}" for x in p)]
        rows.append([int(frames.numbers[n]), at, *cells])
    return write_csv(path, ["frame", "time", *head, *classes], rows)


def write_timeline(
    path: Path, found: FilePrediction, title: str, truth: Tensor | None, background: Sequence[str]
) -> Path:
    """Draws the timeline, with the true segments where they are known; errors as in ``timeline``."""
    prediction = found.prediction
    if prediction.multi_label:
        p, fps = prediction.probabilities, found.frames.fps
        label_timeline(p, prediction.classes, path, truth, fps, title=title, threshold=prediction.threshold)
        return path
    timeline(
        prediction.probabilities,
        prediction.classes,
        path,
        truth,
        found.frames.fps,
        title=title,
        predicted=prediction.labels(),
        background=[k for k, name in enumerate(prediction.classes) if name in background],
    )
    return path
