"""The settings that a resumed run must share with the run it continues."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import Data
from seqclf.experiment.config import Experiment
from seqclf.experiment.settings import setting_fields
from seqclf.runtime.names import public_module

FREE = (
    "steps",
    "patience",
    "eval_every",
    "log_every",
    "checkpoint_every",
    "keep",
    "eval_batch",
    "metrics",
    "data.root",
    "data.workers",
)
"""Settings that a resumed run may change. With other ``steps`` the schedule continues as for that many."""
ON_REQUEST = ("optimizer.*", "schedule", "augment", "data.transform", "loss", "clip_norm", "groups")
"""Settings that a resumed run may change if ``--allow`` names them, and all settings below them."""


def resume_fingerprint(experiment: Experiment) -> dict[str, str]:
    """The settings that determine a run's numbers, by dotted name, as texts.

    A function or class is written with its module; the arguments of a ``partial`` are settings below it.
    """
    texts: dict[str, str] = {}
    for f in setting_fields(experiment):
        _flatten(f.name, getattr(experiment, f.name), texts)
    return {name: text for name, text in texts.items() if name not in FREE}


def changed_settings(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The settings that differ between two fingerprints: name -> (old, new). An absent one has its default."""
    names = dict.fromkeys([*before, *now])
    pairs = {name: (before.get(name, "its default"), now.get(name, "its default")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def check_allowed(allow: Iterable[str]) -> None:
    """Checks the settings that a resumed run is allowed to change.

    Raises:
        SeqclfError: a setting cannot change on resuming.
    """
    for name in allow:
        if not may_change(name):
            raise SeqclfError(
                f"--allow {name}: this setting cannot change when a run is resumed. These can: {', '.join(ON_REQUEST)}"
            )


def may_change(name: str) -> bool:
    """Whether a setting may change on resuming if ``--allow`` names it."""
    return any(
        name.startswith(known.removesuffix("*")) if known.endswith("*") else _is_below(name, known)
        for known in ON_REQUEST
    )


def is_allowed(name: str, allow: Iterable[str]) -> bool:
    """Whether a setting, or one above it, is among those that ``--allow`` names."""
    return any(_is_below(name, allowed) for allowed in allow)


def _is_below(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.")


def _flatten(name: str, value: Any, texts: dict[str, str]) -> None:
    """Adds the text of a setting, and of those below it."""
    if isinstance(value, partial):
        texts[name] = _text(value.func)
        for i, argument in enumerate(value.args):
            _flatten(f"{name}.{i}", argument, texts)
        for key, argument in value.keywords.items():
            _flatten(f"{name}.{key}", argument, texts)
    elif isinstance(value, Sequence) and any(callable(item) for item in value):
        texts[name] = f"{len(value)} items"
        for i, item in enumerate(value):
            _flatten(f"{name}.{i}", item, texts)
    else:
        texts[name] = _text(value)


def _text(value: Any) -> str:
    """A text that is equal for equal values, in every process."""
    if isinstance(value, Data):
        return "a Data object"  # compared by its fingerprint
    if isinstance(value, (Tensor, np.ndarray)):
        array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
        return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, partial):
        inner = [*map(_text, value.args), *sorted(f"{k}={_text(v)}" for k, v in value.keywords.items())]
        return f"{_text(value.func)}({', '.join(inner)})"
    if callable(value) and not isinstance(value, nn.Module) and hasattr(value, "__qualname__"):
        return f"{_module_of(value)}.{value.__qualname__}{_captured(value)}"
    shown = repr(value)
    return f"a {type(value).__module__}.{type(value).__qualname__}" if " at 0x" in shown else shown


def _module_of(function: Any) -> str:
    """The public module of a function or class; for a script its file's name, as if it had been imported."""
    module = str(function.__module__)
    file = getattr(sys.modules.get(module), "__file__", None) if module == "__main__" else None
    return Path(file).stem if file else public_module(function)


def _captured(function: Any) -> str:
    """The plain values that a closure holds."""
    cells = getattr(function, "__closure__", None) or ()
    values = [cell.cell_contents for cell in cells]
    plain = [repr(value) for value in values if isinstance(value, (bool, int, float, str, type(None)))]
    return f"[{', '.join(plain)}]" if plain else ""
