"""JSON files as tables."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import is_video
from seqclf.data.tables.columns import LABEL, PATH, normal


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
    """The entries of a JSON value: a list, an object with an item for each video, or either as an item of an object."""
    if not isinstance(whole, dict):
        return whole if isinstance(whole, list) else [whole]
    inner = [value for value in whole.values() if isinstance(value, dict) and value]
    if len(inner) == 1 and (_by_video(inner[0]) or (len(whole) > 1 and _objects([*inner[0].values()]))):
        return _entries(inner[0])
    if whole and (_by_video(whole) or len(inner) == len(whole)):
        return [_entry(name, value) for name, value in whole.items()]
    return [whole]


def _by_video(whole: dict[str, Any]) -> bool:
    """Whether the items of an object are named by videos: file names, or several names of lists without videos."""
    listed = len(whole) > 1 and all(map(_objects, whole.values()))
    return all(map(is_video, whole)) or (
        listed and not any(normal(key) in PATH for value in whole.values() for inner in value for key in inner)
    )


def _entry(name: str, value: Any) -> dict[str, Any]:
    """The entry of a video: its items, a list of its segments, or its label."""
    if isinstance(value, dict):
        return {"path": name, **value}
    return {"path": name, "" if _objects(value) else "label": value}


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(inner, dict) for inner in value)


def _flat(entry: dict[str, Any], times: Collection[str]) -> list[dict[str, Any]]:
    """The rows of an entry: one for each object with times in a list, such as annotations, or else the entry itself.

    The items of an inner object with a label or times, such as an annotation, become items of the entry.
    """
    inner = [key for key, value in entry.items() if isinstance(value, dict) and _known(value, {*times, *LABEL})]
    if len(inner) == 1:
        entry = entry[inner[0]] | {key: value for key, value in entry.items() if key != inner[0]}
    lists = [key for key, value in entry.items() if _have_times(value, times)]
    if len(lists) != 1:
        return [{key: "" if value == [] else value for key, value in entry.items()}]
    above = {key: value for key, value in entry.items() if key != lists[0]}
    return [row for inner in entry[lists[0]] for row in _flat({**above, **inner}, times)]


def _have_times(values: Any, times: Collection[str]) -> bool:
    """Whether this is a list of objects with one of the keys ``times``, perhaps in an inner list of objects."""
    if not values or not _objects(values):
        return False
    return any(_known(value, times) or any(_have_times(inner, times) for inner in value.values()) for value in values)


def _known(value: dict[str, Any], names: Collection[str]) -> bool:
    """Whether an object has a key of these names, as written or in normal form."""
    return any(key in names or normal(key) in names for key in value)


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
