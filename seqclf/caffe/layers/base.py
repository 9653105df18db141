"""Base class of Caffe layers: a module from bottom blobs to top blobs, with Caffe's parameters in Caffe's order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.files import countable
from seqclf.caffe.formats.schema import Flavour
from seqclf.caffe.layers.fillers import fill

Shape: TypeAlias = tuple[int, ...]

CATEGORIES = (
    "data",
    "convolution",
    "pooling",
    "normalization",
    "product",
    "recurrent",
    "activation",
    "shape",
    "combination",
    "loss",
)
"""Values of ``Layer.category``, in the order of the table in docs/caffe.md."""


@dataclass
class Surroundings:
    """What a layer knows about the net that contains it.

    Attributes:
        file: the net's prototxt. Error messages name it, and relative paths are also resolved against its folder.
        flavour: the fork whose arithmetic applies where the forks differ, "bvlc" or "lisa".
        python: for ``Python`` layers, maps the layer's class name to a function that returns batches.
        values: number of parameter values of the layers built so far.
    """

    file: str = "net"
    flavour: Flavour = "bvlc"
    python: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    values: int = 0


class Blobs(nn.ParameterList):
    """A layer's parameters. One that is shared with a layer of another shape is returned as a view in its own shape."""

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[int, torch.Size] = {}

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and (blob := self._parameters.get(str(index))) is not None:  # faster than super()
            return blob.view(self.views[index]) if index in self.views else blob
        blob = super().__getitem__(index)
        if isinstance(index, int) and index % len(self) in self.views:
            return blob.view(self.views[index % len(self)])
        return blob


