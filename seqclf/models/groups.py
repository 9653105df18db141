"""A model's parameters in the groups that an optimizer takes, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from seqclf.batch import SeqclfError


def param_groups(model: nn.Module, rules: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parameters that learn, a group for each rule that has any, and one for those that no rule names.

    Args:
        model: the model.
        rules: by pattern of names (``*`` for anything), the settings of the group, such as ``{"head.bias": {"lr_mult":
            20, "decay_mult": 0}, "*.bias*": {"lr_mult": 2, "decay_mult": 0}}`` for ``caffe.SGD``, or ``{"encoder.*":
            {"lr": 1e-5}}`` for any optimizer. A parameter is in the group of the first pattern that it fits.

    Returns:
        dicts of ``params`` and the group's settings, in the order of the rules, the rest last.

    Raises:
        SeqclfError: no parameter fits a pattern.
    """
    groups: dict[str | None, list[nn.Parameter]] = {pattern: [] for pattern in rules}
    groups[None] = []
    names = [name for name, _ in model.named_parameters()]
    for pattern in rules:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SeqclfError(f"groups: no parameter of the model is called {pattern!r}: they are {', '.join(names)}")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[next((p for p in rules if fnmatchcase(name, p)), None)].append(parameter)
    return [{"params": params, **(rules[key] if key else {})} for key, params in groups.items() if params]
