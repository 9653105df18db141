"""Checks and conversions of the arrays and tensors that callers pass to ``seqclf.caffe.io``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import index as whole
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError

Array: TypeAlias = Tensor | np.ndarray[Any, Any]


def as_tensor(x: Any, what: str) -> Tensor:
    """Returns a tensor unchanged, and an array as a tensor with its own memory."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
        return torch.from_numpy(np.array(x, dtype=x.dtype.name if x.dtype.name in ("uint8", "float64") else "float32"))
    if isinstance(x, Tensor) and not x.is_complex():
        return x
    found = x.dtype if isinstance(x, (np.ndarray, Tensor)) else type(x).__name__
    raise SeqclfError(f"{what}: found {found}, expected a tensor or an array of real numbers")


def as_images(image: Any) -> Tensor:
    x = as_tensor(image, "image")
    if x.ndim < 3 or not x.numel():
        raise SeqclfError(f"image of shape {tuple(x.shape)}: expected (H, W, K), none of them 0")
    return x


def stack_images(images: Iterable[Any]) -> Tensor:
    if not isinstance(images, Iterable):
        raise SeqclfError(f"images: found {type(images).__name__}, expected images (H, W, K)")
    tensors = [as_images(image) for image in images]
    shapes = sorted({tuple(x.shape) for x in tensors})
    if len(shapes) != 1:
        raise SeqclfError(f"images of shapes {shapes}: expected one or more images, all of one shape")
    return torch.stack([x.float() for x in tensors])


def as_size(size: Sequence[int], what: str) -> tuple[int, int]:
    try:
        height, width = (whole(n) for n in size)
    except (TypeError, ValueError):
        raise SeqclfError(f"{what}={size!r}: expected two whole numbers, (height, width)") from None
    if height < 1 or width < 1:
        raise SeqclfError(f"{what}={size!r}: expected a height and a width of at least 1")
    return height, width


def as_shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    try:
        sizes = tuple(whole(n) for n in shape)
    except TypeError:
        sizes = (0,)
    if any(n < 1 for n in sizes):
        raise SeqclfError(f'input "{name}" of shape {shape!r}: expected (N, K, H, W)')
    return sizes


def as_order(order: Sequence[int], length: int, what: str) -> tuple[int, ...]:
    try:
        numbers = tuple(whole(n) for n in order)
    except TypeError:
        numbers = ()
    if len(numbers) != length or any(not -length <= n < length for n in numbers):
        raise SeqclfError(f"{what} {order!r}: expected {length} whole numbers from 0 to {length - 1}, as the input has")
    return tuple(n % length for n in numbers)


def inverse_order(order: tuple[int, ...], what: str) -> tuple[int, ...]:
    if sorted(order) != list(range(len(order))):
        raise SeqclfError(f"{what} is {order}, which has no inverse: expected each number once")
    return tuple(order.index(n) for n in range(len(order)))


def as_number(x: Any, what: str) -> float:
    try:
        number = float(x)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise SeqclfError(f"{what} {x!r}: expected a number")
    return number


def permute_images(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """Permutes the last three axes."""
    return x.permute(*range(x.ndim - 3), *(x.ndim - 3 + axis for axis in order))


def take_channels(x: Tensor, channels: tuple[int, ...]) -> Tensor:
    """Selects entries of the third axis from the end, in new memory."""
    if max(channels) >= x.shape[-3]:
        raise SeqclfError(f"channel swap {channels}: the data have shape {tuple(x.shape)}, expected channels first")
    return torch.stack([x.select(-3, channel) for channel in channels], -3)


def times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[:40])) + (" x ..." if len(shape) > 40 else "") or "empty"
