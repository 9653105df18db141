"""PyTorch's global random generators, seeded for a section of code and restored after it."""

from __future__ import annotations

import pickle
import random
import threading
from types import TracebackType
from typing import Any

import numpy as np
import torch

_LOCK = threading.RLock()
"""Held while a section runs: the generators are shared by all threads."""


def default_generator(device: torch.device) -> torch.Generator:
    """The global generator of a device, which ``torch.manual_seed`` seeds."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index if device.index is not None else torch.cuda.current_device()]
    return torch.default_generator


def random_state() -> tuple[Any, ...]:
    """The state of the CPU's global generators of PyTorch, NumPy and Python; it differs once numbers were drawn."""
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(np.random.get_state()), random.getstate()


class seeded:
    """A section of code whose random numbers depend on a seed only.

    The global generators of the CPU and of the device are seeded on entry and restored on exit. Other threads wait
    before their own sections, so that two runs in one process do not draw from each other's numbers.

    Args:
        seed: from 0 to 2 ** 64 - 1.
        device: a second device whose generator is seeded.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self.seed = seed
        self.generators = [torch.default_generator]
        if device is not None and device.type == "cuda":
            torch.cuda.init()
            self.generators.append(default_generator(device))

    def __enter__(self) -> None:
        _LOCK.acquire()
        self.before = [generator.get_state() for generator in self.generators]
        self.reseed(self.seed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for generator, state in zip(self.generators, self.before, strict=True):
            generator.set_state(state)
        _LOCK.release()

    def reseed(self, seed: int) -> None:
        """Seeds the generators again, within the section."""
        for generator in self.generators:
            generator.manual_seed(seed)
