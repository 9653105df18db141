"""The Python modules of a config file: the file itself, and the neighbours that it imports."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

LOCK = threading.RLock()
"""Held while ``sys.path`` and ``sys.modules`` belong to one config."""


@dataclass(frozen=True)
class Sources:
    """The modules that belong to an experiment's config.

    Each experiment holds its own, so that two configs may have neighbours of the same name.

    Attributes:
        folder: of the config; None for an experiment made in Python.
        modules: by name.
    """

    folder: Path | None = None
    modules: Mapping[str, ModuleType] = field(default_factory=dict)

    def files(self) -> dict[str, Path]:
        """The modules' files by name."""
        return {name: Path(str(module.__file__)).resolve() for name, module in self.modules.items()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within the block, the modules and their neighbours can be imported by name."""
        if self.folder is None:
            yield
            return
        with LOCK:
            before = {name: sys.modules.get(name) for name in self.modules}
            sys.modules.update(self.modules)
            try:
                with search_path(self.folder):
                    yield
            finally:
                for name, module in before.items():
                    if module is None:
                        sys.modules.pop(name, None)
                    else:
                        sys.modules[name] = module


@contextmanager
def search_path(folder: Path) -> Iterator[None]:
    """Within the block, modules of a folder and of its ``sources`` are found first."""
    entries = [str(folder), str(folder / "sources")]
    sys.path[:0] = entries
    try:
        yield
    finally:
        for entry in entries:
            if entry in sys.path:
                sys.path.remove(entry)
