"""What a check of videos found, and the comparisons of its files and parts."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from seqclf.data.leaks import REGROUP
from seqclf.runtime.text import counted, some


@dataclass
class File:
    """A video file, folder of pictures or feature file.

    Attributes:
        path: its path.
        frames: the number of frames.
        shape: the shape of a frame.
        seconds: its duration; None if unknown.
        fps: the mean frame rate; None if unknown.
        error: why it can't be read, or "".
        picture: its middle frame as a JPEG file, scaled down; b"" for features.
    """

    path: str
    frames: int = 0
    shape: tuple[int, ...] = ()
    seconds: float | None = None
    fps: float | None = None
    error: str = ""
    picture: bytes = field(default=b"", repr=False)


@dataclass
class Clip:
    """A row of a list: its part, video, classes and group, how many frames each class has, and start and end."""

    part: str
    name: str
    path: str
    classes: list[str]
    group: str | None = None
    frames: dict[str, int] = field(default_factory=dict)
    span: tuple[float, float] | None = None


@dataclass
class VideoCheck:
    """The result of a check.

    Attributes:
        lists: a description of each list.
        classes: the class names.
        clips: the rows of the lists.
        files: the videos, by path.
        problems: errors that would stop training or make it skip a video.
        warnings: possible mistakes.
    """

    lists: list[str]
    classes: list[str]
    clips: list[Clip] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[str]:
        """The names of the parts, in the order of the lists."""
        return list(dict.fromkeys(clip.part for clip in self.clips))

    def clips_of(self, part: str) -> list[Clip]:
        """The clips of a part."""
        return [clip for clip in self.clips if clip.part == part]

    def class_counts(self, part: str) -> Counter[str]:
        """The number of clips of each class in a part."""
        return Counter(name for clip in self.clips_of(part) for name in clip.classes)

    def files_of(self, part: str) -> list[File]:
        """The files of a part."""
        return [self.files[path] for path in dict.fromkeys(clip.path for clip in self.clips_of(part))]


def size_text(shape: Sequence[int]) -> str:
    """The size of frames: "320x240", or "128 features"."""
    return f"{shape[2]}x{shape[1]}" if len(shape) == 3 else f"{shape[0]} features"


def compare_sizes(out: VideoCheck) -> None:
    """Reports frames of different sizes, rates and kinds."""
    good = [file for file in out.files.values() if not file.error]
    shapes = Counter(file.shape for file in good)
    if len(shapes) > 1:
        shown = ", ".join(f"{size_text(shape)} ({count:,})" for shape, count in shapes.most_common(4))
        odd = next(file.path for file in good if file.shape == shapes.most_common()[-1][0])
        if any(len(shape) == 1 for shape in shapes):
            out.problems.append(f"videos have different numbers of features: {shown}, such as {odd}")
        else:
            out.warnings.append(
                f"frames have {len(shapes):,} sizes: {shown}, such as {odd}: resize or crop them (transform=)"
            )
    rates = Counter(round(file.fps, 2) for file in good if file.fps is not None)
    if len(rates) > 1:
        shown = ", ".join(f"{rate:g} ({count:,})" for rate, count in rates.most_common(4))
        out.warnings.append(f"videos have {len(rates):,} frame rates: {shown}: set fps= to resample them to one")


def compare_parts(out: VideoCheck) -> None:
    """Reports videos and groups that are in two parts, duplicate videos, and classes without videos."""
    same = _same_content(out.files.values())
    content = {path: same.get(path, path) for path in out.files}
    for one, other in combinations(out.parts, 2):
        first, second = ({(clip.path, clip.span) for clip in out.clips_of(part)} for part in (one, other))
        between = f"in {one} and in {other}"
        if first & second:
            out.problems.append(
                f"{counted(len(first & second), 'video')} {between}, such as {min(path for path, _ in first & second)}"
            )
        both = {content[path] for path, _ in first} & {content[path] for path, _ in second} - {
            content[path] for path, _ in first & second
        }
        if both:
            copies = [path for path in out.files if content[path] == min(both)]
            shown = " and ".join(dict.fromkeys((copies[0], copies[-1])))
            out.warnings.append(f"{counted(len(both), 'video')} {between}: {shown}")
        groups = {clip.group for clip in out.clips_of(one)} & {clip.group for clip in out.clips_of(other)} - {None}
        if groups:
            least = min(map(str, groups))
            out.problems.append(f"{counted(len(groups), 'group')} {between}, such as {least}: {REGROUP}")
    copies = [path for path in same if same[path] != path]
    if copies:
        out.warnings.append(f"{counted(len(copies), 'duplicate file')}, such as {copies[0]} of {same[copies[0]]}")
    for part in out.parts:
        counts = out.class_counts(part)
        absent = [name for name in out.classes if not counts[name]]
        if absent:
            of_all = f"{len(absent):,} of {len(out.classes):,} classes"
            out.warnings.append(f"{of_all} have no video in {part}: {some(absent, 5)}")


def _same_content(files: Iterable[File]) -> dict[str, str]:
    """For each file that has duplicates, the first file with this content. Only files of equal size are read."""
    by_size: dict[Any, list[str]] = defaultdict(list)
    for file in files:
        if not file.error:
            inside = _contents(file.path)
            by_size[file.frames, tuple(path.stat().st_size for path in inside)].append(file.path)
    first: dict[tuple[Any, bytes], str] = {}
    out = {}
    for size, paths in by_size.items():
        for path in paths if len(paths) > 1 else ():
            digest = hashlib.sha256()
            for inside_path in _contents(path):
                with inside_path.open("rb") as content:
                    while piece := content.read(1 << 20):
                        digest.update(piece)
            out[path] = first.setdefault((size, digest.digest()), path)
    counts = Counter(out.values())
    return {path: other for path, other in out.items() if counts[other] > 1}


def _contents(path: str) -> list[Path]:
    """The file, or the files of a folder."""
    place = Path(path)
    return sorted(entry for entry in place.iterdir() if entry.is_file()) if place.is_dir() else [place]
