"""Batches ahead of time: what has to be read is read by threads while the model works on what is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from seqclf.batch import Batch
from seqclf.data.clips import Clips
from seqclf.data.videos import Sample, Videos

AHEAD = 3
"""How many batches are on their way at a time."""


def batches(data: Clips | Videos, plan: Iterable[tuple[Tensor, int]]) -> Generator[Batch, None, None]:
    """The batches of a plan, in its order.

    Args:
        data: the data set; ``Videos`` are read by their ``workers`` threads, ``Clips`` lie in memory.
        plan: for each batch the indices of its samples ``(B,)``, and the key that random samples are drawn by.

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
    """The batches, read and assembled ahead of time by the data's workers."""
    if data.workers < 1:
        for indices, key in plan:
            yield _together(data, [data.try_sample(int(i), key) for i in indices])
        return
    pool = ThreadPoolExecutor(data.workers, thread_name_prefix="reader")
    coming: deque[Future[Batch | None]] = deque()
    try:
        for indices, key in plan:
            samples = [pool.submit(data.try_sample, int(i), key) for i in indices]
            # a worker may wait for these, as they were handed out before: the pool begins first what came first
            coming.append(pool.submit(lambda each: _together(data, [one.result() for one in each]), samples))
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _together(data: Videos, samples: list[Sample | None]) -> Batch | None:
    """A batch; None where, in evaluation, all of its samples were left out."""
    return data.collate(samples) if any(sample is not None for sample in samples) else None
