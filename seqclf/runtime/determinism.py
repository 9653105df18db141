"""Deterministic results on a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from seqclf.batch import SeqclfError


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within the block, operations whose result depends on the order of threads are replaced.

    On a CPU this changes nothing: results are the same for the same number of threads.

    Args:
        wanted: whether to do this.

    Raises:
        SeqclfError: an operation has no deterministic replacement.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is used first
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # it takes time and only helps to find uninitialised reads
    try:
        yield
    except RuntimeError as error:
        if "determinis" not in str(error):
            raise
        raise SeqclfError(f"setting deterministic=True: {' '.join(str(error).split())[:300]}") from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]
