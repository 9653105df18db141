"""What shards hold: tar files of many videos in WebDataset's layout, which are read in long pieces, by anyone.

The files of a sample follow each other, and share their names up to the first dot, the sample's key:

    <key>.json        {"name": ..., "label": 3, "class": "Walk", "frames": 120}, or "labels": [...], one per frame
    <key>.mp4         the video as it was, or its frames: <key>.0001.jpg and so on
    <key>.cls         (of others' shards) the label as a number, where there is no .json

``<part>-000000.tar`` and so on are a part of the data, such as "train". ``<part>.index.json`` holds what a look through
its tars gives, so that opening thousands of them takes none; without it they are looked through.
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

from seqclf.batch import SeqclfError
from seqclf.data.frame_numbers import natural_key
from seqclf.data.pictures import PICTURES
from seqclf.data.source import VIDEOS
from seqclf.runtime.files import write_atomic

FORMAT = 1
"""Of the index; counted up when an older program could misread it."""


@dataclass
class Sample:
    """A sample of a shard, in plain values.

    Attributes:
        key: what its files' names begin with.
        name: what its list called it.
        label: its class, or ``labels`` of its frames; the other is None.
        kind: the suffix of its video, or ".jpg" and the like: of its frames.
        at, sizes: where in the shard its video or frames begin, and their bytes.
        class_name: of the label, where it is given.
        fps: the rate that the video was read at when its labels were counted; None for its own.
    """

    key: str
    name: str
    kind: str
    at: list[int]
    sizes: list[int]
    label: int | None = None
    labels: list[int] | None = None
    class_name: str | None = None
    fps: float | None = None


@dataclass
class Part:
    """The shards of a part of the data.

    Attributes:
        shards: of each file its samples, in order.
        classes: the classes' names; None where nothing tells them.
        background: the class that is no segment, or None.
    """

    shards: dict[Path, list[Sample]]
    classes: list[str] | None = None
    background: str | None = None


def read_part(root: str | Path, part: str) -> Part:
    """The shards ``<root>/<part>-<number>.tar``, by the index, or looked through where there is none.

    Raises:
        SeqclfError: there are none; one is missing, cut off, damaged, or not as the index says; a sample has no label,
            or files of a kind that is not known.
    """
    root = Path(root).expanduser()
    folder, stem = (root / part).parent, (root / part).name
    numbered = re.compile(re.escape(stem) + r"-\d+\.tar")
    try:
        tars = sorted(
            (path for path in folder.iterdir() if numbered.fullmatch(path.name)), key=lambda p: natural_key(p.name)
        )
    except OSError as error:
        raise SeqclfError(
            f"{folder}: can't be read, for shards {stem}-000000.tar and so on ({error.strerror})"
        ) from None
    index = index_of(root, part)
    if not index.exists():
        if not tars:
            raise SeqclfError(f"{folder}: holds no shards {stem}-000000.tar and so on")
        return Part({path: scan(path) for path in tars})
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise SeqclfError(f"{index}: is of format {content['format']}, this program reads {FORMAT}")
        sizes = {folder / shard["file"]: shard["bytes"] for shard in content["shards"]}
        shards = {folder / s["file"]: [Sample(**sample) for sample in s["samples"]] for s in content["shards"]}
        found = Part(shards, content["classes"], content["background"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SeqclfError(f"{index}: damaged ({type(error).__name__}: {error}); delete it to do without") from None
    for path, size in sizes.items():
        if not path.exists():
            raise SeqclfError(f"{path}: no such file, but {index.name} names it")
        if path.stat().st_size != size:
            raise SeqclfError(
                f"{path}: is of {path.stat().st_size:,} bytes, but of {size:,} by {index.name}: cut off or changed"
            )
    if unknown := [path for path in tars if path not in sizes]:
        raise SeqclfError(f"{unknown[0]}: is not in {index.name}; delete that to do without")
    return found


def index_of(root: Path, part: str) -> Path:
    """The file of a part's index."""
    return (root / part).with_name(f"{Path(part).name}.index.json")


