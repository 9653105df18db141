"""Text of messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import islice
from typing import Any

UNBROKEN = 10_000
"""The width of tables outside a terminal: paths and names are not broken, so that a search finds them."""


def counted(count: int, noun: str) -> str:
    """A number with its noun in singular or plural: "1 class", "2 classes", "3,000 videos"."""
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural}"


def some(values: Collection[object], most: int = 8) -> str:
    """The first ``most`` values, separated by commas, and "..." if there are more."""
    return ", ".join(map(str, islice(values, most))) + (", ..." if len(values) > most else "")


def numbered(names: Iterable[str]) -> list[str]:
    """The names, with "_2", "_3" and so on where one has occurred before, in upper or lower case.

    They are names of files, and some file systems do not distinguish a.csv from A.csv.
    """
    found: dict[str, str] = {}
    for plain in names:
        name, number = plain, 2
        while name.lower() in found:
            name, number = f"{plain}_{number}", number + 1
        found[name.lower()] = name
    return list(found.values())


def class_range(classes: int) -> str:
    """Which class indices there are: "there is 1 class, 0", "there are 3 classes, 0 to 2"."""
    return "there is 1 class, 0" if classes == 1 else f"there are {classes} classes, 0 to {classes - 1}"


def unknown_argument(part: Callable[..., Any]) -> str | None:
    """Which argument of a ``partial`` its function does not take, as a sentence; None if there is none."""
    if not isinstance(part, partial):
        return None
    try:
        known = inspect.signature(part.func).parameters
    except (TypeError, ValueError):  # not a Python function
        return None
    unknown = [name for name in part.keywords if name not in known]
    if not unknown or any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return None
    name = getattr(part.func, "__name__", type(part.func).__name__)
    return f"{name} has no argument {unknown[0]!r}, only {', '.join(known)}"
