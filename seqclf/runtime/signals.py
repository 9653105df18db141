"""Signals that a loop handles between its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def handled_signals(signums: Sequence[int], handle: Callable[[int], bool]) -> Iterator[None]:
    """Calls ``handle`` for these signals within the block, in place of their previous handlers.

    Python delivers signals to the main thread only. In another thread this does nothing.

    Args:
        signums: the signals.
        handle: takes the signal; returns whether the next signal of this kind goes to the previous handler.
    """
    previous: dict[int, Any] = {}

    def call(signum: int, frame: FrameType | None) -> None:
        if handle(signum):
            signal.signal(signum, previous[signum])

    if threading.current_thread() is threading.main_thread():
        for signum in signums:
            previous[signum] = signal.signal(signum, call)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextmanager
def stop_signals(repeated: bool = False) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list within the block.

    Args:
        repeated: whether to collect a second signal too; otherwise it has its usual effect. Use it under torchrun,
            which forwards a Ctrl-C that the terminal has already sent, and kills processes that do not end.
    """
    seen: list[int] = []

    def collect(signum: int) -> bool:
        seen.append(signum)
        return not repeated

    with handled_signals((int(signal.SIGINT), int(signal.SIGTERM)), collect):
        yield seen
