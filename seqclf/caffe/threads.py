"""Small nets compute with one thread: for them, handing work to other threads costs more than the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seqclf.caffe.net import Net

WORTH_SHARING = 4_000_000
"""Operations of a layer's forward pass from which more threads pay off, such as a product of two 128 x 128 matrices."""


def largest_work(net: Net) -> int:
    """The operations of the most expensive layer in a forward pass, at the shapes of the prototxt."""
    shapes = net.blob_shapes
    return max(
        (layer.operations([shapes[name] for name in param.bottom], layer.top_shapes) for param, layer in net.sequence),
        default=0,
    )


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
