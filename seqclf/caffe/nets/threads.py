"""Small nets compute with one thread, because distributing their work takes longer than the work itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import torch

from seqclf.caffe.nets.net import Net

SMALL = 4_000_000
"""A net is small if no layer needs this many operations forward: about a product of two 128 x 128 matrices."""


def largest_work(net: Net) -> int:
    """Returns the operations of the most expensive layer in a forward pass, at the shapes of the prototxt."""
    shapes = net.blob_shapes
    return max(
        (layer.operations([shapes[name] for name in param.bottom], layer.top_shapes) for param, layer in net.sequence),
        default=0,
    )


@contextmanager
def suitable_threads(net: Net) -> Iterator[int]:
    """Computes with one thread inside the ``with`` block if the net is small.

    On a machine with other load, PyTorch's threads wait for each other, and a small net takes many times longer with
    two threads than with one. Only the calling thread is changed; its number of threads is restored at the end.

    Yields:
        the number of threads.
    """
    before = torch.get_num_threads()
    if before == 1 or largest_work(net) >= SMALL:
        yield before
        return
    _set_own_threads(1, before)
    try:
        yield 1
    finally:
        torch.set_num_threads(before)


def _set_own_threads(number: int, default: int) -> None:
    """Sets the number of threads of the calling thread, but keeps the default of threads that start later.

    PyTorch sets both together. So another thread, which ends at once, sets the default again.
    """
    changed = Event()

    def reset() -> None:
        changed.wait()
        torch.set_num_threads(default)

    other = Thread(target=reset)
    other.start()
    torch.set_num_threads(number)
    changed.set()
    other.join()
