"""Prefetching of batches: threads read videos while the model runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock

from torch import Tensor

from seqclf.batch import Batch
from seqclf.data.batch_memory import Rows
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
            yield _collate(data, [data.try_sample(i, key) for i in indices.tolist()])
        return
    pool = ThreadPoolExecutor(data.workers, thread_name_prefix="reader")
    coming: deque[Future[Batch | None]] = deque()
    try:
        for indices, key in plan:
            clips = _Clips(data, indices.tolist(), key)
            for row in range(len(indices)):
                pool.submit(clips.read, row)
            coming.append(clips.batch)
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Clips:
    """The clips of a batch, which threads read. The thread that reads the last one collates them, so none waits."""

    def __init__(self, data: Videos, indices: list[int], key: int) -> None:
        self.data, self.indices, self.key = data, indices, key
        self.rows = Rows(len(indices), data.memory)
        self.samples: dict[int, Sample | BaseException | None] = {}  # by row
        self.batch: Future[Batch | None] = Future()
        if not indices:
            self.batch.set_result(None)
        self._lock = Lock()

    def read(self, row: int) -> None:
        """Reads the clip of a row; after the last one, sets ``batch``, or the error of the first row that has one."""
        sample: Sample | BaseException | None
        try:
            sample = self.data.try_sample(self.indices[row], self.key, partial(self.rows.take, row))
        except BaseException as error:
            sample = error
        with self._lock:
            self.samples[row] = sample
            if len(self.samples) < len(self.indices):
                return
        try:
            samples = [self.sample(row) for row in range(len(self.indices))]
            self.batch.set_result(_collate(self.data, samples, self.rows))
        except BaseException as error:
            self.batch.set_exception(error)

    def sample(self, row: int) -> Sample | None:
        """The sample of a row; raises the error that reading it raised."""
        sample = self.samples[row]
        if isinstance(sample, BaseException):
            raise sample
        return sample


def _collate(data: Videos, samples: list[Sample | None], rows: Rows | None = None) -> Batch | None:
    """A batch; None if all of its samples were skipped, in evaluation."""
    return data.collate(samples, rows) if any(sample is not None for sample in samples) else None
