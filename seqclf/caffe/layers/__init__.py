"""Caffe's layer types, one class each. ``LAYERS`` maps the ``type`` in a prototxt to its class.

To add a layer type, add a class that sets ``caffe_source`` to a module of this package. Nothing else is registered.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from seqclf.caffe.layers.base import CATEGORIES, Layer, Shape, Surroundings


def _layer_types() -> dict[str, type[Layer]]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    values = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    found = {v.__name__: v for v in values if issubclass(v, Layer) and "caffe_source" in vars(v)}
    return dict(sorted(found.items()))


LAYERS: dict[str, type[Layer]] = _layer_types()

__all__ = ["CATEGORIES", "LAYERS", "Layer", "Shape", "Surroundings"]
