"""Extracts the frames of videos as pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seqclf.batch import SeqclfError
from seqclf.data.transforms import Size
from seqclf.data.video.container import several_streams
from seqclf.data.video.file import VideoFile
from seqclf.preparing.extract import write_frames
from seqclf.preparing.jobs import Summary, check_workers, run_jobs
from seqclf.preparing.listed import read_listed, reading_settings
from seqclf.preparing.places import distinct, not_done, places
from seqclf.runtime.paths import as_list


def prepare_frames(
    videos: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    list_file: str | Path | None = None,
    root: str | Path | None = None,
    list_form: str = "auto",
    segments: str | Path | None = None,
    form: Literal["jpg", "png"] = "jpg",
    quality: int = 95,
    size: Size | None = None,
    fps: float | None = None,
    video_stream: int | None = None,
    workers: int | None = None,
    **reading: Any,
) -> Summary:
    """Extracts the frames of videos: ``<out>/<video>/<video>.0000.jpg`` and so on.

    The number in a name is that of the frame in the video file, from 0, at any ``fps``. So segments of the files fit
    the folders. Videos in a folder or a list keep their path in there. A finished video is skipped; an unfinished one
    is extracted again.

    Args:
        videos: video files, and folders that hold some at any depth.
        out: the folder for the pictures. ``prepare.json`` in it records the settings.
        list_file: a list of videos with their classes, in place of ``videos``; see ``seqclf.data.lists``.
        root: the folder that the paths in the list start from.
        list_form: how the list is written; the ``form`` of ``video_set``.
        segments: the segments of the listed videos; the list then has only paths.
        form: "png" keeps the frames bit for bit.
        quality: the quality of JPEG, 1 to 100.
        size: the height and width to scale to, or the shorter side; None keeps the size.
        fps: the frame rate to resample to; None keeps all frames.
        video_stream: the video stream of files with several, from 0; None for the one that FFmpeg chooses.
        workers: the number of videos that are processed at a time; None for one per core.
        reading: arguments for reading the list: those of ``annotated_set`` with ``segments``, else of ``video_set``.

    Returns:
        what was done. The error of each video that can't be read is printed, and is in ``failed``.

    Raises:
        SeqclfError: an argument is out of range; there is no video; the folder was made with other settings.
    """
    check_workers(workers, fps)
    _check_pictures(form, quality)
    reading |= {"form": list_form} if segments is None else {}
    out = Path(out)
    found = _found(as_list(videos), out, list_file, root, segments, reading)
    settings = {"what": "frames", "fps": fps, "size": size, "form": form, "quality": quality}
    if video_stream is not None:
        settings["video_stream"] = video_stream
    todo = not_done(found, out, settings)
    sources = {str(video): VideoFile(video, fps, video_stream) for video in todo}
    jobs = {str(v): partial(write_frames, sources[str(v)], place, size, form, quality) for v, place in todo.items()}
    summary = run_jobs(jobs, workers)
    _print_streams({name: source for name, source in sources.items() if name not in summary.failed})
    summary.out, summary.skipped = out, len(found) - len(todo)
    return summary


def _check_pictures(form: str, quality: int) -> None:
    if form not in ("jpg", "png"):
        raise SeqclfError(f'form={form!r}: expected "jpg" or "png"')
    if not 1 <= quality <= 100:
        raise SeqclfError(f"quality={quality}: expected 1 to 100")


def _print_streams(sources: Mapping[str, VideoFile]) -> None:
    """Prints which stream was read of each file that has several."""
    for name, source in sources.items():
        if (streams := source.streams())[0] > 1:
            print(several_streams(name, *streams), file=sys.stderr)


def _found(
    given: list[str | Path],
    out: Path,
    list_file: str | Path | None,
    root: str | Path | None,
    segments: str | Path | None,
    reading: dict[str, Any],
) -> dict[Path, Path]:
    """The videos, given or in a list, with the folders of their frames."""
    if list_file is None:
        return places(given, out)
    if given or root is None:
        raise SeqclfError("a list of videos needs the folder root, and takes no other videos")
    folder = Path(root).expanduser()
    listed = read_listed(list_file, folder, reading_settings(segments, reading), segments is not None)
    for line, name in listed.missing:
        raise SeqclfError(f"{list_file}, line {line}: video {name!r} is not in {folder}")
    paths = [entry.path for entry in listed.videos]
    return distinct({path: out / path.relative_to(folder).parent / path.stem for path in paths})
