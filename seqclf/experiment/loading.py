"""Config files: Python with a function ``get_config()`` that returns an ``Experiment``."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from seqclf.batch import SeqclfError
from seqclf.experiment.config import Experiment
from seqclf.experiment.find_config import find_config
from seqclf.experiment.settings import change
from seqclf.experiment.sources import LOCK, Sources, search_path

_OF_CONFIGS = set[str]()
"""The names of all modules that were imported for a config."""


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Loads the experiment of a config file.

    Args:
        path: the config file, or the name of a reference config such as ``mnist_lastframe``.
        overrides: ``key=value`` changes of its settings, such as ``optimizer.lr=0.01``.

    Raises:
        SeqclfError: the file is missing, cannot be imported or has no ``get_config``; an override names no setting or
            has a value of the wrong type.
    """
    with LOCK:
        experiment = _import_config(find_config(Path(path)))
    for override in overrides:
        experiment = change(experiment, override)
    return experiment


def _import_config(path: Path) -> Experiment:
    folder = path.resolve().parent
    name = "_config_" + re.sub(r"\W", "_", path.stem, flags=re.ASCII)  # a run's config.py imports from it
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SeqclfError(f"config {path}: not a Python file (.py)")
    hidden = _hide_namesakes(folder)
    known = set(sys.modules)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with search_path(folder):
            spec.loader.exec_module(module)
            get_config = getattr(module, "get_config", None)
            if not callable(get_config):
                raise SeqclfError(f"config {path}: has no function get_config()")
            experiment = get_config()
    except SeqclfError:
        raise
    except (Exception, SystemExit) as error:  # a config can raise anything
        line = next((f" (line {f.lineno})" for f in reversed(inspect.trace()) if Path(f.filename) == path), "")
        raise SeqclfError(f"config {path}{line}: {type(error).__name__}: {error}") from None
    finally:
        sources = _sources_in(folder, known)
        for loaded in sources.modules.keys() - known:
            sources.modules[loaded].__config__ = True  # type: ignore[attr-defined]
            _OF_CONFIGS.add(loaded)
        sys.modules.update(hidden)
    if not isinstance(experiment, Experiment):
        raise SeqclfError(
            f"config {path}: get_config() returned {type(experiment).__name__}, expected seqclf.Experiment"
        )
    return replace(experiment, sources=sources)


def _hide_namesakes(folder: Path) -> dict[str, ModuleType]:
    """Removes modules that would take the place of a config's neighbours: of other configs, and of the user's program.

    Returns:
        the program's own modules, to be restored.
    """
    names = {path.stem for path in _files_in(folder)} - set(sys.stdlib_module_names)
    hidden = {}
    for name in (names | _OF_CONFIGS) & sys.modules.keys():
        module = sys.modules[name]
        if getattr(module, "__dict__", {}).get("__config__") is True:  # a module's own __getattr__ may import much
            del sys.modules[name]
        elif name in names:
            file = Path(str(getattr(module, "__file__", None) or ""))
            if file.parent not in (folder, folder / "sources") and "site-packages" not in file.parts:
                hidden[name] = sys.modules.pop(name)
    return hidden


def _sources_in(folder: Path, before: set[str]) -> Sources:
    """The imported modules whose files are in a config's folder.

    Of modules imported ``before``, only those with a name of such a file are looked at, as all would take long.
    """
    names = {path.stem for path in _files_in(folder)} | {"__main__", folder.name}
    found = {}
    for name in [name for name in list(sys.modules) if name not in before or name.rpartition(".")[2] in names]:
        file = getattr(sys.modules.get(name), "__dict__", {}).get("__file__")
        if isinstance(file, str) and os.path.isabs(file):
            path = Path(file).resolve()
            if path.suffix == ".py" and path.parent in (folder, folder / "sources"):
                found[name] = sys.modules[name]
    return Sources(folder, found)


def _files_in(folder: Path) -> list[Path]:
    return [path for place in (folder, folder / "sources") for path in place.glob("*.py")]
