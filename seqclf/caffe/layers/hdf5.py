"""The layers that read and write HDF5 files."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape
from seqclf.caffe.layers.source import Source, extra, locate, read_text


class HDF5Data(Source):
    """Rows of the datasets named like the tops, from all files of a list (hdf5_data_layer.cpp).

    A batch may span files, and the last file is followed by the first. ``shuffle`` shuffles the files and the rows of
    each file in every epoch.
    """

    category = "data"
    caffe_source = "hdf5_data_layer.cpp"
    limits = "reads files in order; with `shuffle`, the order differs from Caffe's"
    tops = (1, None)

    def open(self) -> list[Shape]:
        p = self.param.hdf5_data_param
        self.batch_size = self.size(p)
        if self.param.HasField("transform_param"):
            self.fail("transform_param: HDF5 data are not transformed, expected none")
        source = locate(self, p.source, "source")
        self.files = [locate(self, name, f'file of source "{p.source}"') for name in read_text(self, source).split()]
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
                        f'as many as in "{self.param.top[0]}" and at least one'
                    )
            self.rows.append(shapes[0][0])
        return [(self.batch_size, *kind) for kind in kinds]

    def read(self, path: Path, what: Callable[[Any], Any]) -> list[Any]:
        """Applies a function to each top's dataset in a file."""
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
    """Writes its bottoms as the datasets "data" and "label" of a new file (hdf5_output_layer.cpp).

    Datasets have four axes, as in Caffe. Caffe can write only one batch; here further batches are appended.
    """

    category = "data"
    caffe_source = "hdf5_output_layer.cpp"
    limits = "writes `data` and `label`; every batch is appended, while Caffe can write only one"
    bottoms = (2, 2)
    tops = (0, 0)
    names: ClassVar = ("data", "label")

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        extra(self, "h5py")  # reports a missing package before the first batch
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
