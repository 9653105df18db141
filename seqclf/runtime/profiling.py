"""Profiling of a few steps: a trace, the most expensive operations, and the idle time of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

BEFORE, TRACED = 10, 5
"""Steps before the trace, which run slower, and traced steps. Between them are two steps of profiler warm-up."""
MOST_EXPENSIVE = 5
"""Operations that are printed."""


class Profile:
    """Traces steps 13 to 17 of a run, then writes the trace and prints a summary.

    Args:
        path: the file of the trace, in Chrome's format (open it at ui.perfetto.dev).
        device: where the model runs.
        say: prints a line.
    """

    def __init__(self, path: Path, device: torch.device, say: Callable[[str], None]) -> None:
        self.path, self.device, self.say = path, device, say
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        self.done = False
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=BEFORE, warmup=2, active=TRACED, repeat=1),
            on_trace_ready=self._summarise,
            acc_events=True,
        )
        self.profiler.start()

    def step(self) -> None:
        """After each step."""
        if not self.done:
            self.profiler.step()
            if self.done:
                self.profiler.stop()

    def close(self) -> None:
        """Stops tracing; prints a line if the run was too short."""
        if not self.done:
            self.done = True  # the trace of stop() is incomplete
            self.profiler.stop()
            self.say(f"--profile: nothing was traced, the run ended before step {BEFORE + 2 + TRACED}")

    def _summarise(self, found: profile) -> None:
        if self.done:
            return
        self.done = True
        found.export_chrome_trace(str(self.path))
        on_gpu = self.device.type == "cuda"
        steps, work = [], []
        for event in found.events() or ():
            span = (event.time_range.start, event.time_range.end)
            if event.name.startswith("ProfilerStep"):
                steps.append(span)
            elif event.device_type.name == self.device.type.upper():
                work.append(span)
        begin, end = min(start for start, _ in steps), max(end for _, end in steps)
        idle = 1 - covered(work, begin, end) / (end - begin)
        costs = {
            row.key: (row.self_device_time_total if on_gpu else row.self_cpu_time_total, row.count)
            for row in found.key_averages()
            if not row.key.startswith("ProfilerStep")
        }
        total = sum(cost for cost, _ in costs.values())
        name = "GPU" if on_gpu else "CPU"
        self.say(f"{TRACED} steps of {(end - begin) / TRACED / 1000:.2f} ms; the {name} is idle for {idle:.1%} of that")
        for key, (cost, count) in sorted(costs.items(), key=lambda item: -item[1][0])[:MOST_EXPENSIVE]:
            self.say(f"  {cost / total:6.1%}  {cost / TRACED / 1000:8.2f} ms a step  {count / TRACED:6.0f} x  {key}")
        self.say(f"trace: {self.path}")


def covered(spans: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """The time between begin and end that lies in at least one of the spans."""
    total, reached = 0.0, begin
    for start, stop in sorted(spans):
        start, stop = max(start, reached), min(stop, end)
        if stop > start:
            total += stop - start
            reached = stop
    return total
