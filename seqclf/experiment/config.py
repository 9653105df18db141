"""Configs: plain Python files that return an ``Experiment``, and an experiment written out as such a file again."""

from __future__ import annotations

import importlib.util
import inspect
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import Data, Transform
from seqclf.experiment.find_config import find_config
from seqclf.experiment.losses import cross_entropy
from seqclf.experiment.schedules import Schedule, constant
from seqclf.experiment.settings import change, settings_of


@dataclass(frozen=True)
class Experiment:
    """All that a run is made of.

    Attributes:
        data: called without arguments, gives the ``Data``.
        model: called with ``frame_shape=`` and ``num_classes=``, gives the module.
        optimizer: called with the model's parameters, or with the groups of them.
        groups: called with the model, gives the optimizer's groups of parameters, such as ``partial(param_groups,
            rules=...)``; None for one group of all.
        steps: how many updates.
        batch_size: clips per update, of all processes together.
        seed: of initial weights, order of samples, augmentation and dropout.
        schedule: ``schedule(step, steps)``, the factor on the optimizer's own learning rate.
        loss: ``loss(logits, labels, total)``, the loss to minimise.
        augment: a transform of each training batch's raw frames, ``augment(frames, generator)`` with ``(B, T, ...)``
            frames (see ``seqclf.transforms``), or None. It draws from ``generator``, which is seeded by the step.
        clip_norm: the largest global L2 norm of the gradient, or None for no clipping.
        accumulate: in how many parts a batch is run, to save memory; the gradient is the whole batch's.
        truncate: frames that the gradient goes back through; longer clips are run in windows of so many, the memory
            carried from one to the next without its gradient. None for no limit.
        precision: "fp32", or "bf16" or "fp16" by autocast (fp16 with loss scaling).
        compile: the encoder is compiled by ``torch.compile``, which takes a while at first.
        cuda_graph: on a GPU a step, but for the optimizer's update, is recorded once and replayed as one launch; for
            clips in memory that all have the same length, in one process.
        deterministic: on a GPU the same seed gives the same weights bit for bit; some operations then are slower, or
            refused.
        eval_every, log_every, checkpoint_every: in steps; the last step is always evaluated and saved.
        eval_batch: clips per batch of an evaluation; None for 1,000 in memory, or 16 out of videos.
        keep: how many of the newest checkpoints stay (the best one stays besides).
    """

    data: Callable[[], Data]
    model: Callable[..., nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    steps: int
    batch_size: int
    seed: int = 0
    schedule: Schedule = constant
    loss: Callable[..., Tensor] = cross_entropy
    augment: Transform | None = None
    groups: Callable[[nn.Module], list[dict[str, Any]]] | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    truncate: int | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    cuda_graph: bool = False
    deterministic: bool = False
    eval_every: int = 500
    eval_batch: int | None = None
    log_every: int = 100
    checkpoint_every: int = 500
    keep: int = 3

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "eval_every",
            "eval_batch",
            "log_every",
            "checkpoint_every",
            "keep",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise SeqclfError(f"setting {name}={getattr(self, name)}: must be at least 1")
        if self.truncate is not None and self.truncate < 1:
            raise SeqclfError(f"setting truncate={self.truncate}: must be at least 1, or None")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise SeqclfError(f"setting clip_norm={self.clip_norm}: must be above 0, or None")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise SeqclfError(f"setting precision={self.precision}: one of fp32, bf16, fp16")
        if not 0 <= self.seed < 2**63:
            raise SeqclfError(f"setting seed={self.seed}: must be at least 0 and below 2**63")


_local: dict[str, Path] = {}
"""Modules that the last config brought with it (itself, and its neighbours that it imports), and their files."""


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """The experiment of a config file, its settings changed by ``key=value`` overrides.

    Raises:
        SeqclfError: the file is not there, fails to import or has no get_config; an override is unknown or mistyped.
    """
    experiment = _load_get_config(Path(path))
    for override in overrides:
        experiment = change(experiment, override)
    return experiment


def _load_get_config(path: Path) -> Experiment:
    path = find_config(path)
    for name in _local:
        sys.modules.pop(name, None)
    _local.clear()
    folder = path.resolve().parent
    name = f"_config_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SeqclfError(f"config {path}: not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    search = [str(folder), str(folder / "sources")]
    sys.path[:0] = search
    try:
        spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise SeqclfError(f"config {path}: it has no function get_config()")
        experiment = get_config()
    except SeqclfError:
        raise
    except Exception as error:  # whatever a user's file raises is told as a fault of that file
        line = next((f" (line {f.lineno})" for f in reversed(inspect.trace()) if Path(f.filename) == path), "")
        raise SeqclfError(f"config {path}{line}: {type(error).__name__}: {error}") from None
    finally:
        sys.path[:] = [entry for entry in sys.path if entry not in search]
        for key, loaded in list(sys.modules.items()):
            file = getattr(loaded, "__file__", None)
            if file and Path(file).is_absolute() and Path(file).resolve().parent in (folder, folder / "sources"):
                _local[key] = Path(file).resolve()
    if not isinstance(experiment, Experiment):
        raise SeqclfError(
            f"config {path}: get_config() returned {type(experiment).__name__}, expected seqclf.Experiment"
        )
    return experiment


def build(name: str, part: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """What a part of an experiment builds; a value that it does not take is told as a fault of that setting."""
    try:
        return part(*args, **keywords)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SeqclfError(f"setting {name}: {type(error).__name__}: {error}") from None


def render(experiment: Experiment) -> str:
    """The whole resolved experiment as the Python text of a config file that gives it again.

    Raises:
        SeqclfError: a value can't be written, such as a lambda or a module that is already built.
    """
    names: dict[str, Any] = {"Experiment": Experiment, "partial": partial}
    imports: dict[str, set[str]] = {"seqclf": {"Experiment"}}

    def name_of(symbol: Any) -> str:
        module, qualname = getattr(symbol, "__module__", None), getattr(symbol, "__qualname__", "")
        if module is None or not qualname.isidentifier():
            raise SeqclfError(f"a config can't hold {symbol!r}: give it a name at the top of a module")
        parts = module.split(".")
        if module not in _local:  # the shortest package that shows it, as people import it
            prefixes = (".".join(parts[: i + 1]) for i in range(len(parts)))
            module = next((m for m in prefixes if getattr(sys.modules.get(m), qualname, None) is symbol), module)
        name = qualname
        while names.get(name, symbol) is not symbol:
            name += "_"
        names[name] = symbol
        imports.setdefault(module, set()).add(qualname + (f" as {name}" if name != qualname else ""))
        return name

    def expression(value: Any, indent: int) -> str:
        if isinstance(value, partial):
            parts = [name_of(value.func), *(expression(a, indent) for a in value.args)]
            parts += [f"{k}={expression(v, indent + 4)}" for k, v in value.keywords.items()]
            imports.setdefault("functools", set()).add("partial")
            return joined("partial(", parts, ")", indent)
        if isinstance(value, float) and value - value != 0:
            return f'float("{value}")'
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            return repr(value)
        if isinstance(value, (list, tuple)):
            inner = [expression(v, indent + 4) for v in value]
            ends = "[]" if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
            return joined(ends[0], inner, ends[1], indent)
        if isinstance(value, Mapping):
            inner = [f"{expression(k, indent + 4)}: {expression(v, indent + 4)}" for k, v in value.items()]
            return joined("{", inner, "}", indent)
        if isinstance(value, Path):
            return repr(str(value))
        if callable(value) and not isinstance(value, nn.Module):
            return name_of(value)
        raise SeqclfError(f"a config can't hold {value!r}: use plain values, names, and functools.partial of them")

    def joined(start: str, parts: list[str], end: str, indent: int) -> str:
        line = start + ", ".join(parts) + end
        if "\n" not in line and len(line) + indent < 100:
            return line
        pad = " " * (indent + 4)
        return start + "".join(f"\n{pad}{p}," for p in parts) + f"\n{' ' * indent}" + end.lstrip(",")

    settings = [f"{f.name}={expression(getattr(experiment, f.name), 8)}" for f in fields(experiment)]
    body = "".join(f"        {s},\n" for s in settings)
    return "\n".join(
        [
            '"""The resolved config of a run."""',
            "",
            *(f"from {module} import {', '.join(sorted(imports[module]))}" for module in sorted(imports)),
            "",
            "",
            "def get_config() -> Experiment:",
            "    return Experiment(",
            f"{body}    )",
            "",
        ]
    )


def save_experiment(experiment: Experiment, folder: Path) -> None:
    """Writes ``config.py``, and under ``sources/`` what it needs of the config file that it came from."""
    text = render(experiment)
    if any(f"from {name} import " in text for name in _local):
        (folder / "sources").mkdir(exist_ok=True)
        for module, path in _local.items():
            copy = folder / "sources" / f"{module}.py"
            if path != copy.resolve():
                shutil.copyfile(path, copy)
    part = folder / "config.part"
    part.write_text(text)
    part.replace(folder / "config.py")


def resume_fingerprint(experiment: Experiment) -> dict[str, str]:
    """The settings that make a run's numbers what they are, as texts to compare; a resumed run must have the same.

    Left out are those of ``MAY_CHANGE``, and where the data lies (its fingerprint is compared instead).
    """
    texts = {}
    for f in fields(Experiment):
        value = getattr(experiment, f.name)
        if f.name == "data" and "root" in settings_of(value):
            value = partial(value, root=None)
        if f.name not in MAY_CHANGE:
            texts[f.name] = _text(value)
    return texts


def _text(value: Any) -> str:
    if isinstance(value, partial):
        inner = [*map(_text, value.args), *sorted(f"{k}={_text(v)}" for k, v in value.keywords.items())]
        return f"{_text(value.func)}({', '.join(inner)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else f"({', '.join(map(_text, value))})"
    if callable(value):
        return f"{getattr(value, '__qualname__', value)}"
    return repr(value)


MAY_CHANGE = ("steps", "eval_every", "log_every", "checkpoint_every", "keep", "eval_batch")
"""What a resumed run may set anew, besides ``data.root``; with other ``steps`` a schedule goes on as for so many."""
