"""A classifier as ONNX graphs with dynamic batch and time, over whole clips and over streams.

PyTorch's exporter writes two graphs: the encoder, which works on each frame alone, and what follows it. The second is
written over whole clips, or for one frame. A stream applies the latter in a Scan, which resets the memory where a
sequence begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.exporting.memory import CannotExport
from seqclf.exporting.parts import Parts, cause, dynamic, trace, trace_step, trace_whole

OUTPUTS = ("logits", "probabilities")


def frame_graph(parts: Parts, frame_shape: Sequence[int], dtype: torch.dtype, opset: int) -> Any:
    """Preprocessing and encoder as ONNX: ``flat_frames`` ``(M, *frame_shape)`` to ``flat_features`` ``(M, D)``.

    Raises:
        CannotExport: PyTorch, or this opset of ONNX, cannot express them.
        SeqclfError: onnx does not know this opset.
    """
    import onnx

    if opset > onnx.defs.onnx_opset_version():
        raise SeqclfError(f"opset {opset}: onnx {onnx.__version__} supports up to {onnx.defs.onnx_opset_version()}")
    frames = torch.zeros(2, *frame_shape, dtype=dtype)
    program = trace(parts.encode, (frames,), (dynamic("M"),), "the encoder")
    return _onnx(program, opset, ["flat_frames"], ["flat_features"], "encoder.", "this encoder")


def onnx_form(parts: Parts, frames: Any, frame_shape: Sequence[int], form: str) -> Any:
    """A form, "model" (whole clips) or "stream", as a checked ``ModelProto``.

    Args:
        parts: the classifier.
        frames: the result of ``frame_graph``.
        frame_shape: of one frame.
        form: "model" or "stream".

    Raises:
        CannotExport: PyTorch, or this opset of ONNX, cannot express what follows the encoder.
    """
    import onnx
    from onnx import helper

    opset = next(entry.version for entry in frames.opset_import if entry.domain == "")
    core, nodes, weights = _core(parts, form, opset)
    info, node = helper.make_tensor_value_info, helper.make_node
    kind, K = frames.graph.input[0].type.tensor_type.elem_type, _size(core.graph.output[0])
    inputs = [info("frames", kind, ["B", "T", *frame_shape])]
    outputs = [info(name, onnx.TensorProto.FLOAT, ["B", "T", K]) for name in OUTPUTS]
    if form == "stream":
        inputs += [info("is_first", onnx.TensorProto.BOOL, ["B", "T"]), *_infos(parts, "")]
        outputs += _infos(parts, "next_")
    nodes = [
        node("Shape", ["frames"], ["batch_time"], end=2),
        node("Reshape", ["frames", "frames_flat_shape"], ["flat_frames"]),
        *frames.graph.node,
        node("Concat", ["batch_time", "minus_one"], ["frame_by_frame"], axis=0),
        node("Reshape", ["flat_features", "frame_by_frame"], ["features"]),
        *nodes,
    ]
    weights = [
        *frames.graph.initializer,
        *weights,
        _int64("frames_flat_shape", -1, *frame_shape),
        _int64("minus_one", -1),
    ]
    versions = {entry.domain: entry for model in (core, frames) for entry in model.opset_import}
    proto = helper.make_model(
        helper.make_graph(nodes, f"seqclf_{form}", inputs, outputs, weights),
        opset_imports=list(versions.values()),
        functions=[*frames.functions, *core.functions],
        producer_name="seqclf",
    )
    proto.ir_version = max(frames.ir_version, core.ir_version)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _core(parts: Parts, form: str, opset: int) -> tuple[Any, list[Any], list[Any]]:
    """What follows the encoder: the exported model, nodes from "features" to outputs, and their weights."""
    if form == "stream":
        step = _step_model(parts, opset)
        return step, [_scan(parts, step, parts.memory.names, "is_first")], []
    try:
        whole = _onnx(trace_whole(parts), opset, ["features"], OUTPUTS, "core.", parts.name)
        return whole, list(whole.graph.node), list(whole.graph.initializer)
    except CannotExport:
        if not parts.streams:
            raise
    step = _step_model(parts, opset)
    nodes, constants, zeros = _blank_memory(parts)
    return step, [*nodes, _scan(parts, step, zeros, "no_first")], constants


def _onnx(
    program: torch.export.ExportedProgram,
    opset: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    prefix: str,
    what: str,
) -> Any:
    """A program as a ``ModelProto``, with a prefix for all names but those of its inputs and outputs."""
    import onnx

    try:
        written = torch.onnx.export(
            program, dynamo=True, opset_version=opset, input_names=inputs, output_names=outputs, verbose=False
        )
    except torch.onnx.OnnxExporterError as error:
        raise CannotExport(f"PyTorch cannot export {what} to ONNX: {cause(error)}") from None
    assert written is not None
    proto = written.model_proto
    version = next(entry.version for entry in proto.opset_import if entry.domain == "")
    if version != opset:
        raise SeqclfError(
            f"opset {opset}: torch {torch.__version__} writes this model with opset {version}; use --opset {version}"
        )
    for node in proto.graph.node:  # the lines of Python that it comes from
        del node.metadata_props[:]
    return onnx.compose.add_prefix(proto, prefix, rename_inputs=False, rename_outputs=False)


def _step_model(parts: Parts, opset: int) -> Any:
    """``Core.step``: ``frame`` and ``kept_h`` to ``step_logits``, ``step_probabilities`` and ``after_h``."""
    before, after = ([f"{word}_{name}" for name in parts.memory.names] for word in ("kept", "after"))
    outputs = [*(f"step_{name}" for name in OUTPUTS), *after]
    return _onnx(trace_step(parts), opset, ["frame", *before], outputs, "step.", parts.name)


def _scan(parts: Parts, step: Any, memory: Sequence[str], is_first: str) -> Any:
    """A Scan of the step over "features"; ``memory`` and ``is_first`` are the names of its other inputs."""
    from onnx import helper

    return helper.make_node(
        "Scan",
        [*memory, "features", is_first],
        [*(f"next_{name}" for name in parts.memory.names), *OUTPUTS],
        body=_body(parts, step),
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
        scan_output_axes=[1, 1],
    )


def _body(parts: Parts, step: Any) -> Any:
    """The step, with memory of zeros where ``first`` ``(B,)`` is set."""
    import onnx
    from onnx import helper, numpy_helper

    node, info = helper.make_node, helper.make_tensor_value_info
    nodes, constants = [], []
    for name, part in parts.memory.zeros(1).items():
        constants.append(numpy_helper.from_array(part.new_zeros(()).numpy(), f"nothing_{name}"))
        constants.append(_int64(f"axes_{name}", *(axis for axis in range(part.dim()) if axis != 1)))
        nodes.append(node("Unsqueeze", ["first", f"axes_{name}"], [f"reset_{name}"]))
        nodes.append(node("Where", [f"reset_{name}", f"nothing_{name}", f"past_{name}"], [f"kept_{name}"]))
    frame = [
        info("frame", onnx.TensorProto.FLOAT, ["B", parts.feature_size]),
        info("first", onnx.TensorProto.BOOL, ["B"]),
    ]
    logits, probabilities, *after = step.graph.output
    return helper.make_graph(
        [*nodes, *step.graph.node],
        "step",
        [*_infos(parts, "past_"), *frame],
        [*after, logits, probabilities],
        [*step.graph.initializer, *constants],
    )


def _blank_memory(parts: Parts) -> tuple[list[Any], list[Any], list[str]]:
    """Nodes and constants of a memory of zeros, and of "no_first"; the names of the memory."""
    from onnx import helper, numpy_helper

    node = helper.make_node
    false = numpy_helper.from_array(torch.zeros(1, dtype=torch.bool).numpy())
    nodes = [
        node("ConstantOfShape", ["batch_time"], ["no_first"], value=false),
        node("Shape", ["frames"], ["batch"], end=1),
    ]
    constants = []
    for name, part in parts.memory.zeros(1).items():
        constants += [_int64(f"layers_{name}", part.shape[0]), _int64(f"sizes_{name}", *part.shape[2:])]
        zero = numpy_helper.from_array(part.new_zeros(1).numpy())
        nodes += [
            node("Concat", [f"layers_{name}", "batch", f"sizes_{name}"], [f"shape_{name}"], axis=0),
            node("ConstantOfShape", [f"shape_{name}"], [f"blank_{name}"], value=zero),
        ]
    return nodes, constants, [f"blank_{name}" for name in parts.memory.names]


def _infos(parts: Parts, prefix: str) -> list[Any]:
    """The memory as inputs or outputs."""
    from onnx import helper

    return [
        helper.make_tensor_value_info(
            prefix + name, helper.np_dtype_to_tensor_dtype(part.numpy().dtype), [part.shape[0], "B", *part.shape[2:]]
        )
        for name, part in parts.memory.zeros(1).items()
    ]


def _int64(name: str, *values: int) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(torch.tensor(values, dtype=torch.int64).numpy(), name)


def _size(value: Any) -> int:
    """The size of the last axis of an output."""
    return value.type.tensor_type.shape.dim[-1].dim_value
