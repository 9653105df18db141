"""Where a config is: a file, or the name of a reference config that comes with seqclf."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from seqclf.errors import SeqclfError

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""Of an installed wheel, and of a checkout."""


def reference_configs() -> dict[str, Path]:
    """The reference configs by name."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def find_config(path: str | Path) -> Path:
    """The file of a config.

    Args:
        path: a file, or the name of a reference config.
            A file takes precedence.

    Raises:
        SeqclfError: there is neither.
    """
    path = Path(path)
    if path.is_file():
        return path
    names = reference_configs()
    if str(path) in names:
        return names[str(path)]
    known = {**{name: name for name in names}, **{file.stem: str(file) for file in sorted(path.parent.glob("*.py"))}}
    near = [known[name] for name in get_close_matches(path.stem, known, cutoff=0.75)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"reference configs: {', '.join(names)}"
    raise SeqclfError(f"config {path}: no such file or reference config; {hint}")
