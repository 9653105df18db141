"""The two forms of a classifier as ONNX graphs with dynamic batch and time.

PyTorch's exporter writes the part that works on each frame alone. The temporal model becomes ONNX's LSTM, GRU or RNN:
over whole clips at once, or for a stream frame by frame in a Scan that resets the memory where a sequence starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.exporting.program import LARGEST, Frames, cause, layer_weights, memory

OPERATORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # mode of a recurrent module: ONNX operator, order of the gates in ONNX, attributes
    "LSTM": ("LSTM", "iofg", {}),
    "GRU": ("GRU", "zrn", {"linear_before_reset": 1}),
    "RNN_TANH": ("RNN", "h", {"activations": ["Tanh"]}),
    "RNN_RELU": ("RNN", "h", {"activations": ["Relu"]}),
}
GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"}
"""The order of the gates in PyTorch; z is the update gate of a GRU, and g (n) the new content."""


def frame_graph(model: Frames, frame_shape: Sequence[int], dtype: torch.dtype, opset: int) -> Any:
    """``Frames`` as ONNX: ``flat_frames`` and ``flat_hidden`` to ``flat_features``, ``flat_logits``, ...

    Raises:
        SeqclfError: this opset of ONNX cannot express a module of the encoder or head.
    """
    import onnx

    if opset > onnx.defs.onnx_opset_version():
        raise SeqclfError(f"opset {opset}: onnx {onnx.__version__} supports up to {onnx.defs.onnx_opset_version()}")
    size = getattr(model.temporal, "hidden_size", None) or _features(model, frame_shape, dtype)
    inputs = (torch.zeros(2, *frame_shape, dtype=dtype), torch.zeros(3, size))
    M, N = (torch.export.Dim(name, max=LARGEST) for name in "MN")
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                opset_version=opset,
                input_names=["flat_frames", "flat_hidden"],
                output_names=["flat_features", "flat_logits", "flat_probabilities"],
                dynamic_shapes=({0: M}, {0: N}),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise SeqclfError(f"PyTorch cannot export this encoder or head to ONNX: {cause(error)}") from None
    assert program is not None
    proto = program.model_proto
    written = next(entry.version for entry in proto.opset_import if entry.domain == "")
    if written != opset:
        raise SeqclfError(
            f"opset {opset}: torch {torch.__version__} writes this model with opset {written}; use --opset {written}"
        )
    return proto


def _features(model: Frames, frame_shape: Sequence[int], dtype: torch.dtype) -> int:
    with torch.no_grad():
        return model.encoder(model.preprocess(torch.zeros(1, *frame_shape, dtype=dtype))).shape[-1]


def onnx_form(model: Frames, frames: Any, frame_shape: Sequence[int], form: str) -> Any:
    """A form, "model" (whole clips) or "stream", as a checked ``ModelProto``.

    Args:
        model: the frame-wise part.
        frames: the result of ``frame_graph``.
        frame_shape: of one frame.
        form: "model" or "stream".
    """
    import onnx
    from onnx import helper

    net: Any = model.temporal
    names = list(memory(net, 1))
    before, after = _split(frames.graph)
    K = _size(frames.graph.output[1])
    kind = frames.graph.input[0].type.tensor_type.elem_type
    float32, boolean = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    info, node = helper.make_tensor_value_info, helper.make_node

    nodes: list[Any] = [
        node("Shape", ["frames"], ["batch_time"], end=2),
        node("Reshape", ["frames", "frames_flat_shape"], ["flat_frames"]),
        *before,
        node("Concat", ["batch_time", "minus_one"], ["frame_by_frame"], axis=0),
        node("Reshape", ["flat_features", "frame_by_frame"], ["features"]),
    ]
    constants = [_int64("frames_flat_shape", -1, *frame_shape), _int64("minus_one", -1)]
    inputs = [info("frames", kind, ["B", "T", *frame_shape])]
    outputs = [info(name, float32, ["B", "T", K]) for name in ("logits", "probabilities")]
    if names and form == "stream":
        state = [net.num_layers, "B", net.hidden_size]
        inputs.append(info("is_first", boolean, ["B", "T"]))
        inputs += [info(name, float32, state) for name in names]
        outputs += [info(f"next_{name}", float32, state) for name in names]
    temporal, weights, hidden = _temporal(net, names, form)
    nodes += temporal
    constants += weights
    nodes += [
        node("Flatten", [hidden], ["flat_hidden"], axis=2),
        *after,
        *(node("Reshape", [f"flat_{name}", "frame_by_frame"], [name]) for name in ("logits", "probabilities")),
    ]
    initializers = [*frames.graph.initializer, *constants]
    graph = helper.make_graph(nodes, f"seqclf_{form}", inputs, outputs, initializers)
    proto = helper.make_model(
        graph, opset_imports=frames.opset_import, functions=frames.functions, producer_name="seqclf"
    )
    proto.ir_version = frames.ir_version
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _temporal(net: Any, names: Sequence[str], form: str) -> tuple[list[Any], list[Any], str]:
    """The temporal model from "features" (B, T, D) on: nodes, weights, and the name of its output (B, T, H)."""
    from onnx import helper

    node = helper.make_node
    if not names:
        return [], [], "features"
    if form == "stream":
        scan = node(
            "Scan",
            [*names, "features", "is_first"],
            [*(f"next_{name}" for name in names), "hidden"],
            body=_step(net, names),
            num_scan_inputs=2,
            scan_input_axes=[1, 1],
            scan_output_axes=[1],
        )
        return [scan], [], "hidden"
    layers, weights, time_major, _ = _layers(net, "time_major_features", [])
    nodes = [
        node("Transpose", ["features"], ["time_major_features"], perm=[1, 0, 2]),
        *layers,
        node("Transpose", [time_major], ["hidden"], perm=[1, 0, 2]),
    ]
    return nodes, weights, "hidden"


def _split(graph: Any) -> tuple[list[Any], list[Any]]:
    """The nodes that compute ``flat_features``, and all others (the head)."""
    made = {name: node for node in graph.node for name in node.output}
    wanted, before = ["flat_features"], set()
    while wanted:
        node = made.get(wanted.pop())
        if node is not None and node.output[0] not in before:
            before.add(node.output[0])
            wanted += node.input
    return [n for n in graph.node if n.output[0] in before], [n for n in graph.node if n.output[0] not in before]


def _layers(net: Any, x: str, state: Sequence[str]) -> tuple[list[Any], list[Any], str, list[str]]:
    """All recurrent layers over ``x`` (T, B, D).

    Args:
        state: the names of the initial memory, each (layers, B, H); empty for zeros.

    Returns:
        Nodes, weights, the name of the output, and the names of the final memory.
    """
    from onnx import helper, numpy_helper

    operator, order, attributes = OPERATORS[net.mode]
    node, L = helper.make_node, net.num_layers
    places = [GATES[operator].index(gate) for gate in order]

    def array(w: Tensor, name: str) -> Any:
        return numpy_helper.from_array(w.detach().cpu().contiguous().numpy(), name)

    def gates(w: Tensor) -> Tensor:
        return torch.cat([w.chunk(len(places))[place] for place in places])

    nodes = [node("Split", [name], [f"{name}_{i}" for i in range(L)], axis=0, num_outputs=L) for name in state]
    weights = [_int64("direction", 1)]
    for i in range(L):
        w_ih, w_hh, b_ih, b_hh = (gates(w) for w in layer_weights(net, i))
        weights += [array(w_ih[None], f"W_{i}"), array(w_hh[None], f"R_{i}")]
        weights += [array(torch.cat([b_ih, b_hh])[None], f"b_{i}")]
        parts = [f"{name}_{i}" for name in state]
        nodes += [
            node(
                operator,
                [x, f"W_{i}", f"R_{i}", f"b_{i}", "", *parts],
                [f"both_{i}", *(f"after_{part}" for part in parts)],
                hidden_size=net.hidden_size,
                **attributes,
            ),
            node("Squeeze", [f"both_{i}", "direction"], [f"out_{i}"]),
        ]
        x = f"out_{i}"
    after = [f"after_{name}" for name in state]
    nodes += [node("Concat", [f"after_{name}_{i}" for i in range(L)], [f"after_{name}"], axis=0) for name in state]
    return nodes, weights, x, after


def _step(net: Any, names: Sequence[str]) -> Any:
    """The body of the Scan: memory, features (B, D) and is_first (B,) of a frame to memory and outputs (B, H)."""
    import onnx
    from onnx import helper, numpy_helper

    node, info = helper.make_node, helper.make_tensor_value_info
    float32, boolean = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    sizes = [net.num_layers, "B", net.hidden_size]
    layers, weights, out, after = _layers(net, "one_frame", [f"kept_{name}" for name in names])
    nodes = [
        node("Unsqueeze", ["frame", "time_axis"], ["one_frame"]),
        node("Unsqueeze", ["first", "outer_axes"], ["reset"]),
        *(node("Where", ["reset", "nothing", f"step_{name}"], [f"kept_{name}"]) for name in names),
        *layers,
        node("Squeeze", [out, "time_axis"], ["step_hidden"]),
    ]
    inputs = [info(f"step_{name}", float32, sizes) for name in names]
    inputs += [info("frame", float32, ["B", net.input_size]), info("first", boolean, ["B"])]
    outputs = [info(name, float32, sizes) for name in after]
    outputs += [info("step_hidden", float32, ["B", net.hidden_size])]
    constants = [_int64("time_axis", 0), _int64("outer_axes", 0, 2)]
    constants += [numpy_helper.from_array(torch.zeros(()).numpy(), "nothing"), *weights]
    return helper.make_graph(nodes, "step", inputs, outputs, constants)


def _int64(name: str, *values: int) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(torch.tensor(values).numpy(), name)


def _size(value: Any) -> int:
    """The size of the last axis of an output."""
    return value.type.tensor_type.shape.dim[-1].dim_value
