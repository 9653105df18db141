"""The names under which people import functions and classes."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

_SHORT = ("labelling", "losses", "samplers", "sampling", "schedules", "transforms")
"""Modules of seqclf that have names from deeper modules of it."""


def public_module(symbol: Any) -> str:
    """The shortest package that has a function or class by its name; its own module if none has.

    Records hold this name, so that they can still be read when a module inside a package moves.
    """
    module, name = str(symbol.__module__), getattr(symbol, "__name__", "")
    parts = module.split(".")
    packages = [".".join(parts[:n]) for n in range(1, len(parts))]
    if packages[:1] == ["seqclf"]:
        packages += [import_module(f"seqclf.{short}").__name__ for short in _SHORT]
    return next((p for p in packages if getattr(sys.modules.get(p), name, None) is symbol), module)
