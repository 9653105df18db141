"""Computes features of the frames of videos."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data import Data, Video, open_video
from seqclf.data.extract import write_annotations, write_features
from seqclf.data.find import plain_name
from seqclf.data.paths import as_list
from seqclf.data.sets import annotated_set
from seqclf.data.spans import Unit
from seqclf.data.transforms import Size
from seqclf.preparing.encoders import Encoder, encoder_of_backbone, encoder_of_run
from seqclf.preparing.jobs import Summary, check_workers, run_jobs
from seqclf.preparing.places import distinct, not_done, places
from seqclf.runtime.devices import pick_device


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
    root: str | None = None,
    train: str | None = None,
    test: str | None = None,
    segments: str | None = None,
    classes: str | None = None,
    unit: Unit = "frames",
    background: str | None = None,
    fps: float | None = None,
    workers: int | None = None,
) -> Summary:
    """Computes features of the frames of videos: ``<out>/features/<video>.npy``, ``(D, T)`` float32.

    The encoder is that of a run, or a torchvision model. With lists of annotated videos (``root``, ``train``, ``test``,
    ``segments``, ``classes``), ``out`` also gets their labels, and ``feature_set(out)`` reads it.

    Args:
        videos: video files, folders of frames, and folders of either; empty with lists of annotated videos.
        out: the folder for the features. ``prepare.json`` in it records the settings. A finished video is skipped.
        run: the folder of a run. Frames are transformed as in its evaluation.
        checkpoint: the checkpoint of the run: "auto" (the best one, or the newest without validation), "best",
            "newest", or a step.
        backbone: the torchvision name of a model, or "timm:" and a name of timm, in place of a run.
        weights: the weights of the backbone: a file, a torchvision name, or None to draw them. "DEFAULT" are the
            pretrained ones.
        resize: for a backbone: the shorter side, or height and width, to scale frames to; None for 256.
        crop: for a backbone: the size of the center crop; None for 224.
        chunk: the number of frames that are encoded together.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        root, train, test, segments, classes, unit, background: the annotated videos; see ``annotated_set``.
        fps: the frame rate that video files are resampled to; None for the run's, or their own.
        workers: the number of videos that are read at a time; None for one per core.

    Returns:
        what was done. The error of each video that can't be read is printed, and is in ``failed``.

    Raises:
        SeqclfError: an argument or a list is wrong; the run or model can't be loaded; the folder has other settings.
    """
    check_workers(workers, fps)
    if chunk < 1:
        raise SeqclfError(f"chunk={chunk}: expected at least 1")
    encoder = _encoder(run, checkpoint, backbone, weights, resize, crop, fps, device)
    lists = {"root": root, "train": train, "test": test, "segments": segments, "classes": classes}
    data = _annotated(lists, unit, background, encoder) if any(v is not None for v in lists.values()) else None
    return _write(as_list(videos), Path(out), data, encoder, chunk, workers)


def _write(
    given: list[str | Path], out: Path, data: Data | None, encoder: Encoder, chunk: int, workers: int | None
) -> Summary:
    """Writes the features of the videos, and the labels of annotated ones."""
    if data is not None and given:
        raise SeqclfError("with lists of annotated videos, no other videos can be named")
    parts = {} if data is None else {part: _named(data, part) for part in ("train", "test")}
    sources = [Path(video.source.path) for part in parts.values() for _, video in part] or list(places(given, out))
    found = distinct({video: out / "features" / f"{plain_name(video)}.npy" for video in sources})
    todo = not_done(found, out, {"what": "features", **encoder.settings})
    jobs = {
        str(video): partial(
            write_features, open_video(video, encoder.fps, encoder.pattern), place, encoder.encode, chunk
        )
        for video, place in todo.items()
    }
    summary = run_jobs(jobs, workers)
    summary.out, summary.skipped = out, len(found) - len(todo)
    if data is not None and summary.failed:
        print("not written: groundTruth, mapping.txt and splits, because features are missing", file=sys.stderr)
    elif data is not None:
        write_annotations(out, data.classes, parts)
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


def _annotated(lists: dict[str, str | None], unit: Unit, background: str | None, encoder: Encoder) -> Data:
    """The annotated videos of the lists."""
    missing = [name for name, value in lists.items() if value is None]
    if missing:
        raise SeqclfError(f"lists of annotated videos need {' and '.join(missing)}, too")
    labels: dict[str, Any] = {"background": background, "unit": unit, "fps": encoder.fps, "pattern": encoder.pattern}
    return annotated_set(**lists, **labels)  # type: ignore[arg-type]


def _named(data: Data, part: str) -> list[tuple[str, Video]]:
    """The videos of a part with the names of their files."""
    videos: list[Video] = data.parts()[part].videos  # type: ignore[union-attr, assignment]
    return [(plain_name(Path(video.source.path)), video) for video in videos]
