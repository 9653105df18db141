"""The order of samples as a pure function of (seed, step), so that resuming needs no saved state."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=2)
def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The numbers from 0 to size - 1 in the order of an epoch; not to be written into."""
    with torch.inference_mode(False):  # the cached tensor must be usable outside inference mode
        return torch.randperm(size, generator=torch.Generator().manual_seed(mix(seed, epoch)))


def sample_order(size: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The sample numbers of a training step.

    The samples are reshuffled in every epoch. A batch may span two epochs.

    Args:
        size: the number of samples.
        batch_size: samples per step, of all processes together.
        seed: the seed of the run.
        step: the step, from 0.

    Returns:
        ``(batch_size,)`` int64 on the CPU, from 0 to size - 1.
    """
    return take(size, batch_size, step, lambda epoch: permutation(size, seed, epoch))


def take(size: int, batch_size: int, step: int, order: Callable[[int], Tensor]) -> Tensor:
    """The items of a step from the endless sequence ``order(0)``, ``order(1)``, ... of epochs of ``size`` items."""
    position = step * batch_size
    parts = []
    while batch_size > 0:
        epoch, start = divmod(position, size)
        part = order(epoch)[start : start + batch_size]
        parts.append(part)
        position += len(part)
        batch_size -= len(part)
    return torch.cat(parts)


def mix(*numbers: int) -> int:
    """Hashes several numbers to one seed (the splitmix64 finaliser, Steele et al. 2014)."""
    z = 0
    for number in numbers:
        z = (z ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        z ^= z >> 31
    return z >> 1
