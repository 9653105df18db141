"""Videos as a run reads them, what is known of their frames, and what is written of its predictions on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from seqclf.batch import IGNORE
from seqclf.data import open_video, uniform
from seqclf.data.annotate import annotate
from seqclf.data.features import FeatureFile, read_labels
from seqclf.data.frame_times import frame_times
from seqclf.data.segments import read_segments
from seqclf.data.source import FEATURES, Source, without_suffix
from seqclf.data.transforms import LRCN_FRAME, Transform, lrcn_crop, resize
from seqclf.experiment.settings import settings_of
from seqclf.prediction.prediction import Prediction
from seqclf.prediction.predictor import Predictor
from seqclf.prediction.run import load_run
from seqclf.reporting.timeline import timeline
from seqclf.runtime.files import write_csv


@dataclass
class VideoRun:
    """A run, and how it read videos when it was trained.

    Attributes:
        folder: the run's.
        checkpoint: the file of the weights.
        predictor: its model.
        axis: which way it reads images, if it was trained on these; None for videos.
        frames, step: of a window, as of ``Predictor.windows``; ``frames`` None for whole videos.
        spread: whether a window is spread over the whole video, as of ``uniform``; its step is then the video's.
        resize: the size that frames are scaled to before they are cropped, or None.
        transform: what is done to frames in its evaluation, or None.
        negate_x: whether its frames are flow.
        fps, pattern, sample_rate: as its data has them.
        root: the folder of its videos.
        background: the classes that are no segments.
    """

    folder: str
    checkpoint: Path
    predictor: Predictor
    axis: Any
    frames: int | None
    step: int
    spread: bool
    resize: Any
    transform: Transform | None
    negate_x: bool
    fps: float | None
    pattern: str | None
    sample_rate: int
    root: str | None
    background: list[str]

    @staticmethod
    def load(folder: str, checkpoint: str, device: torch.device) -> VideoRun:
        """A run from its folder; errors as of ``load_run``."""
        experiment, model, record, path = load_run(folder, checkpoint)
        settings = {name: value for name, (_, value) in settings_of(experiment.data).items()}
        sampling = settings.get("sampling")
        window = {} if sampling is None else {name: value for name, (_, value) in settings_of(sampling).items()}
        transform = settings.get("test_transform") or settings.get("transform")
        steps = list(_parts(transform))
        size = next((step.keywords.get("size") for step in steps if getattr(step, "func", None) is resize), None)
        if size is None and any(getattr(step, "func", step) is lrcn_crop for step in steps):
            size = LRCN_FRAME
        steps += _parts(settings.get("transform"))
        marked = record["data"].get("background")
        return VideoRun(
            folder,
            path,
            Predictor(model, record["data"]["classes"], device),
            settings.get("axis"),
            window.get("frames"),
            window.get("step", 1),
            getattr(sampling, "func", sampling) is uniform,
            size,
            transform,
            any(getattr(step, "keywords", {}).get("negate_x", False) for step in steps),
            settings.get("fps"),
            settings.get("pattern"),
            settings.get("sample_rate", 1),
            settings.get("root"),
            [settings["background"]] if isinstance(settings.get("background"), str) else marked or [],
        )

    def open(self, path: Path) -> Source:
        """A video as this run reads it; errors as of ``open_video``."""
        if path.suffix.lower() == FEATURES and not path.is_dir():
            shape = self.predictor.frame_shape
            return FeatureFile(path, self.sample_rate, size=shape[0] if shape is not None and len(shape) == 1 else None)
        return open_video(path, self.fps, self.pattern)

    def predict(self, source: Source, stride: int | None = None, crops: int = 1) -> Prediction:
        """In windows, or whole; one crop is that of the run's evaluation. Errors as of ``Predictor.windows``."""
        size, transform = (self.resize, None) if crops > 1 or self.transform is None else (None, self.transform)
        step = max(1, len(source) // self.frames) if self.spread and self.frames else self.step
        return self.predictor.windows(source, self.frames, stride, crops, None, size, self.negate_x, step, transform)

    def fit(self, frames: Tensor, name: str = "the video") -> Tensor:
        """Frames ``(T, ...)`` as the model takes them, as in the run's evaluation; errors as of ``Predictor.fit``."""
        if self.transform is not None:
            return self.predictor.fit(self.transform(frames, None), name=name)[0]
        return self.predictor.fit(frames, resize=self.resize, name=name)[0]


def _parts(node: Any) -> Iterator[Any]:
    """The functions and partials that a setting is made of."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from _parts(item)
    elif callable(node):
        yield node
        if isinstance(node, partial):
            yield from _parts([*node.args, *node.keywords.values()])


class Truth:
    """What is known of the frames of videos.

    Args:
        path: a CSV of segments (see ``seqclf.data.segments``), or a folder of ``<video>.txt`` with the class of each
            frame a line.
        classes: the classes' names.
        background: the class of frames of which a CSV says nothing, or None.
        unit: of a CSV's times.

    Raises:
        SeqclfError: it is missing or wrong: the file and line.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[str],
        background: str | None = None,
        unit: Literal["frames", "seconds"] = "frames",
    ) -> None:
        self.path, self.classes = Path(path), list(classes)
        self.table = None if self.path.is_dir() else read_segments(path, unit, classes, background)

    def of(self, video: Path, source: Source, fps: float | None, sample_rate: int = 1) -> Tensor:
        """The labels ``(T,)`` of a video's frames, ``IGNORE`` where nothing is known.

        Raises:
            SeqclfError: as of ``annotate`` and ``read_labels``.
        """
        T = len(source)
        if self.table is not None:
            return annotate(self.table, video.as_posix(), frame_times(source, fps)).labels
        index = {name: k for k, name in enumerate(self.classes)}
        known = read_labels(self.path / f"{without_suffix(video.name)}.txt", index, "the run's classes")
        labels = torch.full((T,), IGNORE)
        labels[: len(known[::sample_rate])] = known[::sample_rate][:T]
        return labels