def classes_of(root: Path) -> list[str] | None:
    """The classes of the parts that are in a folder already; None where there are none."""
    for index in sorted(root.glob("*.index.json")):
        try:
            return [str(name) for name in json.loads(index.read_text(encoding="utf-8"))["classes"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SeqclfError(f"{index}: damaged ({error})") from None
    return None


def write_index(root: Path, part: str, tars: Sequence[Path], classes: Sequence[str], background: str | None) -> Path:
    """Writes the index of a part, by a look through its shards."""
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
    """The samples of a shard, by looking through all its heads; errors as in ``read_part``."""
    members, texts = [], {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                folder, name = os.path.split(member.name)
                key, dot, suffix = name.partition(".")
                if not (member.isreg() and key and dot):
                    raise SeqclfError(f"{shard}: {member.name}: files are expected, named by a key, a dot and a suffix")
                key, suffix = os.path.join(folder, key), suffix.lower()
                members.append((key, suffix, member.offset_data, member.size))
                if suffix in ("json", "cls"):
                    file = tar.extractfile(member)
                    assert file is not None
                    texts[key, suffix] = file.read()
            end = tar.offset
        with open(shard, "rb") as stream:  # tarfile takes a damaged head for the end
            stream.seek(end)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                after = f"after sample {members[-1][0]}" if members else "at its beginning"
                raise SeqclfError(f"{shard}: damaged or cut off {after}")
    except (tarfile.TarError, OSError) as error:
        after = f" after sample {members[-1][0]}" if members else ""
        raise SeqclfError(f"{shard}: not a tar file that can be read{after} ({error})") from None
    samples, seen = [], set()
    for key, group in groupby(members, lambda member: member[0]):
        if key in seen:
            raise SeqclfError(f"{shard}: sample {key}: its files do not follow each other, or are there twice")
        seen.add(key)
        samples.append(_sample(f"{shard}: sample {key}", key, [member[1:] for member in group], texts))
    if not samples:
        raise SeqclfError(f"{shard}: is empty, it holds no sample")
    return samples


def _sample(where: str, key: str, files: list[tuple[str, int, int]], texts: dict[tuple[str, str], bytes]) -> Sample:
    """A sample by its files: suffix, place and size of each."""
    frames = [file for file in files if f".{file[0]}".endswith(PICTURES)]
    videos = [file for file in files if f".{file[0]}".endswith(VIDEOS)]
    for suffix, _, _ in files:
        if not f".{suffix}".endswith((*PICTURES, *VIDEOS)) and suffix not in ("json", "cls"):
            raise SeqclfError(f"{where}: holds a .{suffix}; a video or its frames, .json and .cls are known")
    if bool(frames) == bool(videos) or len(videos) > 1:
        raise SeqclfError(f"{where}: holds {len(videos)} videos and {len(frames)} frames; either is expected")
    if len({suffix for suffix, _, _ in frames}) < len(frames):
        raise SeqclfError(f"{where}: holds two frames of one name")
    frames.sort(key=lambda file: natural_key(file[0]))
    suffixes, at, sizes = zip(*(videos or frames), strict=True)
    record: Any = {}
    if (key, "json") in texts:
        try:
            record = json.loads(texts[key, "json"])
        except ValueError as error:
            raise SeqclfError(f"{where}: its .json is damaged ({error})") from None
        if not isinstance(record, dict):
            raise SeqclfError(f"{where}: its .json is {record!r}, an object with a label was expected")
    if (key, "cls") in texts and "label" not in record and "labels" not in record:
        text = texts[key, "cls"].decode("utf-8", "replace").strip()
        record["label"] = int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
    label, labels, name = record.get("label"), record.get("labels"), record.get("name", key)
    if (label is None) == (labels is None):
        what = "no label" if label is None else "both a label and labels of frames"
        raise SeqclfError(f"{where}: has {what}; one is expected, by its .json or .cls")
    if label is not None and type(label) is not int:
        raise SeqclfError(f"{where}: its label is {label!r}, a class's number was expected")
    if labels is not None and not (isinstance(labels, list) and all(type(k) is int for k in labels)):
        raise SeqclfError(f"{where}: its labels are no list of classes' numbers")
    if frames and record.get("frames", len(frames)) != len(frames):
        raise SeqclfError(f"{where}: holds {len(frames)} frames, but {record['frames']} by its .json")
    kind = "." + suffixes[0].rpartition(".")[2]
    return Sample(key, str(name), kind, list(at), list(sizes), label, labels, record.get("class"), record.get("fps"))
