"""Labels per frame from a CSV of segments: ``video,start,end,label``, a line for each.

The header names the columns in any order, others may be there too; ``,`` ``;`` or tab between them. A line that gives a
video alone says that the video has no segments.

    unit "frames":   whole numbers, the first frame being 0; ``end`` is the frame after the last, as in Python's slices
                     (``inclusive=True``: the last itself)
    unit "seconds":  a frame is on from i / fps to (i + 1) / fps, or until the next is shown where the rate varies, and
                     in the segment that its middle is in: so times written with three decimals mean the frames that
                     were meant; a segment so short that no frame's middle is in it labels none
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.source import without_suffix

COLUMNS = ("video", "start", "end", "label")


class Segment(NamedTuple):
    """From ``start`` up to, not including, ``end``, in the file's unit; the class's index; the line that says so."""

    start: Fraction
    end: Fraction
    label: int
    line: int


@dataclass
class Segments:
    """What a CSV of segments says.

    Attributes:
        path: the file.
        unit: "frames" or "seconds".
        classes: the classes' names, in the order of their indices.
        elsewhere: the label of frames of which nothing is said: ``IGNORE``, or the index of the background class.
        videos: the segments of each video, in the file's order.
        named, named_alone: its names of videos, by these without their suffixes, and without their folders besides.
    """

    path: str
    unit: Literal["frames", "seconds"]
    classes: list[str]
    elsewhere: int
    videos: dict[str, list[Segment]]
    named: dict[str, list[str]]
    named_alone: dict[str, list[str]]


def read_segments(
    path: str | Path,
    unit: Literal["frames", "seconds"] = "frames",
    classes: Sequence[str] | None = None,
    background: str | None = None,
    inclusive: bool = False,
) -> Segments:
    """Reads a CSV of segments.

    Args:
        unit: of start and end.
        classes: the classes' names; a label is one of them, or else an index into them. None: the labels that are there
            are the names, sorted; where all are whole numbers, they are the indices.
        background: the class of all frames of which nothing is said; they are ``IGNORE`` where it is not given. With
            ``classes=None`` it is added as the first class, if no segment has it.
        inclusive: with unit "frames", ``end`` is a segment's last frame.

    Raises:
        SeqclfError: the file is missing, or no such CSV; a line lacks a field, its start or end is no number from 0 on,
            it ends before it starts, or its label is of no class.
    """
    if unit not in ("frames", "seconds"):
        raise SeqclfError(f'unit is "frames" or "seconds", not {unit!r}')
    if inclusive and unit == "seconds":
        raise SeqclfError("inclusive=True is of frames: in seconds a segment ends where the next begins")
    rows = _rows(Path(path))
    names = [label for _, (_, _, _, label) in rows if label]
    known = _classes(names, background) if classes is None else list(classes)
    if background is not None and background not in known:
        raise SeqclfError(f"background {background!r} is none of the classes {_listed(known)}")
    videos: dict[str, list[Segment]] = {}
    for line, (video, start, end, label) in rows:
        where = f"{path}, line {line}"
        found = videos.setdefault(video, [])
        if not (start or end or label):
            continue  # the video alone: no segments
        first, last = (_number(text, unit, where, name) for text, name in ((start, "start"), (end, "end")))
        if inclusive:
            last += 1
        if last <= first:
            raise SeqclfError(f"{where}: the segment ends at {end}, where it starts or before ({start})")
        found.append(Segment(first, last, _index(label, known, where), line))
    elsewhere = IGNORE if background is None else known.index(background)
    named: dict[str, list[str]] = {}
    named_alone: dict[str, list[str]] = {}
    for name in videos:
        named.setdefault(_plain(name), []).append(name)
        named_alone.setdefault(posixpath.basename(_plain(name)), []).append(name)
    return Segments(str(path), unit, known, elsewhere, videos, named, named_alone)


def name_of(segments: Segments, path: str) -> str:
    """The name that the file has for the video of this path: the path itself, or else the one name that is the same but
    for the suffix, or but for the suffix and the folders.

    Raises:
        SeqclfError: the file says nothing of the video, or may mean several by it.
    """
    if path in segments.videos:
        return path
    whole = _plain(path)
    names = segments.named.get(whole) or segments.named_alone.get(posixpath.basename(whole), [])
    if len(names) > 1:  # those whose folders are the path's last ones, or the other way round
        both = {name: (f"/{_plain(name)}", f"/{whole}") for name in names}
        names = [name for name, (a, b) in both.items() if a.endswith(b) or b.endswith(a)] or names
    if len(names) > 1:
        raise SeqclfError(f"{segments.path}: video {path} may be {' or '.join(names[:4])}")
    if names:
        return names[0]
    near = difflib.get_close_matches(path, segments.videos, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise SeqclfError(f"{segments.path}: no line is of video {path} (one with the video alone says: no segments){hint}")


def labels_of(
    segments: Segments,
    name: str,
    frames: int,
    fps: float | Fraction | None = None,
    seconds: Tensor | None = None,
) -> Tensor:
    """The labels ``(T,)`` int64 of a video; ``segments.elsewhere`` where no segment is.

    Args:
        name: of the video, as ``name_of`` takes it.
        frames: T.
        fps: frames per second, where the unit is seconds.
        seconds: ``(T,)`` when each frame is shown, from the first on, in place of ``fps``.

    Raises:
        SeqclfError: as of ``name_of``; a segment is not inside of the video; two segments of different labels overlap;
            the unit is seconds, and neither fps nor seconds are known.
    """
    name = name_of(segments, name)
    frame_at, size = _clock(segments, frames, fps, seconds)
    labels = torch.full((frames,), segments.elsewhere)
    lines = torch.zeros(frames, dtype=torch.int64)  # which line labelled a frame, 0 for none
    for start, end, label, line in segments.videos[name]:
        first, stop = frame_at(start), frame_at(end)
        where = f"{segments.path}, line {line}"
        if stop > frames:
            in_seconds = segments.unit == "seconds"
            span = f"{float(start):g} to {float(end):g} s" if in_seconds else f"frames {first} to {stop - 1}"
            raise SeqclfError(f"{where}: {span} are not inside video {name}, which has {size}")
        clash = (lines[first:stop] > 0) & (labels[first:stop] != label)
        if clash.any():
            at = first + int(clash.nonzero()[0])
            before, now = (segments.classes[k] for k in (int(labels[at]), label))
            raise SeqclfError(
                f"{where}: says that frame {at} of {name} is {now}, but line {int(lines[at])} that it is {before}"
            )
        labels[first:stop], lines[first:stop] = label, line
    return labels


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, with their numbers: video, start, end, label."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SeqclfError(f"{path}: can't be read as text ({error})") from None
    head = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    rows = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if any(header.count(name) != 1 for name in COLUMNS):
            raise SeqclfError(
                f"{path}, line 1: the header must name {', '.join(COLUMNS)} once each, not {head.strip()!r}"
            )
        columns = [header.index(name) for name in COLUMNS]
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if len(row) != len(header):
                raise SeqclfError(f"{path}, line {reader.line_num}: {len(row)} fields, expected {len(header)}")
            fields = [row[column].strip() for column in columns]
            if not fields[0]:
                raise SeqclfError(f"{path}, line {reader.line_num}: names no video")
            rows.append((reader.line_num, fields))
    except csv.Error as error:
        raise SeqclfError(f"{path}, line {reader.line_num}: no CSV ({error})") from None
    if not rows:
        raise SeqclfError(f"{path}: holds no segments")
    return rows


def _classes(labels: Iterable[str], background: str | None) -> list[str]:
    """The classes that labels without a list of classes mean."""
    named = set(labels)
    every = named if background is None else named | {background}
    if every and all(map(_whole, every)):
        return [str(k) for k in range(max(map(int, every)) + 1)]
    return sorted(every - named) + sorted(named)


def _index(label: str, classes: list[str], where: str) -> int:
    if label in classes:
        return classes.index(label)
    if _whole(label) and int(label) < len(classes):
        return int(label)
    raise SeqclfError(f"{where}: label {label!r} is none of the {len(classes)} classes {_listed(classes)}")


def _number(text: str, unit: str, where: str, name: str) -> Fraction:
    """A number as it is written, without a float's rounding."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    number = Fraction(str(value)) if 0 <= value < 1e12 else Fraction(-1)
    if number < 0 or (unit == "frames" and number.denominator != 1):
        kind = "a whole number" if unit == "frames" else "a number of seconds"
        raise SeqclfError(f"{where}: {name} is {text!r}, expected {kind} from 0 on")
    return number


