"""The content of shards: tar files of many videos in WebDataset's layout.

The files of a sample are consecutive and share the sample's key, their name up to the first dot:

    <key>.json        {"name": ..., "label": 3, "class": "Walk", "frames": 120}, or "labels": [...], one per frame;
                      several clips of a video are entries of "clips", each with its "span" in frames of the video
    <key>.mp4         the original video, or its frames <key>.0001.jpg and so on
    <key>.cls         the label as a number, in shards of other programs without .json

The shards of a part of the data, such as "train", are ``<part>-000000.tar`` etc. ``<part>.index.json`` lists their
samples, so that thousands of shards open quickly. Without it, all shards are scanned.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.frames.numbers import natural_key
from seqclf.data.frames.pictures import PICTURES
from seqclf.data.frames.source import VIDEOS
from seqclf.runtime.files import write_atomic

FORMAT = 1
"""The version of the index. Raise it when an older program would misread a new index."""


@dataclass
class Sample:
    """A sample of a shard, as plain values.

    Attributes:
        key: the common prefix of its file names.
        name: its name in the list of videos.
        kind: the suffix of its video or frames, such as ".mp4" or ".jpg".
        at, sizes: offset in the shard and size in bytes of its video, or of each frame.
        label: the class index, or for multi-label data what ``plain_labels`` returns; None if there are ``labels``.
        labels: the same for each frame; None if there is a ``label``.
        class_name: the name of the label's class, if known.
        fps: the frame rate of the labels; None for the video's own.
        group: its group, if known.
        span: the first frame of a clip inside the video, and the frame after the last; None for the whole video.
        stream: the video stream to read; None for FFmpeg's choice.
    """

    key: str
    name: str
    kind: str
    at: list[int]
    sizes: list[int]
    label: Any = None
    labels: list[Any] | None = None
    class_name: str | None = None
    fps: float | None = None
    group: str | None = None
    span: list[int] | None = None
    stream: int | None = None

    @property
    def multi_label(self) -> bool:
        """Whether it may have several labels."""
        return isinstance(self.label, list) or (self.labels is not None and not isinstance(self.labels[0], int))


@dataclass
class Part:
    """The shards of a part of the data.

    Attributes:
        shards: the samples of each file, in order.
        classes: the class names; None if unknown.
        background: the class without segments, or None.
    """

    shards: dict[Path, list[Sample]]
    classes: list[str] | None = None
    background: str | None = None


def plain_labels(labels: Tensor) -> list[Any]:
    """Multi-label labels ``(K,)`` or ``(T, K)`` as lists: k for a class that applies, -1 - k for an unknown one.

    A row in which all classes are unknown is None, or of ``(K,)`` the whole list.
    """
    if labels.dim() == 1:
        return [int(k) if labels[k] == 1 else -1 - int(k) for k in labels.nonzero()[:, 0]]
    return [None if (row == IGNORE).all() else plain_labels(row) for row in labels]


def label_rows(values: Sequence[Any], num_classes: int) -> Tensor:
    """The rows ``(n, K)`` int64 of lists that ``plain_labels`` wrote."""
    rows = torch.zeros(len(values), num_classes, dtype=torch.int64)
    for row, numbers in zip(rows, values, strict=True):
        if numbers is None:
            row.fill_(IGNORE)
        for k in numbers or ():
            row[k if k >= 0 else -1 - k] = 1 if k >= 0 else IGNORE
    return rows


def read_part(root: str | Path, part: str) -> Part:
    """Finds the shards ``<root>/<part>-<number>.tar`` and their samples, by the index or else by a scan.

    Raises:
        SeqclfError: there are none; one is missing, truncated, damaged or differs from the index; a sample has no label
            or unknown files.
    """
    root = Path(root).expanduser()
    folder, stem = (root / part).parent, (root / part).name
    numbered = re.compile(re.escape(stem) + r"-\d+\.tar")
    try:
        tars = sorted(
            (path for path in folder.iterdir() if numbered.fullmatch(path.name)), key=lambda p: natural_key(p.name)
        )
    except OSError as error:
        raise SeqclfError(f"{folder}: can't be searched for shards {stem}-000000.tar ({error.strerror})") from None
    index = index_of(root, part)
    if not index.exists():
        if not tars:
            raise SeqclfError(f"{folder}: has no shards {stem}-000000.tar")
        return Part({path: scan(path) for path in tars})
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise SeqclfError(f"{index}: has format {content['format']}, expected {FORMAT}")
        sizes = {folder / shard["file"]: shard["bytes"] for shard in content["shards"]}
        shards = {folder / s["file"]: [Sample(**sample) for sample in s["samples"]] for s in content["shards"]}
        found = Part(shards, content["classes"], content["background"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SeqclfError(f"{index}: damaged ({type(error).__name__}: {error}); delete it to scan the shards") from None
    for path, size in sizes.items():
        if not path.exists():
            raise SeqclfError(f"{path}: no such file, but {index.name} lists it")
        if path.stat().st_size != size:
            raise SeqclfError(
                f"{path}: has {path.stat().st_size:,} bytes, but {size:,} in {index.name}: truncated or changed"
            )
    if unknown := [path for path in tars if path not in sizes]:
        raise SeqclfError(f"{unknown[0]}: is not in {index.name}; delete {index.name} to scan the shards")
    return found


def index_of(root: Path, part: str) -> Path:
    """The path of a part's index."""
    return (root / part).with_name(f"{Path(part).name}.index.json")


