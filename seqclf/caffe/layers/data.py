"""Layers that give a net its batches, and the one that writes them to a file.

What is random (shuffling, crops, mirroring, skips, random dummy data) is a pure function of PyTorch's seed as it was
when the net was built, the layer's name and the batch's number. So two nets built after ``torch.manual_seed(0)`` see
the same data, and one that is told ``seek(n)`` goes on as one that has drawn n batches.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from importlib import import_module
from io import BytesIO
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe.binary import parse_binary
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.fillers import fill
from seqclf.caffe.layers.base import Layer, Shape
from seqclf.caffe.schema import schema
from seqclf.caffe.transform import Transform, decode, read_mean, resize

LMDB = 1
"""``DataParameter.DB``, whose 0 is LEVELDB."""
_META = struct.Struct("=16x II 16x I 92x QQ")
"""How an LMDB page of the two that say the newest state begins: magic number, version, page size, last page, count."""


def locate(layer: Layer, name: str, what: str) -> Path:
    """The file that a layer names: relative to the working directory as in Caffe, or else to the net's own file."""
    if not name:
        layer.fail(f"has no {what}")
    places = dict.fromkeys((Path(name).absolute(), Path(layer.net.file).absolute().parent / name))
    for place in places:
        if os.path.isfile(place) or os.path.isdir(place):  # and no device, which may never end
            return place
    layer.fail(f'{what} "{name}" is missing: looked for {" and ".join(map(str, places))}')


def extra(layer: Layer, package: str) -> Any:
    """A package that only some layers need."""
    try:
        return import_module(package)
    except ImportError:
        layer.fail(f"needs the {package} package: pip install 'seqclf[caffe]'")


def as_floats(layer: Layer, value: Any, what: str) -> Tensor:
    """Numbers of any kind as a float32 tensor that may be written to."""
    if isinstance(value, Tensor) and not value.is_complex():
        return value.detach().float()
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return torch.from_numpy(np.require(array, np.float32, ("C", "W")))
        found = f"{array.dtype} values"
    except (TypeError, ValueError) as error:
        found = str(error)
    layer.fail(f"{what}: expected an array of numbers, found {found}")


class Source(Layer):
    """What all layers that give batches share: ``batch(n)`` gives batch n, and ``forward`` one after the other."""

    bottoms: ClassVar[tuple[int, int | None]] = (0, 0)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.seed, self.drawn = torch.initial_seed(), 0
        self.last_order: tuple[tuple[object, ...], Tensor] = (("none",), torch.empty(0))
        return self.open()

    def open(self) -> list[Shape]:
        """Opens the source and gives the shapes of the tops."""
        raise NotImplementedError

    def batch(self, n: int) -> tuple[Tensor, ...]:
        """The tops of batch n, float32 on the CPU."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        tops = self.batch(self.drawn)
        self.drawn += 1
        return tops

    def position(self) -> int:
        """How many batches were drawn."""
        return self.drawn

    def seek(self, n: int) -> None:
        """Goes to where n batches were drawn."""
        self.drawn = n

    def size(self, param: Any) -> int:
        """The ``batch_size`` of the layer's own parameters."""
        if param.batch_size < 1:
            self.fail(f"batch_size {param.batch_size}, expected 1 or more")
        return param.batch_size

    def random_seed(self, *what: object) -> int:
        """A number as if at random, the same for the same seed, layer and ``what``."""
        return int.from_bytes(
            blake2b(repr((self.seed, self.param.name, *what)).encode(), digest_size=8).digest(), "big"
        )

    def generator(self, *what: object) -> torch.Generator:
        return torch.Generator().manual_seed(self.random_seed(*what))

    def order(self, rows: int, *what: object) -> Tensor:
        """``(rows,)`` int64, the rows shuffled; the last order is kept."""
        if self.last_order[0] != what:
            self.last_order = what, torch.randperm(rows, generator=self.generator(*what))
        return self.last_order[1]


