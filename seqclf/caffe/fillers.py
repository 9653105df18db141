"""Caffe's weight fillers (filler.hpp)."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def fill(blob: Tensor, filler: Any) -> None:
    """Fills a blob in place as a ``FillerParameter`` says, drawn from PyTorch's global generator."""
    raise NotImplementedError
