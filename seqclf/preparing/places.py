"""Where the results of videos are written, and which are done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from seqclf.batch import SeqclfError
from seqclf.data.find import find_videos, plain_name
from seqclf.runtime.files import make_folder, read_json, write_json

Name = TypeVar("Name")


def places(paths: Iterable[str | Path], out: Path) -> dict[Path, Path]:
    """The place under ``out`` of the results of each video, without a suffix.

    It is ``out/<video>``. A video in a folder keeps its path in there: ``out/<folders>/<video>``.

    Args:
        paths: video files, folders of frames, and folders of either.
        out: the folder of the results.

    Raises:
        SeqclfError: as in ``find_videos``; there is no video; two videos would have the same place.
    """
    found: dict[Path, Path] = {}
    for given in map(Path, paths):
        given = given.expanduser()
        for video in find_videos([given]):
            inside = video.relative_to(given).parent if given.is_dir() else Path()
            found[video] = out / inside / plain_name(video)
    if not found:
        raise SeqclfError("there is no video: name files or folders")
    return distinct(found)


def distinct(found: dict[Path, Path]) -> dict[Path, Path]:
    """The same places without those of earlier results, which are not videos themselves.

    Raises:
        SeqclfError: two videos would have the same place.
    """
    made = {place.resolve() for video, place in found.items() if video.resolve() != place.resolve()}
    found = {video: place for video, place in found.items() if video.resolve() not in made}
    videos: dict[Path, Path] = {}
    for video, place in found.items():
        other = videos.setdefault(place, video)
        if other != video:
            raise SeqclfError(f"{other} and {video} would both be written to {place}")
    return found


def not_done(found: Mapping[Name, Path], out: Path, settings: Mapping[str, Any]) -> dict[Name, Path]:
    """The videos without a result, by path or name. ``prepare.json`` under ``out`` records the settings.

    Raises:
        SeqclfError: results were made with other settings, or by another program.
    """
    note = out / "prepare.json"
    settings = json.loads(json.dumps(settings))  # as they are read from the file
    there = [place for place in found.values() if place.exists()]
    if note.exists():
        before = read_json(note)
        other = [f"{k}={before.get(k)!r}, not {v!r}" for k, v in settings.items() if before.get(k) != v]
        if other:
            raise SeqclfError(f"{out}: was made with {'; '.join(other)}; choose another folder, or delete this one")
    elif there:
        raise SeqclfError(f"{there[0]}: exists, and was not made by this program (there is no {note})")
    else:
        make_folder(out)
        write_json(note, settings)
    return {video: place for video, place in found.items() if not place.exists()}
