"""The text of a setting's value, as a value of the setting's type."""

from __future__ import annotations

import ast
import inspect
import re
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import is_not
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from torch import Tensor

from seqclf.batch import SeqclfError

_WORDS = {"true": True, "false": False, "none": None}


def parse(raw: str, annotation: Any, current: Any, key: str) -> Any:
    """A text as a value.

    Args:
        raw: as written in Python; quotes around a string may be left out.
        annotation: the setting's type; ``Any`` for that of its current value.
        current: the setting's current value.
        key: the setting's name, for errors.

    Raises:
        SeqclfError: the value is not of the type.
    """
    if annotation in (Any, inspect.Parameter.empty) and current is not None:
        annotation = type(current)
    word = _WORDS.get(raw.lower(), raw)
    candidates: list[Any] = [word] if word is raw else [word, raw]  # "none" may be a string
    if isinstance(word, str):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            candidates.insert(0, ast.literal_eval(raw))
        if candidates[0] != raw:
            candidates.append(raw)
    for value in candidates:
        if accepts(value, annotation):
            with suppress(OverflowError):  # an integer above the largest float
                return float(value) if type(value) is int and not int_is_accepted(annotation) else value
    now = re.sub(" at 0x[0-9a-f]+>", ">", repr(current))  # of functions
    raise SeqclfError(f"setting {key}={raw}: expected {_describe(annotation)} (it is {now} now)")


def without_numpy(value: Any) -> Any:
    """A setting in which NumPy's numbers are Python's, also inside partials and collections; itself if it has none.

    Configs and checkpoints hold Python's numbers only.
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is partial:
        args, keywords = without_numpy(value.args), without_numpy(value.keywords)
        return value if args is value.args and keywords is value.keywords else partial(value.func, *args, **keywords)
    if type(value) is dict:
        inner = without_numpy([*value.values()])
        return dict(zip(value, inner, strict=True)) if any(map(is_not, inner, value.values())) else value
    if type(value) in (list, tuple):
        items = [without_numpy(item) for item in value]
        return type(value)(items) if any(map(is_not, items, value)) else value
    return value


def is_callable_type(annotation: Any) -> bool:
    """Whether a type is ``Callable``, or a union with it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return any(is_callable_type(a) for a in get_args(annotation))
    return annotation is Callable or get_origin(annotation) is Callable


def none_is_accepted(annotation: Any) -> bool:
    """Whether a type includes None."""
    return accepts(None, annotation)


def int_is_accepted(annotation: Any) -> bool:
    """Whether a type includes integers that stay integers."""
    if get_origin(annotation) in (Union, types.UnionType):
        return any(int_is_accepted(a) for a in get_args(annotation))
    return annotation in (int, Any)


def accepts(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type. bool is no number, and an integer is a float, too."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(accepts(value, a) for a in args)
    if origin is Literal:
        return value in args
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple and args and Ellipsis not in args:
        return isinstance(value, (tuple, list)) and len(value) == len(args) and all(map(accepts, value, args))
    if origin is Mapping:
        return isinstance(value, Mapping)
    if origin is not None and inspect.isclass(origin):
        return isinstance(value, (tuple, list)) if issubclass(origin, Iterable) else isinstance(value, origin)
    return inspect.isclass(annotation) and isinstance(value, annotation)


def _describe(annotation: Any) -> str:
    if get_origin(annotation) in (Mapping, Sequence):
        return "a mapping, such as {}" if get_origin(annotation) is Mapping else "several values, such as (1, 2)"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string", type(None): "None"}
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [a for a in get_args(annotation) if a is not Tensor]
        choices = tuple(value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))
        others = [_describe(kind) for kind in kinds if get_origin(kind) is not Literal]
        return " or ".join([_describe(Literal[choices]), *others] if choices else others)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    return names.get(annotation, str(annotation).replace("typing.", ""))
