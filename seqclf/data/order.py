"""The order of samples as a pure function of (seed, step): nothing to save, and any step can be the first."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> Tensor:
    with torch.inference_mode(False):  # what is kept must be an ordinary tensor, whoever asks first
        return torch.randperm(size, generator=torch.Generator().manual_seed(mix(seed, epoch)))


def sample_order(size: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Which samples make the batch of a step.

    The samples are shuffled anew each time all have been seen; a batch may end one pass and begin the next.

    Args:
        size: how many samples there are.
        batch_size: how many a step takes, of all processes together.
        seed: of the run.
        step: from 0.

    Returns:
        ``(batch_size,)`` int64 on the CPU, from 0 to size - 1.
    """
    position = step * batch_size
    parts = []
    while batch_size > 0:
        epoch, start = divmod(position, size)
        part = _permutation(size, seed, epoch)[start : start + batch_size]
        parts.append(part)
        position += len(part)
        batch_size -= len(part)
    return torch.cat(parts)


def mix(*numbers: int) -> int:
    """One seed from several numbers, all its bits stirred (the splitmix64 finaliser, Steele et al. 2014)."""
    z = 0
    for number in numbers:
        z = (z ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        z ^= z >> 31
    return z >> 1
