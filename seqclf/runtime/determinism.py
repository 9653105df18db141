"""The same numbers from the same seeds on the same GPU, twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from seqclf.batch import SeqclfError


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """While inside, and if wanted, operations whose result depends on the order of threads are replaced, or refused.

    On a CPU that changes nothing: with the same number of threads its results are the same anyway.

    Raises:
        SeqclfError: an operation has no such replacement.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # which costs time, and is for finding what reads such memory
    try:
        yield
    except RuntimeError as error:
        if "determinis" not in str(error):
            raise
        raise SeqclfError(f"setting deterministic=True: {' '.join(str(error).split())[:300]}") from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]