def times_of(source: Source, fps: float | None) -> tuple[float | None, list[float] | None]:
    """Frames per second, and when each frame begins and the last one ends; None where neither is known."""
    seconds = getattr(source, "seconds", None)  # of video files, whose rate may vary
    if seconds is None or not seconds[-1] > seconds[0]:
        rate = fps or getattr(source, "fps", None)
        return rate, None if rate is None else [n / rate for n in range(len(source) + 1)]
    rate = getattr(source, "fps", None) or (len(seconds) - 1) / float(seconds[-1] - seconds[0])
    return round(rate, 3), [*seconds.tolist(), float(seconds[-1]) + 1 / rate]


def as_plain(prediction: Prediction, fps: float | None, times: list[float] | None) -> dict[str, Any]:
    """What ``predictions.json`` says of a video; ``fps`` and ``times`` as of ``times_of``."""
    ranking = prediction.ranking("mean", 5)
    last, p_last = prediction.label("last")
    segments: list[dict[str, Any]] = []
    for name, start, end in prediction.segments():
        segments.append({"class": name, "start": start, "end": end})
        if times is not None:
            segments[-1] |= {"start_seconds": round(times[start], 4), "end_seconds": round(times[end], 4)}
    return {
        "frames": len(prediction.probabilities),
        "fps": fps,
        "label": ranking[0][0],
        "probability": round(ranking[0][1], 6),
        "last_frame": {"label": last, "probability": round(p_last, 6)},
        "top": [{"class": name, "probability": round(p, 6)} for name, p in ranking],
        "segments": segments,
    }


def write_frames(path: Path, prediction: Prediction, times: list[float] | None) -> None:
    """A CSV, a line per frame: its number and time, its class, the probabilities of all; whole or not at all.

    Raises:
        SeqclfError: it can't be written.
    """
    classes = prediction.classes
    rows = []
    for n, p in enumerate(prediction.probabilities.tolist()):
        best = max(range(len(p)), key=p.__getitem__)
        at = "" if times is None else f"{times[n]:.4f}"
        rows.append([n, at, classes[best], f"{p[best]:.6f}", *(f"{x:.6f}" for x in p)])
    write_csv(path, ["frame", "time", "class", "probability", *classes], rows)


def write_timeline(
    path: Path, prediction: Prediction, fps: float | None, title: str, truth: Tensor | None, background: Sequence[str]
) -> None:
    """The timeline picture, with the true segments where they are known; errors as of ``timeline``."""
    classes = prediction.classes
    plain = [k for k, name in enumerate(classes) if name in background]
    timeline(prediction.probabilities, classes, path, truth, fps, title=title, background=plain)
