"""Nets and solvers built from their definition alone, without their data, for ``inspect``, ``draw`` and ``time``.

Build a sketch under ``torch.device("meta")`` to allocate no memory for parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import Flavour
from seqclf.caffe.layers import Layer, Shape, Surroundings
from seqclf.caffe.nets.graph import filter_layers
from seqclf.caffe.nets.net import Net
from seqclf.caffe.solvers.solver import Solver

Python = Mapping[str, Callable[..., Any]]


class DataPlaceholder(Layer):
    """Takes the place of a data layer: has the shapes of its tops and computes nothing."""

    bottoms = (0, 0)
    tops = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        return shapes


class Sketch(Net):
    """A net whose data need not exist.

    A data layer becomes a ``DataPlaceholder`` if ``shapes`` names all of its tops, or if it cannot open its source but
    its settings determine the shapes of its images.

    Args:
        shapes: shapes of tops of data layers, by name. They replace the shapes that the layers find.

    Attributes:
        notes: one sentence for each layer whose shapes come from its settings.

    Raises:
        CaffeFormatError: the net is invalid, a data layer's shapes are unknown, or ``shapes`` names no top of a data
            layer.
    """

    def __init__(
        self,
        message: Any,
        phase: str = "TEST",
        flavour: Flavour = "bvlc",
        file: str = "net",
        shapes: Mapping[str, Sequence[int]] | None = None,
        python: Python | None = None,
    ) -> None:
        self.given = {top: tuple(shape) for top, shape in (shapes or {}).items()}
        self.notes: list[str] = []
        super().__init__(message, phase, flavour, file, python)
        sources = {top for param, layer in self.sequence if not param.bottom for top in param.top}
        unknown = sorted(set(self.given) - sources)
        if unknown:
            raise CaffeFormatError(
                f"{file}: no data layer has the top {', '.join(unknown)} for which a shape is given; "
                f"the tops of data layers are {', '.join(sorted(sources)) or 'none'}"
            )

    def _build(self, param: Any, surroundings: Surroundings) -> Layer:
        if param.bottom or param.type == "Parameter":
            return super()._build(param, surroundings)
        given = [self.given.get(top) for top in param.top]
        if given and all(shape is not None for shape in given):
            return DataPlaceholder(param, [shape for shape in given if shape is not None], surroundings)
        try:
            with torch.device("cpu"):  # reading data needs real values
                layer = super()._build(param, surroundings)
            found = layer.top_shapes
        except CaffeFormatError as error:
            found = _shapes_from_settings(param)
            if not found:
                options = " ".join(f"--shape {top}=..." for top in param.top)
                raise CaffeFormatError(f"{error} (or give the shapes of its tops: {options})") from None
            assumed = ", ".join(f"{top} {shape}" for top, shape in zip(param.top, found, strict=True))
            self.notes.append(f"{error}; assuming {assumed} from its settings")
            layer = DataPlaceholder(param, found, surroundings)
        if any(shape is not None for shape in given):
            layer = DataPlaceholder(param, [a or b for a, b in zip(given, found, strict=True)], surroundings)
        return layer


_IMAGE_SETTINGS = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}


def _shapes_from_settings(param: Any) -> list[Shape]:
    """Shapes of images and labels if a layer's settings fix them, else an empty list.

    Images are assumed to have three channels unless a setting says that they are gray.
    """
    if param.type not in _IMAGE_SETTINGS:
        return []
    p, t = getattr(param, _IMAGE_SETTINGS[param.type]), param.transform_param
    crop = t.crop_size or p.crop_size
    height, width = (crop, crop) if crop else (getattr(p, "new_height", 0), getattr(p, "new_width", 0))
    gray = not getattr(p, "is_color", True) or getattr(t, "force_gray", False)
    if not (p.batch_size and height and width) or len(param.top) > 2:
        return []
    return [(p.batch_size, 1 if gray else 3, height, width), (p.batch_size,)][: len(param.top)]


def sketch(
    message: Any,
    file: str,
    phase: str = "TEST",
    flavour: Flavour = "bvlc",
    level: int = 0,
    stages: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    python: Python | None = None,
) -> Sketch:
    """Builds a ``Sketch`` of an upgraded ``NetParameter``.

    The layers that are not part of the phase are removed from ``message``. The arguments are those of ``load_net`` and
    ``Sketch``.
    """
    filter_layers(message, phase, level, tuple(stages), file)
    return Sketch(message, phase, flavour, file, shapes, python)


class SolverSketch(Solver):
    """A solver whose nets are sketches on the meta device."""

    def __init__(
        self,
        param: Any,
        file: str,
        flavour: Flavour = "bvlc",
        shapes: Mapping[str, Sequence[int]] | None = None,
        python: Python | None = None,
    ) -> None:
        self.shapes = shapes or {}
        with torch.device("meta"):
            super().__init__(param, file, flavour, "meta", python)

    def build_net(self, message: Any, file: str, phase: str, state: Any, python: Any, problems: list[str]) -> Net:
        """Builds a sketch of the train net or of a test net."""
        if problems:
            raise CaffeFormatError(file, problems)
        return sketch(message, file, phase, self.flavour, state.level, tuple(state.stage), self.shapes, python)
