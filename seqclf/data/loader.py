"""Prefetching of batches: threads read videos while the model runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from torch import Tensor

from seqclf.batch import Batch
from seqclf.data.batch_memory import Memory, Rows
from seqclf.data.clips import Clips
from seqclf.data.videos import Sample, Videos

AHEAD = 3
"""The number of batches prefetched."""


def batches(data: Clips | Videos, plan: Iterable[tuple[Tensor, int]]) -> Generator[Batch, None, None]:
    """Yields the batches of a plan, in order.

    Args:
        data: the data set. ``Videos`` are read ahead by their ``workers`` threads.
        plan: for each batch the sample numbers ``(B,)``, and the key that seeds random sampling.

    Raises:
        SeqclfError: a sample can't be read.
    """
    if isinstance(data, Clips):
        for indices, key in plan:
            yield data.batch(indices, key)
        return
    for batch in _read(data, plan):
        if batch is not None:
            yield batch


def _read(data: Videos, plan: Iterable[tuple[Tensor, int]]) -> Generator[Batch | None, None, None]:
    """Yields batches that the data's workers read and collate ahead."""
    if data.workers < 1:
        for indices, key in plan:
            yield _collate(data, [data.try_sample(int(i), key) for i in indices])
        return
    pool = ThreadPoolExecutor(data.workers, thread_name_prefix="reader")
    coming: deque[Future[Batch | None]] = deque()
    memory = Memory()
    try:
        for indices, key in plan:
            rows = Rows(len(indices), memory)
            samples = [
                pool.submit(data.try_sample, int(i), key, partial(rows.take, row)) for row, i in enumerate(indices)
            ]
            # Waiting for the samples can't deadlock: the pool starts tasks in the order they were submitted.
            coming.append(pool.submit(_collate_results, data, samples, rows))
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collate_results(data: Videos, samples: list[Future[Sample | None]], rows: Rows) -> Batch | None:
    return _collate(data, [sample.result() for sample in samples], rows)


def _collate(data: Videos, samples: list[Sample | None], rows: Rows | None = None) -> Batch | None:
    """A batch; None if all of its samples were skipped, in evaluation."""
    return data.collate(samples, rows) if any(sample is not None for sample in samples) else None
