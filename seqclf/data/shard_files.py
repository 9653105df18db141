"""Packs videos into shards; see ``shard_index`` for their layout."""

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
    """Which videos make which shard, each with its key.

    Args:
        size: bytes of a shard, about. There are as many as that takes, each of as many videos as another, or one more.
        lanes: of which the number of shards is a multiple, where the videos are enough.
        seed: of the order; None for the order that they are in. Videos of a class that follow each other would make
            batches of few classes, since shards are read one after the other.
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
    """Writes a shard; yields the frames of each sample. The same samples give the same bytes.

    Args:
        samples: key and video of each: a ``FrameFolder`` or ``VideoFile``, with a label or labels of its frames.
        fps: the rate that video files are read at, where there are labels of frames.
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
    """What is packed of a video: its file, or its frames in their order."""
    source = video.source
    if isinstance(source, FrameFolder):
        return [os.path.join(source.path, name) for name in source.names]
    if isinstance(source, VideoFile):
        return [source.path]
    raise SeqclfError(f"{source.path}: video files and folders of frames are packed into shards, and this is neither")


def _keys(names: Sequence[str]) -> list[str]:
    """Keys of samples: their names in letters that all programs take, each once, of no more than 90."""
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
    """Adds a file that bears no trace of when, where and by whom it was made."""
    head = tarfile.TarInfo(name)
    head.size, head.mode = size, 0o644
    tar.addfile(head, content)
