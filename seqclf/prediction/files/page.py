"""The HTML page of predicted videos: their pictures, predictions and true labels, prepared for ``VideoPage``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.frames.source import Source
from seqclf.data.frames.span import VideoSpan
from seqclf.data.video.file import VideoFile
from seqclf.prediction.files.frames import FileFrames, FilePrediction
from seqclf.prediction.prediction import Prediction
from seqclf.reporting.page_media import Media, address, copies_of, media_of
from seqclf.reporting.video_page import VideoPage

EMBED = 4.0
"""Megabytes of a video that the page embeds, by default."""
MOST_EMBEDDED = 100e6
"""Bytes that a page embeds in all. Later videos are linked, or copied beside the page."""
ASSUMED_FPS = 25.0
"""The frame rate at which frames without times are shown."""


class PredictionPage:
    """Collects predicted videos and writes their page.

    Args:
        path: the page.
        title: its heading.
        classes: the K names.
        multi_label: whether predictions are multi-label.
        background: the classes without segments.
        embed: megabytes of a video that are embedded in the page.

    Raises:
        SeqclfError: ``embed`` is not a number of at least 0; the path does not end in .html, or is a folder; the folder
            of its copies has other videos.
    """

    def __init__(
        self,
        path: str | Path,
        title: str,
        classes: Sequence[str],
        multi_label: bool = False,
        background: Sequence[str] = (),
        embed: float = EMBED,
    ) -> None:
        if not 0 <= embed < float("inf"):
            raise SeqclfError(f"embed={embed}: expected megabytes, 0 or more")
        self.path, self.embed, self.embedded = Path(path), embed, 0
        if self.path.suffix.lower() not in (".html", ".htm"):
            raise SeqclfError(f"html={path}: expected a file whose name ends in .html")
        if self.path.is_dir():
            raise SeqclfError(f"html={path}: is a folder, expected a file")
        self.earlier = _earlier_copies(self.path)
        self.copies: set[str] = set()
        self.page = VideoPage(title, classes, multi_label, background)

    def __len__(self) -> int:
        return len(self.page)

    def add(
        self, name: str, title: str, found: FilePrediction, source: Source, truth: Tensor | int | None = None
    ) -> str:
        """Adds a video.

        Args:
            name: the name of its copy, if it needs one.
            title: its name on the page.
            found: the prediction.
            source: the frames that were predicted.
            truth: the true labels of the frames of the file, ``(N,)`` or multi-label ``(N, K)``; or the label of the
                whole video, an int or multi-label ``(K,)``; None if unknown.

        Returns:
            how the page shows it, such as "embedded (0.2 MB)".

        Raises:
            SeqclfError: as ``media_of``.
        """
        prediction, frames = found.prediction, found.frames
        N = len(frames.numbers)
        starts = np.arange(N + 1) / ASSUMED_FPS if frames.starts is None else frames.starts
        media = self._media(name, source, frames, starts)
        note = media.note + f"; no frame rate is known, shown at {ASSUMED_FPS:g} fps" * (frames.starts is None)
        whole = isinstance(truth, int) or (truth is not None and truth.dim() < 1 + prediction.multi_label)
        clip = None if truth is None or not whole else (_of_video(prediction), torch.as_tensor(truth)[None])
        labels = truth if clip is None else clip[1].expand(N, *clip[1].shape[1:])
        assert not isinstance(labels, int)
        self.page.add(
            title,
            prediction.probabilities,
            prediction.labels(),
            None if labels is None or not (labels != IGNORE).any() else labels,
            starts,
            frames.numbers,
            media,
            label=", ".join(name for name, _ in prediction.label_set()) or "none",
            note=note,
            clip=clip,
        )
        return note

    def _media(self, name: str, source: Source, frames: FileFrames, starts: np.ndarray) -> Media:
        limit = self.embed if self.embedded < MOST_EMBEDDED else 0.0
        media = media_of(*_all_frames(source, frames), name, starts, self.path, limit)
        self.embedded += len(media.content or b"")
        if media.way == "copy":
            self.copies.add(name)
        return media

    def write(self, about: str) -> Path:
        """Writes the page; ``about`` is the line below its heading. Copies of an earlier page are removed."""
        folder = copies_of(self.path)
        for copy in self.earlier - {folder / f"{name}.mp4" for name in self.copies}:
            copy.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return self.page.write(self.path, about)


def _earlier_copies(page: Path) -> set[Path]:
    """The copies that an earlier page shows.

    Raises:
        SeqclfError: their folder has a video that the page does not show.
    """
    folder = copies_of(page)
    copies = set(folder.glob("*.mp4"))
    text = page.read_text(encoding="utf-8", errors="replace") if copies and page.is_file() else ""
    other = next((copy for copy in sorted(copies) if f'"{address(copy, page)}"' not in text), None)
    if other is not None:
        raise SeqclfError(
            f"{other}: is not shown by an earlier page {page}: choose another name for the page, or delete it"
        )
    return copies


def _of_video(prediction: Prediction) -> Tensor:
    """The labels of the whole video: its class ``(1,)``, or ``(1, K)`` of a multi-label prediction."""
    named = [name for name, _ in prediction.label_set()]
    if not prediction.multi_label:
        return torch.tensor([list(prediction.classes).index(named[0])])
    return torch.tensor([[int(name in named) for name in prediction.classes]])


def _all_frames(source: Source, frames: FileFrames) -> tuple[Source, np.ndarray]:
    """The source of all frames of the file, even where the run reads some of them, and their positions in it."""
    file = source.source if isinstance(source, VideoSpan) else source
    if isinstance(file, VideoFile) and file.fps is not None and file.lost() is None and Path(file.path).is_file():
        return VideoFile(file.path, stream=file.stream), frames.numbers
    return source, frames.read
