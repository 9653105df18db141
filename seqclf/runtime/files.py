"""Atomic file writing: a file appears complete under its name, or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError


@contextmanager
def replacing(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` if the block succeeds.

    The temporary file is hidden and named ``.<name>.<process>.part``. If the block fails, it is deleted and ``path``
    is unchanged. The block may also make a folder of that name, which replaces a folder.

    Args:
        path: the file or folder to write. Parent folders are created.
        durable: flush the file and its folder to the disk before and after the rename.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = part.with_suffix(".old")
    try:
        yield part
        if durable:
            with part.open("rb+") as stream:
                os.fsync(stream.fileno())
        if part.is_dir() and path.is_dir():
            os.replace(path, old)
        os.replace(part, path)
        if durable:
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        with suppress(OSError):
            part.unlink(missing_ok=True)


def make_folder(path: str | Path, what: str = "") -> Path:
    """Creates a folder and its parents, unless they exist.

    Args:
        path: the folder.
        what: what it is, for the message, such as "run folder ".

    Returns:
        the path.

    Raises:
        SeqclfError: it cannot be created, for example because a file has this name.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SeqclfError(f"{what}{path}: cannot be created ({error})") from None
    return Path(path)


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Writes text (UTF-8) or bytes to a file, atomically.

    Args:
        path: the file. Parent folders are created.
        content: the whole content; line ends are written as they are.

    Returns:
        the path.

    Raises:
        SeqclfError: the file cannot be written. An earlier version of it is unchanged.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise SeqclfError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
    return Path(path)


def cache_folder() -> Path:
    """The folder of downloads and compiled code: ``~/.cache/seqclf``, or its place in ``$XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqclf"


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON text. NaN and infinite numbers, which JSON does not have, become null."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    """The content with None for each number that is not finite."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_json(path: str | Path, content: Any) -> Path:
    """Writes a JSON file, atomically; see ``json_text``. Errors as in ``write_atomic``."""
    return write_atomic(path, json_text(content, indent=1) + "\n")


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Writes a CSV file with a header line, atomically. Errors as in ``write_atomic``."""
    stream = io.StringIO(newline="")
    lines = csv.writer(stream)
    lines.writerow(header)
    lines.writerows(rows)
    return write_atomic(path, stream.getvalue())


def check_table_path(path: str | Path, columns: Sequence[str]) -> None:
    """Checks, before the work is done, that a table can be written.

    Args:
        path: the CSV file. Its folder is created.
        columns: the first columns of the table.

    Raises:
        SeqclfError: the path is a folder, its folder cannot be created, or there is a file that does not begin with
            these columns, such as a list of videos.
    """
    make_folder(Path(path).parent)
    if Path(path).is_dir():
        raise SeqclfError(f"{path}: is a folder, expected the path of a CSV file")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            first = file.readline()
    except OSError:  # there is none, or writing reports why
        return
    if first and not first.startswith(",".join(columns)):
        raise SeqclfError(f"{path}: exists and is not a table of predictions: write to another path, or delete it")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        SeqclfError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise SeqclfError(f"{path}: damaged ({error})") from None


def read_json_object(path: str | Path, keys: Sequence[str]) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
        path: the file.
        keys: which the object must have.

    Raises:
        SeqclfError: the file is missing or damaged, holds something else, or lacks a key.
    """
    content = read_json(path)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing or not isinstance(content, dict):
        raise SeqclfError(f"{path}: damaged (it does not hold {', '.join(missing) or 'an object'})")
    return content


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable, on systems that support it (not Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
