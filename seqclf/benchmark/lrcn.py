"""LRCN of the config lrcn_rgb, one clip of 16 frames, against the original Caffe and against ``torch.nn``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from seqclf import FrameSequenceClassifier
from seqclf.benchmark.timing import in_turn, peak_memory, show
from seqclf.experiment.config import build
from seqclf.experiment.loading import load_experiment
from seqclf.experiment.losses import cross_entropy

CAFFE_MS = {"forward": (613, 640), "forward + backward": (1356, 1380)}  # lowest and highest median
CLASSES = 101


def lrcn_rgb(size: int = 227) -> FrameSequenceClassifier:
    """The model of the config, with initial weights."""
    experiment = load_experiment("lrcn_rgb")
    model: FrameSequenceClassifier = build("model", experiment.model, frame_shape=(3, size, size), num_classes=CLASSES)
    return model


class Plain(nn.Module):
    """The same net of ``torch.nn`` modules: preprocessed frames ``(B, T, 3, 227, 227)`` to logits ``(B, T, K)``."""

    def __init__(self) -> None:
        super().__init__()
        pool = (3, 2, 0, 1, False, True)  # kernel, stride, padding, dilation, indices, ceil_mode
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, 96, 7, 2), nn.ReLU(True), nn.MaxPool2d(*pool), nn.LocalResponseNorm(5)),
            *(nn.Conv2d(96, 384, 5, 2, groups=2), nn.ReLU(True), nn.MaxPool2d(*pool), nn.LocalResponseNorm(5)),
            *(nn.Conv2d(384, 512, 3, 1, 1), nn.ReLU(True)),
            *(nn.Conv2d(512, 512, 3, 1, 1, groups=2), nn.ReLU(True)),
            *(nn.Conv2d(512, 384, 3, 1, 1, groups=2), nn.ReLU(True), nn.MaxPool2d(*pool)),
            *(nn.Flatten(), nn.Linear(384 * 6 * 6, 4096), nn.ReLU(True), nn.Dropout(0.9)),
        )
        self.temporal = nn.LSTM(4096, 256, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(256, CLASSES)

    def forward(self, frames: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        features = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        hidden, state = self.temporal(features, state)
        return self.head(self.dropout(hidden)), state


def plain_like(model: FrameSequenceClassifier) -> Plain:
    """``Plain`` with the weights of a model."""
    plain = Plain()
    with torch.no_grad():  # both have the same parameters in the same order
        for theirs, ours in zip(plain.parameters(), model.parameters(), strict=True):
            theirs.copy_(ours)
    return plain


def clip(frames: int = 16) -> tuple[Tensor, Tensor]:
    """Raw frames ``(1, frames, 3, 227, 227)`` and their labels ``(1, frames)``."""
    return torch.randint(0, 256, (1, frames, 3, 227, 227), dtype=torch.uint8), torch.full((1, frames), 3)


def passes(model: nn.Module, frames: Tensor, labels: Tensor) -> dict[str, Callable[[], None]]:
    """What is timed: a forward pass, and a forward and backward pass."""

    def forward() -> None:
        with torch.no_grad():
            cross_entropy(model(frames)[0], labels)

    def both() -> None:
        cross_entropy(model(frames)[0], labels).backward()
        model.zero_grad()

    return {"forward": forward, "forward + backward": both}


def lrcn(frames: int = 16, pairs: int = 7) -> None:
    """Time against ``torch.nn`` and the original Caffe; peak memory of a process."""
    model = lrcn_rgb().train()
    plain = plain_like(model).train()
    raw, labels = clip(frames)
    ours, rival = passes(model, raw, labels), passes(plain, model.preprocess(raw), labels)
    for name, (low, high) in CAFFE_MS.items():
        times = in_turn(ours[name], rival[name], pairs, 1)
        show(f"LRCN, {frames} frames, {name}", times, "torch.nn alone")
        ms = sorted(a * 1e3 for a, _ in times)[len(times) // 2]
        print(f"  original Caffe {low} to {high} ms: ratio {ms / high:.2f} to {ms / low:.2f}")
    empty = peak_memory("import seqclf")
    for name in CAFFE_MS:
        code = "from seqclf.benchmark import lrcn; model = lrcn.lrcn_rgb(); "
        code += f"lrcn.passes(model, *lrcn.clip({frames}))[{name!r}]()"
        print(f"  peak memory of a process, {name}: {peak_memory(code):.0f} MB ('import seqclf' alone {empty:.0f} MB)")
