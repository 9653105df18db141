"""Settings as plain values: what a data set was built with, written as JSON and built again from it.

A number, a string, None or a list stays as it is; a tuple becomes ``{"tuple": [...]}``. A function or class is stored
by its importable name, a ``functools.partial`` by the name and its arguments:

    partial(resize, size=112)  <->  {"call": "seqclf.transforms:resize", "keywords": {"size": 112}}

What has no importable name (a lambda, a closure, an object with hidden state) is stored as ``{"opaque": description}``
and can't be built again.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.runtime.names import public_module

Recipe = Any
"""A JSON value: None, a number, a string, a list or a dictionary."""


def to_recipe(value: Any) -> Recipe:
    """Converts a value to a recipe; see the module's docstring."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return [to_recipe(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [to_recipe(item) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: to_recipe(item) for key, item in value.items()}}
    if isinstance(value, partial):
        recipe = to_recipe(value.func)
        if "call" in recipe and (value.args or value.keywords):
            recipe["arguments"] = [to_recipe(item) for item in value.args]
            recipe["keywords"] = {key: to_recipe(item) for key, item in value.keywords.items()}
        return recipe
    if is_dataclass(value) and not isinstance(value, type):
        recipe = to_recipe(type(value))
        if "call" in recipe:
            keywords = {f.name: to_recipe(getattr(value, f.name)) for f in fields(value) if f.init}
            return {"built": recipe["call"], "keywords": keywords}
        return recipe
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and _is_importable(value, module, name):
        return {"call": f"{public_module(value) if module.startswith('seqclf.') else module}:{name}"}
    return {"opaque": f"{module}.{name}" if name else repr(value)[:120]}


def from_recipe(recipe: Recipe, sources: Path | None = None) -> Any:
    """The value that a recipe describes.

    Args:
        sources: a folder of modules that is searched first, such as ``sources`` in a run folder.

    Raises:
        SeqclfError: a part has no importable name, or can't be imported.
    """
    if isinstance(recipe, list):
        return [from_recipe(item, sources) for item in recipe]
    if not isinstance(recipe, dict):
        return recipe
    if "tuple" in recipe:
        return tuple(from_recipe(item, sources) for item in recipe["tuple"])
    if "mapping" in recipe:
        return {key: from_recipe(item, sources) for key, item in recipe["mapping"].items()}
    if "opaque" in recipe:
        raise SeqclfError(f"{recipe['opaque']} has no importable name")
    function = _imported(recipe.get("call") or recipe["built"], sources)
    arguments = [from_recipe(item, sources) for item in recipe.get("arguments", ())]
    keywords = {key: from_recipe(item, sources) for key, item in recipe.get("keywords", {}).items()}
    if "built" in recipe:
        return function(**keywords)
    return partial(function, *arguments, **keywords) if arguments or keywords else function


def opaque_parts(recipe: Recipe) -> list[str]:
    """The parts of a recipe that have no importable name."""
    return [part["opaque"] for part in parts_of(recipe) if "opaque" in part]


def parts_of(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Yields every call in a recipe, outer calls first."""
    if isinstance(recipe, list):
        for item in recipe:
            yield from parts_of(item)
    elif isinstance(recipe, dict):
        if "mapping" not in recipe and "tuple" not in recipe:
            yield recipe
        yield from parts_of(recipe.get("tuple", []))
        for key in ("mapping", "keywords"):
            yield from parts_of(list(recipe.get(key, {}).values()))
        yield from parts_of(recipe.get("arguments", []))


def _is_importable(value: Any, module: str, name: str) -> bool:
    """Whether another process can import the value by this name."""
    if module == "__main__" or "<" in name:
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    # a config's module may have been removed from sys.modules while its functions are still in use
    return found is value or getattr(value, "__globals__", {}).get(name) is value


def _imported(name: str, sources: Path | None) -> Any:
    module_name, _, path = name.partition(":")
    try:
        found: Any = _module(module_name, sources)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        own = module_name.partition(".")[0] == "seqclf"
        hint = ": another version of seqclf wrote it; use that version, or train again with this one" if own else ""
        raise SeqclfError(f"{name} can't be imported ({error}){hint}") from None
    return found


def _module(name: str, sources: Path | None) -> ModuleType:
    file = None if sources is None else sources / f"{name}.py"
    if sources is None or file is None or not file.is_file():
        return importlib.import_module(name)
    loaded = sys.modules.get(name)
    if loaded is not None and Path(getattr(loaded, "__file__", None) or "").resolve() == file.resolve():
        return loaded
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(sources))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(sources))
    return module