class Input(Layer):
    """Stands for values that the caller gives, of ``input_param.shape`` (input_layer.cpp)."""

    category = "data"
    caffe_source = "input_layer.cpp"
    in_lisa = False
    limits = "its values are arguments of `net(...)`"
    bottoms = (0, 0)
    tops = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        given, names = self.param.input_param.shape, self.param.top
        if len(given) not in (1, len(names)):
            missing = ", ".join(f'"{name}"' for name in names[len(given) :])
            which = f"none for {missing}" if missing else f"{len(given)}"
            self.fail(f"shapes in input_param: {which}, expected one, or one for each of {len(names)} tops")
        return [tuple(_for_top(given, i).dim) for i in range(len(names))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        self.fail(f"needs values for {', '.join(self.param.top)}")


class DummyData(Source):
    """Tops of given shapes, filled by fillers anew for each batch (dummy_data_layer.cpp)."""

    category = "data"
    caffe_source = "dummy_data_layer.cpp"
    limits = "refilled for every batch; random values differ from Caffe's"
    tops = (1, None)

    def open(self) -> list[Shape]:
        p, tops = self.param.dummy_data_param, len(self.param.top)
        if len(p.data_filler) not in (0, 1, tops):
            self.fail(f"has {len(p.data_filler)} data_fillers, expected none, one, or one for each of {tops} tops")
        legacy = {name: getattr(p, name) for name in ("num", "channels", "height", "width")}
        if any(map(len, legacy.values())):
            if len(p.shape):
                self.fail("has both shape and num, channels, height, width, expected one or the other")
            for name, sizes in legacy.items():
                if len(sizes) not in (1, tops):
                    self.fail(f"has {len(sizes)} values of {name}, expected one, or one for each of {tops} tops")
            self.shapes = [tuple(_for_top(sizes, i) for sizes in legacy.values()) for i in range(tops)]
        elif len(p.shape) in (1, tops):
            self.shapes = [tuple(_for_top(p.shape, i).dim) for i in range(tops)]
        else:
            self.fail(f"has {len(p.shape)} shapes, expected one, or one for each of {tops} tops")
        for shape in self.shapes:
            self.check_size(shape)
        self.check_memory(sum(map(prod, self.shapes)), "its tops")
        self.batch(0)  # what a filler can't do is told now
        return list(self.shapes)

    def batch(self, n: int) -> tuple[Tensor, ...]:
        tops = tuple(torch.empty(shape, dtype=torch.float32) for shape in self.shapes)
        fillers = self.param.dummy_data_param.data_filler
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.random_seed("batch", n))
            for i, top in enumerate(tops):
                try:
                    fill(top, _for_top(fillers, i) if len(fillers) else None)
                except CaffeFormatError as error:
                    self.fail(f'top "{self.param.top[i]}": {error}')
        return tops


class MemoryData(Source):
    """Batches of arrays that ``set`` is given, over and over (memory_data_layer.cpp)."""

    category = "data"
    caffe_source = "memory_data_layer.cpp"
    limits = "call `set(data, labels)` on the layer, found in `net.sequence`"
    tops = (2, 2)

    def open(self) -> list[Shape]:
        p = self.param.memory_data_param
        self.shape = (p.batch_size, p.channels, p.height, p.width)
        if not prod(self.shape):
            self.fail(f"batch_size, channels, height, width are {self.shape}, expected 1 or more of each")
        if self.param.HasField("transform_param"):
            self.fail("transform_param: arrays in memory are given as they are, expected none")
        self.data: Tensor | None = None
        return [self.shape, self.shape[:1]]

    def set(self, data: Any, labels: Any) -> None:
        """Takes other data, from their first batch on (MemoryDataLayer::Reset).

        Args:
            data: ``(n, C, H, W)`` of any kind of number, n a multiple of the batch size.
            labels: ``(n,)`` or ``(n, 1, 1, 1)``.

        Raises:
            CaffeFormatError: the shapes do not fit the layer or each other.
        """
        values, numbers = as_floats(self, data, "data"), as_floats(self, labels, "labels")
        size, *rest = self.shape
        n = len(values) if values.ndim else 0
        if n < 1 or n % size or list(values.shape[1:]) != rest:
            want = ", ".join(map(str, rest))
            self.fail(
                f"data of shape {tuple(values.shape)}, expected (n, {want}) with n a multiple of batch_size {size}"
            )
        if numbers.shape not in ((n,), (n, 1, 1, 1)):
            self.fail(f"labels of shape {tuple(numbers.shape)}, expected ({n},) as there are data")
        self.data, self.labels, self.drawn = values, numbers.reshape(n), 0

    def batch(self, n: int) -> tuple[Tensor, ...]:
        if self.data is None:
            self.fail("has no data yet: call its set(data, labels)")
        size = self.shape[0]
        at = n * size % len(self.data)
        return self.data[at : at + size].clone(), self.labels[at : at + size].clone()


