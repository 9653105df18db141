"""JSON files as tables."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data.columns import normal


def json_objects(path: Path, text: str) -> list[Any] | None:
    """The entries of a JSON array or of JSON lines; None if the file is neither."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        return _entries(json.loads(text))
    except ValueError as error:
        problem = error
    try:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError:
        if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
            raise SeqclfError(f"{path}: not JSON ({problem})") from None
        return None


def _entries(whole: Any) -> list[Any]:
    """The entries of a JSON value: a list, an object for each video by name, or either as an item of an object."""
    if not isinstance(whole, dict):
        return whole if isinstance(whole, list) else [whole]
    if whole and all(isinstance(value, dict) for value in whole.values()):
        return [{"path": name, **value} for name, value in whole.items()]
    by_name = [value for value in whole.values() if isinstance(value, dict)]
    return (
        _entries(by_name[0]) if len(by_name) == 1 and all(isinstance(v, dict) for v in by_name[0].values()) else [whole]
    )


def _flat(entry: dict[str, Any], times: Collection[str]) -> list[dict[str, Any]]:
    """The rows of an entry: one for each object with times in a list, such as annotations, or else the entry itself."""
    lists = [key for key, value in entry.items() if _have_times(value, times)]
    if len(lists) != 1:
        return [{key: "" if value == [] else value for key, value in entry.items()}]
    above = {key: value for key, value in entry.items() if key != lists[0]}
    return [row for inner in entry[lists[0]] for row in _flat({**above, **inner}, times)]


def _have_times(values: Any, times: Collection[str]) -> bool:
    """Whether this is a list of objects with one of the keys ``times``, perhaps in an inner list of objects."""
    if not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
        return False
    return any(
        key in times or normal(key) in times or _have_times(inner, times) for v in values for key, inner in v.items()
    )


def json_rows(path: Path, objects: list[Any], times: Collection[str]) -> list[tuple[int, dict[str, Any]]]:
    """The rows of entries, each with the number of its entry from 1.

    Args:
        path: the file, for errors.
        objects: the entries.
        times: the keys of times. If an entry holds a list of objects with such keys, each of these objects is a row,
            together with the other items of the entry.

    Raises:
        SeqclfError: an entry is not an object.
    """
    for number, entry in enumerate(objects, 1):
        if not isinstance(entry, dict):
            raise SeqclfError(f"{path}, entry {number}: expected an object, such as {{'path': ..., 'label': ...}}")
    return [(number, row) for number, entry in enumerate(objects, 1) for row in _flat(entry, times)]


def cell_text(value: Any) -> str:
    """A value as the text of a cell. Missing values are empty, also NaN, as other programs write them."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    text = "" if value is None else str(value).strip()
    return "" if text.lower() == "nan" else text
