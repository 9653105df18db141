"""Small nets compute with one thread: for them, handing work to other threads costs more than the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import torch

from seqclf.caffe.net import Net

WORTH_SHARING = 2_000_000
"""Multiply-adds of a layer from which more than one thread pays off (a product of two 128 x 128 matrices)."""


def largest_work(net: Net) -> int:
    """Estimates the multiply-adds of the most expensive layer, at the shapes of the prototxt.

    A layer with weights multiplies each value of its top with the weights of one output; another one touches each value
    of its top once.
    """
    work = [0]
    for _, layer in net.sequence:
        values = max((prod(shape) for shape in layer.top_shapes), default=0)
        weights = max((blob.numel() // max(1, len(blob)) for blob in layer.blobs if blob.dim() > 1), default=1)
        work.append(values * weights)
    return max(work)


@contextmanager
def suitable_threads(net: Net) -> Iterator[int]:
    """Within it, PyTorch uses one thread if the net is small; afterwards the caller's number again.

    Yields:
        the number of threads.
    """
    before = torch.get_num_threads()
    small = before > 1 and largest_work(net) < WORTH_SHARING
    if not small:
        yield before
        return
    torch.set_num_threads(1)
    try:
        yield 1
    finally:
        torch.set_num_threads(before)
