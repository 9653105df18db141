"""Base class and helpers of the layers that provide a net's batches.

Everything random (shuffling, crops, mirroring, skips, dummy data) is a function of PyTorch's seed when the net was
built, the layer's name and the number of the batch. So two nets built after ``torch.manual_seed(0)`` see the same data,
and after ``seek(n)`` a layer continues as if it had drawn n batches.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape


def locate(layer: Layer, name: str, what: str) -> Path:
    """Finds a file that a layer names: relative to the working directory, as in Caffe, or else to the net's file."""
    if not name:
        layer.fail(f"has no {what}")
    places = dict.fromkeys((Path(name).absolute(), Path(layer.net.file).absolute().parent / name))
    for place in places:
        if os.path.isfile(place) or os.path.isdir(place):  # not a device, whose content may never end
            return place
    layer.fail(f'{what} "{name}" is missing: looked for {" and ".join(map(str, places))}')


def extra(layer: Layer, package: str) -> Any:
    """Imports a package that only some layers need."""
    try:
        return import_module(package)
    except ImportError:
        layer.fail(f"needs the {package} package: pip install 'seqclf[caffe]'")


def as_floats(layer: Layer, value: Any, what: str) -> Tensor:
    """Converts numbers of any kind to a writable float32 tensor."""
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
    """Base class of the layers that provide batches: ``batch(n)`` returns batch n, ``forward`` the next one."""

    bottoms: ClassVar[tuple[int, int | None]] = (0, 0)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.seed, self.drawn = torch.initial_seed(), 0
        self.last_order: tuple[tuple[object, ...], Tensor] = (("none",), torch.empty(0))
        return self.open()

    def open(self) -> list[Shape]:
        """Opens the source and returns the shapes of the tops."""
        raise NotImplementedError

    def batch(self, n: int) -> tuple[Tensor, ...]:
        """The tops of batch n, float32 on the CPU."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        tops = self.batch(self.drawn)
        self.drawn += 1
        return tops

    def position(self) -> int:
        """The number of batches drawn so far."""
        return self.drawn

    def seek(self, n: int) -> None:
        """Continues as if n batches had been drawn."""
        self.drawn = n

    def size(self, param: Any) -> int:
        """The ``batch_size`` of the layer's own parameters."""
        if param.batch_size < 1:
            self.fail(f"batch_size {param.batch_size}, expected 1 or more")
        return param.batch_size

    def random_seed(self, *what: object) -> int:
        """A random-looking number, a function of the seed, the layer's name and ``what``."""
        return int.from_bytes(
            blake2b(repr((self.seed, self.param.name, *what)).encode(), digest_size=8).digest(), "big"
        )

    def generator(self, *what: object) -> torch.Generator:
        return torch.Generator().manual_seed(self.random_seed(*what))

    def order(self, rows: int, *what: object) -> Tensor:
        """A permutation of the rows, ``(rows,)`` int64; the last one is cached."""
        if self.last_order[0] != what:
            self.last_order = what, torch.randperm(rows, generator=self.generator(*what))
        return self.last_order[1]


def for_top(given: Any, i: int) -> Any:
    """The entry for top i of a field that is given once for all tops, or once for each."""
    return given[i if len(given) > 1 else 0]


def read_text(layer: Layer, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        layer.fail(f"{path}: can't be read as text ({error})")
