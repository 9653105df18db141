"""The labels of the videos of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.frames.source import Video
from seqclf.data.multi_label import check_columns
from seqclf.runtime.text import class_range


def have_frame_labels(videos: Sequence[Video], multi_label: bool) -> bool:
    """Whether videos have a label per frame, instead of one for the whole video.

    Raises:
        SeqclfError: a video has no labels, or they are of several kinds.
    """
    kinds = {video.labels.dim() if isinstance(video.labels, Tensor) else 0 for video in videos}
    if len(kinds) > 1 or any(video.labels is None for video in videos):
        raise SeqclfError("videos of a data set must all have one label, or all have labels per frame")
    kind = kinds.pop()
    expected = {1: "(K,)", 2: "(T, K)"} if multi_label else {0: "an integer", 1: "(T,)"}
    if kind not in expected:
        raise SeqclfError(
            f"{videos[0].name}: with multi_label={multi_label} the labels of a video are "
            f"{' or '.join(expected.values())}, not {kind}-dimensional"
        )
    return kind == max(expected)


def clip_labels(video: Video, numbers: list[int], per_frame: bool) -> Tensor | int:
    """The label of a video, or those of the frames ``numbers``.

    Raises:
        SeqclfError: the video has another number of frames than labels.
    """
    assert video.labels is not None
    if not per_frame:
        return video.labels
    assert isinstance(video.labels, Tensor)
    if len(video.labels) != len(video.source):
        raise SeqclfError(
            f"{video.source.path}: has {len(video.source)} frames, but {len(video.labels)} labels ({video.name})"
        )
    return video.labels[numbers]


def check_labels(videos: Iterable[Video], num_classes: int, multi_label: bool, name: str) -> None:
    """Raises SeqclfError if labels do not fit the classes, or all are ``IGNORE``; ``name`` is the data set's."""
    if all((torch.as_tensor(video.labels) == IGNORE).all() for video in videos):
        raise SeqclfError(f"{name}: no video has a label, all are IGNORE ({IGNORE})")
    for video in videos:
        labels = torch.as_tensor(video.labels)
        if multi_label:
            check_columns(labels, num_classes, f"{name}, {video.name}")
        values = 2 if multi_label else num_classes
        wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= values))]
        if len(wrong):
            known = "multi-label labels are 0, 1 or IGNORE" if multi_label else class_range(num_classes)
            raise SeqclfError(f"{name}: label {int(wrong[0])} of {video.name} is out of range: {known}")


def labels_fingerprint(videos: Iterable[Video]) -> str:
    """The SHA-256 of the names and labels of videos."""
    digest = hashlib.sha256()
    for video in videos:
        digest.update(f"{video.name} {torch.as_tensor(video.labels).tolist()}\n".encode())
    return digest.hexdigest()
