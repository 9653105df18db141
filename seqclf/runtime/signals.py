"""SIGINT and SIGTERM, noted for a loop to see when it can stop well."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def noted_signals(patient: bool = False) -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM are noted in the list; a second one acts as usual.

    Args:
        patient: a second one is noted, too: torchrun hands on a Ctrl-C that the terminal has sent to all already, and
            itself kills what does not end.
    """
    seen: list[int] = []
    before: dict[int, Any] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        seen.append(signum)
        if not patient:
            signal.signal(signum, before[signum])

    try:
        for signum in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[signum] = signal.signal(signum, note)
    except ValueError:  # not in the main thread, where signals can't be taken
        before.clear()
    try:
        yield seen
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