class Layer(nn.Module):
    """Base class of all layer types.

    A layer type is a subclass that sets ``caffe_source``; its class name is the ``type`` in a prototxt. It implements
    ``setup``, which checks the bottom shapes, creates parameters with ``add_blob`` and returns the top shapes, and
    ``forward``, which maps the bottom tensors to the top tensor or a tuple of them. ``self.training`` is Caffe's TRAIN
    phase. ``inspect`` reads ``operations``, ``draw`` reads ``summary`` and ``category``, and the table in docs/caffe.md
    is generated from the class attributes.

    Attributes:
        param: the layer's ``LayerParameter`` message.
        blobs: its parameters, in Caffe's order and shapes.
        top_names: names of its tops. A loss without a top gets one from its net.
        top_shapes: shapes of its tops for the bottom shapes that the net was built with.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    """Minimum and maximum number of bottoms; None for no maximum."""
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    is_loss: ClassVar[bool] = False
    """Whether the first top has a loss weight of 1 by default."""
    statistics: ClassVar[bool] = False
    """Whether the blobs are statistics, which no solver may update (``BatchNorm``)."""
    category: ClassVar[str]
    """One of ``CATEGORIES``: the colour in drawings and the section of the table in the documentation."""
    caffe_source: ClassVar[str]
    """The file in Caffe's ``src/caffe/layers`` (or ``include/caffe/layers``) that this class reproduces."""
    per_value: ClassVar[int] = 0
    """The number of operations for each value of the first bottom; see ``operations``."""
    in_lisa: ClassVar[bool] = True
    """Whether lisa-caffe has this type, too."""
    limits: ClassVar[str] = ""
    """Differences from Caffe and limits, in Markdown, for the documentation."""
    bottom_roles: ClassVar[tuple[str, ...]] = ("data",)
    """What each bottom holds: "data", "labels" (integers) or "cont". The last role applies to all further bottoms."""
    views: ClassVar[bool] = False
    """Whether the tops share the bottom's memory."""

    def __init__(self, param: Any, shapes: Sequence[Shape], net: Surroundings) -> None:
        super().__init__()
        self.param, self.net = param, net
        self.blobs = Blobs()
        self.fillers: list[Any] = []
        self.shared: set[int] = set()
        self._check_count("bottom", self.bottoms, len(param.bottom))
        # without a top, Caffe gives a loss one that no layer can read (Net::Init, AutoTopBlobs)
        self._check_count("top", (0, self.tops[1]) if self.is_loss else self.tops, len(param.top))
        self.top_names = list(param.top)
        self.top_shapes = self.setup([tuple(shape) for shape in shapes])
        for shape in self.top_shapes:
            self.check_size(shape)

    def _check_count(self, what: str, limits: tuple[int, int | None], count: int) -> None:
        low, high = limits
        if count < low or (high is not None and count > high):
            expected = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
            self.fail(f"has {count} {what}s, expected {expected}")

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Creates the parameters for bottoms of these shapes and returns the shapes of the tops."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        raise NotImplementedError

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        """Number of operations of a forward pass: a multiplication with its addition is 2, any other step is 1.

        Biases, copies and work done once per channel count as 0. The default is ``per_value`` for each value of the
        first bottom.
        """
        return self.per_value * prod(bottoms[0]) if self.per_value else 0

    @staticmethod
    def summary(param: Any) -> str:
        """The most important settings of a ``LayerParameter``, as shown in drawings. Needs no built layer."""
        return ""

    def add_blob(self, shape: Sequence[int], filler: Any) -> None:
        """Adds a parameter. ``filler`` is the ``FillerParameter`` that initializes it when no weights are loaded."""
        self.check_size(shape)
        self.net.values += prod(shape)
        self.check_memory(self.net.values, "the net's parameters up to this layer")
        self.blobs.append(nn.Parameter(_empty(tuple(shape))))
        self.fillers.append(filler)

    def share(self, index: int, blob: nn.Parameter) -> None:
        """Uses another layer's parameter in place of this layer's. The other layer initializes it."""
        if blob.shape != self.blobs[index].shape:
            self.blobs.views[index] = self.blobs[index].shape
        self.blobs[index] = blob
        self.shared.add(index)

    def fill(self, index: int) -> None:
        """Initializes a parameter with its filler and PyTorch's global generator. Shared parameters are skipped."""
        if index in self.shared:
            return
        try:
            fill(self.blobs[index], self.fillers[index])
        except (CaffeFormatError, RuntimeError) as error:  # RuntimeError: PyTorch rejects the bounds of a distribution
            self.fail(str(error))

    def check_size(self, shape: Sequence[int]) -> None:
        """Raises an error for a blob that exceeds Caffe's limits."""
        if not countable(shape):
            self.fail(f"a blob of shape {tuple(shape)}: Caffe's blobs have at most 32 axes, and 2**31 - 1 values")

    def check_memory(self, values: int, what: str) -> None:
        """Raises an error if this many float32 values exceed the machine's memory, before they are allocated."""
        if torch.empty(0).is_cpu and hasattr(os, "sysconf"):
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if 4 * values > memory:
                self.fail(f"{what} take {4 * values / 1e9:.1f} GB; this machine has {memory / 1e9:.1f}")

    def canonical_axis(self, axis: int, axes: int, what: str = "axis") -> int:
        """Returns ``axis`` as a non-negative index into ``axes`` axes (Blob::CanonicalAxisIndex)."""
        if not -axes <= axis < axes:
            self.fail(f"{what} {axis} of a blob with {axes} axes")
        return axis % axes

    def fail(self, what: str) -> NoReturn:
        """Raises a ``CaffeFormatError`` that names the file and the layer."""
        raise CaffeFormatError(f'{self.net.file}: layer "{self.param.name}" ({self.param.type}): {what}')

    def extra_repr(self) -> str:
        return f"{self.param.name}: {', '.join(self.param.bottom)} -> {', '.join(self.param.top)}"


def _empty(shape: Shape) -> Tensor:
    """Like ``torch.empty``, but through NumPy, which puts large arrays on huge pages: weights load 3 times as fast."""
    like = torch.empty(0)  # PyTorch 2.6: torch.get_default_device ignores "with torch.device(...)"
    if like.is_cpu and like.dtype == torch.float32:
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape)
