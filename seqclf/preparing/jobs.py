"""Runs jobs on many videos in threads, with progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from seqclf.batch import SeqclfError
from seqclf.runtime.progress import REPORT_SECONDS, Display

Job = Generator[int, None, None]
"""Work on a file. It yields the number of frames of each piece, and can be closed between pieces."""


@dataclass
class Summary:
    """The result of preparing videos.

    Attributes:
        out: the folder of the results.
        made: the number of videos that were processed.
        frames: the number of their frames.
        skipped: the number of videos that were done before.
        failed: the error of each video that could not be processed, by name.
        seconds: how long it took.
        files: the files that hold several videos (shards).
    """

    out: Path = Path()
    made: int = 0
    frames: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)


def run_jobs(
    jobs: Mapping[str, Callable[[], Job]], workers: int | None, unit: str = "video", print_errors: bool = True
) -> Summary:
    """Runs jobs and shows their progress. If a job fails, the others continue.

    Args:
        jobs: for each name, a function that begins the job. An interrupt closes the jobs that have begun.
        workers: the number of threads; None for one per core.
        unit: what a job processes, for the progress line.
        print_errors: print the error of each job that fails; otherwise the caller reports them.

    Raises:
        SeqclfError: a file can't be written.
    """
    out, began, stop = Summary(), time.perf_counter(), Event()

    def work(begin: Callable[[], Job]) -> int:
        frames = 0
        with closing(begin()) as job:
            for piece in job:
                frames += piece
                if stop.is_set():
                    break
        return frames

    with closing(Display(len(jobs), unit)) as display, ThreadPoolExecutor(workers) as pool:
        display.begin(0)
        futures = {pool.submit(work, job): name for name, job in jobs.items()}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                name = futures[future]
                try:
                    out.frames += future.result()
                    out.made += 1
                except SeqclfError as error:
                    out.failed[name] = str(error) if name in str(error) else f"{name}: {error}"
                    if print_errors:
                        print(f"error: {out.failed[name]}", file=sys.stderr, flush=True)
                except OSError as error:
                    raise SeqclfError(f"{name}: its result can't be written ({error})") from None
                display.step(count)
                display.figures(f"{out.frames:,} frames", REPORT_SECONDS)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    out.seconds = time.perf_counter() - began
    return out


def check_workers(workers: int | None, fps: float | None = None) -> None:
    """Raises a ``SeqclfError`` for a number of threads or a frame rate that is out of range."""
    if workers is not None and workers < 1:
        raise SeqclfError(f"workers={workers}: expected at least 1")
    if fps is not None and not 0 < fps <= 1000:
        raise SeqclfError(f"fps={fps}: expected a number above 0, up to 1000")
