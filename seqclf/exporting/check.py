"""What an exported file answers, beside the model that it was made of; and how long it takes over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.exporting.program import memory

TOLERANCE = 1e-4
"""The largest difference of probabilities and memory; of logits too, or as much of the largest, if that is above 1."""
SHAPES = ((1, 1), (1, 7), (4, 1), (3, 5))
"""Clips and frames of the checks; what is exported is traced with 2 clips of 3 frames."""

SECONDS = 1.0
"""How long latencies are measured."""

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Inputs by name to outputs by name."""


def open_file(path: Path) -> Run:
    """A ``.onnx`` file in ONNX Runtime, on as many threads as PyTorch uses, or a ``.pt2`` program."""
    if path.suffix == ".pt2":
        program = torch.export.load(path).module()
        return lambda inputs: program(**inputs)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(names, {name: x.numpy() for name, x in inputs.items()})
        return {name: torch.from_numpy(x) for name, x in zip(names, found, strict=True)}

    return run


def eager(model: Any) -> Run:
    """The model itself, called as an exported file is."""
    names = list(memory(model.temporal, 1))

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        state = tuple(inputs[name] for name in names if name in inputs)
        given = None if not state else state if len(state) > 1 else state[0]
        logits, after = model(inputs["frames"], inputs.get("is_first"), given)
        parts = after if isinstance(after, tuple) else (after,)
        outputs = {"logits": logits, "probabilities": logits.softmax(-1)}
        return outputs | {f"next_{name}": part for name, part in zip(names, parts, strict=False)}

    return run


@torch.no_grad()
def check(model: Any, path: Path, form: str, frames: Tensor) -> float:
    """The largest difference between what a file and its model say, over batches of ``SHAPES``.

    A stream is fed whole and frame by frame, from random memory, with sequences that begin in the middle.

    Args:
        form: "model" (whole clips) or "stream".
        frames: ``(M, *frame_shape)``, what batches are filled from, in turn.

    Raises:
        SeqclfError: the difference is above ``TOLERANCE``; the output is named.
    """
    theirs, ours = open_file(path), eager(model)
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for B, T in SHAPES:
        numbers = torch.arange(B * T) % len(frames)
        inputs = {"frames": frames[numbers].unflatten(0, (B, T))}
        if form == "stream":
            inputs["is_first"] = torch.rand(B, T, generator=generator) < 0.3
            blank = memory(model.temporal, B)
            inputs |= {name: torch.randn(x.shape, generator=generator).tanh() for name, x in blank.items()}
        want = ours(inputs)
        answers = {"": theirs(inputs)}
        if form == "stream":
            answers[" frame by frame"] = _frame_by_frame(theirs, inputs)
        for how, found in answers.items():
            for name, value in found.items():
                if value.shape != want[name].shape:
                    shapes = f"{tuple(value.shape)}, the model's are {tuple(want[name].shape)}"
                    raise SeqclfError(f"{path.name}{how}: its {name} of {B} x {T} frames are {shapes}")
                scale = max(1.0, float(want[name].abs().max())) if name == "logits" else 1.0
                difference = float((value - want[name]).abs().max()) / scale
                if not difference <= TOLERANCE:
                    raise SeqclfError(
                        f"{path.name}{how}: its {name} of {B} x {T} frames differ from the model's by "
                        f"{difference:.1e}, more than {TOLERANCE:.0e}"
                    )
                worst = max(worst, difference)
    return worst


def _frame_by_frame(run: Run, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A stream's outputs where each call has one frame, and the memory that the one before left."""
    state = {name: x for name, x in inputs.items() if name not in ("frames", "is_first")}
    said: list[dict[str, Tensor]] = []
    for t in range(inputs["frames"].shape[1]):
        now = {name: inputs[name][:, t : t + 1] for name in ("frames", "is_first")}
        said.append(run(now | state))
        state = {name: said[-1][f"next_{name}"] for name in state}
    whole = {name: torch.cat([one[name] for one in said], 1) for name in ("logits", "probabilities")}
    return said[-1] | whole


@torch.inference_mode()
def latencies(runs: Mapping[str, Run], inputs: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """How long one call takes each of them, median ``p50_ms`` and 99th percentile ``p99_ms``.

    They are called in turn, so that a machine whose speed drifts slows all; for ``SECONDS``, and 20 times or more.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + SECONDS
    for turn in range(10000):
        if turn >= 20 and time.perf_counter() > end:
            break
        for name, run in runs.items():
            began = time.perf_counter()
            run(inputs)
            times[name].append(1e3 * (time.perf_counter() - began))
    first = 3  # calls that set things up
    return {
        name: {f"p{p}_ms": round(float(np.percentile(measured[first:], p)), 4) for p in (50, 99)}
        for name, measured in times.items()
    }
