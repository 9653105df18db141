"""What every layer of a Caffe net is: a module from bottom blobs to top blobs, with Caffe's parameters in its order."""

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
from seqclf.caffe.files import countable
from seqclf.caffe.fillers import fill
from seqclf.caffe.schema import Flavour

Shape: TypeAlias = tuple[int, ...]


@dataclass
class Surroundings:
    """What a layer is told of the net that it is in.

    Attributes:
        file: the net's prototxt, for errors, and to find files that it names relative to itself.
        flavour: whose arithmetic holds where the forks differ, "bvlc" or "lisa".
        python: what stands in for ``Python`` layers: by the layer's class name, what is called for its batches.
        values: how many values the parameters of the layers built so far have.
    """

    file: str = "net"
    flavour: Flavour = "bvlc"
    python: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    values: int = 0


class Blobs(nn.ParameterList):
    """A layer's parameters; one that is shared with a layer of another shape is read as a view of that one's."""

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[int, torch.Size] = {}

    def __getitem__(self, index: Any) -> Any:
        blob = super().__getitem__(index)
        if isinstance(index, int) and index % len(self) in self.views:
            return blob.view(self.views[index % len(self)])
        return blob


class Layer(nn.Module):
    """One layer.

    A layer type is a subclass with ``setup``, which sees to it that shapes fit, makes parameters by ``add_blob`` and
    gives the shapes of the tops; and ``forward``, from the bottoms' tensors to the top's tensor, or a tuple of them.
    ``self.training`` is Caffe's TRAIN phase.

    Attributes:
        param: the layer's ``LayerParameter``, as it stands in the net's message.
        blobs: its parameters, in Caffe's order and shapes.
        top_names: the names of its tops; a loss without one has one that its net makes up.
        top_shapes: the shapes of its tops at the bottom shapes that the net was built for.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    """The fewest and the most bottoms, None for no most."""
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    is_loss: ClassVar[bool] = False
    """Whether the first top is part of the net's loss, with weight 1, where no ``loss_weight`` says otherwise."""
    statistics: ClassVar[bool] = False
    """Whether its blobs are statistics that no solver may learn (``BatchNorm``)."""

    def __init__(self, param: Any, shapes: Sequence[Shape], net: Surroundings) -> None:
        super().__init__()
        self.param, self.net = param, net
        self.blobs = Blobs()
        self.fillers: list[Any] = []
        self.shared: set[int] = set()
        for what, (fewest, most), names in (
            ("bottom", self.bottoms, param.bottom),
            ("top", self.tops, param.top),
        ):
            if what == "top" and self.is_loss:
                fewest = 0  # without a top Caffe makes one that nobody can read (Net::Init, AutoTopBlobs)
            if len(names) < fewest or (most is not None and len(names) > most):
                want = str(fewest) if fewest == most else f"{fewest} or more" if most is None else f"{fewest} to {most}"
                self.fail(f"has {len(names)} {what}s, expected {want}")
        self.top_names = list(param.top)
        self.top_shapes = self.setup([tuple(shape) for shape in shapes])
        for shape in self.top_shapes:
            self.check_size(shape)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Makes the parameters for bottoms of these shapes, and gives the shapes of the tops."""
        raise NotImplementedError

    def add_blob(self, shape: Sequence[int], filler: Any) -> None:
        """One more parameter of the layer; ``filler`` is the ``FillerParameter`` that fills it where no weights do."""
        self.check_size(shape)
        self.net.values += prod(shape)
        self.check_memory(self.net.values, "the net's parameters up to here")
        self.blobs.append(nn.Parameter(_empty(tuple(shape))))
        self.fillers.append(filler)

    def share(self, index: int, blob: nn.Parameter) -> None:
        """Takes another layer's parameter for its own; its values are that layer's to fill."""
        if blob.shape != self.blobs[index].shape:
            self.blobs.views[index] = self.blobs[index].shape
        self.blobs[index] = blob
        self.shared.add(index)

    def fill(self, index: int) -> None:
        """Puts the filler's values into a parameter of its own, drawn from PyTorch's global generator."""
        if index in self.shared:
            return
        try:
            fill(self.blobs[index], self.fillers[index])
        except (CaffeFormatError, RuntimeError) as error:  # RuntimeError: bounds that PyTorch can't draw between
            self.fail(str(error))

    def check_size(self, shape: Sequence[int]) -> None:
        """Refuses a blob that Caffe could not count."""
        if not countable(shape):
            self.fail(f"a blob of shape {tuple(shape)}: Caffe's blobs have at most 32 axes, and 2**31 - 1 values")

    def check_memory(self, values: int, what: str) -> None:
        """Refuses float32 values that are more than the machine's memory before anything touches them."""
        if torch.get_default_device().type == "cpu" and hasattr(os, "sysconf"):
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if 4 * values > memory:
                self.fail(f"{what} take {4 * values / 1e9:.1f} GB; this machine has {memory / 1e9:.1f}")

    def canonical_axis(self, axis: int, axes: int, what: str = "axis") -> int:
        """``axis`` counted from the front, for a blob of ``axes`` axes (Blob::CanonicalAxisIndex)."""
        if not -axes <= axis < axes:
            self.fail(f"{what} {axis} of a blob with {axes} axes")
        return axis % axes

    def fail(self, what: str) -> NoReturn:
        """Raises the error that names file and layer."""
        raise CaffeFormatError(f'{self.net.file}: layer "{self.param.name}" ({self.param.type}): {what}')

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.param.name}: {', '.join(self.param.bottom)} -> {', '.join(self.param.top)}"


def _empty(shape: Shape) -> Tensor:
    """``torch.empty``, by way of NumPy, which puts large arrays on huge pages: weights load in a third of the time."""
    if torch.get_default_device().type == "cpu" and torch.get_default_dtype() == torch.float32:
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape)
