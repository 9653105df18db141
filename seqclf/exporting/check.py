"""Comparison of an exported file with its model, and the time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.evaluation.multi_label import probabilities_of
from seqclf.exporting.memory import Memory

TOLERANCE = 1e-4
"""The largest difference allowed: absolute for probabilities and memory, relative for logits above 1."""
SHAPES = ((1, 1), (1, 7), (4, 1), (3, 5))
"""Clips and frames of the checked batches, which differ from the 2 clips of 3 frames of tracing."""

SECONDS = 1.0
"""For how long latencies are measured."""

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Maps inputs by name to outputs by name."""


def open_file(path: Path) -> Run:
    """A ``.onnx`` file in ONNX Runtime, with the number of threads of PyTorch, or a ``.pt2`` program."""
    if path.suffix == ".pt2":
        program = torch.export.load(path).module()

        def call(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            own = {name: x for name, x in inputs.items() if name in ("frames", "is_first")}
            state = {name: x for name, x in inputs.items() if name not in own}
            return program(**own, **({"memory": state} if state else {}))  # type: ignore[no-any-return]

        return call
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(names, {name: x.numpy() for name, x in inputs.items()})
        return {name: torch.from_numpy(x) for name, x in zip(names, found, strict=True)}

    return run


def eager(model: Any, multi_label: bool = False) -> Run:
    """The model, called like an exported file."""
    memory = Memory(model)

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        state = memory.state([inputs[name] for name in memory.names if name in inputs])
        logits, after = model(inputs["frames"], inputs.get("is_first"), state)
        outputs = {"logits": logits, "probabilities": probabilities_of(logits, multi_label)}
        return outputs | {f"next_{name}": part for name, part in memory.named(after).items()}

    return run


@torch.no_grad()
def check(model: Any, path: Path, form: str, frames: Tensor, multi_label: bool = False) -> float:
    """The largest difference between the outputs of a file and of its model, over batches of ``SHAPES``.

    A stream is checked whole and frame by frame, from the memory of other frames, with sequences that start in the
    middle. Its memory is compared with that of the model fed frame by frame.

    Args:
        model: a ``FrameSequenceClassifier``.
        path: the exported file.
        form: "model" (whole clips) or "stream".
        frames: ``(M, *frame_shape)``, the frames of the batches.
        multi_label: whether the probabilities are sigmoids.

    Raises:
        SeqclfError: the difference of an output is above ``TOLERANCE``.
    """
    theirs, ours = open_file(path), eager(model, multi_label)
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for B, T in SHAPES:
        numbers = torch.arange(B * T) % len(frames)
        inputs = {"frames": frames[numbers].unflatten(0, (B, T))}
        if form == "stream":
            inputs["is_first"] = torch.rand(B, T, generator=generator) < 0.3
            inputs |= _memory_after(model, ours, frames, B, generator)
        want = ours(inputs)
        if form == "stream":
            want |= _final_memory(ours, inputs)
        answers = {"": theirs(inputs)}
        if form == "stream":
            answers[" frame by frame"] = _frame_by_frame(theirs, inputs)
        for how, found in answers.items():
            for name, value in found.items():
                if value.shape != want[name].shape:
                    shapes = f"{tuple(value.shape)}, expected {tuple(want[name].shape)} as in the model"
                    raise SeqclfError(f"{path.name}{how}: {name} of {B} x {T} frames has the shape {shapes}")
                scale = max(1.0, float(want[name].abs().max())) if name == "logits" else 1.0
                difference = _largest((value.double() - want[name].double()).abs()) / scale
                if not difference <= TOLERANCE:
                    raise SeqclfError(
                        f"{path.name}{how}: {name} of {B} x {T} frames differs from the model by {difference:.1e}, "
                        f"more than {TOLERANCE:.0e}"
                    )
                worst = max(worst, difference)
    return worst


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0


def _memory_after(model: Any, run: Run, frames: Tensor, B: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The memory of B streams after a few frames in random order."""
    past = frames[torch.randint(len(frames), (B, 4), generator=generator)]
    outputs = run({"frames": past, **Memory(model).zeros(B)})
    return {name.removeprefix("next_"): x for name, x in outputs.items() if name.startswith("next_")}


def _final_memory(run: Run, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The memory of a model that is fed frame by frame, with memory of zeros where a sequence starts."""
    frames, is_first, *_ = inputs.values()
    state = {name: x for name, x in inputs.items() if name not in ("frames", "is_first")}
    for t in range(frames.shape[1]):
        kept = {name: x.masked_fill(is_first[:, t].view(1, -1, *(1,) * (x.dim() - 2)), 0) for name, x in state.items()}
        outputs = run({"frames": frames[:, t : t + 1], **kept})
        state = {name: outputs[f"next_{name}"] for name in state}
    return {f"next_{name}": x for name, x in state.items()}


def _frame_by_frame(run: Run, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a stream fed one frame per call, each with the memory of the call before."""
    state = {name: x for name, x in inputs.items() if name not in ("frames", "is_first")}
    outputs: list[dict[str, Tensor]] = []
    for t in range(inputs["frames"].shape[1]):
        now = {name: inputs[name][:, t : t + 1] for name in ("frames", "is_first")}
        outputs.append(run(now | state))
        state = {name: outputs[-1][f"next_{name}"] for name in state}
    whole = {name: torch.cat([one[name] for one in outputs], 1) for name in ("logits", "probabilities")}
    return outputs[-1] | whole


@torch.inference_mode()
def latencies(runs: Mapping[str, Run], inputs: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """The time of one call of each: median ``p50_ms`` and 99th percentile ``p99_ms``.

    They are called in turn, so that a drift of the machine's speed affects all; for ``SECONDS``, at least 20 times.
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
    first = 3  # warm-up calls
    return {
        name: {f"p{p}_ms": round(float(np.percentile(measured[first:], p)), 4) for p in (50, 99)}
        for name, measured in times.items()
    }
