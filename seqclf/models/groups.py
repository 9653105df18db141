"""Parameter groups for an optimizer, by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from seqclf.batch import SeqclfError


def param_groups(model: nn.Module, rules: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups the trainable parameters of a model, each group with its own optimizer settings.

    Args:
        model: the model.
        rules: the settings of each group by a pattern of parameter names, in which ``*`` matches anything. Examples are
            ``{"encoder.*": {"lr": 1e-5}}`` for any optimizer, and ``{"*.bias*": {"lr_mult": 2, "decay_mult": 0}}`` for
            ``caffe.SGD``. The first pattern that matches a parameter applies.

    Returns:
        one dict per rule that matches a trainable parameter, with ``params`` and the settings, in the order of the
        rules, then one with the remaining parameters.

    Raises:
        SeqclfError: a pattern matches no parameter.
    """
    groups: dict[str | None, list[nn.Parameter]] = {pattern: [] for pattern in rules}
    groups[None] = []
    names = [name for name, _ in model.named_parameters()]
    for pattern in rules:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SeqclfError(f"param_groups: {pattern!r} matches no parameter; the names are {', '.join(names)}")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[next((p for p in rules if fnmatchcase(name, p)), None)].append(parameter)
    return [{"params": params, **(rules[key] if key else {})} for key, params in groups.items() if params]
