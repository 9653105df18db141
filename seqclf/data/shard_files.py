"""Writing of shards; see ``shard_index`` for their layout."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Generator, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.order import mix
from seqclf.data.source import Video, without_suffix
from seqclf.data.video_file import VideoFile


def in_shards(videos: Sequence[Video], size: int, lanes: int, seed: int | None) -> list[list[tuple[str, Video]]]:
    """Distributes videos over shards of nearly equal numbers of videos.

    Args:
        videos: the videos.
        size: the approximate size of a shard in bytes.
        lanes: the number of shards is a multiple of it, if there are enough videos.
        seed: the seed of the order. None keeps the given order; shards are read sequentially, so lists sorted by class
            then give batches with few classes.

    Returns:
        for each shard, the key and the video of each sample.
    """
    total = sum(os.path.getsize(path) for video in videos for path in _files(video))
    count = -(-max(total, 1) // size)
    count = min(-(-count // lanes) * lanes, len(videos))
    order = list(range(len(videos)))
    if seed is not None:
        order = torch.randperm(len(videos), generator=torch.Generator().manual_seed(mix(seed))).tolist()
    named = list(zip(_keys([videos[v].name for v in order]), (videos[v] for v in order), strict=True))
    edges = [k * len(named) // count for k in range(count + 1)]
    return [named[start:end] for start, end in pairwise(edges)]


def write_shard(
    path: Path, samples: Sequence[tuple[str, Video]], classes: Sequence[str], fps: float | None
) -> Generator[int, None, None]:
    """Writes a shard and yields the number of frames of each sample. The same samples give the same bytes.

    Args:
        path: the file.
        samples: the key and the video of each sample; sources are ``FrameFolder`` or ``VideoFile``.
        classes: the class names.
        fps: the frame rate of the labels, if videos have a label per frame.
    """
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for key, video in samples:
            frames, labels = len(video.source), video.labels
            record: dict[str, Any] = {"name": video.name, "frames": frames}
            if isinstance(labels, Tensor):
                record |= {"labels": labels.tolist()} | ({"fps": fps} if fps is not None else {})
            else:
                assert labels is not None
                record |= {"label": labels, "class": classes[labels]}
            text = json.dumps(record).encode()
            _add(tar, f"{key}.json", len(text), BytesIO(text))
            files = _files(video)
            digits = max(4, len(str(len(files))))
            for number, file in enumerate(files, 1):
                suffix = os.path.splitext(file)[1].lower()
                middle = f".{number:0{digits}}" if isinstance(video.source, FrameFolder) else ""
                with open(file, "rb") as content:
                    _add(tar, f"{key}{middle}{suffix}", os.fstat(content.fileno()).st_size, content)
            yield frames


def _files(video: Video) -> list[str]:
    """The files of a video to pack: itself, or its frames in order."""
    source = video.source
    if isinstance(source, FrameFolder):
        return [os.path.join(source.path, name) for name in source.names]
    if isinstance(source, VideoFile):
        return [source.path]
    raise SeqclfError(f"{source.path}: only video files and folders of frames can be packed into shards")


def _keys(names: Sequence[str]) -> list[str]:
    """Unique keys for samples: their names in portable characters, cut to 80."""
    keys: dict[str, None] = {}
    for name in names:
        key = plain = re.sub(r"[^A-Za-z0-9_-]", "_", without_suffix(name))[:80]
        number = 1
        while key in keys:
            number += 1
            key = f"{plain}_{number}"
        keys[key] = None
    return list(keys)


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    """Adds a file without time and owner, so that the bytes are reproducible."""
    head = tarfile.TarInfo(name)
    head.size, head.mode = size, 0o644
    tar.addfile(head, content)
