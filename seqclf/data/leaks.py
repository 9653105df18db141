"""Finds videos and groups that are in two parts of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import torch

from seqclf.data.clips import Clips
from seqclf.data.frames.source import Video
from seqclf.data.frames.span import VideoSpan
from seqclf.data.videos import Videos
from seqclf.runtime.text import counted

REMOVE = "remove it from one of them, or set split= to evaluate on the videos of another list"
REGROUP = (
    "give the whole group to one of them, or give no groups (columns={'group': None} ignores the column of a list)"
)


def leaks(parts: Mapping[str, Clips | Videos]) -> tuple[list[str], list[str]]:
    """Finds what parts of the data share.

    Args:
        parts: the data sets, by the name of their part.

    Returns:
        two lists of messages. The first names pairs of parts with a common video, clip of a video, or group. The second
        names pairs with different clips of one video, or with exactly the same clips, such as one list for both parts.
    """
    same, near = [], []
    for (one, first), (other, second) in combinations(parts.items(), 2):
        between = f"is in the {one} part and in the {other} part"
        if isinstance(first, Videos) and isinstance(second, Videos):
            clips, others = _clips_of(first.videos), _clips_of(second.videos)
            if clips.keys() == others.keys():
                near.append(f"the videos of {one} and of {other} are the same")
                continue
            if both := sorted(clips.keys() & others.keys(), key=str):
                same.append(f"video {clips[both[0]]!r} {between}{_more(both)}: {REMOVE}")
            elif videos := sorted({path for path, _ in clips} & {path for path, _ in others}):
                near.append(f"{counted(len(videos), 'video')} with clips in {one} and in {other}, such as {videos[0]}")
        elif isinstance(first, Clips) and isinstance(second, Clips) and torch.equal(first.frames, second.frames):
            near.append(f"the clips of {one} and of {other} are the same")
        if groups := sorted(set(map(str, first.groups or ())) & set(map(str, second.groups or ()))):
            same.append(f"group {groups[0]!r} {between}{_more(groups)}: {REGROUP}")
    return same, near


def _clips_of(videos: Iterable[Video]) -> dict[tuple[str, Any], str]:
    """The name of each video by its path, and by start and end if it is a clip inside a video."""
    spans = ((video, video.source) for video in videos)
    return {
        (source.path, (source.start, source.end) if isinstance(source, VideoSpan) else None): video.name
        for video, source in spans
    }


def _more(shared: list[Any]) -> str:
    return f", and {len(shared) - 1:,} more" if len(shared) > 1 else ""