class HDF5Data(Source):
    """Rows of the datasets named like the tops, from all files of a list in turn (hdf5_data_layer.cpp).

    A batch goes on from one file to the next, and from the last to the first. ``shuffle`` shuffles the files, and the
    rows of each, anew every time round.
    """

    category = "data"
    caffe_source = "hdf5_data_layer.cpp"
    limits = "reads files in order; with `shuffle`, the order differs from Caffe's"
    tops = (1, None)

    def open(self) -> list[Shape]:
        p = self.param.hdf5_data_param
        self.batch_size = self.size(p)
        if self.param.HasField("transform_param"):
            self.fail("transform_param: data in HDF5 are given as they are, expected none")
        source = locate(self, p.source, "source")
        self.files = [locate(self, name, f'file of source "{p.source}"') for name in _text(self, source).split()]
        if not self.files:
            self.fail(f"source {source} names no files")
        self.loaded: tuple[int, list[Tensor]] = (-1, [])
        self.rows: list[int] = []
        kinds: list[Shape] = []
        for path in self.files:
            shapes = self.read(path, lambda data: tuple(data.shape))
            kinds = kinds or [shape[1:] for shape in shapes]
            for name, shape, kind in zip(self.param.top, shapes, kinds, strict=True):
                if shape[0] != shapes[0][0] or shape[0] < 1 or shape[1:] != kind:
                    self.fail(
                        f'{path}: dataset "{name}" has shape {shape}, expected rows of shape {kind}, '
                        f'as many as of "{self.param.top[0]}" and at least one'
                    )
            self.rows.append(shapes[0][0])
        return [(self.batch_size, *kind) for kind in kinds]

    def read(self, path: Path, what: Callable[[Any], Any]) -> list[Any]:
        """Something of each top's dataset in a file."""
        h5py = extra(self, "h5py")
        try:
            with h5py.File(path, "r") as file:
                for name in self.param.top:
                    data = file.get(name)
                    if not isinstance(data, h5py.Dataset):
                        self.fail(f'{path}: has no dataset "{name}", only {", ".join(file) or "nothing"}')
                    if not data.shape or data.dtype.kind not in "iuf":
                        self.fail(f'{path}: dataset "{name}" ({data.dtype} {data.shape}), expected rows of numbers')
                return [what(file[name]) for name in self.param.top]
        except OSError as error:
            self.fail(f"{path}: not an HDF5 file, or damaged ({error})")

    def batch(self, n: int) -> tuple[Tensor, ...]:
        shuffle, many = self.param.hdf5_data_param.shuffle, len(self.files)
        row, left = n * self.batch_size, self.batch_size
        pieces: list[list[Tensor]] = []
        while left:
            turn, at = divmod(row, sum(self.rows))
            files = torch.randperm(many, generator=self.generator("files", turn)).tolist() if shuffle else range(many)
            ends = list(accumulate(self.rows[i] for i in files))
            file = files[bisect_right(ends, at)]
            at -= ends[bisect_right(ends, at)] - self.rows[file]
            count = min(left, self.rows[file] - at)
            if self.loaded[0] != file:
                read = self.read(self.files[file], lambda data: torch.from_numpy(data.astype(np.float32)[...]))
                self.loaded = file, read
            rows = (
                self.order(self.rows[file], "rows", turn, file)[at : at + count] if shuffle else slice(at, at + count)
            )
            pieces.append([data[rows] for data in self.loaded[1]])
            row, left = row + count, left - count
        return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))

    @staticmethod
    def summary(param: Any) -> str:
        return Path(param.hdf5_data_param.source).name


