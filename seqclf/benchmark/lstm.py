"""LSTM and the training step of the reference task, against ``torch.nn.LSTM`` and against their matrix products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from seqclf import LSTM, Clips, FrameSequenceClassifier
from seqclf.benchmark.timing import compare, seconds
from seqclf.data import sample_order
from seqclf.data.labelling import last_frame
from seqclf.experiment.losses import cross_entropy

REFERENCE = {"B": 64, "T": 28, "D": 28, "H": 100, "layers": 3}
SHAPES = [  # B, T, D, H, layers
    (64, 28, 28, 100, 3),
    (64, 28, 28, 100, 1),
    (24, 16, 4096, 256, 1),  # LRCN
    (1, 100, 64, 64, 1),
    (16, 64, 1024, 512, 2),
]


def products(B: int, T: int, D: int, H: int, layers: int, input_gradient: bool) -> Callable[[], None]:
    """The matrix products of an LSTM's forward and backward pass; those over all frames are one product each."""
    h, gates, w = torch.randn(B, H), torch.randn(B, 4 * H), torch.randn(H, 4 * H)
    all_gates, all_h = torch.randn(T * B, 4 * H), torch.randn(T * B, H)
    inputs = [(torch.randn(T * B, D), torch.randn(D, 4 * H))] + [(all_h, w)] * (layers - 1)

    def run() -> None:
        for layer, (x, w_in) in enumerate(inputs):
            x @ w_in
            for _ in range(T):
                h @ w
            for _ in range(T):
                gates @ w.t()
            x.t() @ all_gates
            all_h.t() @ all_gates
            if layer or input_gradient:
                all_gates @ w_in.t()

    return run


def flop(B: int, T: int, D: int, H: int, layers: int, input_gradient: bool) -> float:
    """Floating-point operations of ``products``."""
    first = B * T * 4 * H * 2 * (D * (3 if input_gradient else 2) + 3 * H)
    return first + (layers - 1) * B * T * 4 * H * 2 * 6 * H


def step() -> None:
    """The training step of the reference task, against a bare ``nn.LSTM`` with SGD and against its matrix products."""
    B, T, D, H, layers = REFERENCE.values()
    images = torch.randint(0, 256, (6000, T, D), dtype=torch.uint8)
    clips = Clips(images, torch.randint(0, 10, (6000,)), labelling=last_frame)
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=H, layers=layers), frame_shape=(D,), num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bare = nn.LSTM(D, H, layers)
    bare_optimizer = torch.optim.SGD(bare.parameters(), lr=1e-6)  # higher: slow denormal numbers
    x = torch.randn(T, B, D)
    steps = iter(range(10**9))

    def ours() -> None:  # as in training: gather, forward, loss, backward, norm, update
        batch = clips.batch(sample_order(len(clips), B, 0, next(steps)))
        logits, _ = model(batch.frames, lengths=batch.lengths)
        cross_entropy(logits, batch.labels).backward()
        nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()

    def rival() -> None:
        bare(x)[0].sum().backward()
        bare_optimizer.step()
        bare_optimizer.zero_grad()

    floor = products(B, T, D, H, layers, input_gradient=False)
    compare("reference step", ours, rival, "bare nn.LSTM + SGD")
    compare("reference step", ours, floor, "its matrix products")
    best = min(seconds(floor) for _ in range(20))
    work = flop(B, T, D, H, layers, input_gradient=False)
    ours_best = min(seconds(ours) for _ in range(20))
    rate, peak = work / ours_best / 1e9, work / best / 1e9
    print(f"  {work / 1e9:.2f} GFLOP per step: {rate:.0f} GFLOP/s; matrix products alone {peak:.0f}")


def forward_backward(module: LSTM, x: Tensor, is_first: Tensor | None = None) -> Callable[[], None]:
    def run() -> None:
        module(x, is_first)[0].sum().backward()
        module.zero_grad()
        x.grad = None

    return run


def resets() -> None:
    """LSTM with sequences that start inside the batch, against the same LSTM without."""
    for B, T, D, H, layers in SHAPES[:3]:
        x = torch.randn(B, T, D, requires_grad=D >= 1024)
        module = LSTM(D, H, layers)
        start = torch.zeros(B, T, dtype=torch.bool)
        start[:, 0] = True
        dense = torch.rand(B, T) < 0.2
        plain = forward_backward(module, x)
        name = f"B={B} T={T} D={D} H={H} x{layers}"
        compare(f"dense resets, {name}", forward_backward(module, x, dense), plain, "without resets")
        compare(f"resets at frame 0, {name}", forward_backward(module, x, start), plain, "without resets")


def wide() -> None:
    """LSTM at several shapes, against ``nn.LSTM`` and against its matrix products."""
    for B, T, D, H, layers in SHAPES:
        x = torch.randn(B, T, D, requires_grad=D >= 1024)
        module, rival = LSTM(D, H, layers), nn.LSTM(D, H, layers)
        y = x.detach().transpose(0, 1).contiguous().requires_grad_(x.requires_grad)

        def bare(rival: nn.LSTM = rival, y: Tensor = y) -> None:
            rival(y)[0].sum().backward()
            rival.zero_grad()
            y.grad = None

        name = f"LSTM, B={B} T={T} D={D} H={H} x{layers}"
        compare(name, forward_backward(module, x), bare, "nn.LSTM, time-major")
        compare(name, forward_backward(module, x), products(B, T, D, H, layers, x.requires_grad), "its matrix products")
