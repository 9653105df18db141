"""Packs videos into shards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data import Data, Source, Videos
from seqclf.data.shards.index import classes_of, index_of, write_index
from seqclf.data.shards.writer import in_shards, write_shard
from seqclf.preparing.jobs import Job, Summary, check_workers, run_jobs
from seqclf.preparing.listed import listed_data
from seqclf.runtime.files import make_folder


def prepare_shards(
    out: str | Path,
    *,
    root: str | Path,
    train: str | Path,
    test: str | Path,
    validation: str | Path | None = None,
    segments: str | Path | None = None,
    parts: Sequence[str] | None = None,
    megabytes: float = 256,
    lanes: int = 8,
    seed: int | None = 0,
    fps: float | None = None,
    workers: int | None = None,
    **reading: Any,
) -> Summary:
    """Packs the videos of lists into tar files in WebDataset's layout: ``<out>/<part>-000000.tar`` and so on.

    Video files and pictures are packed unchanged. ``shard_set(out)`` reads the shards with ``<out>/<part>.index.json``.
    Its clips are those of the lists. Shards are written completely or not at all.

    Args:
        out: the folder for the shards. Parts in one folder have the same classes.
        root, train, test, validation: the lists of videos, as in ``video_set``.
        segments: the segments of the videos, as in ``annotated_set``; None if the lists have labels.
        parts: which of "train", "test" and "validation" to pack; None for all.
        megabytes: the approximate size of a shard.
        lanes: the number of shards is a multiple of this number, so that as many can be read at a time.
        seed: the seed of the order, which mixes the classes in each shard; None keeps the order of the list.
        fps: the frame rate that video files are resampled to when they are read; None for that of each file.
        workers: the number of shards that are written at a time; None for one per core.
        reading: arguments for reading lists: those of ``annotated_set`` with ``segments``, else of ``video_set``,
            such as ``multi_label``, ``columns`` or ``annotation_fps``.

    Returns:
        what was done. The error of each video that can't be read is printed, and is in ``failed``.

    Raises:
        SeqclfError: an argument or a list is wrong; a part exists; no video can be read; a file can't be written.
    """
    check_workers(workers, fps)
    if lanes < 1:
        raise SeqclfError(f"lanes={lanes}: expected at least 1")
    if not 0 < megabytes < float("inf"):
        raise SeqclfError(f"megabytes={megabytes}: expected a number above 0")
    data = listed_data(root, train, test, validation, segments, reading | {"fps": fps})
    out, chosen = Path(out), list(parts or data.parts())
    _check_parts(data, chosen, out)
    total = Summary(out, failed=data.skipped())
    for part in chosen:
        one = _write_part(data, part, out, fps, int(megabytes * 1e6), lanes, seed, workers)
        total.made += one.made
        total.frames += one.frames
        total.seconds += one.seconds
        total.files += one.files
        total.failed |= one.failed
    return total


def _check_parts(data: Data, parts: Sequence[str], out: Path) -> None:
    """Raises a ``SeqclfError`` unless these parts can be added to a folder of shards."""
    for part in parts:
        if part not in data.parts():
            raise SeqclfError(f"parts={part!r}: the lists are for {', '.join(data.parts())}")
        if index_of(out, part).exists() or any(out.glob(f"{part}-*.tar")):
            raise SeqclfError(f"{out}: part {part} exists; delete it, or choose another folder, or other parts")
    before = classes_of(out)
    if before is not None and before != list(data.classes):
        raise SeqclfError(f"{out}: holds a part with other classes, or in another order; choose another folder")


def _write_part(
    data: Data, part: str, out: Path, fps: float | None, size: int, lanes: int, seed: int | None, workers: int | None
) -> Summary:
    """Writes the shards of a part and their index; see ``in_shards`` for ``size``, ``lanes`` and ``seed``."""

    def count(source: Source) -> Job:
        yield len(source)

    clips = data.parts()[part]
    assert isinstance(clips, Videos)
    summary = run_jobs({video.name: partial(count, video.source) for video in clips.videos}, workers)
    rows = [k for k, video in enumerate(clips.videos) if video.name not in summary.failed]
    if not rows:
        raise SeqclfError(f"{out}: there is nothing to pack, as no video of the {part} part can be read")
    clips = clips.subset(rows)
    plan = in_shards(clips.videos, clips.groups, size, lanes, seed)
    tars = [out / f"{part}-{number:06}.tar" for number in range(len(plan))]
    unfinished = [tar.with_name(f".{tar.name}.part") for tar in tars]
    try:
        make_folder(out)
        jobs = {
            str(tar): partial(write_shard, path, content, data.classes, fps, data.multi_label)
            for tar, path, content in zip(tars, unfinished, plan, strict=True)
        }
        written = run_jobs(jobs, workers, "shard", print_errors=False)
        if written.failed:
            raise SeqclfError(f"{out}: no shard is kept, because one failed: {next(iter(written.failed.values()))}")
        for path, tar in zip(unfinished, tars, strict=True):
            path.replace(tar)
        background = data.classes[data.background[0]] if data.background else None
        write_index(out, part, tars, data.classes, background)
    except OSError as error:
        raise SeqclfError(f"{out}: shards can't be written ({error})") from None
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
    summary.seconds += written.seconds
    summary.out, summary.files = out, tars
    return summary
