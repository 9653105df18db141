"""Computes features of the frames of videos."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data import Data, Source, open_video
from seqclf.data.find import plain_name
from seqclf.data.transforms import Size
from seqclf.preparing.encoders import Encoder, encoder_of_backbone, encoder_of_run
from seqclf.preparing.extract import video_names, write_annotations, write_features
from seqclf.preparing.jobs import Summary, check_workers, run_jobs
from seqclf.preparing.listed import listed_data
from seqclf.preparing.places import distinct, not_done, places
from seqclf.runtime.devices import pick_device
from seqclf.runtime.paths import as_list


def prepare_features(
    videos: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    run: str | Path | None = None,
    checkpoint: str = "auto",
    backbone: str | None = None,
    weights: str | None = "DEFAULT",
    resize: Size | None = None,
    crop: Size | None = None,
    chunk: int = 32,
    device: str = "auto",
    root: str | Path | None = None,
    train: str | Path | None = None,
    test: str | Path | None = None,
    validation: str | Path | None = None,
    segments: str | Path | None = None,
    fps: float | None = None,
    workers: int | None = None,
    **reading: Any,
) -> Summary:
    """Computes features of the frames of videos: ``<out>/features/<video>.npy``, ``(D, T)`` float32.

    The encoder is that of a run, or a torchvision model. With lists of videos (``root``, ``train``, ``test``), ``out``
    also gets their labels and groups, and ``feature_set(out)`` has the clips that training on the lists has.

    Args:
        videos: video files, folders of frames, and folders of either; empty with lists.
        out: the folder for the features. ``prepare.json`` in it records the settings. A finished video is skipped.
        run: the folder of a run. Frames are transformed as in its evaluation.
        checkpoint: the checkpoint of the run, as in ``evaluate``.
        backbone: the torchvision name of a model, or "timm:" and a name of timm, in place of a run.
        weights: of the backbone: a file, a torchvision name, "DEFAULT" for the pretrained ones, or None to draw them.
        resize: for a backbone: the shorter side, or height and width, to scale frames to; None for 256.
        crop: for a backbone: the size of the center crop; None for 224.
        chunk: the number of frames that are encoded together.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        root, train, test, validation: lists of videos, as in ``video_set``.
        segments: the segments of their videos, as in ``annotated_set``; None if the lists have labels.
        fps: the frame rate that video files are resampled to; None for the run's, or their own.
        workers: the number of videos that are read at a time; None for one per core.
        reading: arguments for reading lists: those of ``annotated_set`` with ``segments``, else of ``video_set``,
            such as ``multi_label``, ``columns`` or ``annotation_fps``.

    Returns:
        what was done. The error of each video that can't be read is printed, and is in ``failed``.

    Raises:
        SeqclfError: an argument or a list is wrong; the run or model can't be loaded; the folder has other settings.
    """
    check_workers(workers, fps)
    if chunk < 1:
        raise SeqclfError(f"chunk={chunk}: expected at least 1")
    encoder = _encoder(run, checkpoint, backbone, weights, resize, crop, fps, device)
    pattern = reading.pop("pattern", None) or encoder.pattern
    lists = (root, train, test, validation, segments)
    if all(value is None for value in (*lists, *reading.values())):
        return _write_given(as_list(videos), Path(out), encoder, pattern, chunk, workers)
    data = _listed(as_list(videos), *lists, reading | {"fps": encoder.fps, "pattern": pattern})
    return _write_listed(data, Path(out), encoder, chunk, workers)


def _listed(
    others: list[str | Path],
    root: str | Path | None,
    train: str | Path | None,
    test: str | Path | None,
    validation: str | Path | None,
    segments: str | Path | None,
    reading: Mapping[str, Any],
) -> Data:
    """The data set of lists."""
    if root is None or train is None or test is None:
        raise SeqclfError("lists of videos need root, train and test")
    if others:
        raise SeqclfError("with lists of videos, no other videos can be named")
    return listed_data(root, train, test, validation, segments, reading)


def _write_given(
    given: list[str | Path], out: Path, encoder: Encoder, pattern: str | None, chunk: int, workers: int | None
) -> Summary:
    """Writes the features of videos without labels."""
    found = distinct({video: out / "features" / f"{plain_name(video)}.npy" for video in places(given, out)})
    opened = {str(video): (open_video(video, encoder.fps, pattern), place) for video, place in found.items()}
    return _write(opened, out, encoder, chunk, workers)


def _write_listed(data: Data, out: Path, encoder: Encoder, chunk: int, workers: int | None) -> Summary:
    """Writes the features of the videos of lists, and their labels. Videos that can't be read may be left out."""
    videos = [video for clips in data.parts().values() for video in clips.videos]  # type: ignore[union-attr]
    names = video_names(videos)
    found = {name: (video.source, out / "features" / f"{name}.npy") for name, video in zip(names, videos, strict=True)}
    summary = _write(found, out, encoder, chunk, workers)
    if summary.failed and data.train.on_error != "skip":  # type: ignore[union-attr]
        print("not written: groundTruth, mapping.txt and splits, because features are missing", file=sys.stderr)
    else:
        write_annotations(out, data, names, set(summary.failed))
    summary.failed.update(data.skipped())
    return summary


def _write(
    found: Mapping[str, tuple[Source, Path]], out: Path, encoder: Encoder, chunk: int, workers: int | None
) -> Summary:
    """Writes the features of each source to its place, unless they are there."""
    todo = not_done({name: place for name, (_, place) in found.items()}, out, {"what": "features", **encoder.settings})
    jobs = {name: partial(write_features, found[name][0], place, encoder.encode, chunk) for name, place in todo.items()}
    summary = run_jobs(jobs, workers)
    summary.out, summary.skipped = out, len(found) - len(todo)
    return summary


def _encoder(
    run: str | Path | None,
    checkpoint: str,
    backbone: str | None,
    weights: str | None,
    resize: Size | None,
    crop: Size | None,
    fps: float | None,
    device: str,
) -> Encoder:
    if (run is None) == (backbone is None):
        raise SeqclfError("name one run, or a torchvision model by --backbone (backbone=)")
    if run is None:
        assert backbone is not None
        return encoder_of_backbone(backbone, weights, resize or 256, crop or 224, fps, pick_device(device))
    if resize is not None or crop is not None:
        raise SeqclfError("resize and crop are for a backbone; frames of a run are transformed as in its evaluation")
    return encoder_of_run(run, checkpoint, fps, pick_device(device))
