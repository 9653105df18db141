"""Upgrade of nets and solvers from old forms to the newest (upgrade_proto.cpp)."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.upgrade_v0 import is_v0, upgrade_v0

V1_TYPES = {
    # the enum of `layers { type: ... }` and the type of `layer`
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "NONE": "",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
"""The names of the enum ``solver_type``, by number."""
_TRANSFORMED = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}
_MOVED = ("scale", "mean_file", "crop_size", "mirror")
_SPECIAL = ("layer", "name", "type", "bottom", "top", "blobs", "blobs_lr", "weight_decay", "param", "blob_share_mode")


def upgrade_net(net: Any, name: str) -> None:
    """Upgrades a ``NetParameter`` in place: to ``layer`` messages, an ``Input`` layer and ``transform_param``.

    Args:
        net: the net, in any form since 2013.
        name: the file, for errors.

    Raises:
        CaffeFormatError: the net mixes two forms, or has the wrong number of input sizes.
    """
    if is_v0(net):
        upgrade_v0(net, name)
    if len(net.layers) and len(net.layer):
        raise CaffeFormatError(f"{name}: has both `layer` and `layers`: expected one of the two forms")
    for old in net.layers:
        _upgrade_layer(old, net.layer.add(), name)
    if len(net.layers):
        _move_transformations(net)
    net.ClearField("layers")
    _upgrade_inputs(net, name)
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:  # statistics were once declared as parameters
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
        if layer.pooling_param.HasField("ceil_mode"):
            _upgrade_ceil_mode(layer, name)


def _upgrade_ceil_mode(layer: Any, name: str) -> None:
    """Replaces ``ceil_mode``, which other forks have, by BVLC Caffe's ``round_mode``."""
    p = layer.pooling_param
    mode = p.CEIL if p.ceil_mode else p.FLOOR
    if p.HasField("round_mode") and p.round_mode != mode:
        raise CaffeFormatError(f'{name}: layer "{layer.name}": round_mode and ceil_mode contradict each other')
    p.round_mode = mode
    p.ClearField("ceil_mode")


def _upgrade_layer(old: Any, new: Any, name: str) -> None:
    new.name = old.name
    new.type = V1_TYPES[old.DESCRIPTOR.enum_types_by_name["LayerType"].values_by_number[old.type].name]
    if old.HasField("type") is False or not new.type:
        raise CaffeFormatError(f'{name}: layer "{old.name}": field type is missing')
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    for blob in old.blobs:
        new.blobs.add().CopyFrom(blob)
    for i in range(max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))):
        spec = new.param.add()
        if i < len(old.param):
            spec.name = old.param[i]
        if i < len(old.blob_share_mode):
            spec.share_mode = old.blob_share_mode[i]
        if i < len(old.blobs_lr):
            spec.lr_mult = old.blobs_lr[i]
        if i < len(old.weight_decay):
            spec.decay_mult = old.weight_decay[i]
    for field, value in old.ListFields():  # the other fields have the same names in both forms
        if field.name in _SPECIAL:
            continue
        if isinstance(value, Message):
            getattr(new, field.name).CopyFrom(value)
        else:
            getattr(new, field.name).extend(value)


def _move_transformations(net: Any) -> None:
    """Moves the transformation settings that data layers once had into ``transform_param``."""
    data = [(layer, getattr(layer, where)) for layer in net.layer if (where := _TRANSFORMED.get(layer.type))]
    if not any(param.HasField(setting) for _, param in data for setting in _MOVED):
        return
    for layer, param in data:
        param.SetInParent()
        layer.transform_param.SetInParent()
        for setting in _MOVED:
            if param.HasField(setting):
                setattr(layer.transform_param, setting, getattr(param, setting))
                param.ClearField(setting)


def _upgrade_inputs(net: Any, name: str) -> None:
    """Replaces ``input``, ``input_shape`` and ``input_dim`` by a first layer of type ``Input``."""
    if not len(net.input):
        return
    shapes = [list(shape.dim) for shape in net.input_shape]
    if len(net.input_dim):
        if shapes:
            raise CaffeFormatError(f"{name}: has both input_shape and input_dim: expected one of the two")
        if len(net.input_dim) != 4 * len(net.input):
            raise CaffeFormatError(
                f"{name}: field input_dim: has {len(net.input_dim)} values, "
                f"expected 4 for each of {len(net.input)} inputs"
            )
        shapes = [list(net.input_dim[4 * i : 4 * i + 4]) for i in range(len(net.input))]
    if shapes and len(shapes) != len(net.input):
        raise CaffeFormatError(
            f"{name}: field input_shape: has {len(shapes)} shapes, expected one for each of {len(net.input)} inputs"
        )
    if shapes:  # a net saved by lisa-caffe has no shapes: only its weights are used
        rest = [type(layer).FromString(layer.SerializePartialToString()) for layer in net.layer]
        net.ClearField("layer")
        first = net.layer.add(name="input", type="Input", top=list(net.input))
        for dims in shapes:
            first.input_param.shape.add(dim=dims)
        net.layer.extend(rest)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)


def upgrade_solver(solver: Any, name: str) -> None:
    """Upgrades a ``SolverParameter`` in place: the solver's type becomes a string.

    Raises:
        CaffeFormatError: the type is given in both forms.
    """
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise CaffeFormatError(f"{name}: has both solver_type and type: expected one of the two")
        solver.type = SOLVER_TYPES[solver.solver_type]
        solver.ClearField("solver_type")


def read_upgraded(message: Any, name: str) -> Any:
    """Upgrades a parsed net or solver, including the nets in a solver, and returns it."""
    if message.DESCRIPTOR.name == "SolverParameter":
        upgrade_solver(message, name)
        inside = [getattr(message, field) for field in ("net_param", "train_net_param") if message.HasField(field)]
        for net in (*inside, *message.test_net_param):
            upgrade_net(net, name)
    else:
        upgrade_net(message, name)
    return message
