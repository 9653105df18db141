"""Data out of videos on the disk: lists of labelled videos, annotated frames, feature sequences, made ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from seqclf.batch import SeqclfError
from seqclf.data.data import Data
from seqclf.data.features import segmentation_set
from seqclf.data.find import open_video
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.labelling import Labelling, every_frame
from seqclf.data.lists import Entry, ListOf, read_classes, read_list, read_paths
from seqclf.data.moving_digits import make_moving_digits
from seqclf.data.sampling import Sampling, whole, window
from seqclf.data.segments_csv import Segments, labels_of, name_of, read_segments
from seqclf.data.source import Video
from seqclf.data.transforms import Transform
from seqclf.data.videos import Videos

CLIP = partial(window, frames=16)
"""What a clip is where nothing else is said: 16 frames, as LRCN took them."""


def video_set(
    root: str,
    train: str,
    test: str,
    validation: str | None = None,
    split: str | None = None,
    form: str = "auto",
    class_index: str | None = None,
    pattern: str | None = None,
    fps: float | None = None,
    sampling: Sampling = CLIP,
    test_sampling: Sampling = whole,
    transform: Transform | None = None,
    test_transform: Transform | None = None,
    labelling: Labelling = every_frame,
    workers: int = 2,
    on_error: str = "raise",
) -> Data:
    """Videos with a label each, as lists in one of the known forms name them (see ``lists``).

    Args:
        root: the folder that the lists' paths start from.
        train, test, validation: the lists, as paths from here or from ``root``.
        split: a list to measure on in place of ``test``, as in ``tools/evaluate.py runs/<run> data.split=test02.txt``.
        form, class_index: how the lists are written, and the file of the classes' numbers; see ``read_list``.
        pattern: which pictures of a folder are frames, such as "img_*"; None for all.
        fps: the rate that video files are resampled to; None for each one's own.
        sampling, test_sampling: which frames make a clip in training and in evaluation.
        transform, test_transform: what is done to a clip, drawn anew in training; ``test_transform`` None: the same.
        labelling: which frames of a clip carry its label.
        workers: how many threads read ahead.
        on_error: "raise", or "skip" to leave out what is missing or can't be read, and list it in the run's record.

    Raises:
        SeqclfError: a list or a video is missing or wrong: the file and line.
    """
    told, parts, classes = [], {}, None
    for part, name in (("train", train), ("test", split or test), ("validation", validation)):
        if name is None:
            continue
        found = read_list(_place(root, name), root, form, classes, class_index, _missing(on_error))
        classes = found.classes
        videos = [Video(e.name, open_video(e.path, fps, pattern), e.label) for e in found.videos]
        parts[part] = Videos(
            videos,
            sampling if part == "train" else test_sampling,
            transform if part == "train" or test_transform is None else test_transform,
            part == "train",
            labelling,
            workers,
            on_error,
        )
        parts[part].skipped.update(_absent(name, found))
        told.append(found.told)
        if part != "train" or all(isinstance(video.source, FrameFolder) for video in videos):  # those open quickly
            told[-1] += f", {parts[part].open():,} frames"
    assert classes is not None
    return Data(
        parts["train"],
        parts["test"],
        classes,
        f"{root} ({'; '.join(told)})",
        parts.get("validation"),
    )


def annotated_set(
    root: str,
    train: str,
    test: str,
    segments: str = "segments.csv",
    classes: str | Sequence[str] = "classes.txt",
    validation: str | None = None,
    split: str | None = None,
    background: str | None = None,
    unit: Literal["frames", "seconds"] = "frames",
    pattern: str | None = None,
    fps: float | None = None,
    sampling: Sampling = CLIP,
    test_sampling: Sampling = whole,
    transform: Transform | None = None,
    test_transform: Transform | None = None,
    workers: int = 2,
    on_error: str = "raise",
) -> Data:
    """Videos with labels of their frames, as a CSV of segments says (``video,start,end,label``).

    All videos are opened at once, to see that the segments are inside of them.

    Args:
        root: the folder that the lists' paths start from.
        train, test, validation: lists of videos, a path a line (what follows on a line is not looked at).
        segments: the CSV, which names videos by these paths, or these without suffix or folders; ``unit`` says whether
            its times are "frames" (as they are read: at ``fps``, where that is given) or "seconds".
        classes: the classes' names, or a file with one a line.
        background: the class of frames that no segment covers; None leaves them without a label. It is left out of
            the segment metrics, which are taken where test clips are whole videos.
        fps: the rate that video files are resampled to; of folders of frames the rate that they have, which only
            segments in seconds need.

    The other arguments, and errors, are those of ``video_set``; besides, a segment is wrong: the CSV and line.
    """
    names = read_classes(_place(root, classes)) if isinstance(classes, str) else list(classes)
    table = read_segments(_place(root, segments), unit, names, background)
    told, parts = [], {}
    paths: dict[str, str] = {}  # of each name in the CSV, the one video that it is of
    for part, listed in (("train", train), ("test", split or test), ("validation", validation)):
        if listed is None:
            continue
        found = read_paths(_place(root, listed), root, _missing(on_error))
        for entry in found.videos:
            name = name_of(table, entry.name)
            if paths.setdefault(name, entry.name) != entry.name:
                raise SeqclfError(
                    f"{table.path}: video {name} may be {paths[name]} or {entry.name}: write the path there"
                )
        videos, damaged = _annotated(found, table, fps, pattern, workers, on_error)
        parts[part] = Videos(
            videos,
            sampling if part == "train" else test_sampling,
            transform if part == "train" or test_transform is None else test_transform,
            part == "train",
            workers=workers,
            on_error=on_error,
        )
        parts[part].skipped.update(_absent(listed, found) | damaged)
        labels = torch.cat([torch.as_tensor(video.labels) for video in videos])
        said = int((labels != table.elsewhere).sum())
        told.append(f"{found.told}, {len(labels):,} frames, {said:,} of them in segments")
    over_videos = getattr(test_sampling, "func", test_sampling) is whole
    unused = len(table.videos.keys() - paths.keys())
    told.append(f"{len(names):,} classes")
    if unused:
        told.append(f"{unused:,} videos of {Path(table.path).name} are in no list")
    return Data(
        parts["train"],
        parts["test"],
        names,
        f"{root} ({'; '.join(told)})",
        parts.get("validation"),
        background=None if not over_videos else [] if background is None else [names.index(background)],
    )


def _annotated(
    found: ListOf, table: Segments, fps: float | None, pattern: str | None, workers: int, on_error: str
) -> tuple[list[Video], dict[str, str]]:
    """The videos of a list with the labels of their frames; and why others are left out."""

    def annotate(entry: Entry) -> Video | SeqclfError:
        source = open_video(entry.path, fps, pattern)
        try:
            frames, seconds = len(source), getattr(source, "seconds", None)
        except SeqclfError as error:
            return error
        return Video(entry.name, source, labels_of(table, entry.name, frames, fps, seconds))

    videos, damaged = [], {}
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="reader") as pool:
        for entry, video in zip(found.videos, pool.map(annotate, found.videos), strict=True):
            if isinstance(video, Video):
                videos.append(video)
            elif on_error == "raise":
                raise video
            else:
                damaged[entry.name] = str(video)
    if not videos:
        raise SeqclfError(f"no video can be read: {next(iter(damaged.values()))}")
    return videos, damaged


def _place(root: str, name: str) -> Path:
    """A file that is named from here, or else from the root."""
    here = Path(name).expanduser()
    return here if here.exists() else Path(root).expanduser() / name


def _missing(on_error: str) -> str:
    return "skip" if on_error == "skip" else "raise"


def _absent(name: str, found: ListOf) -> dict[str, str]:
    """The videos that a list names and that are not there, and why they are left out."""
    return {video: f"{name}, line {line}: there is no such video" for line, video in found.missing}


def feature_set(
    root: str,
    split: int = 1,
    sample_rate: int = 1,
    on_length: Literal["cut", "refuse"] = "cut",
    sampling: Sampling = whole,
    background: Sequence[str] = (),
    workers: int = 2,
    on_error: str = "raise",
) -> Data:
    """Feature sequences with labels of their frames, laid out as for temporal action segmentation.

    Args:
        root: holds ``features/``, ``groundTruth/``, ``mapping.txt`` and ``splits/``.
        split: its number: ``splits/train.split<n>.bundle`` and ``test.split<n>.bundle``.
        sample_rate: every so many frames one is taken.
        on_length: "cut" features and labels to the shorter, which is told, or "refuse".
        sampling: which frames make a clip in training; evaluation is on whole sequences.
        background: classes that are left out of the segment metrics.
        workers, on_error: as of ``video_set``; what can't be read is a video with values that are not finite.

    Raises:
        SeqclfError: a file is missing or wrong.
    """
    folder = Path(root).expanduser()
    (train, classes, told), (test, _, told_test) = (
        segmentation_set(folder, f"{part}.split{split}", sample_rate, on_length=on_length) for part in ("train", "test")
    )
    unknown = sorted(set(background) - set(classes))
    if unknown:
        raise SeqclfError(f"background={unknown[0]!r}: the classes are {', '.join(classes)}")
    return Data(
        Videos(train, sampling, training=True, workers=workers, on_error=on_error),
        Videos(test, workers=workers, on_error=on_error),
        classes,
        f"{root} ({'; '.join([*told, *told_test])})",
        background=[classes.index(name) for name in background],
    )


def moving_digits(
    root: str = "~/.cache/seqclf/moving_digits",
    task: Literal["clip", "frames"] = "clip",
    form: Literal["mp4", "folders"] = "mp4",
    videos: int = 1000,
    test_videos: int = 200,
    seed: int = 0,
    sampling: Sampling = CLIP,
    transform: Transform | None = None,
    workers: int = 2,
) -> Data:
    """Made videos of moving digits, written as real files where they are not there yet (see ``make_moving_digits``).

    Args:
        root: the folder for them; each setting has its own in it.
        task: "clip", a label per video (which digit); "frames", a label per frame (which digit, or "background").
        form: "mp4" or "folders" of pictures.
        videos, test_videos, seed: how many, and which.
        sampling, transform, workers: as of ``video_set``; evaluation is on whole videos.
    """
    folder = Path(root).expanduser() / f"{task}_{form}_{videos}_{test_videos}_{seed}"
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        if done % 500 == 0:
            left = (total - done) * (time.perf_counter() - began) / done
            print(f"made {done:,} of {total:,} videos in {folder}, {left:.0f} s left", flush=True)

    make_moving_digits(folder, videos, test_videos, task, form, seed, progress=progress)
    settings: dict[str, Any] = {
        "sampling": sampling,
        "transform": transform,
        "test_transform": transform,
        "workers": workers,
    }
    if task == "clip":
        return video_set(str(folder), "train.txt", "test.txt", form="plain", class_index="classes.txt", **settings)
    return annotated_set(
        str(folder), "train.txt", "test.txt", "segments.csv", "classes.txt", background="background", **settings
    )
