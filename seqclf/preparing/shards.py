"""Packs videos into shards."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data import Source, Video, open_video
from seqclf.data.lists import Selection, read_list
from seqclf.data.sets import annotated_set
from seqclf.data.shard_files import in_shards, write_shard
from seqclf.data.shard_index import classes_of, index_of, write_index
from seqclf.data.spans import Unit
from seqclf.data.splits import NAMES
from seqclf.preparing.jobs import Job, Summary, check_workers, run_jobs


def prepare_shards(
    list_file: str | Path,
    out: str | Path,
    *,
    root: str | Path,
    list_form: str = "auto",
    pattern: str | None = None,
    part: str = "train",
    megabytes: float = 256,
    lanes: int = 8,
    seed: int | None = 0,
    segments: str | None = None,
    classes: str | None = None,
    unit: Unit = "frames",
    background: str | None = None,
    fps: float | None = None,
    workers: int | None = None,
) -> Summary:
    """Packs the videos of a list into tar files in WebDataset's layout: ``<out>/<part>-000000.tar`` and so on.

    Video files and pictures are packed unchanged. ``shard_set(out)`` reads the shards by ``<out>/<part>.index.json``.
    Shards are written completely or not at all.

    Args:
        list_file: the list of videos with their classes; with ``segments``, a path per line.
        out: the folder for the shards. Parts in one folder have the same classes.
        root: the folder that the paths in the list start from.
        list_form, pattern: how the list is written, and which pictures of a folder are frames; see ``video_set``.
        part: the name of the shards.
        megabytes: the approximate size of a shard.
        lanes: the number of shards is a multiple of this number, so that as many can be read at a time.
        seed: the seed of the order, which mixes the classes in each shard; None keeps the order of the list.
        segments: a table of segments; labels are then per frame.
        classes: a file with the class names, one per line.
        unit, background: as in ``annotated_set``.
        fps: the frame rate that the labels of frames are for; None for that of each file.
        workers: the number of shards that are written at a time; None for one per core.

    Returns:
        what was done. The error of each video that can't be read is printed, and is in ``failed``.

    Raises:
        SeqclfError: an argument or the list is wrong; the part exists; no video can be read; a file can't be written.
    """
    check_workers(workers, fps)
    _check(lanes, part, megabytes, segments, classes, fps is not None or background is not None)
    out, root, before = Path(out), Path(root).expanduser(), classes_of(Path(out))
    if segments is None:
        known = before if classes is None else None
        select = Selection(part) if part in NAMES else None  # for a list with a split column
        found = read_list(list_file, root, list_form, known, classes, select=select)
        videos = [Video(e.name, open_video(e.path, pattern=pattern), e.labels()) for e in found.videos]
        names = found.classes
    else:
        labels: dict[str, Any] = {"background": background, "unit": unit, "fps": fps, "pattern": pattern}
        labels["split"] = str(list_file)
        data = annotated_set(str(root), str(list_file), str(list_file), segments, classes, **labels)
        videos, names = data.parts().get(part, data.train).videos, list(data.classes)  # type: ignore[union-attr, assignment]
    if before is not None and before != names:
        raise SeqclfError(f"{out}: holds a part with other classes, or in another order; choose another folder")
    return _write_part(videos, out, part, names, background, fps, int(megabytes * 1e6), lanes, seed, workers)


def _check(
    lanes: int, part: str, megabytes: float, segments: str | None, classes: str | None, only_frames: bool
) -> None:
    """Checks arguments of ``prepare_shards``; ``only_frames``: whether one is given that only labels of frames have."""
    if lanes < 1:
        raise SeqclfError(f"lanes={lanes}: expected at least 1")
    if "/" in part:
        raise SeqclfError(f"part={part!r}: expected a name, not a path")
    if not 0 < megabytes < float("inf"):
        raise SeqclfError(f"megabytes={megabytes}: expected a number above 0")
    if segments is None and only_frames:
        raise SeqclfError("fps and background are for labels of frames, which need segments")
    if segments is not None and classes is None:
        raise SeqclfError("segments need classes, a file of class names")


def _write_part(
    videos: Sequence[Video],
    out: Path,
    part: str,
    classes: Sequence[str],
    background: str | None,
    fps: float | None,
    size: int,
    lanes: int,
    seed: int | None,
    workers: int | None,
) -> Summary:
    """Writes the shards of a part and their index; see ``in_shards`` for ``size``, ``lanes`` and ``seed``."""
    if index_of(out, part).exists() or any(out.glob(f"{glob.escape(part)}-*.tar")):
        raise SeqclfError(f"{out}: part {part} exists; delete it, or choose another folder or part")

    def count(source: Source) -> Job:
        yield len(source)

    summary = run_jobs({video.source.path: partial(count, video.source) for video in videos}, workers)
    videos = [video for video in videos if video.source.path not in summary.failed]
    if not videos:
        raise SeqclfError(f"{out}: there is nothing to pack, as no video can be read")
    plan = in_shards(videos, size, lanes, seed)
    tars = [out / f"{part}-{number:06}.tar" for number in range(len(plan))]
    unfinished = [tar.with_name(f".{tar.name}.part") for tar in tars]
    try:
        out.mkdir(parents=True, exist_ok=True)
        jobs = {
            str(tar): partial(write_shard, path, samples, classes, fps)
            for tar, path, samples in zip(tars, unfinished, plan, strict=True)
        }
        written = run_jobs(jobs, workers, "shard")
        if written.failed:
            raise SeqclfError(f"{out}: no shard is kept, because one failed: {next(iter(written.failed.values()))}")
        for path, tar in zip(unfinished, tars, strict=True):
            path.replace(tar)
        write_index(out, part, tars, classes, background)
    except OSError as error:
        raise SeqclfError(f"{out}: shards can't be written ({error})") from None
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
    summary.seconds += written.seconds
    summary.out, summary.files = out, tars
    return summary
