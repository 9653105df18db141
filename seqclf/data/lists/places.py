"""Finding the videos of a list on disk."""

from __future__ import annotations

import os
import posixpath
import re
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.find import names_in
from seqclf.data.frames.pictures import is_picture
from seqclf.data.frames.source import is_video, unicode_forms, without_suffix
from seqclf.data.lists.lines import Row


class Folders:
    """Finds videos under a folder. Each folder is listed once."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.listings: dict[str, dict[str, list[str]]] = {}  # folder -> stem -> names

    def find(self, row: Row) -> Path | None:
        """The path of a row's video; None if it does not exist."""
        for place in chain.from_iterable(map(unicode_forms, row.places)):
            folder, name = posixpath.split(posixpath.join(self.top, place))
            names = self._listing(folder).get(without_suffix(name), [])
            if name in names or (not is_picture(place) and os.path.isfile(posixpath.join(self.top, place))):
                return Path(folder, name)
            if len(names) > 1:
                raise SeqclfError(f"{row.where}: {row.name!r} is ambiguous: {' or '.join(names)} in {folder}")
            if names:
                return Path(folder, names[0])
        return None

    def _listing(self, folder: str) -> dict[str, list[str]]:
        if folder not in self.listings:
            self.listings[folder] = {}
            for name, is_folder in names_in(folder) if os.path.isdir(folder) else ():
                if is_folder or is_video(name):
                    self.listings[folder].setdefault(without_suffix(name), []).append(name)
        return self.listings[folder]


def _nearest(place: str, root: Path) -> str:
    """The path under a folder that is most like ``place``; "" if there is none."""
    found = root
    for part in place.split("/"):
        names = {name.casefold(): name for name, _ in names_in(found)} if found.is_dir() else {}
        near = [part] if part in names.values() else get_close_matches(part.casefold(), names, 1, 0.7)
        if not near:
            return ""
        found /= names.get(near[0], part)
    return found.relative_to(root).as_posix()


def missing_video(row: Row, root: Path) -> str:
    """The error message for a missing video."""
    picture = next((place for place in row.places if is_picture(place) and (root / place).is_file()), None)
    if picture is not None:
        return f"{row.where}: {picture!r} is a single picture, expected a video or a folder of pictures"
    header = " (if this line is a header, set columns={'path': <name>, 'label': <name>})"
    absolute = "; paths must be relative to root=" if re.match(r"[A-Za-z]:[\\/]|/", row.name) else ""
    near = _nearest(row.places[0], root) if row.places and not absolute else ""
    hint = f"; did you mean {near!r}?" if near else header if row.where.endswith(", line 1") else absolute
    return f"{row.where}: video {row.name!r} is not in {root}{hint}"
