"""The one rule by which a path in a setting finds its file."""

from __future__ import annotations

from pathlib import Path

from seqclf.batch import SeqclfError


def resolve_path(name: str | Path, *folders: str | Path) -> Path:
    """Find a file or folder that a setting names.

    An absolute path, or one that starts with ``~``, stands for itself. Any other path is looked up in the current
    folder first, then in each of ``folders``.

    Args:
        name: The path as the setting has it.
        folders: Folders to look in after the current one, such as ``root``; ``~`` is expanded.

    Returns:
        The first of these places that exists.

    Raises:
        SeqclfError: None of them exists; names the path and the folders searched.
    """
    path = Path(name).expanduser()
    places = [Path(folder).expanduser() for folder in folders]
    for place in (path, *(folder / path for folder in places)):
        if place.exists():
            return place
    searched = "" if path.is_absolute() or not places else f" (not in {' or '.join(map(str, [Path.cwd(), *places]))})"
    raise SeqclfError(f"{name}: no such file{searched}")
