"""TCN against the same convolutions as plain calls of ``torch.nn.functional``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf import TCN
from seqclf.benchmark.timing import compare


def plain_stage(net: Any) -> Callable[[Tensor], Tensor]:
    """A stage of MS-TCN on ``(B, C, T)`` without padding or resets, with the weights of a TCN."""

    def run(x: Tensor) -> Tensor:
        x = net.enter(x)
        for block in net.blocks:
            conv = block.conv.conv
            y = F.conv1d(x, conv.weight, conv.bias, padding=conv.dilation, dilation=conv.dilation)
            x = x + block.pointwise(F.relu(y))
        return x

    return run


def plain_fcn(net: Any) -> Callable[[Tensor], Tensor]:
    """The FCN on ``(B, C, T)`` without padding or resets, with the weights of a TCN."""

    def run(x: Tensor) -> Tensor:
        for block in net.blocks:
            conv, (kernel,) = block.conv, block.conv.kernel_size
            y = F.conv1d(F.pad(x, ((kernel - 1) // 2, kernel // 2)), conv.weight, conv.bias)
            x = F.relu(block.norm.norm(y))
        return x

    return run


def tcn(B: int = 16, T: int = 256, pairs: int = 9) -> None:
    """Forward and backward pass of a stage of MS-TCN and of the FCN: whole clips, padding, and resets."""
    stage = TCN(64, (64,) * 10, block="dilated_residual", causal=False)
    fcn = TCN(64, (128, 256, 128), (8, 5, 3), block="conv", causal=False, norm="batch")
    lengths, resets = torch.randint(T // 2, T + 1, (B,)), torch.rand(B, T) < 0.02
    for name, net, plain in (("stage of MS-TCN", stage, plain_stage(stage)), ("FCN", fcn, plain_fcn(fcn))):
        x = torch.randn(B, T, 64)
        y = x.transpose(1, 2).contiguous()

        def step(call: Callable[[], Tensor], net: nn.Module = net) -> Callable[[], None]:
            def run() -> None:
                call().sum().backward()
                net.zero_grad()

            return run

        rival = step(lambda plain=plain, y=y: plain(y))  # type: ignore[misc]
        for case, arguments in (
            ("", {}),
            (", clips of unequal length", {"lengths": lengths}),
            (", resets at 2 % of the frames", {"is_first": resets}),
        ):
            ours = step(lambda net=net, x=x, arguments=arguments: net(x, **arguments)[0])  # type: ignore[misc]
            compare(name + case, ours, rival, "plain convolutions", pairs)
