"""Measurement: both sides of a pair in turn, medians, ratios with their range; processes with their peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

Run = Callable[[], object]
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""
"""Starts the measured process, since a process inherits the memory count of the one that starts it."""


def seconds(run: Run) -> float:
    """The time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def in_turn(ours: Run, rival: Run, pairs: int, warm: int) -> list[tuple[float, float]]:
    """The times of both, measured in turn, so that a drift of the machine's speed affects both."""
    for _ in range(warm):
        ours(), rival()
    return [(seconds(ours), seconds(rival)) for _ in range(pairs)]


def compare(title: str, ours: Run, rival: Run, name: str, pairs: int = 25, warm: int = 3) -> None:
    """Prints both medians in ms, and the ratio of times, ours / rival."""
    show(title, in_turn(ours, rival, pairs, warm), name)


def show(title: str, pairs: list[tuple[float, float]], name: str, unit: float = 1e3, mark: str = "ms") -> None:
    """Prints both medians, and the median of the ratios, ours / rival."""
    a, b = (statistics.median(column) * unit for column in zip(*pairs, strict=True))
    ratios = [ours / rival for ours, rival in pairs]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)" if len(ratios) > 1 else ""
    print(
        f"{title:<44} {a:8.2f} {mark}   {name:<24} {b:8.2f} {mark}   ratio {statistics.median(ratios):.2f}{spread}",
        flush=True,
    )


def compare_rates(
    title: str, ours: Run, rival: Run, name: str, count: float, mark: str, pairs: int = 9, warm: int = 1
) -> None:
    """Prints how many of ``count`` things each does per second, and the ratio of rates, ours / rival."""
    times = in_turn(ours, rival, pairs, warm)
    show(title, [(count / a, count / b) for a, b in times], name, 1, mark)


class Cost(NamedTuple):
    """What a process took: its time and the CPU time of all its threads in seconds, and its peak memory in MB."""

    time: float
    cpu_time: float
    memory: float


def process(*command: str, **environment: str) -> Cost:
    """Runs a command without showing its output.

    Raises:
        CalledProcessError: it failed. Its stderr is shown.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    cpu_time, memory = map(float, done.stdout.split())
    return Cost(time.perf_counter() - began, cpu_time, memory * unit / 1e6)


def compare_processes(title: str, pairs: list[tuple[Cost, Cost]], name: str) -> None:
    """Prints time, CPU time and peak memory of both, and the ratios, ours / rival."""
    for field, mark in (("time", "s "), ("cpu_time", "s "), ("memory", "MB")):
        values = [(getattr(ours, field), getattr(rival, field)) for ours, rival in pairs]
        show(f"{title}, {field.replace('_', ' ')}", values, name, 1, mark)


def peak_memory(code: str) -> float:
    """The peak memory, in MB, of a new Python process that runs this code."""
    return process(sys.executable, "-c", code).memory


def memory_now() -> float:
    """The resident memory of this process, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