def _clock(
    segments: Segments, frames: int, fps: float | Fraction | None, seconds: Tensor | None
) -> tuple[Callable[[Fraction], int], str]:
    """What gives the first frame whose middle is not before a moment, and the video's size in words."""
    if segments.unit == "frames":
        return int, f"{frames} frames"
    if fps and fps > 0 and math.isfinite(fps):
        rate = Fraction(fps)
        return lambda moment: math.ceil(moment * rate - Fraction(1, 2)), f"{frames} frames, {float(frames / rate):g} s"
    if seconds is None or fps is not None:
        raise SeqclfError(f"{segments.path} is in seconds: fps must be a positive number, not {fps}, for such frames")
    middles = _middles(seconds.numpy())
    size = f"{frames} frames, the last one shown at {float(seconds[-1]):g} s"
    return lambda moment: int(np.searchsorted(middles, float(moment) - 1e-6)), size


def _middles(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(T + 1,)`` the middles of the frames, and of one more after the last, which is as long as their mean."""
    if len(seconds) == 1:
        return np.array([0.0, math.inf])  # it is on for all time
    mean = seconds[-1] / (len(seconds) - 1)
    edges = np.append(seconds, seconds[-1] + mean * np.arange(1, 3))
    return (edges[:-1] + edges[1:]) / 2


def _plain(name: str) -> str:
    return without_suffix(posixpath.normpath(name))


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6  # longer ones number something else than classes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
