"""Layers whose tops come from the caller, or from fillers."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.layers.base import Layer, Shape
from seqclf.caffe.layers.fillers import fill
from seqclf.caffe.layers.source import Source, as_floats, for_top


class Input(Layer):
    """The inputs of a net, with the shapes of ``input_param.shape`` (input_layer.cpp)."""

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
        return [tuple(for_top(given, i).dim) for i in range(len(names))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        self.fail(f"needs values for {', '.join(self.param.top)}")


class DummyData(Source):
    """Tops of given shapes, refilled for each batch (dummy_data_layer.cpp)."""

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
            self.shapes = [tuple(for_top(sizes, i) for sizes in legacy.values()) for i in range(tops)]
        elif len(p.shape) in (1, tops):
            self.shapes = [tuple(for_top(p.shape, i).dim) for i in range(tops)]
        else:
            self.fail(f"has {len(p.shape)} shapes, expected one, or one for each of {tops} tops")
        for shape in self.shapes:
            self.check_size(shape)
        self.check_memory(sum(map(prod, self.shapes)), "its tops")
        self.batch(0)  # reports settings that a filler can't use
        return list(self.shapes)

    def batch(self, n: int) -> tuple[Tensor, ...]:
        tops = tuple(torch.empty(shape, dtype=torch.float32) for shape in self.shapes)
        fillers = self.param.dummy_data_param.data_filler
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.random_seed("batch", n))
            for i, top in enumerate(tops):
                try:
                    fill(top, for_top(fillers, i) if len(fillers) else None)
                except CaffeFormatError as error:
                    self.fail(f'top "{self.param.top[i]}": {error}')
        return tops


class MemoryData(Source):
    """Batches of the arrays passed to ``set``, repeated endlessly (memory_data_layer.cpp)."""

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
            self.fail("transform_param: arrays in memory are not transformed, expected none")
        self.data: Tensor | None = None
        return [self.shape, self.shape[:1]]

    def set(self, data: Any, labels: Any) -> None:
        """Sets the data, and starts with their first batch (MemoryDataLayer::Reset).

        Args:
            data: ``(n, C, H, W)``, numbers of any type; n is a multiple of the batch size.
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
