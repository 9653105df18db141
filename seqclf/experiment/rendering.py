"""An experiment written as the Python text of a config file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from seqclf.batch import SeqclfError
from seqclf.experiment.config import Experiment
from seqclf.experiment.settings import setting_fields
from seqclf.runtime.files import write_atomic
from seqclf.runtime.names import public_module

WIDTH = 100
"""Characters of a line before it is broken."""


def render(experiment: Experiment) -> str:
    """The resolved experiment, defaults included, as the text of a config file that returns it.

    Raises:
        SeqclfError: a value has no name that a file could import, such as a lambda, a closure or a tensor.
    """
    with experiment.sources.active():
        return _Renderer(experiment).text()


def render_record(experiment: Experiment) -> tuple[str, dict[str, str]]:
    """The text of a run's ``config.py``.

    A setting that cannot be written is replaced by ``not_recorded``, which raises an error when it is used.

    Returns:
        the text, and for each replaced setting a message with the reason and what to do.
    """
    missing = {}
    for f in setting_fields(experiment):
        try:
            with experiment.sources.active():
                _Renderer(experiment).expression(getattr(experiment, f.name), 8)
        except SeqclfError as error:
            missing[f.name] = (
                f"config.py of the run does not hold {f.name} ({error}): pass experiment= to later calls that use "
                f"{f.name}, or set {f.name} to a function or class of a module"
            )
    known: dict[str, Any] = {name: partial(not_recorded, message=message) for name, message in missing.items()}
    return render(replace(experiment, **known)), missing


def not_recorded(*args: Any, message: str, **keywords: Any) -> NoReturn:
    """Stands in a run's config for a setting that could not be written.

    Raises:
        SeqclfError: always, with the message.
    """
    raise SeqclfError(message)


def not_recorded_settings(experiment: Experiment) -> list[str]:
    """The settings of an experiment for which ``not_recorded`` stands, as it was loaded from a run's config."""
    values = ((f.name, getattr(experiment, f.name)) for f in setting_fields(experiment))
    return [name for name, value in values if getattr(value, "func", None) is not_recorded]


def save_experiment(experiment: Experiment, folder: Path) -> dict[str, str]:
    """Writes ``config.py``, and to ``sources/`` the modules of the config that it imports.

    Returns:
        for each setting that could not be written, a message with the reason and what to do.
    """
    text, missing = render_record(experiment)
    files = experiment.sources.files()
    if any(f"from {name} import " in text for name in files):
        for module, path in files.items():
            copy = folder / "sources" / f"{module}.py"
            if path != copy.resolve():
                write_atomic(copy, path.read_bytes())
    write_atomic(folder / "config.py", text)
    return missing


class _Renderer:
    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.names: dict[str, Any] = {"Experiment": Experiment, "partial": partial}
        self.imports: dict[str, set[str]] = {"seqclf": {"Experiment"}}

    def text(self) -> str:
        settings = [
            f"{f.name}={self.expression(getattr(self.experiment, f.name), 8)}" for f in setting_fields(self.experiment)
        ]
        body = "".join(f"        {s},\n" for s in settings)
        lines = [
            '"""The resolved config of a run."""',
            "",
            *(f"from {module} import {', '.join(sorted(self.imports[module]))}" for module in sorted(self.imports)),
            "",
            "",
            "def get_config() -> Experiment:",
            "    return Experiment(",
            f"{body}    )",
            "",
        ]
        return "\n".join(lines)

    def expression(self, value: Any, indent: int) -> str:
        """The Python expression of a value that begins at a column."""
        if isinstance(value, partial):
            parts = [self._name(value.func), *(self.expression(a, indent) for a in value.args)]
            parts += [f"{k}={self.expression(v, indent + 4)}" for k, v in value.keywords.items()]
            self.imports.setdefault("functools", set()).add("partial")
            return _joined("partial(", parts, ")", indent)
        if isinstance(value, float) and value - value != 0:
            return f'float("{value}")'
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            return repr(value)
        if isinstance(value, (list, tuple)):
            inner = [self.expression(v, indent + 4) for v in value]
            ends = "[]" if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
            return _joined(ends[0], inner, ends[1], indent)
        if isinstance(value, Mapping):
            inner = [f"{self.expression(k, indent + 4)}: {self.expression(v, indent + 4)}" for k, v in value.items()]
            return _joined("{", inner, "}", indent)
        if isinstance(value, Path):
            return repr(str(value))
        if callable(value) and not isinstance(value, nn.Module):
            return self._name(value)
        raise SeqclfError(f"a config cannot hold a {type(value).__name__}: use plain values, functions and partials")

    def _name(self, symbol: Callable[..., Any]) -> str:
        """The name of a function or class, after noting its import."""
        module, qualname = getattr(symbol, "__module__", None), getattr(symbol, "__qualname__", "")
        if getattr(sys.modules.get(module or ""), getattr(symbol, "__name__", ""), None) is symbol:
            qualname = symbol.__name__  # the qualified name of torch.sigmoid is that of a hidden class
        if not qualname.isidentifier():
            raise SeqclfError(f"a config cannot hold {qualname or symbol!r}: it is not at the top of a module")
        if module is None or module == "__main__":
            raise SeqclfError(
                f"a config cannot hold {qualname}: it is defined in a script or notebook, not in a module"
            )
        if module not in self.experiment.sources.modules:
            module = public_module(symbol)
        name = qualname
        while self.names.get(name, symbol) is not symbol:
            name += "_"
        self.names[name] = symbol
        self.imports.setdefault(module, set()).add(qualname + (f" as {name}" if name != qualname else ""))
        return name


def _joined(start: str, parts: list[str], end: str, indent: int) -> str:
    """Parts in brackets, on one line if they fit."""
    line = start + ", ".join(parts) + end
    if "\n" not in line and len(line) + indent < WIDTH:
        return line
    pad = " " * (indent + 4)
    return start + "".join(f"\n{pad}{p}," for p in parts) + f"\n{' ' * indent}" + end.lstrip(",")
