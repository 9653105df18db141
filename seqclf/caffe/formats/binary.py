"""Reading and writing of binary protobuf files, without copying the values of blobs.

Blobs are nearly all of the bytes of a ``.caffemodel``. Parsing them with protobuf takes three times the memory and time
of reading the file. So ``cut`` returns the values as views of the mapped file, and protobuf parses the rest. No memory
is allocated beyond the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from math import prod
from typing import Any, TypeVar, cast

import numpy as np
from google.protobuf.message import Message

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.files import Array, countable
from seqclf.caffe.formats.schema import schema

M = TypeVar("M")

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_NUMBERS = {5: ("data", "<f4"), 6: ("diff", "<f4"), 8: ("double_data", "<f8"), 9: ("double_diff", "<f8")}
"""The fields of a ``BlobProto`` that are cut out, and the types of their values."""
_BLOBS_IN: dict[str, dict[int | None, int | None]] = {
    "NetParameter": {100: 7, 2: 6},
    "SolverState": {3: None},
    "BlobProto": {None: None},
}
"""The fields that hold layers and, within these, the field that holds blobs (None: no level between)."""


@dataclass
class Blob:
    """A blob in a file.

    Attributes:
        shape: its shape; four axes if it is in the form of 2014 (num, channels, height, width).
        legacy: whether it is in that form, in which shapes of fewer axes have leading ones.
        data: the values, flat, float32 or float64; a view of the file if that is mapped.
        absent: whether the file leaves the blob out because another layer owns it, as HDF5 files do.
    """

    shape: tuple[int, ...]
    legacy: bool
    data: Array
    absent: bool = False

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it fits a parameter of this shape (Blob::ShapeEquals)."""
        if not self.legacy:
            return self.shape == shape
        return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + shape


@dataclass
class _Cut:
    """The values of one blob, in the pieces found in the file."""

    pieces: dict[str, list[Any]] = dataclass_field(default_factory=dict)


def parse_binary(data: Any, message: M, name: str) -> M:
    """Parses a message from protobuf's binary form.

    Args:
        data: the bytes.
        message: an empty message, which is filled and returned.
        name: the file, for errors.

    Raises:
        CaffeFormatError: the bytes are not such a message.
    """
    try:
        message.ParseFromString(bytes(data))  # type: ignore[attr-defined]
    except Exception as error:  # damaged bytes make the parser raise more than DecodeError
        raise CaffeFormatError(f"{name}: not a {cast(Any, message).DESCRIPTOR.name}, or damaged ({error})") from None
    missing = message.FindInitializationErrors()  # type: ignore[attr-defined]
    if missing:
        raise CaffeFormatError(f"{name}: required field {missing[0]} is missing")
    try:
        _check_strings(message, name)
    except UnicodeDecodeError as error:
        raise CaffeFormatError(f"{name}: holds text that is not UTF-8 ({error})") from None
    return message


