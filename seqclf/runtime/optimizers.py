"""The optimizers of PyTorch without ``torch._dynamo``."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


def leave_out_dynamo() -> None:
    """Makes PyTorch's optimizers work without importing ``torch._dynamo``, which takes 1.4 s and 150 MB.

    The optimizers import it to exclude some of their methods from ``torch.compile``, even if nothing is compiled. This
    function removes these decorators. ``torch.compile`` of an optimizer then no longer excludes the methods, so only
    commands call this function. Modules can be compiled as before.
    """
    for name in ("state_dict", "load_state_dict", "zero_grad", "add_param_group"):
        setattr(Optimizer, name, inspect.unwrap(getattr(Optimizer, name)))
    for each in vars(torch.optim).values():
        if inspect.isclass(each) and issubclass(each, Optimizer) and "step" in vars(each):
            setattr(each, "step", torch.no_grad()(inspect.unwrap(each.step)))  # noqa: B010
