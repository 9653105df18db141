"""A streaming graph with 8-bit weights, and its accuracy on clips that are fed frame by frame."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqclf.data import Clips, Videos, batches
from seqclf.evaluation.metrics import Metrics
from seqclf.evaluation.multi_label import MultiLabelMetrics
from seqclf.exporting.check import Run

OPERATORS = ("Gemm", "LSTM", "MatMul")
"""The operators computed in 8 bits. Conv is not among them: with dynamic scales its 8-bit form is slower."""
METRICS = ("clip_last", "clip_mean", "frame_accuracy", "clip_last_map", "clip_mean_map", "frame_map", "loss")


def quantize(source: Path, target: Path) -> None:
    """Quantises a ``.onnx`` file dynamically with ONNX Runtime: 8-bit weights, inputs rounded to 8 bits at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()

    def wanted(record: logging.LogRecord) -> bool:  # irrelevant advice to fold batch norm first
        return "pre-processing before quantization" not in record.getMessage()

    root.addFilter(wanted)
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(OPERATORS),
            weight_type=QuantType.QUInt8,  # signed weights saturate on processors without VNNI
            extra_options={"EnableSubgraph": True},  # the step of a Scan
        )
    finally:
        root.removeFilter(wanted)


def accuracy(
    run: Run, memory: dict[str, Tensor], clips: Clips | Videos, rows: Tensor, num_classes: int
) -> dict[str, float | None]:
    """Those of ``METRICS`` that apply, on some clips, one stream at a time and one frame per call, as from a camera.

    Scales are found for each call, so a batch would give other metrics than a stream.

    Args:
        run: a streaming file.
        memory: the initial memory of one stream; empty for a model without memory.
        clips: the data set.
        rows: the indices ``(N,)`` of the clips.
        num_classes: K.
    """
    metrics = MultiLabelMetrics(num_classes) if clips.multi_label else Metrics(num_classes)
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
    return {name: found[name] for name in METRICS if name in found}
