"""Resolution of paths in settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seqclf.batch import SeqclfError


def as_list(paths: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """One path, or several, as a list."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


def resolve_path(name: str | Path, *folders: str | Path) -> Path:
    """Finds the file or folder of a path in a setting.

    A relative path is looked up in the current folder first, then in each of ``folders``. ``~`` is expanded. A path
    with ``*`` stands for several files, of which one must exist.

    Args:
        name: the path.
        folders: folders to search after the current one, such as ``root``.

    Returns:
        the first path that exists.

    Raises:
        SeqclfError: there is none. The message names the folders searched.
    """
    path = Path(name).expanduser()
    places = [Path(folder).expanduser() for folder in folders]
    for place in (path, *(folder / path for folder in places)):
        if place.exists() or ("*" in place.name and any(place.parent.glob(place.name))):
            return place
    searched = "" if path.is_absolute() or not places else f" (not in {' or '.join(map(str, [Path.cwd(), *places]))})"
    raise SeqclfError(f"{name}: no such file{searched}")