class HDF5Output(Layer):
    """Writes its bottoms as the datasets "data" and "label" of a file (hdf5_output_layer.cpp).

    As in Caffe, datasets have four axes, and the file is a new one. Where Caffe can write one batch only, more batches
    are more rows.
    """

    category = "data"
    caffe_source = "hdf5_output_layer.cpp"
    limits = "writes `data` and `label`; every batch is appended, while Caffe can write only one"
    bottoms = (2, 2)
    tops = (0, 0)
    names: ClassVar = ("data", "label")

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        extra(self, "h5py")  # told now rather than after the first batch
        self.path = Path(self.param.hdf5_output_param.file_name)
        if not self.path.name:
            self.fail("has no file_name")
        if not os.path.isdir(self.path.parent):
            self.fail(f"file_name {self.path}: there is no folder {self.path.parent.absolute()}")
        self.check(*shapes)
        self.written = False
        return []

    def check(self, *shapes: Shape) -> None:
        if max(map(len, shapes)) > 4 or shapes[0][:1] != shapes[1][:1]:
            self.fail(f"bottoms of shapes {shapes[0]} and {shapes[1]}, expected as many rows and at most 4 axes")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        self.check(*(tuple(x.shape) for x in bottoms))
        try:
            with extra(self, "h5py").File(self.path, "a" if self.written else "w") as file:
                for name, x in zip(self.names, bottoms, strict=True):
                    rows = x.detach().cpu().reshape(*x.shape, *(1,) * (4 - x.ndim)).numpy()
                    if self.written:
                        file[name].resize(len(file[name]) + len(rows), 0)
                        file[name][-len(rows) :] = rows
                    else:
                        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]))
        except OSError as error:
            self.fail(f"file_name {self.path}: can't be written ({error})")
        self.written = True
        return ()


class _Pictures(Source):
    """What layers share that give transformed pictures ``(N, C, h, w)``, BGR, and labels ``(N,)``."""

    settings: Any
    """The layer type's own parameters."""

    def open(self) -> list[Shape]:
        p = self.param.transform_param
        mean = self.caught(read_mean, locate(self, p.mean_file, "mean_file")) if p.HasField("mean_file") else None
        self.transform = self.caught(Transform, p, mean)
        self.open_pictures()
        self.batch_size = self.size(self.settings)
        skip = self.settings.rand_skip
        self.skip = int(torch.randint(skip, (), generator=self.generator("skip"))) if skip else 0
        where, picture, _ = next(self.pictures(self.skip, 1))
        shape = self.caught(self.transform.shape, tuple(picture.shape), where=where)
        return [(self.batch_size, *shape), (self.batch_size,)][: len(self.param.top)]

    def open_pictures(self) -> None:
        """Opens the source, and sets ``settings``."""
        raise NotImplementedError

    def pictures(self, first: int, count: int) -> Iterator[tuple[str, Tensor, int]]:
        """The pictures from one on, which may be past the last: where they are, ``(C, H, W)``, and their labels."""
        raise NotImplementedError

    def caught(self, function: Callable[..., Any], *args: Any, where: str = "") -> Any:
        """What the function gives; its error becomes the layer's."""
        try:
            return function(*args)
        except CaffeFormatError as error:
            self.fail(f"{where}: {error}" if where else str(error))

    def batch(self, n: int) -> tuple[Tensor, ...]:
        size, generator = self.batch_size, self.generator("batch", n)
        data, labels = torch.empty(0), torch.empty(size)
        for i, (where, picture, label) in enumerate(self.pictures(self.skip + n * size, size)):
            x = self.caught(self.transform, picture, self.training, generator, where=where)
            if i == 0:  # a batch takes the shape of its first picture
                data = x.new_empty(size, *x.shape)
            if x.shape != data.shape[1:]:
                self.fail(f"{where}: a picture of shape {tuple(x.shape)} in a batch of {tuple(data.shape[1:])}")
            data[i], labels[i] = x, label
        return (data, labels)[: len(self.param.top)]


