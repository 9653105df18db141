"""Settings by name: any value that a config spells, or that what it calls has a default for, as ``key=value``."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from seqclf.batch import SeqclfError

T = TypeVar("T")


def change(experiment: T, override: str) -> T:
    """An experiment with one setting changed by ``key=value``, such as ``model.temporal.hidden=256``.

    Values are written as in Python. Where the setting is a function or class, the value is its name: as found where the
    present one comes from, in ``seqclf``, or by dotted path (``optimizer=torch.optim.SGD``); the keywords that the
    present one was given and the new one knows stay.

    Raises:
        SeqclfError: there is no such setting (the near misses are named), or the value is not of its type.
    """
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise SeqclfError(f"setting {override!r}: expected key=value, such as steps=500")
    return _change(experiment, key.split("."), raw, key)


def _change(node: Any, path: list[str], raw: str, key: str) -> Any:
    name, rest = path[0], path[1:]
    settings = settings_of(node)
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
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{name: value})
    if isinstance(node, partial):
        return partial(node.func, *node.args, **{**node.keywords, name: value})
    return partial(node, **{name: value})


def settings_of(node: Any) -> dict[str, tuple[Any, Any]]:
    """The settings of an experiment, or of a callable or partial of one: name -> (annotation, present value)."""
    if is_dataclass(node):
        hints = get_type_hints(type(node))
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
        return _keeping_keywords(_symbol(raw, current, key), current)
    if annotation in (Any, inspect.Parameter.empty) and current is not None:
        annotation = type(current)
    lowered = {"true": True, "false": False, "none": None}.get(raw.lower(), raw)
    candidates: list[Any] = [lowered] if lowered is raw else [lowered, raw]  # "none" may be a text of its own
    if isinstance(lowered, str):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is no Python literal is a text
            candidates.insert(0, ast.literal_eval(raw))
        if candidates[0] != raw:
            candidates.append(raw)
    for value in candidates:
        if _accepts(value, annotation):
            with suppress(OverflowError):  # an integer beyond all floats is none
                return float(value) if type(value) is int and not _knows_int(annotation) else value
    raise SeqclfError(f"setting {key}={raw}: expected {_describe(annotation)} (it is {current!r} now)")


def _keeping_keywords(symbol: Any, current: Any) -> Any:
    if not isinstance(current, partial) or isinstance(symbol, partial):
        return symbol
    known = inspect.signature(symbol).parameters
    kept = {name: value for name, value in current.keywords.items() if name in known}
    return partial(symbol, **kept) if kept else symbol


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


def _knows_int(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_knows_int(a) for a in get_args(annotation))
    return annotation in (int, Any)


def _is_callable(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_callable(a) for a in get_args(annotation))
    return annotation is Callable or get_origin(annotation) is Callable


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
        except (ImportError, TypeError, ValueError):
            found = None
        if callable(found):
            return found
    near = get_close_matches(raw, [n for m in (home, sys.modules["seqclf"]) if m for n in dir(m) if n[0] != "_"])
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ", such as torch.optim.SGD"
    raise SeqclfError(f"setting {key}={raw}: expected a function or class by name{hint}")
