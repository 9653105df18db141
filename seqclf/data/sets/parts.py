"""The parts of a data set of videos: their lists, how their videos become clips, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seqclf.batch import SeqclfError
from seqclf.data.data import Data
from seqclf.data.frames.feature_file import FeatureFile
from seqclf.data.frames.source import Source, Video
from seqclf.data.frames.span import VideoSpan, resolution, span_text
from seqclf.data.labelling import Labelling
from seqclf.data.lists.splits import Selection
from seqclf.data.lists.video_list import VideoList
from seqclf.data.sampling import Sampling
from seqclf.data.transforms import Transform
from seqclf.data.video.file import VideoFile
from seqclf.data.videos import Videos
from seqclf.runtime.paths import resolve_path
from seqclf.runtime.text import counted


def part_lists(
    root: str,
    train: str,
    test: str,
    validation: str | None,
    split: str | None,
    split_column: str | None,
    test_split: str | None,
) -> dict[str, tuple[Path, Selection]]:
    """For each part its list, and which rows it takes. With ``split``, any list may replace the test list.

    The arguments are those of ``video_set``.
    """
    names = {"train": train, "test": split or test, "validation": validation}
    paths = {part: resolve_path(name, root) for part, name in names.items() if name is not None}
    real = {part: path.resolve() for part, path in paths.items()}
    used = [path for part, path in real.items() if part != "test" or split is None]
    return {
        part: (path, Selection(part, used.count(real[part]) > 1, split_column, test_split))
        for part, path in paths.items()
    }


def label_separator(multi_label: bool, separator: str) -> str | None:
    """What separates the labels of a video, or frame; None if each has one."""
    if not separator:
        raise SeqclfError("separator='': expected a character such as '|'")
    return separator if multi_label else None


@dataclass(frozen=True)
class SetParts:
    """How the videos of each part become clips: arguments of ``video_set``, which describes them.

    Attributes:
        found: the data set of each part, filled by ``add``.
    """

    sampling: Sampling
    test_sampling: Sampling
    transform: Transform | None
    test_transform: Transform | None
    labelling: Labelling | None
    workers: int
    on_error: str
    multi_label: bool = False
    found: dict[str, Videos] = field(default_factory=dict)

    def settings(self, part: str) -> dict[str, Any]:
        """The arguments of ``Videos`` for a part."""
        training = part == "train"
        return {
            "sampling": self.sampling if training else self.test_sampling,
            "transform": self.transform if training or self.test_transform is None else self.test_transform,
            "training": training,
            "labelling": self.labelling,
            "workers": self.workers,
            "on_error": self.on_error,
        }

    def missing(self) -> str:
        """How lists treat missing videos."""
        return "skip" if self.on_error == "skip" else "raise"

    def damage(self) -> Literal["raise", "skip_frames"]:
        """How readers treat damaged frames."""
        return "skip_frames" if self.on_error == "skip_frames" else "raise"

    def add(self, part: str, videos: list[Video], groups: list[str] | None, listed: VideoList | None = None) -> Videos:
        """Makes the data set of a part from videos; those that are missing from their list are recorded."""
        found = Videos(videos, **self.settings(part), multi_label=self.multi_label, groups=groups)
        if listed is not None:
            name = listed.path.name
            found.skipped.update({v: f"{name}, line {line}: no such video" for line, v in listed.missing})
        self.found[part] = found
        return found

    def data(self, classes: Sequence[str], source: str, **more: Any) -> Data:
        """The parts as one data set; the arguments are those of ``Data``."""
        found = self.found
        return Data(found["train"], found["test"], classes, source, found.get("validation"), **more)


def videos_of(found: VideoList, reader: Callable[[Path], Source], past_end: float | None) -> list[Video]:
    """The videos of a list, or clips inside them."""
    sources: dict[Path, Source] = {}  # clips of one video share a source, so that it is indexed once
    step = resolution([bound for entry in found.videos for bound in entry.span or ()], found.unit)
    videos = []
    for entry in found.videos:
        name, source = entry.name, reader(entry.path)
        if entry.span is not None and found.unit is not None:
            name += f", {span_text(*entry.span, found.unit)}"
            source = VideoSpan(sources.setdefault(entry.path, source), *entry.span, found.unit, past_end, step)
        videos.append(Video(name, source, entry.labels()))
    return videos


def choices(videos: Sequence[Video], stream: int | None) -> str:
    """What was chosen where files could be read in several ways, for the source line."""
    several, chosen, clipped = 0, set(), 0
    for video in videos:
        with suppress(SeqclfError):  # left out, and reported as such
            file = video.source
            if isinstance(file, VideoSpan):
                clipped, file = clipped + file.clipped, file.source
            if isinstance(file, VideoFile):
                count, number = file.streams()
                several += count > 1
                chosen |= {number} if count > 1 else set()
    notes = f", {counted(clipped, 'clip')} cut at the end of their video" if clipped else ""
    arrays = next((video.source for video in videos if isinstance(video.source, FeatureFile)), None)
    if arrays is not None:
        notes += f", arrays {'(T, D)' if arrays.layout == 'time_first' else '(D, T)'}"
    if several:
        numbers, why = " or ".join(map(str, sorted(chosen))), "FFmpeg's choice" if stream is None else "as set"
        notes += f", {counted(several, 'file')} with several video streams; stream {numbers} is read"
        notes += f" ({why}, stream= changes it)"
    return notes
