"""One HTML page that plays videos above the timelines of their predictions; ``video_page.html`` is its template."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE
from seqclf.evaluation.segment_metrics import segments
from seqclf.reporting.page_media import Media
from seqclf.reporting.style import class_colour, class_line
from seqclf.reporting.timeline_axes import Array
from seqclf.runtime.files import write_atomic

NONE = -1
"""In the page: no class."""
CURVES, ROWS = 12, 40
"""The largest number of classes with a curve, and with a row of a multi-label page."""
POINTS = 20_000
"""The most points of a curve. Those of longer videos are means over several frames."""
REGULAR = 0.0005
"""Seconds. Frame times that differ less from those of a constant rate are stored as a rate."""


class VideoPage:
    """Collects videos and their predictions, and writes the page.

    Everything is encoded when it is added, so that only text stays in memory. The page parses the data of a video when
    that video is opened.

    Args:
        title: the heading.
        classes: the K names.
        multi_label: whether a frame can have several classes.
        background: names of classes that are drawn in grey.
    """

    def __init__(self, title: str, classes: Sequence[str], multi_label: bool, background: Iterable[str] = ()) -> None:
        self.title, self.classes, self.multi_label = title, list(classes), multi_label
        self.background = [k for k, name in enumerate(classes) if name in set(background)]
        self._videos: list[dict[str, Any]] = []
        self._blocks: list[str] = []
        self._embedded: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._videos)

    def add(
        self,
        name: str,
        probabilities: Tensor,
        predicted: Tensor,
        truth: Tensor | None,
        starts: Array,
        numbers: Array,
        media: Media,
        *,
        label: str,
        note: str,
        clip: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Adds a video of N frames.

        Args:
            name: its name in the list.
            probabilities: ``(N, K)`` from 0 to 1.
            predicted: ``(N,)`` int, the predicted classes, or ``(N, K)`` 0 and 1 of multi-label predictions; ``IGNORE``
                for frames without a prediction.
            truth: the true labels in the same form, ``IGNORE`` where they are unknown; None if no frame has one.
            starts: ``(N + 1,)`` seconds, the start of each frame and the end of the last.
            numbers: ``(N,)``, the numbers of the frames in the file.
            media: how the page shows the video.
            label: the predicted label of the whole video, in words.
            note: a line above the video.
            clip: the predicted and true labels ``(1,)`` or ``(1, K)`` of a video that is right or wrong as a whole.
        """
        K = len(self.classes)
        columns = [_columns(labels, K) for labels in (predicted, truth) if labels is not None]
        if clip is None:
            errors = [] if truth is None else _errors(predicted, truth, K)
        else:
            errors = [[0, len(predicted), *pair] for _, _, *pair in _errors(*clip, K)]
        shown = self._shown(probabilities, columns)
        step = -(-len(probabilities) // POINTS)
        data = {
            "frames": len(probabilities),
            **({"first": int(numbers[0])} if _is_run(numbers) else {"numbers": numbers.tolist()}),
            "times": _times(starts),
            "step": step,
            "shown": shown,
            "probabilities": _curves(probabilities[:, shown], step),
            "predicted": _spans(predicted),
            "truth": None if truth is None else _spans(truth),
            "errors": errors,
            "media": self._media(media),
        }
        present = {k for column in columns for k in column.any(0).nonzero()[:, 0].tolist()}
        summary = {
            "name": name,
            "label": label,
            "score": ("wrong" if errors else "right") if clip is not None else _score(predicted, truth),
            "note": note,
            "classes": sorted(present),
            "wrong": sorted({(true, found) for _, _, true, found in errors}),
        }
        self._blocks.append(_block(f"video-{len(self._videos)}", data))
        self._videos.append(summary)

    def write(self, path: str | Path, about: str) -> Path:
        """Writes the page; ``about`` is the line below its heading. Errors as in ``write_atomic``."""
        head = {
            "about": about,
            "classes": self.classes,
            "colours": [[class_colour(k, dark) for dark in (False, True)] for k in range(len(self.classes))],
            "dashes": [class_line(k) for k in range(len(self.classes))],
            "multi_label": self.multi_label,
            "background": self.background,
            "videos": self._videos,
        }
        template = files("seqclf.reporting").joinpath("video_page.html").read_text(encoding="utf-8")
        before, after = template.replace("<!-- TITLE -->", escape(self.title)).split("<!-- DATA -->")
        return write_atomic(path, "\n".join([before.rstrip(), _block("page", head), *self._blocks]) + after)

    def _shown(self, p: Tensor, columns: Sequence[Tensor]) -> list[int]:
        """The classes with a curve: those with the highest sum of mean probability and shares of frames."""
        weight = p.double().mean(0) + sum(column.double().mean(0) for column in columns)
        order = weight.argsort(descending=True, stable=True)[: ROWS if self.multi_label else CURVES]
        return sorted(order.tolist())

    def _media(self, media: Media) -> dict[str, Any] | None:
        """The media of a video as plain values. Content that several videos share is stored once."""
        if media.way == "none":
            return None
        if media.content is None:
            return {"url": media.url, "offset": media.offset}
        if media.key not in self._embedded:
            text = base64.b64encode(media.content).decode()
            self._blocks.append(f'<script type="text/plain" id="media-{len(self._embedded)}">{text}</script>')
            self._embedded[media.key] = len(self._embedded)
        return {"embedded": self._embedded[media.key], "type": media.mime, "offset": media.offset}


def _block(name: str, data: Any) -> str:
    """JSON that no text inside it can end: "<" is written as an escape."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _is_run(numbers: Array) -> bool:
    return bool((np.diff(numbers) == 1).all())


def _times(starts: Array) -> Any:
    """Frame times: the first one and a period if the rate is constant, else a list."""
    period = float(starts[-1] - starts[0]) / (len(starts) - 1)
    if np.abs(starts - (starts[0] + period * np.arange(len(starts)))).max() < REGULAR:
        return {"first": float(starts[0]), "period": period}
    return [round(float(second), 6) for second in starts]


def _curves(p: Tensor, step: int) -> str:
    """Probabilities ``(N, C)`` as bytes in base64, class after class; means over ``step`` frames."""
    pad = -len(p) % step
    padded = torch.cat([p, p[-1:].expand(pad, -1)]).unflatten(0, (-1, step)).mean(1)
    return base64.b64encode((padded.clamp(0, 1) * 255).round().byte().T.contiguous().numpy().tobytes()).decode()


def _columns(labels: Tensor, K: int) -> Tensor:
    """Labels as ``(N, K)`` bool: which frames have which class."""
    return labels == 1 if labels.dim() == 2 else labels[:, None] == torch.arange(K)


def _spans(labels: Tensor) -> list[list[int]]:
    """The runs of frames with one class: ``[class, first frame, frame after the last]``."""
    if labels.dim() == 1:
        return [list(span) for span in segments(labels)]
    found = [(start, k, stop) for k, row in enumerate(labels.T) for _, start, stop in segments(row, background=[0])]
    return [[k, start, stop] for start, k, stop in sorted(found)]


def _errors(predicted: Tensor, truth: Tensor, K: int) -> list[list[int]]:
    """The runs of frames with one error: ``[first frame, frame after the last, true class, predicted class]``.

    Of multi-label predictions, one of the two is ``NONE``: a class is missed, or predicted without being true.
    """
    wrong = (truth != IGNORE) & (predicted != IGNORE) & (truth != predicted)
    if truth.dim() == 1:
        pairs = torch.where(wrong, truth * K + predicted, IGNORE)
        return [[start, stop, *divmod(pair, K)] for pair, start, stop in segments(pairs)]
    found = []
    for k, row in enumerate(torch.where(wrong, truth, IGNORE).T):
        found += [[start, stop, *((k, NONE) if missed else (NONE, k))] for missed, start, stop in segments(row)]
    return sorted(found)


def _score(predicted: Tensor, truth: Tensor | None) -> str:
    """The share of labels that are right, in words; "" without true labels."""
    if truth is None or not len(right := (truth == predicted)[(truth != IGNORE) & (predicted != IGNORE)]):
        return ""
    return f"{100 * float(right.double().mean()):.1f} %"
