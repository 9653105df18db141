"""Counts and times of a stream, in memory that does not grow with it."""

from __future__ import annotations

import math
import time
from collections import Counter

from seqclf.prediction.streams.frames import StreamSource
from seqclf.runtime.text import counted

BINS = 50
"""Bins of latency per factor of e, so that a quantile is within 1%."""


class StreamSummary:
    """Counts frames and their latencies, from the arrival of a frame to the end of what is done with it.

    Attributes:
        frames: the number of classified frames.
        dropped, reconnects, damaged: those of the source; see ``LiveReader``.
    """

    def __init__(self) -> None:
        self.frames = self.dropped = self.reconnects = self.damaged = 0
        self._latencies: Counter[int] = Counter()
        self._first = self._last = 0.0

    def add(self, arrived: float) -> None:
        """Counts a frame that is done now; ``arrived`` is its ``time.perf_counter()``."""
        self._last = time.perf_counter()
        if not self.frames:
            self._first = self._last  # the first frame loads what all frames need
        self.frames += 1
        self._latencies[round(BINS * math.log(max(self._last - arrived, 1e-7)))] += 1

    def count(self, source: StreamSource) -> None:
        """Copies the counts of the source."""
        self.dropped, self.reconnects, self.damaged = source.dropped, source.reconnects, source.damaged

    @property
    def rate(self) -> float | None:
        """Frames per second, without the first frame; None until there are two."""
        return (self.frames - 1) / max(self._last - self._first, 1e-9) if self.frames > 1 else None

    def latency(self, quantile: float) -> float | None:
        """A quantile of the latency in seconds, within 1%; None without frames."""
        seen, wanted = 0, quantile * self.frames
        for bin_, count in sorted(self._latencies.items()):
            seen += count
            if seen >= wanted:
                return math.exp(bin_ / BINS)
        return None

    def __str__(self) -> str:
        parts = [counted(self.frames, "frame"), f"{self.dropped:,} dropped", counted(self.reconnects, "reconnect")]
        if self.damaged:
            parts.append(f"{self.damaged:,} damaged")
        if self.rate is not None:
            parts.append(f"{self.rate:.1f} frames/s")
        p50, p99 = self.latency(0.5), self.latency(0.99)
        if p50 is not None and p99 is not None:
            parts.append(f"latency p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")
        return ", ".join(parts)
