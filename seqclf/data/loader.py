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
    for samples in _samples(data, plan):
        if any(sample is not None for sample in samples):  # in evaluation all of a batch may be left out
            yield data.collate(samples)


def _samples(data: Videos, plan: Iterable[tuple[Tensor, int]]) -> Generator[list[Sample | None], None, None]:
    """The samples of each batch, read ahead of time by the data's workers."""
    if data.workers < 1:
        for indices, key in plan:
            yield [data.try_sample(int(i), key) for i in indices]
        return
    pool = ThreadPoolExecutor(data.workers, thread_name_prefix="reader")
    coming: deque[list[Future[Sample | None]]] = deque()
    try:
        for indices, key in plan:
            coming.append([pool.submit(data.try_sample, int(i), key) for i in indices])
            if len(coming) > AHEAD:
                yield [sample.result() for sample in coming.popleft()]
        while coming:
            yield [sample.result() for sample in coming.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
