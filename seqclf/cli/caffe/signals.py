"""Caffe's reaction to signals during training (``--sigint_effect``, ``--sighup_effect``)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from seqclf.runtime.signals import handled_signals

EFFECTS = ("stop", "snapshot", "none")


@contextmanager
def signal_effects(interrupt: str, hangup: str) -> Iterator[tuple[Callable[[], str | None], list[int]]]:
    """Handles SIGINT and SIGHUP inside the ``with`` block, and restores the previous handlers after it.

    Args:
        interrupt, hangup: one of ``EFFECTS`` for each signal. After a signal that stops, a second one has its usual
            effect.

    Yields:
        a function to call after every update, which returns "stop", "snapshot" or None; and a list that contains the
        number of the signal that stopped training.
    """
    requests: list[str] = []
    stopped: list[int] = []
    effects = {int(signal.SIGINT): interrupt}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        effects[int(signal.SIGHUP)] = hangup

    def handle(signum: int) -> bool:
        if effects[signum] == "stop":
            stopped.append(signum)
        elif effects[signum] == "snapshot":
            requests.append("snapshot")
        return effects[signum] == "stop"

    def next_request() -> str | None:
        return "stop" if stopped else requests.pop() if requests else None

    with handled_signals(tuple(effects), handle):
        yield next_request, stopped
