"""Configs: plain Python files that return an ``Experiment``, changed by ``key=value``, and written out again as Python."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import shutil
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import Data
from seqclf.objective import cross_entropy
from seqclf.schedules import Schedule, constant


@dataclass(frozen=True)
class Experiment:
    """All that a run is made of.

    Attributes:
        data: called without arguments, gives the ``Data``.
        model: called with ``frame_shape=`` and ``num_classes=``, gives the module.
        optimizer: called with the model's parameters.
        steps: how many updates.
        batch_size: clips per update, of all processes together.
        seed: of initial weights, order of samples, augmentation and dropout.
        schedule: ``schedule(step, steps)``, the factor on the optimizer's own learning rate.
        loss: ``loss(logits, labels, total)``, the loss to minimise.
        augment: ``augment(frames)``, a random change of a batch's raw frames in training, or None.
        clip_norm: the largest global L2 norm of the gradient, or None for no clipping.
        accumulate: in how many parts a batch is run, to save memory; the gradient is the whole batch's.
        precision: "fp32", or "bf16" or "fp16" by autocast (fp16 with loss scaling).
        eval_every, log_every, checkpoint_every: in steps; the last step is always evaluated and saved.
        eval_batch: clips per batch of an evaluation.
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
    augment: Callable[[Tensor], Tensor] | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    eval_every: int = 500
    eval_batch: int = 1000
    log_every: int = 100
    checkpoint_every: int = 500
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "eval_every", "eval_batch", "log_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise SeqclfError(f"setting {name}={getattr(self, name)}: must be at least 1")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise SeqclfError(f"setting clip_norm={self.clip_norm}: must be above 0, or None")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise SeqclfError(f"setting precision={self.precision}: one of fp32, bf16, fp16")
        if self.seed < 0:
            raise SeqclfError(f"setting seed={self.seed}: must be at least 0")


# ------------------------------------------------------------------------------------------------ reading a config

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
    if not path.is_file():
        raise SeqclfError(f"config {path}: no such file")
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
            if file and Path(file).resolve().parent in (folder, folder / "sources"):
                _local[key] = Path(file).resolve()
    if not isinstance(experiment, Experiment):
        raise SeqclfError(f"config {path}: get_config() returned {type(experiment).__name__}, expected seqclf.Experiment")
    return experiment


# ------------------------------------------------------------------------------------------------ changing a setting


def change(experiment: Experiment, override: str) -> Experiment:
    """The experiment with one setting changed by ``key=value``, such as ``model.temporal.hidden=256``."""
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise SeqclfError(f"setting {override!r}: expected key=value, such as steps=500")
    return _change(experiment, key.split("."), raw, key)


def _change(node: Any, path: list[str], raw: str, key: str) -> Any:
    name, rest = path[0], path[1:]
    settings = _settings(node)
    if name not in settings:
        above = ".".join(key.split(".")[: key.count(".") - len(rest)])
        near = get_close_matches(name, settings, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(settings) or 'none'}"
        raise SeqclfError(f"setting {key}: {above or 'the experiment'} has no setting {name!r}; {hint}")
    annotation, current = settings[name]
    if rest:
        if not callable(current):
            raise SeqclfError(f"setting {key}: {name} is {current!r} and has no settings of its own")
        value = _change(current, rest, raw, key)
    else:
        value = _convert(raw, annotation, current, key)
    if isinstance(node, Experiment):
        return replace(node, **{name: value})
    if isinstance(node, partial):
        return partial(node.func, *node.args, **{**node.keywords, name: value})
    return partial(node, **{name: value})


def _settings(node: Any) -> dict[str, tuple[Any, Any]]:
    """The settings of an experiment or of a (partial of a) callable: name -> (annotation, current value)."""
    if isinstance(node, Experiment):
        hints = get_type_hints(Experiment)
        return {f.name: (hints[f.name], getattr(node, f.name)) for f in fields(node)}
    target = node.func if isinstance(node, partial) else node
    given = node.keywords if isinstance(node, partial) else {}
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return {name: (Any, value) for name, value in given.items()}
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations of foreign code may not resolve; their settings are then untyped
        hints = {}
    settings = {}
    for p in parameters:
        if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.default is p.empty and p.name not in given:
            continue  # what the program fills in: input sizes, parameters, frames
        settings[p.name] = (hints.get(p.name, Any), given.get(p.name, p.default))
    return settings