def classes_of(root: Path) -> list[str] | None:
    """The class names of existing parts in a folder; None if there are none."""
    for index in sorted(root.glob("*.index.json")):
        try:
            return [str(name) for name in json.loads(index.read_text(encoding="utf-8"))["classes"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SeqclfError(f"{index}: damaged ({error})") from None
    return None


def write_index(root: Path, part: str, tars: Sequence[Path], classes: Sequence[str], background: str | None) -> Path:
    """Scans the shards of a part and writes its index."""
    shards = [
        {"file": path.name, "bytes": path.stat().st_size, "samples": [_plain(sample) for sample in scan(path)]}
        for path in tars
    ]
    index = index_of(root, part)
    content = {"format": FORMAT, "classes": list(classes), "background": background, "shards": shards}
    return write_atomic(index, json.dumps(content, separators=(",", ":")) + "\n")


def _plain(sample: Sample) -> dict[str, Any]:
    return {name: value for name, value in vars(sample).items() if value is not None}


def scan(shard: Path) -> list[Sample]:
    """Reads the samples of a shard from its tar headers. Errors as in ``read_part``."""
    members, texts = [], {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                folder, name = os.path.split(member.name)
                key, dot, suffix = name.partition(".")
                if not (member.isreg() and key and dot):
                    raise SeqclfError(f"{shard}: {member.name}: expected a file named <key>.<suffix>")
                key, suffix = os.path.join(folder, key), suffix.lower()
                members.append((key, suffix, member.offset_data, member.size))
                if suffix in ("json", "cls"):
                    file = tar.extractfile(member)
                    assert file is not None
                    texts[key, suffix] = file.read()
            end = tar.offset
        with open(shard, "rb") as stream:  # tarfile takes a damaged header for the end of the archive
            stream.seek(end)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                after = f"after sample {members[-1][0]}" if members else "at its beginning"
                raise SeqclfError(f"{shard}: damaged or truncated {after}")
    except (tarfile.TarError, OSError) as error:
        after = f" after sample {members[-1][0]}" if members else ""
        raise SeqclfError(f"{shard}: not a tar file that can be read{after} ({error})") from None
    samples, seen = [], set()
    for key, group in groupby(members, lambda member: member[0]):
        if key in seen:
            raise SeqclfError(f"{shard}: sample {key}: its files are not consecutive, or the key is repeated")
        seen.add(key)
        samples += _samples(f"{shard}: sample {key}", key, [member[1:] for member in group], texts)
    if not samples:
        raise SeqclfError(f"{shard}: has no samples")
    return samples


def _samples(
    where: str, key: str, files: list[tuple[str, int, int]], texts: dict[tuple[str, str], bytes]
) -> list[Sample]:
    """Builds the samples of a key, one for each clip, from its files (suffix, offset and size of each)."""
    frames = [file for file in files if f".{file[0]}".endswith(PICTURES)]
    videos = [file for file in files if f".{file[0]}".endswith(VIDEOS)]
    for suffix, _, _ in files:
        if not f".{suffix}".endswith((*PICTURES, *VIDEOS)) and suffix not in ("json", "cls"):
            raise SeqclfError(f"{where}: unknown file .{suffix}, expected a video or pictures, .json or .cls")
    if bool(frames) == bool(videos) or len(videos) > 1:
        raise SeqclfError(f"{where}: has {len(videos)} videos and {len(frames)} frames, expected one video or frames")
    if len({suffix for suffix, _, _ in frames}) < len(frames):
        raise SeqclfError(f"{where}: has two frames with the same name")
    frames.sort(key=lambda file: natural_key(file[0]))
    suffixes, at, sizes = zip(*(videos or frames), strict=True)
    record: Any = {}
    if (key, "json") in texts:
        try:
            record = json.loads(texts[key, "json"])
        except ValueError as error:
            raise SeqclfError(f"{where}: its .json is damaged ({error})") from None
        if not isinstance(record, dict):
            raise SeqclfError(f"{where}: its .json is {record!r}, expected an object with a label")
    if (key, "cls") in texts and not record.keys() & {"label", "labels", "clips"}:
        text = texts[key, "cls"].decode("utf-8", "replace").strip()
        record["label"] = int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
    if frames and record.get("frames", len(frames)) != len(frames):
        raise SeqclfError(f"{where}: has {len(frames)} frames, but {record['frames']} in its .json")
    kind = "." + suffixes[0].rpartition(".")[2]
    out = []
    for clip in record.get("clips", [record]):
        _check_labels(where, clip)
        found = Sample(key, str(clip.get("name", key)), kind, list(at), list(sizes), clip.get("label"))
        found.labels, found.class_name, found.group = clip.get("labels"), clip.get("class"), clip.get("group")
        found.fps, found.stream, found.span = record.get("fps"), record.get("stream"), clip.get("span")
        out.append(found)
    return out


def _check_labels(where: str, record: dict[str, Any]) -> None:
    """Raises a ``SeqclfError`` unless a record has either a label or labels of frames."""
    label, labels = record.get("label"), record.get("labels")
    if (label is None) == (labels is None):
        what = "no label" if label is None else "both a label and labels per frame"
        raise SeqclfError(f"{where}: has {what}, expected one of them in its .json or .cls")
    if label is not None and type(label) is not int and not _numbers(label):
        raise SeqclfError(f"{where}: its label is {label!r}, expected a class number")
    if labels is not None and not (
        _numbers(labels) or (isinstance(labels, list) and all(one is None or _numbers(one) for one in labels))
    ):
        raise SeqclfError(f"{where}: its labels are not a list of class numbers")


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(k) is int for k in values)
