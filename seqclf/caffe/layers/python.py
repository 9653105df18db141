"""The layer whose batches come from Python code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from seqclf.caffe.layers.base import Shape
from seqclf.caffe.layers.source import Source, as_floats


class Python(Source):
    """Batches from Python code, as a replacement for a ``Python`` layer without bottoms (python_layer.hpp).

    ``python={"<layer>": ...}`` maps the layer's class name to an iterable of batches, or to a function that is called
    as ``f(param_str=...)`` and returns one. A batch is a mapping of arrays by top name, or a tuple or list in the tops'
    order. When the iterable ends, it is iterated again.
    """

    category = "data"
    caffe_source = "python_layer.hpp"
    limits = "only layers without bottoms, mapped to your own function: see [below](#data-layers-and-python-layers)"
    bottoms = (0, None)
    tops = (1, None)

    def open(self) -> list[Shape]:
        name = self.param.python_param.layer
        if self.param.bottom:
            self.fail(f'Python layer "{name}" reads bottoms; only data layers can be replaced')
        if name not in self.net.python:
            self.fail(
                f'the Python layer "{name}" has no replacement: pass python={{"{name}": ...}} with an iterable of '
                "batches, or a function that takes param_str= and returns one"
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
            self.fail(f"its replacement returns a {type(given).__name__}, expected an iterable of batches")
        batches = iter(given)
        if batches is self.batches:
            self.fail("its replacement can be iterated only once, like a generator: pass a list or a function")
        self.batches, self.ahead = batches, None

    def next_batch(self) -> tuple[Tensor, ...]:
        for _ in range(2):  # the second time from the beginning
            for batch in self.batches or ():
                return self.as_tops(batch)
            self.start()
        self.fail("its replacement has no batches")

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