class ImageData(_Pictures):
    """Pictures from files that a list names, each with a label after the last space (image_data_layer.cpp)."""

    category = "data"
    caffe_source = "image_data_layer.cpp"
    limits = "resizes bit for bit like OpenCV; random crops, mirroring and order differ from Caffe's"
    tops = (2, 2)

    def open_pictures(self) -> None:
        p = self.settings = self.param.image_data_param
        for name in ("force_color", "force_gray", "flow"):
            if getattr(self.param.transform_param, name, False):
                self.fail(
                    f"transform_param: {name} is for Data layers; is_color says whether pictures are in colour here"
                )
        for kind in ("new", "min"):
            height, width = getattr(p, f"{kind}_height", 0), getattr(p, f"{kind}_width", 0)
            if bool(height) != bool(width):
                self.fail(f"{kind}_height {height} and {kind}_width {width}, expected both or neither")
        self.list = locate(self, p.source, "source")
        self.lines: list[tuple[str, str, int]] = []
        for number, line in enumerate(_text(self, self.list).split("\n"), 1):
            if line.strip():
                parts = re.fullmatch(r"\s*(\S.*?)\s+(-?\d+)\s*", line)
                if parts is None:
                    self.fail(f"{self.list}, line {number}: {line.strip()!r}, expected a file and a whole number")
                self.lines.append((f"{self.list}, line {number}", parts[1], int(parts[2])))
        if len(self.lines) < max(p.rand_skip, 1):
            self.fail(
                f"{self.list} names {len(self.lines)} pictures, expected {max(p.rand_skip, 1)} or more (rand_skip)"
            )

    def pictures(self, first: int, count: int) -> Iterator[tuple[str, Tensor, int]]:
        p = self.settings
        for i in range(first, first + count):
            turn, row = divmod(i, len(self.lines))
            line, name, label = self.lines[int(self.order(len(self.lines), turn)[row]) if p.shuffle else row]
            path = locate(self, p.root_folder + name, f"{line}: picture")
            where = f"{line}: {path}"
            picture = self.caught(decode, path, p.is_color, where=where)
            _, height, width = picture.shape
            new = (p.new_height, p.new_width) if p.new_height else _enlarged(height, width, p)
            yield where, picture if new == (height, width) else resize(picture, *new), label

    @staticmethod
    def summary(param: Any) -> str:
        return Path(param.image_data_param.source).name


def _enlarged(height: int, width: int, param: Any) -> tuple[int, int]:
    """Lisa-caffe's ``min_height`` and ``min_width``: the side that lacks more gets them, the other keeps its share."""
    low, narrow = getattr(param, "min_height", 0), getattr(param, "min_width", 0)
    if height >= low and width >= narrow:
        return height, width
    h, w = np.float32(height), np.float32(width)
    if narrow - width > low - height:
        return int(float(np.float32(narrow) * (h / w)) + 0.5), narrow
    return low, int(float(np.float32(low) * (w / h)) + 0.5)


class Data(_Pictures):
    """Pictures from the ``Datum`` messages of an LMDB database, in the order of their keys (data_layer.cpp)."""

    category = "data"
    caffe_source = "data_layer.cpp"
    limits = "LMDB only, in key order; LevelDB, Caffe's default backend, is refused"
    tops = (1, 2)

    def open_pictures(self) -> None:
        p, t = self.param.data_param, self.param.transform_param
        self.settings, self.flow = p, getattr(t, "flow", False)
        if p.backend != LMDB:
            self.fail(
                "backend LEVELDB (Caffe's own choice where none is set) can't be read: make the database anew with "
                "convert_imageset -backend lmdb, and set backend: LMDB"
            )
        colour, grey = p.force_encoded_color or getattr(t, "force_color", False), getattr(t, "force_gray", False)
        if colour and grey:
            self.fail("is to force both colour and grey, expected one of them")
        self.colour = True if colour else False if grey else None
        self.database = locate(self, p.source, "source")
        self.check_length()
        self.keys: list[bytes] = self.read(lambda reading: list(reading.cursor().iternext(values=False)))
        if not self.keys:
            self.fail(f"source {self.database} has no entries")

    def check_length(self) -> None:
        """Refuses a database that is cut short: LMDB maps its file, and looking past its end would end the process."""
        file = self.database / "data.mdb" if self.database.is_dir() else self.database
        try:
            size = file.stat().st_size
            with open(file, "rb") as opened:
                first = opened.read(_META.size)
                opened.seek(_META.unpack(first)[2])  # the size of a page
                both = [_META.unpack(meta) for meta in (first, opened.read(_META.size))]
        except (OSError, struct.error):
            return  # it is told by LMDB itself
        magic, version, page, last, _ = max(both, key=lambda meta: meta[4])
        if (magic, version) == (0xBEEFC0DE, 1) and size < (last + 1) * page:
            self.fail(f"source {self.database}: cut short: {size} bytes of {last + 1} pages of {page}")

    def read(self, what: Callable[[Any], Any]) -> Any:
        """Something of the database, which is open no longer: LMDB lets a process open one only once."""
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
        """The picture of a ``Datum``: ``(C, H, W)`` uint8, or float32 where it holds floats."""
        if datum.encoded:
            if self.flow:
                self.fail(f"{where}: transform_param: flow is for raw pictures, this one is encoded")
            return self.caught(decode, BytesIO(datum.data), self.colour, where=where)
        if self.colour is not None:
            self.fail(f"{where}: colour or grey is to be forced on encoded pictures, this one is raw")
        shape, values = (datum.channels, datum.height, datum.width), datum.data or datum.float_data
        if min(shape) < 1 or len(values) != prod(shape):
            self.fail(f"{where}: {len(values)} values, expected those of a picture of shape {shape}")
        if datum.data:
            return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)
        return torch.from_numpy(np.array(values, np.float32).reshape(shape))

    @staticmethod
    def summary(param: Any) -> str:
        return Path(param.data_param.source).name


