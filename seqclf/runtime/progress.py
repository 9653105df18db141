"""Progress of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

T = TypeVar("T")
REPORT_SECONDS = 10.0
"""Seconds between lines of progress on files, where there is no terminal."""


class Display:
    """Shows step, metrics, rate and remaining time. Before ``begin`` only ``say`` prints.

    Args:
        total: the number of steps.
        unit: the name of what is counted.
        quiet: print nothing, but measure.
    """

    def __init__(self, total: int, unit: str = "step", quiet: bool = False) -> None:
        self.total, self.unit, self.start, self.done = total, unit, 0, 0
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
        self.began = self.refreshed = self.reported = time.perf_counter()
        self.paused = self.waited = 0.0
        self.text = ""
        self.bar: Progress | None = None

    def begin(self, start: int) -> None:
        """Starts the clock before the first step of this process; ``start`` steps were done earlier."""
        self.start = self.done = start
        self.began = self.refreshed = self.reported = time.perf_counter()
        if self.console.is_terminal and not self.console.quiet:
            count = TextColumn(f"{self.unit} {{task.completed}}/{{task.total}}")
            columns = (count, BarColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=self.console, auto_refresh=False, transient=True)
            self.task = self.bar.add_task("", total=self.total, completed=start)
            self.bar.start()

    def rate(self) -> float:
        """Steps per second since the start, without evaluations."""
        return (self.done - self.start) / max(time.perf_counter() - self.began - self.paused, 1e-9)

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields the batches and measures the time spent waiting for them."""
        coming, none = iter(batches), object()
        while True:
            asked = time.perf_counter()
            batch = next(coming, none)
            if batch is none:
                return
            self.waited += time.perf_counter() - asked
            yield batch  # type: ignore[misc]

    def waits(self) -> float:
        """The share of the time since the start, without evaluations, that was spent waiting for batches."""
        return self.waited / max(time.perf_counter() - self.began - self.paused, 1e-9)

    def step(self, done: int) -> None:
        """After each step: redraws the live line a few times per second."""
        self.done = done
        if self.bar is not None and time.perf_counter() - self.refreshed > 0.2:
            self.refreshed = time.perf_counter()
            self.bar.update(self.task, completed=done, description=f"{self.text}  {self._pace()}")
            self.bar.refresh()

    def figures(self, text: str, every: float = 0.0) -> None:
        """Shows new metrics: in the live line, or without a terminal as a line, at most one in ``every`` seconds."""
        self.text = text
        if self.bar is None and time.perf_counter() - self.reported >= every:
            self.reported = time.perf_counter()
            self.say(f"{self.unit} {self.done}/{self.total}  {text}  {self._pace()}")

    def say(self, line: str) -> None:
        """Prints a line."""
        self.console.print(line, markup=False)

    def warn(self, text: str) -> None:
        """Prints a warning."""
        self.say(f"warning: {text}")

    def pause(self, seconds: float) -> None:
        """Excludes time from the rate, such as that of an evaluation."""
        self.paused += seconds

    def close(self) -> None:
        """Removes the live line."""
        if self.bar is not None:
            self.bar.stop()

    def _pace(self) -> str:
        rate = self.rate()
        left = (self.total - self.done) / rate if rate > 0.01 else float("inf")
        clock = "?" if left == float("inf") else f"{int(left // 3600)}:{int(left // 60 % 60):02}:{int(left % 60):02}"
        return f"{rate:.1f} {self.unit}s/s  {clock} left"
