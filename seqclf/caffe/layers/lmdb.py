"""The layer that reads images from an LMDB database."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe.formats.binary import parse_binary
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.images.decode import decode
from seqclf.caffe.layers.image_data import ImageSource
from seqclf.caffe.layers.source import extra, locate

LMDB = 1
"""The value of ``DataParameter.DB``; LEVELDB is 0."""
_META = struct.Struct("=16x II 16x I 92x QQ")
"""The fields of an LMDB meta page: magic number, version, page size, last page, transaction."""


class Data(ImageSource):
    """Images from the ``Datum`` messages of an LMDB database, in the order of their keys (data_layer.cpp)."""

    category = "data"
    caffe_source = "data_layer.cpp"
    limits = "LMDB only, in key order; LevelDB, Caffe's default backend, is refused"
    tops = (1, 2)

    def open_pictures(self) -> None:
        p, t = self.param.data_param, self.param.transform_param
        self.settings, self.flow = p, getattr(t, "flow", False)
        if p.backend != LMDB:
            self.fail(
                "backend LEVELDB (Caffe's default) can't be read: create the database again with "
                "convert_imageset -backend lmdb, and set backend: LMDB"
            )
        colour, grey = p.force_encoded_color or getattr(t, "force_color", False), getattr(t, "force_gray", False)
        if colour and grey:
            self.fail("forces both colour and grey, expected one of them")
        self.colour = True if colour else False if grey else None
        self.database = locate(self, p.source, "source")
        self.check_length()
        self.keys: list[bytes] = self.read(lambda reading: list(reading.cursor().iternext(values=False)))
        if not self.keys:
            self.fail(f"source {self.database} has no entries")

    def check_length(self) -> None:
        """Raises an error for a truncated database: LMDB maps its file, and a read past its end kills the process."""
        file = self.database / "data.mdb" if self.database.is_dir() else self.database
        try:
            size = file.stat().st_size
            with open(file, "rb") as opened:
                first = opened.read(_META.size)
                opened.seek(_META.unpack(first)[2])  # the size of a page
                both = [_META.unpack(meta) for meta in (first, opened.read(_META.size))]
        except (OSError, struct.error):
            return  # LMDB itself reports it
        magic, version, page, last, _ = max(both, key=lambda meta: meta[4])
        if (magic, version) == (0xBEEFC0DE, 1) and size < (last + 1) * page:
            self.fail(f"source {self.database}: cut short: {size} bytes of {last + 1} pages of {page}")

    def read(self, what: Callable[[Any], Any]) -> Any:
        """Reads from the database, which is closed again, as LMDB lets a process open one only once."""
        lmdb = extra(self, "lmdb")
        options = {"readonly": True, "lock": False, "subdir": self.database.is_dir()}
        try:
            with lmdb.open(str(self.database), **options) as database, database.begin() as reading:
                return what(reading)
        except lmdb.Error as error:
            self.fail(f"source {self.database}: not an LMDB database, or damaged ({error})")

    def pictures(self, first: int, count: int) -> Iterator[tuple[str, Tensor, int]]:
        keys = [self.keys[i % len(self.keys)] for i in range(first, first + count)]
        values = self.read(lambda reading: list(map(reading.get, keys)))
        for key, value in zip(keys, values, strict=True):
            where = f"{self.database}, key {key.decode(errors='replace')!r}"
            datum: Any = self.caught(parse_binary, value or b"", schema().Datum(), where)
            yield where, self.decoded(datum, where), datum.label

    def decoded(self, datum: Any, where: str) -> Tensor:
        """The image of a ``Datum``: ``(C, H, W)`` uint8, or float32 if it holds floats."""
        if datum.encoded:
            if self.flow:
                self.fail(f"{where}: transform_param: flow is for raw images, this one is encoded")
            return self.caught(decode, BytesIO(datum.data), self.colour, where=where)
        if self.colour is not None:
            self.fail(f"{where}: colour or grey can be forced for encoded images only, this one is raw")
        shape, values = (datum.channels, datum.height, datum.width), datum.data or datum.float_data
        if min(shape) < 1 or len(values) != prod(shape):
            self.fail(f"{where}: {len(values)} values, expected those of a picture of shape {shape}")
        if datum.data:
            return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)
        return torch.from_numpy(np.array(values, np.float32).reshape(shape))

    @staticmethod
    def summary(param: Any) -> str:
        return Path(param.data_param.source).name
