"""Mean files, and ``BlobProto`` messages as arrays."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.files import LARGEST_BLOB, countable
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.images.arrays import Array, as_tensor, times


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Tensor:
    """Converts a ``BlobProto``'s data, or its diff, to a float32 tensor of its shape.

    Raises:
        CaffeFormatError: the shape is invalid, or does not match the number of values.
    """
    return _to_tensor(blob, return_diff, "BlobProto")


def array_to_blobproto(array: Array, diff: Array | None = None, flavour: str = "bvlc") -> Any:
    """Converts an array, and optionally its diff, to a ``BlobProto``.

    Args:
        array: the values; four axes for lisa-caffe, whose message has the fields num to width.
        diff: the gradient, of the same shape.
        flavour: "bvlc" or "lisa".

    Raises:
        SeqclfError: another shape, or not an array of numbers.
    """
    blob: Any = schema(flavour).BlobProto()
    x = as_tensor(array, "array")
    if flavour == "bvlc":
        blob.shape.dim.extend(x.shape)
    elif x.ndim == 4:
        blob.num, blob.channels, blob.height, blob.width = x.shape
    else:
        raise SeqclfError(f"array of shape {tuple(x.shape)}: lisa-caffe's blobs have four axes")
    blob.data.extend(x.float().flatten().tolist())
    if diff is not None:
        d = as_tensor(diff, "diff")
        if d.shape != x.shape:
            raise SeqclfError(f"diff of shape {tuple(d.shape)}: expected {tuple(x.shape)}, that of the array")
        blob.diff.extend(d.float().flatten().tolist())
    return blob


def read_mean(path: str | Path, flavour: str = "bvlc") -> Tensor:
    """Reads a mean file, ``.binaryproto`` (a ``BlobProto``) or ``.npy``, for ``Transformer.set_mean``.

    Returns:
        float32, ``(K, H, W)``, ``(H, W)`` or ``(K,)``; the first axis of ``(1, K, H, W)`` is dropped.

    Raises:
        CaffeFormatError: the file is missing or damaged, or does not hold a mean.
    """
    path = Path(path)
    blob: Any = schema(flavour).BlobProto()
    try:
        if not path.is_file():
            raise CaffeFormatError(f"{path}: no such file")
        if path.stat().st_size > LARGEST_BLOB:
            raise CaffeFormatError(f"{path}: larger than 2 GiB, more than Caffe reads")
        content = path.read_bytes()
    except OSError as error:
        raise CaffeFormatError(f"{path}: can't be read ({error.strerror})") from None
    if content.startswith(np.lib.format.MAGIC_PREFIX):
        mean = _read_npy(content, path)
    else:
        try:
            blob.ParseFromString(content)
        except DecodeError as error:
            raise CaffeFormatError(f"{path}: not a BlobProto, or damaged ({error})") from None
        mean = _to_tensor(blob, False, str(path))
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    if mean.ndim not in (1, 2, 3) or not mean.numel():
        raise CaffeFormatError(f"{path}: holds an array of shape {tuple(mean.shape)}, expected a mean (K, H, W)")
    if not mean.isfinite().all():
        raise CaffeFormatError(f"{path}: its data hold values that are not finite")
    return mean


def _read_npy(content: bytes, path: Path) -> Tensor:
    stream = BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read_header(stream)
    except Exception as error:  # NumPy evaluates the header as Python, which can raise anything
        raise CaffeFormatError(f"{path}: a .npy file whose header is damaged ({error})") from None
    data = content[stream.tell() :]
    if dtype.kind not in "fiu" or len(shape) > 4:
        raise CaffeFormatError(f"{path}: holds {dtype} in {len(shape)} axes, expected numbers in at most 4")
    if any(n < 1 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise CaffeFormatError(f"{path}: its data are {len(data)} bytes, but its shape is {times(shape)} of {dtype}")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return as_tensor(array, str(path)).float()


def _to_tensor(blob: Any, return_diff: bool, where: str) -> Tensor:
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):  # these take precedence over a shape (Blob::FromProto)
        field, shape = " x ".join(legacy), [getattr(blob, name) for name in legacy]
    else:
        field, shape = "shape", list(blob.shape.dim)
    if not countable(shape):
        raise CaffeFormatError(
            f"{where}: {field} is {times(shape)}, expected at most 32 axes, none negative, of at most 2**31 - 1 values"
        )
    name = "diff" if return_diff else "data"
    name = f"double_{name}" if getattr(blob, f"double_{name}") else name
    values = getattr(blob, name)
    if len(values) != math.prod(shape):
        raise CaffeFormatError(f"{where}: {name} holds {len(values)} values, but {field} is {times(shape)}")
    array = np.fromiter(values, np.float64 if name.startswith("double") else np.float32, len(values))
    return torch.from_numpy(array).float().reshape(shape)


def read_mean_image(path: str | Path) -> Tensor:
    """Like ``read_mean``, for a data layer: the mean must be an image ``(K, H, W)``."""
    mean = read_mean(path)
    if mean.ndim != 3:
        raise CaffeFormatError(
            f"{path}: holds an array of shape {tuple(mean.shape)}, expected a mean image (1, K, H, W)"
        )
    return mean
