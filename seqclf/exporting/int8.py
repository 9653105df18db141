"""A streaming graph with weights of 8 bits, and what that costs: accuracy on clips, fed frame by frame as in use."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqclf.data import Clips, Videos, batches
from seqclf.evaluation.metrics import Metrics
from seqclf.exporting.check import Run

OPERATORS = ("Gemm", "LSTM", "MatMul")
"""What is computed in 8 bits. Not Conv, whose 8-bit form with scales found as it runs is slower than the floats."""
FIGURES = ("clip_last", "clip_mean", "frame_accuracy", "loss")


def quantize(source: Path, target: Path) -> None:
    """Writes a ``.onnx`` file again, by ONNX Runtime's dynamic quantisation.

    Weights have 8 bits and a scale each, and inputs are rounded to 8 bits as they come.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()

    def told(record: logging.LogRecord) -> bool:  # its advice is to fold batch norm first, which has no part in this
        return "pre-processing before quantization" not in record.getMessage()

    root.addFilter(told)
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(OPERATORS),
            weight_type=QuantType.QUInt8,  # signed ones saturate on processors before VNNI
            extra_options={"EnableSubgraph": True},  # the step of a Scan
        )
    finally:
        root.removeFilter(told)


def accuracy(
    run: Run, memory: dict[str, Tensor], clips: Clips | Videos, rows: Tensor, num_classes: int
) -> dict[str, float | None]:
    """The figures of ``FIGURES`` on some clips, one stream at a time and a frame a call, as a camera would feed it.

    (Eight bits are scaled to all that comes in a call, so that a batch would not show what a stream sees.)

    Args:
        run: a streaming file.
        memory: of one stream that begins; empty for a model without.
        rows: which clips ``(N,)``.
    """
    metrics = Metrics(num_classes)
    with torch.inference_mode():
        for batch in batches(clips, ((row, 0) for row in rows.split(1))):
            T = batch.frames.shape[1] if batch.lengths is None else int(batch.lengths)
            logits = torch.zeros(1, batch.frames.shape[1], num_classes)
            state = memory
            for t in range(T):
                inputs = {"frames": batch.frames[:, t : t + 1], **state}
                if memory:
                    first = None if batch.is_first is None else batch.is_first[:, t : t + 1]
                    inputs["is_first"] = torch.zeros(1, 1, dtype=torch.bool) if first is None else first
                outputs = run(inputs)
                logits[:, t] = outputs["logits"][:, 0]
                state = {name: outputs[f"next_{name}"] for name in memory}
            metrics.update(logits, batch)
    found: dict[str, Any] = metrics.result()
    return {name: found[name] for name in FIGURES}
