"""Writing of shards; see ``index`` for their layout."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise, repeat
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.source import Source, Video, without_suffix
from seqclf.data.frames.span import VideoSpan
from seqclf.data.frames.times import frame_times
from seqclf.data.order import mix
from seqclf.data.shards.index import plain_labels
from seqclf.data.video.file import VideoFile
from seqclf.runtime.text import numbered


@dataclass
class Packed:
    """A video in a shard: its key, and its clips with their groups. A single clip may be the whole video."""

    key: str
    clips: list[tuple[Video, str | None]]


def in_shards(
    videos: Sequence[Video], groups: Sequence[str] | None, size: int, lanes: int, seed: int | None
) -> list[list[Packed]]:
    """Distributes videos over shards of nearly equal numbers of videos. Clips inside one video stay together.

    Args:
        videos: the videos, or clips inside videos.
        groups: the group of each; None for none.
        size: the approximate size of a shard in bytes.
        lanes: the number of shards is a multiple of it, if there are enough videos.
        seed: the seed of the order. None keeps the given order; shards are read sequentially, so lists sorted by class
            then give batches with few classes.

    Returns:
        the content of each shard.
    """
    by_path: dict[str, list[tuple[Video, str | None]]] = {}
    for video, group in zip(videos, groups or repeat(None), strict=False):
        by_path.setdefault(video.source.path, []).append((video, group))
    files = list(by_path.values())
    total = sum(os.path.getsize(path) for clips in files for path in _files(clips[0][0]))
    count = -(-max(total, 1) // size)
    count = min(-(-count // lanes) * lanes, len(files))
    order = list(range(len(files)))
    if seed is not None:
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(mix(seed))).tolist()
    firsts = [files[v][0][0] for v in order]
    keys = unique_keys([os.path.basename(v.source.path) if isinstance(v.source, VideoSpan) else v.name for v in firsts])
    packed = [Packed(key, files[v]) for key, v in zip(keys, order, strict=True)]
    edges = [k * len(packed) // count for k in range(count + 1)]
    return [packed[start:end] for start, end in pairwise(edges)]


def write_shard(
    path: Path, content: Sequence[Packed], classes: Sequence[str], fps: float | None, multi_label: bool
) -> Generator[int, None, None]:
    """Writes a shard and yields the number of frames of each video. The same content gives the same bytes.

    Args:
        path: the file.
        content: the videos; their sources are ``FrameFolder`` or ``VideoFile``, or clips inside them.
        classes: the class names.
        fps: the frame rate that the videos are read at.
        multi_label: whether a video, or frame, may have several labels.
    """
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for key, clips in ((packed.key, packed.clips) for packed in content):
            first, whole = clips[0][0], whole_source(clips[0][0])
            records = [_record(video, group, classes, multi_label) for video, group in clips]
            record = {"name": first.name, "frames": len(whole)}
            if len(records) == 1 and "span" not in records[0]:
                record |= records[0]
            else:
                record["clips"] = records
            stream = getattr(whole, "stream", None)
            record |= ({"fps": fps} if fps is not None else {}) | ({"stream": stream} if stream is not None else {})
            text = json.dumps(record).encode()
            _add(tar, f"{key}.json", len(text), BytesIO(text))
            files = _files(first)
            digits = max(4, len(str(len(files))))
            for number, file in enumerate(files, 1):
                suffix = os.path.splitext(file)[1].lower()
                middle = f".{number:0{digits}}" if isinstance(whole, FrameFolder) else ""
                with open(file, "rb") as stream_of_file:
                    _add(tar, f"{key}{middle}{suffix}", os.fstat(stream_of_file.fileno()).st_size, stream_of_file)
            yield len(whole)


def _record(video: Video, group: str | None, classes: Sequence[str], multi_label: bool) -> dict[str, Any]:
    """The name, labels, group and span of a video or clip."""
    record: dict[str, Any] = {"name": video.name}
    labels = video.labels
    if isinstance(labels, Tensor):
        values = plain_labels(labels) if multi_label else labels.tolist()
        record["label" if labels.dim() == multi_label else "labels"] = values
    else:
        assert labels is not None
        record |= {"label": labels, "class": classes[labels]}
    if group is not None:
        record["group"] = group
    if isinstance(video.source, VideoSpan):
        record["span"] = _span(video.source)
    return record


def _span(clip: VideoSpan) -> list[int]:
    """The first frame of a clip and the frame after its last, as frame numbers of a file or positions in a folder."""
    places = clip.places()
    if isinstance(clip.source, FrameFolder):
        return [places.start, places.stop]
    numbers = frame_times(clip.source).numbers
    return [int(numbers[places[0]]), int(numbers[places[-1]]) + 1]


def whole_source(video: Video) -> Source:
    """The source of a video, or of the video that a clip is inside."""
    return video.source.source if isinstance(video.source, VideoSpan) else video.source


def _files(video: Video) -> list[str]:
    """The files of a video to pack: itself, or its frames in order."""
    source = whole_source(video)
    if isinstance(source, FrameFolder):
        return [os.path.join(source.path, name) for name in source.names]
    if isinstance(source, VideoFile):
        return [source.path]
    raise SeqclfError(f"{source.path}: only video files and folders of frames can be packed into shards")


def unique_keys(names: Sequence[str]) -> list[str]:
    """Unique keys: names in portable characters, cut to 80."""
    return numbered(re.sub(r"[^A-Za-z0-9_-]", "_", without_suffix(name))[:80] for name in names)


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    """Adds a file without time and owner, so that the bytes are reproducible."""
    head = tarfile.TarInfo(name)
    head.size, head.mode = size, 0o644
    tar.addfile(head, content)
