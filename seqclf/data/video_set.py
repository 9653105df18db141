"""Data out of videos on the disk: lists of labelled videos, annotated frames, feature sequences, made ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seqclf.batch import SeqclfError
from seqclf.data.data import Data
from seqclf.data.features import segmentation_set
from seqclf.data.labelling import Labelling, every_frame
from seqclf.data.lists import open_video, read_classes, read_list
from seqclf.data.moving_digits import make_moving_digits
from seqclf.data.sampling import Sampling, whole, window
from seqclf.data.segments_csv import Segments, labels_of, read_segments
from seqclf.data.source import Video
from seqclf.data.videos import Transform, Videos

CLIP = partial(window, frames=16)
"""What a clip is where nothing else is said: 16 frames, as LRCN took them."""


def video_set(
    root: str,
    train: str,
    test: str,
    validation: str | None = None,
    form: str = "auto",
    class_index: str | None = None,
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
        form, class_index: how the lists are written, and the file of the classes' numbers; see ``read_list``.
        fps: the rate that video files are resampled to; None for each one's own.
        sampling, test_sampling: which frames make a clip in training and in evaluation.
        transform, test_transform: what is done to a clip, drawn anew in training; ``test_transform`` None: the same.
        labelling: which frames of a clip carry its label.
        workers: how many threads read ahead.
        on_error: "raise", or "skip" to leave out what can't be read, and list it in the run's record.

    Raises:
        SeqclfError: a list or a video is missing or wrong: the file and line.
    """
    told, parts, classes = [], {}, None
    for part, name in (("train", train), ("test", test), ("validation", validation)):
        if name is None:
            continue
        path = name if Path(name).exists() else str(Path(root) / name)
        found = read_list(path, root, form, classes, class_index)
        classes = found.classes
        told.append(found.told)
        videos = [Video(e.name, open_video(e.path, fps), e.label) for e in found.videos]
        parts[part] = Videos(
            videos,
            sampling if part == "train" else test_sampling,
            transform if part == "train" or test_transform is None else test_transform,
            part == "train",
            labelling,
            workers,
            on_error,
        )
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
    segments: str,
    classes: str | Sequence[str],
    background: str | None = None,
    unit: Literal["frames", "seconds"] = "frames",
    fps: float | None = None,
    sampling: Sampling = CLIP,
    test_sampling: Sampling = whole,
    transform: Transform | None = None,
    test_transform: Transform | None = None,
    workers: int = 2,
    on_error: str = "raise",
) -> Data:
    """Videos with labels of their frames, as a CSV of segments says (``video,start,end,label``).

    Args:
        root: the folder that the lists' paths start from.
        train, test: lists of videos, a path a line (what follows on a line is not looked at).
        segments: the CSV; ``unit`` says whether its times are "frames" or "seconds".
        classes: the classes' names, or a file with one a line.
        background: the class of frames that no segment covers; None leaves them without a label. It is left out of
            the segment metrics, which are taken where test clips are whole videos.

    The other arguments, and errors, are those of ``video_set``.
    """

    def find(name: str) -> Path:
        return Path(name) if Path(name).exists() else Path(root) / name

    names = read_classes(find(classes)) if isinstance(classes, str) else list(classes)
    table = read_segments(find(segments), unit, names, background)
    parts = {}
    for part, listed in (("train", train), ("test", test)):
        parts[part] = Videos(
            annotated_videos(find(listed), root, table, fps),
            sampling if part == "train" else test_sampling,
            transform if part == "train" or test_transform is None else test_transform,
            part == "train",
            workers=workers,
            on_error=on_error,
        )
    return Data(
        parts["train"],
        parts["test"],
        names,
        f"{root} ({len(parts['train'].videos)} and {len(parts['test'].videos)} annotated videos)",
        background=[] if background is None else [names.index(background)],
    )


def annotated_videos(listed: Path, root: str, table: Segments, fps: float | None = None) -> list[Video]:
    """The videos of a list of paths, each with the labels of its frames, as a CSV of segments says."""
    videos = []
    for path in _paths(listed):
        source = open_video(Path(root) / path, fps)
        name = path if path in table.videos else Path(path).stem
        videos.append(Video(name, source, labels_of(table, name, len(source), fps)))
    return videos


def _paths(path: Path) -> list[str]:
    """The first column of a list."""
    try:
        lines = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SeqclfError(f"{path}: can't be read ({error})") from None
    if not lines:
        raise SeqclfError(f"{path}: the list is empty")
    return lines


def feature_set(
    root: str,
    split: int = 1,
    sample_rate: int = 1,
    on_length: Literal["cut", "refuse"] = "cut",
    sampling: Sampling = whole,
    background: Sequence[str] = (),
    workers: int = 2,
) -> Data:
    """Feature sequences with labels of their frames, laid out as for temporal action segmentation.

    Args:
        root: holds ``features/``, ``groundTruth/``, ``mapping.txt`` and ``splits/``.
        split: its number: ``splits/train.split<n>.bundle`` and ``test.split<n>.bundle``.
        sample_rate: every so many frames one is taken.
        on_length: "cut" features and labels to the shorter, which is told, or "refuse".
        sampling: which frames make a clip in training; evaluation is on whole sequences.
        background: classes that are left out of the segment metrics.

    Raises:
        SeqclfError: a file is missing or wrong.
    """
    (train, classes, told), (test, _, told_test) = (
        segmentation_set(root, f"{part}.split{split}", sample_rate, on_length=on_length) for part in ("train", "test")
    )
    unknown = sorted(set(background) - set(classes))
    if unknown:
        raise SeqclfError(f"background={unknown[0]!r}: the classes are {', '.join(classes)}")
    return Data(
        Videos(train, sampling, training=True, workers=workers),
        Videos(test, workers=workers),
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
    make_moving_digits(folder, videos=videos, test_videos=test_videos, task=task, form=form, seed=seed)
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