def _convert(raw: str, annotation: Any, current: Any, key: str) -> Any:
    """The text of a value as its setting's type."""
    if _is_callable(annotation) or callable(current):
        if raw in ("None", "none") and _accepts(None, annotation):
            return None
        return _symbol(raw, current, key)
    if annotation in (Any, inspect.Parameter.empty) and current is not None:
        annotation = Union[type(current), None] if not isinstance(current, int) else type(current)
    lowered = {"true": True, "false": False, "none": None}.get(raw.lower(), raw)
    candidates: list[Any] = [lowered]
    if isinstance(lowered, str):
        try:
            candidates.insert(0, ast.literal_eval(raw))
        except (ValueError, SyntaxError):
            pass  # then it is a string as it stands
        if candidates[0] != raw:
            candidates.append(raw)
    for value in candidates:
        if _accepts(value, annotation):
            return float(value) if type(value) is int and not _accepts_int(annotation) else value
    raise SeqclfError(f"setting {key}={raw}: expected {_describe(annotation)} (it is {current!r} now)")


def _accepts(value: Any, annotation: Any) -> bool:
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_accepts(value, a) for a in args)
    if origin is Literal:
        return value in args
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple and args and Ellipsis not in args:
        return isinstance(value, (tuple, list)) and len(value) == len(args) and all(map(_accepts, value, args))
    if origin is not None and inspect.isclass(origin):
        return isinstance(value, (tuple, list)) if issubclass(origin, Iterable) else isinstance(value, origin)
    return inspect.isclass(annotation) and isinstance(value, annotation)


def _accepts_int(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_accepts_int(a) for a in get_args(annotation))
    return annotation is not float


def _is_callable(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_callable(a) for a in get_args(annotation))
    return annotation is Callable or get_origin(annotation) is Callable.__origin__  # type: ignore[attr-defined]


def _describe(annotation: Any) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "None"}
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_describe(a) for a in get_args(annotation) if a is not Tensor)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    return names.get(annotation, str(annotation).replace("typing.", ""))


def _symbol(raw: str, current: Any, key: str) -> Any:
    """A function or class by name: from where the current one comes from, from seqclf, or by its dotted path."""
    func = current.func if isinstance(current, partial) else current
    home = sys.modules.get(getattr(func, "__module__", ""), None)
    for module in (home, sys.modules["seqclf"]):
        found = getattr(module, raw, None)
        if callable(found):
            return found
    module_name, _, attribute = raw.rpartition(".")
    if module_name:
        try:
            found = getattr(importlib.import_module(module_name), attribute, None)
        except ImportError:
            found = None
        if callable(found):
            return found
    near = get_close_matches(raw, [n for m in (home, sys.modules["seqclf"]) if m for n in dir(m) if n[0] != "_"])
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ", such as torch.optim.SGD"
    raise SeqclfError(f"setting {key}={raw}: expected a function or class by name{hint}")


# ------------------------------------------------------------------------------------------------ writing a config


def render(experiment: Experiment) -> str:
    """The whole resolved experiment as the Python text of a config file that gives it again.

    Raises:
        SeqclfError: a value can't be written, such as a lambda or a module that is already built.
    """
    names: dict[str, Any] = {}
    imports: dict[str, str] = {}

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
        imports[name] = f"from {module} import {qualname}" + (f" as {name}" if name != qualname else "")
        return name

    def expression(value: Any, indent: int) -> str:
        if isinstance(value, partial):
            parts = [name_of(value.func), *(expression(a, indent) for a in value.args)]
            parts += [f"{k}={expression(v, indent + 4)}" for k, v in value.keywords.items()]
            imports.setdefault("partial", "from functools import partial")
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

    imports["Experiment"] = "from seqclf import Experiment"
    settings = [f"{f.name}={expression(getattr(experiment, f.name), 8)}" for f in fields(experiment)]
    body = "".join(f"        {s},\n" for s in settings)
    return "\n".join(
        [
            '"""The resolved config of a run."""',
            "",
            *sorted(set(imports.values())),
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
    for name, file in _local.items():
        if f"from {name} import " in text:
            (folder / "sources").mkdir(exist_ok=True)
            for module, path in _local.items():
                if not (folder / "sources" / f"{module}.py").exists():
                    shutil.copyfile(path, folder / "sources" / f"{module}.py")
            break
    (folder / "config.py").write_text(text)


def same_numbers(a: Experiment, b: Experiment) -> list[str]:
    """The settings in which two experiments differ and that change a run's numbers (see ``MAY_CHANGE``)."""
    differing = []
    for f in fields(Experiment):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if f.name in MAY_CHANGE:
            continue
        if f.name == "data":
            x, y = (partial(d, root=None) if "root" in _settings(d) else d for d in (x, y))
        if render_value(x) != render_value(y):
            differing.append(f.name)
    return differing


def render_value(value: Any) -> str:
    """One value of a config, for comparing."""
    if isinstance(value, partial):
        inner = sorted(f"{k}={render_value(v)}" for k, v in value.keywords.items())
        return f"{render_value(value.func)}({', '.join(inner)})"
    if callable(value):
        return f"{getattr(value, '__qualname__', value)}"
    return repr(value)


MAY_CHANGE = ("steps", "eval_every", "log_every", "checkpoint_every", "keep", "eval_batch")
"""What a resumed run may set anew, besides ``data.root``; with other ``steps`` a schedule goes on as for so many."""
