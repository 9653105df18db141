"""Natural order, and the numbers in the names of frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from seqclf.data.frames.times import Ints


@dataclass(frozen=True)
class Numbering:
    """The numbers of a folder's frames: first, last, step, and how many are missing."""

    first: int
    last: int
    step: int
    missing: int

    @property
    def is_plain(self) -> bool:
        """Whether the numbers are consecutive from 0 or 1."""
        return self.first in (0, 1) and self.step == 1 and not self.missing


def natural_key(name: str) -> tuple[Any, ...]:
    """A sort key for natural order, which compares digits as whole numbers: img_2, img_10, img_010, img_11."""
    parts: list[Any] = re.split("([0-9]+)", name)  # text at even indices, digits at odd indices
    for i in range(1, len(parts), 2):
        digits = parts[i].lstrip("0")
        parts[i] = (len(digits), digits)  # sorts like the number, of any size
    return tuple(parts), name


def numbers_in(names: Sequence[str]) -> Ints | None:
    """The frame numbers ``(T,)`` int64 in sorted file names; None if the names are not numbered.

    Names are numbered if, without their suffixes, they differ in one number that increases. For a single name it is the
    last number.
    """
    parts = [re.split("([0-9]+)", name.rpartition(".")[0]) for name in names]
    first = parts[0]
    if len(first) < 3 or any(len(other) != len(first) for other in parts):
        return None
    varying = [k for k in range(len(first)) if any(other[k] != first[k] for other in parts)] or [len(first) - 2]
    if len(varying) != 1 or varying[0] % 2 == 0 or any(len(other[varying[0]]) > 18 for other in parts):
        return None
    numbers = np.array([int(other[varying[0]]) for other in parts], np.int64)
    return numbers if (np.diff(numbers) > 0).all() else None


def summary(numbers: Ints) -> Numbering:
    """Summarises frame numbers; the step is the greatest common divisor of their differences."""
    step = gcd(*np.diff(numbers).tolist()) or 1
    first, last = int(numbers[0]), int(numbers[-1])
    return Numbering(first, last, step, (last - first) // step + 1 - len(numbers))
