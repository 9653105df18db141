"""Settings by dotted name: ``key=value`` changes any value that a config spells, or has a default for."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import Field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar, get_type_hints

from seqclf.batch import SeqclfError
from seqclf.experiment.values import is_callable_type, none_is_accepted, parse

T = TypeVar("T")


def change(experiment: T, override: str) -> T:
    """Changes one setting.

    A dotted name leads through functions, classes and their arguments, and by number through lists and tuples:
    ``model.temporal.hidden=256``, ``data.transform.steps.0.size=128``. Values are written as in Python. The value of a
    setting that is a function or class is a name: from the module of the current one, from ``seqclf`` and its
    namespaces, or with its module (``optimizer=torch.optim.SGD``). The arguments that the new function also takes are
    kept.

    Args:
        experiment: an experiment; it is not modified.
        override: ``key=value``.

    Returns:
        the changed experiment.

    Raises:
        SeqclfError: there is no such setting, or the value is not of its type.
    """
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise SeqclfError(f"setting {override!r}: expected key=value, such as steps=500")
    sources = getattr(experiment, "sources", None)
    with sources.active() if sources is not None else nullcontext():
        return _change(experiment, key.split("."), raw, key)  # type: ignore[no-any-return]


def setting_fields(experiment: Any) -> list[Field[Any]]:
    """The fields of a dataclass that are settings."""
    return [f for f in fields(experiment) if f.metadata.get("setting", True)]


def settings_of(node: Any) -> dict[str, tuple[Any, Any]]:
    """The settings of a node.

    Args:
        node: an experiment or another dataclass, a function, class or partial, a list, tuple or mapping.

    Returns:
        name -> (annotation, current value).
    """
    if is_dataclass(node) and not isinstance(node, type):
        hints = get_type_hints(type(node))
        return {f.name: (hints[f.name], getattr(node, f.name)) for f in setting_fields(node)}
    if isinstance(node, Mapping):
        return {str(name): (Any, value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return {str(i): (Any, value) for i, value in enumerate(node)}
    return _arguments_of(node) if callable(node) else {}


def _arguments_of(node: Any) -> dict[str, tuple[Any, Any]]:
    """The arguments of a function, class or partial that have a value; not those that the program passes."""
    target = node.func if isinstance(node, partial) else node
    given = _given(node)
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return {name: (Any, value) for name, value in given.items()}
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations of other people's code may not resolve; any value is accepted then
        hints = {}
    settings = {}
    for p in parameters:
        if p.kind in (p.POSITIONAL_ONLY, p.VAR_KEYWORD) or (p.default is p.empty and p.name not in given):
            continue
        settings[p.name] = (Any if p.kind is p.VAR_POSITIONAL else hints.get(p.name, Any), given.get(p.name, p.default))
    return settings


def _given(node: Any) -> dict[str, Any]:
    """The arguments that a partial holds, positional ones too, by name."""
    if not isinstance(node, partial):
        return {}
    if not node.args:
        return dict(node.keywords)
    try:
        return dict(inspect.signature(node.func).bind_partial(*node.args, **node.keywords).arguments)
    except (TypeError, ValueError):
        return dict(node.keywords)


def _change(node: Any, path: list[str], raw: str, key: str) -> Any:
    settings = settings_of(node)
    # the key of a mapping may contain dots: the longest name that exists is meant
    size = next((n for n in range(len(path), 0, -1) if ".".join(path[:n]) in settings), 1)
    name, rest = ".".join(path[:size]), path[size:]
    if name not in settings:
        above = ".".join(key.split(".")[: key.count(".") - len(rest)])
        raise SeqclfError(f"setting {key}: {_no_setting(above, name, node, settings)}")
    annotation, current = settings[name]
    if not rest:
        value = _value(raw, annotation, current, key)
    elif not callable(current) and (isinstance(current, (str, bytes)) or not settings_of(current)):
        raise SeqclfError(f"setting {key}: {name} is {current!r} and has no settings of its own")
    else:
        value = _change(current, rest, raw, key)
    return _with_setting(node, name, value)


def _no_setting(above: str, name: str, node: Any, settings: Mapping[str, Any]) -> str:
    if isinstance(node, (list, tuple)):
        return f"{above} has items 0 to {len(node) - 1}, not {name!r}"
    if name in _parameters(node):
        function = getattr(getattr(node, "func", node), "__name__", above)
        return f"{name!r} has no default in {function}, and the config does not set it"
    near = get_close_matches(name, settings, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(settings) or 'none'}"
    return f"{above or 'the experiment'} has no setting {name!r}; {hint}"


def _parameters(node: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function, class or partial; none of another value."""
    try:
        return inspect.signature(node.func if isinstance(node, partial) else node).parameters
    except (TypeError, ValueError):
        return {}


def _with_setting(node: Any, name: str, value: Any) -> Any:
    """A copy of a node with one setting changed."""
    if isinstance(node, Mapping):
        return {k: value if str(k) == name else v for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(value if str(i) == name else item for i, item in enumerate(node))
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{name: value})
    if not isinstance(node, partial):
        return partial(node, **{name: value})
    if name in node.keywords or name not in _given(node):
        return partial(node.func, *node.args, **{**node.keywords, name: value})
    bound = inspect.signature(node.func).bind_partial(*node.args, **node.keywords)
    bound.arguments[name] = value
    return partial(node.func, *bound.args, **bound.kwargs)


def _value(raw: str, annotation: Any, current: Any, key: str) -> Any:
    """The text of a value as a value of the setting's type."""
    if is_callable_type(annotation) or callable(current):
        if raw in ("None", "none") and none_is_accepted(annotation):
            return None
        return _keeping_arguments(_symbol(raw, current, key), current)
    return parse(raw, annotation, current, key)


def _keeping_arguments(symbol: Any, current: Any) -> Any:
    """A new function or class with those arguments of the current one that it takes."""
    if not isinstance(current, partial) or isinstance(symbol, partial):
        return symbol
    known = _parameters(symbol)
    kept = {name: value for name, value in current.keywords.items() if name in known}
    return partial(symbol, **kept) if kept else symbol


def _symbol(raw: str, current: Any, key: str) -> Any:
    """A function or class by name."""
    func = current.func if isinstance(current, partial) else current
    home = sys.modules.get(getattr(func, "__module__", ""), None)
    seqclf = sys.modules["seqclf"]
    for place in (home, _family(func), seqclf):
        found = _attribute(place, raw)
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
    near = get_close_matches(raw, [n for m in (home, _family(func), seqclf) if m for n in dir(m) if n[0] != "_"])
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ", such as torch.optim.SGD"
    raise SeqclfError(f"setting {key}={raw}: expected a function or class by name{hint}")


def _family(func: Any) -> Any:
    """The namespace of ``seqclf`` that has a function, such as ``seqclf.losses`` for ``cross_entropy``; else None."""
    seqclf = sys.modules["seqclf"]
    names = ("labelling", "losses", "samplers", "sampling", "schedules", "transforms")
    families = (getattr(seqclf, name) for name in names)
    return next((family for family in families if func in vars(family).values()), None)


def _attribute(place: Any, dotted: str) -> Any:
    """An attribute of a module by its dotted name, such as ``schedules.one_cycle`` of ``seqclf``; None without it."""
    for name in dotted.split("."):
        place = getattr(place, name, None) if name else None
    return place