class Python(Source):
    """Batches that Python code gives, standing in for a ``Python`` layer without bottoms (python_layer.hpp).

    ``python={"<layer>": ...}`` maps the layer's class name to an iterable of batches, or to what is called as
    ``f(param_str=...)`` for one. A batch is the tops' arrays: a mapping by name, or a tuple or list in their order. At
    its end the iterable is gone through again.
    """

    category = "data"
    caffe_source = "python_layer.hpp"
    limits = "only layers without bottoms, mapped to your own function: see [below](#data-layers-and-python-layers)"
    bottoms = (0, None)
    tops = (1, None)

    def open(self) -> list[Shape]:
        name = self.param.python_param.layer
        if self.param.bottom:
            self.fail(f'Python layer "{name}" reads bottoms; only those that give data can be stood in for')
        if name not in self.net.python:
            self.fail(
                f'nothing stands in for the Python layer "{name}": pass python={{"{name}": ...}} with an iterable of '
                "batches, or with what gives one when it is called with param_str="
            )
        self.batches: Iterator[Any] | None = None
        self.start()
        first = self.next_batch()
        self.ahead: tuple[Tensor, ...] | None = first
        return [tuple(top.shape) for top in first]

    def start(self) -> None:
        """Goes to the first batch."""
        given: Any = self.net.python[self.param.python_param.layer]
        if not isinstance(given, Iterable) and callable(given):
            given = given(param_str=self.param.python_param.param_str)
        if not isinstance(given, Iterable):
            self.fail(f"what stands in for it gives a {type(given).__name__}, expected an iterable of batches")
        batches = iter(given)
        if batches is self.batches:
            self.fail("what stands in for it can be gone through only once, as a generator: give a list, or a function")
        self.batches, self.ahead = batches, None

    def next_batch(self) -> tuple[Tensor, ...]:
        for _ in range(2):  # the second time from the start
            for batch in self.batches or ():
                return self.as_tops(batch)
            self.start()
        self.fail("what stands in for it gives no batches")

    def as_tops(self, batch: Any) -> tuple[Tensor, ...]:
        names = list(self.param.top)
        if isinstance(batch, Mapping):
            found = f"has {', '.join(map(str, batch))}"
            values = [batch[name] for name in names] if set(batch) == set(names) else None
        elif isinstance(batch, (tuple, list)):
            found, values = f"has {len(batch)} arrays", list(batch) if len(batch) == len(names) else None
        else:
            found, values = f"is a {type(batch).__name__}", None
        if values is None:
            self.fail(f"a batch {found}, expected arrays for {', '.join(names)}: a dict by name, or a tuple or list")
        return tuple(as_floats(self, value, f'top "{top}"') for top, value in zip(names, values, strict=True))

    def batch(self, n: int) -> tuple[Tensor, ...]:
        tops, self.ahead = self.ahead, None
        return self.next_batch() if tops is None else tops

    def seek(self, n: int) -> None:
        super().seek(n)
        self.start()
        for _ in range(n):
            self.next_batch()

    @staticmethod
    def summary(param: Any) -> str:
        return str(param.python_param.layer)


def _for_top(given: Any, i: int) -> Any:
    """What is given once for all tops, or once for each."""
    return given[i if len(given) > 1 else 0]


def _text(layer: Layer, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        layer.fail(f"{path}: can't be read as text ({error})")