def _check_strings(message: Any, name: str, within: str = "") -> None:
    """Raises an error for strings that are not UTF-8. Protobuf raises it only when the field is read."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if any(not isinstance(one, str) for one in ((value,) if isinstance(value, (str, bytes)) else value)):
                raise CaffeFormatError(f"{name}: field {within}{field.name}: not text in UTF-8")
        elif isinstance(value, Message):
            _check_strings(value, name, f"{within}{field.name}.")
        elif field.message_type is not None:
            for i, inner in enumerate(value):
                _check_strings(inner, name, f"{within}{field.name}[{i}].")


def cut(data: Any, kind: str, name: str) -> tuple[bytes, dict[int | None, list[list[_Cut]]]]:
    """Separates a binary message from the numbers of its blobs.

    Args:
        data: the bytes, or a view of them.
        kind: "NetParameter", "SolverState" or "BlobProto".
        name: the file, for errors.

    Returns:
        the bytes without the numbers, which are a message of that kind; and for each field number of layers, the
        numbers of each layer's blobs, in order. A ``SolverState``'s are under 3, a ``BlobProto``'s under None, as one
        layer.

    Raises:
        CaffeFormatError: the bytes are truncated, or not a message.
    """
    view = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
    where = _BLOBS_IN[kind]
    cuts: dict[int | None, list[list[_Cut]]] = {number: [] for number in where}
    out = bytearray()
    if kind == "BlobProto":
        cuts[None].append([_cut_blob(view, out, name)])
        return bytes(out), cuts
    for number, start, at, payload in _fields(view, name):
        if payload is None or number not in where:
            out += view[start:at]
            continue
        inside, blobs, layer = where[number], [], bytearray()
        if inside is None:
            blobs.append(_cut_blob(payload, layer, name))
            if not cuts[number]:
                cuts[number].append([])
            cuts[number][0] += blobs
        else:
            for inner, begin, end, blob in _fields(payload, name):
                if inner == inside and blob is not None:
                    kept = bytearray()
                    blobs.append(_cut_blob(blob, kept, name))
                    layer += head(inner, len(kept)) + kept
                else:
                    layer += payload[begin:end]
            cuts[number].append(blobs)
        out += head(number, len(layer)) + layer
    return bytes(out), cuts


def _cut_blob(view: memoryview, out: bytearray, name: str) -> _Cut:
    result = _Cut()
    for number, start, at, payload in _fields(view, name):
        if payload is not None and number in _NUMBERS:
            result.pieces.setdefault(_NUMBERS[number][0], []).append(payload)
        else:
            out += view[start:at]
    return result


def _fields(view: memoryview, name: str) -> Iterator[tuple[int, int, int, memoryview | None]]:
    """Yields each field of a message: number, start, end, and its bytes if it has a length."""
    at, end = 0, len(view)
    while at < end:
        start = at
        tag, at = _varint(view, at, name)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise CaffeFormatError(f"{name}: damaged (there is no field {number})")
        payload = None
        if wire == VARINT:
            _, at = _varint(view, at, name)
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        elif wire == BYTES:
            size, at = _varint(view, at, name)
            payload = view[at : at + size]
            at += size
        else:
            raise CaffeFormatError(f"{name}: damaged (wire type {wire} of field {number} is none that Caffe writes)")
        if at > end:
            raise CaffeFormatError(f"{name}: cut short (field {number} runs {at - end} bytes past the end)")
        yield number, start, at, payload


def _varint(view: memoryview, at: int, name: str) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        if at >= len(view):
            raise CaffeFormatError(f"{name}: cut short (in the middle of a number)")
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise CaffeFormatError(f"{name}: damaged (a number of more than 64 bits)")


def head(number: int, size: int) -> bytes:
    """Returns the tag and length of a field with a length."""
    out = bytearray()
    for value in (number << 3 | BYTES, size):
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


def blob_of(message: Any, cut: _Cut | None, name: str) -> Blob:
    """Combines a blob's message and the numbers that were cut out of it.

    Args:
        message: the ``BlobProto``.
        cut: its numbers; None if they are still in the message.
        name: file, layer and blob, for errors.

    Raises:
        CaffeFormatError: the shape is invalid, or does not match the number of values.
    """
    fields = ("num", "channels", "height", "width")
    legacy = any(message.HasField(field) for field in fields)
    shape = tuple(getattr(message, field) for field in fields) if legacy else tuple(message.shape.dim)
    if not countable(shape):
        raise CaffeFormatError(f"{name}: shape {shape}: Caffe's blobs have at most 32 axes, and 2**31 - 1 values")
    values = None
    for which in ("double_data", "data"):
        pieces, loose = cut.pieces.get(which, []) if cut else [], getattr(message, which)
        kind = _NUMBERS[8 if which == "double_data" else 5][1]
        if any(len(piece) % int(kind[-1]) for piece in pieces):
            raise CaffeFormatError(f"{name}: field {which} does not hold a whole number of values")
        arrays = [np.frombuffer(piece, kind) for piece in pieces if len(piece)]
        if len(loose):  # unpacked, which Caffe itself never writes
            arrays.append(np.array(loose, kind))
        if len(arrays) and values is None:
            values = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if values is None:
        values = np.empty(0, "<f4")
    if prod(shape) != len(values):
        raise CaffeFormatError(f"{name}: shape {shape} needs {prod(shape)} values, found {len(values)}")
    return Blob(shape, legacy, values)


def write_blob(array: Array) -> list[Any]:
    """Returns the bytes of an array's ``BlobProto`` in the order of Blob::ToProto, without copying the values."""
    shape = schema().BlobProto()
    if array.ndim:  # a blob without axes has no shape field
        shape.shape.dim.extend(array.shape)
    end = shape.SerializeToString()
    double = array.dtype == np.float64
    values = np.ascontiguousarray(array, "<f8" if double else "<f4").reshape(-1).view(np.uint8).data
    numbers = [head(8 if double else 5, len(values)), values] if len(values) else []
    return [end, *numbers] if double else [*numbers, end]


def with_blobs(message: Any, number: int, arrays: Iterable[Array]) -> Iterator[Any]:
    """Yields the bytes of a message, with blobs inserted as field ``number`` in the order of field numbers."""
    data = memoryview(message.SerializeToString())
    at = next((start for field, start, _, _ in _fields(data, "") if field > number), len(data))
    yield data[:at]
    for array in arrays:
        blob = write_blob(array)
        yield head(number, sum(map(len, blob)))
        yield from blob
    yield data[at:]
