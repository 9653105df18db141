"""Upgrade of nets in Caffe's first form (V0, 2013) to that of 2014 (UpgradeV0Net in upgrade_proto.cpp)."""

from __future__ import annotations

import warnings
from typing import Any

from google.protobuf.message import Message

from seqclf.caffe.error import CaffeFormatError

TYPES = {
    # V0 type: the name in V1LayerParameter.LayerType
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

PADDING = "padding"
"""The V0 type that became the ``pad`` of other layers."""

_PARAMS = {
    # V0 type: the message of its parameters in V1
    "concat": "concat_param",
    "conv": "convolution_param",
    "data": "data_param",
    "dropout": "dropout_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
}

_DATA = ("data", "hdf5_data", "images", "window_data")
_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    # V0 field: its name in V1, and the V0 types that have it
    "num_output": ("num_output", ("conv", "innerproduct")),
    "biasterm": ("bias_term", ("conv", "innerproduct")),
    "weight_filler": ("weight_filler", ("conv", "innerproduct")),
    "bias_filler": ("bias_filler", ("conv", "innerproduct")),
    "pad": ("pad", ("conv", "pool")),
    "kernelsize": ("kernel_size", ("conv", "pool")),
    "group": ("group", ("conv",)),
    "stride": ("stride", ("conv", "pool")),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", (*_DATA, "infogain_loss")),
    "batchsize": ("batch_size", _DATA),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}
_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
"""V0 fields that any layer may have, and their names in ``transform_param``."""


def is_v0(net: Any) -> bool:
    """Whether a ``NetParameter`` is in the V0 form."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade_v0(net: Any, name: str) -> None:
    """Upgrades a V0 ``NetParameter`` to the V1 form, in place.

    Padding layers become the ``pad`` of the layers that read them. As in Caffe, only the name, inputs, layers and
    ``force_backward`` are kept, and fields that do not belong to a layer's type are ignored with a warning.

    Args:
        net: the net.
        name: the file, for errors.

    Raises:
        CaffeFormatError: a layer has an unknown type or another form, or a padding layer cannot be merged.
    """
    result = type(net)()
    if net.HasField("name"):
        result.name = net.name
    if net.HasField("force_backward"):
        result.force_backward = net.force_backward
    result.input.extend(net.input)
    result.input_dim.extend(net.input_dim)
    wrong = []
    if len(net.layer):
        wrong.append("has both `layer` and `layers`: expected one of the two forms")
    for old in net.layers:
        where = f'layer "{old.layer.name or old.name}"'
        if not old.HasField("layer"):
            wrong.append(f"{where}: has no nested `layer`, unlike other layers of this net in the V0 form")
        elif old.layer.HasField("type") and old.layer.type not in (*TYPES, PADDING):
            wrong.append(f"{where} ({old.layer.type}): unknown type; the V0 types are {', '.join(TYPES)}")
    if wrong:
        raise CaffeFormatError(name, wrong)
    for old in _without_padding(net, name):
        _upgrade_layer(old, result.layers.add(), name)
    net.CopyFrom(result)


def _without_padding(net: Any, name: str) -> list[Any]:
    """Returns copies of the layers, with padding layers replaced by the ``pad`` of the layers that read them."""
    made_by: dict[str, Any] = dict.fromkeys(net.input)
    kept = []
    for old in net.layers:
        copy = type(old)()
        copy.CopyFrom(old)
        where = f'{name}: layer "{old.layer.name}" ({old.layer.type})'
        for j, bottom in enumerate(old.bottom):
            if bottom not in made_by:
                raise CaffeFormatError(f'{where}: bottom "{bottom}" is not the top of an earlier layer')
            source = made_by[bottom]
            if source is None or source.layer.type != PADDING:
                continue
            if old.layer.type not in ("conv", "pool") or len(old.bottom) != 1:
                raise CaffeFormatError(
                    f'{where}: reads padding layer "{source.layer.name}"; only conv and pool layers with one bottom can'
                )
            if len(source.bottom) != 1 or len(source.top) != 1:
                raise CaffeFormatError(
                    f'{name}: layer "{source.layer.name}" (padding): expected one bottom and one top'
                )
            copy.layer.pad = source.layer.pad
            copy.bottom[j] = source.bottom[0]
        made_by |= dict.fromkeys(old.top, old)
        if old.layer.type != PADDING:
            kept.append(copy)
    return kept


def _upgrade_layer(old: Any, new: Any, name: str) -> None:
    v0 = old.layer
    where = f'{name}: layer "{v0.name}" ({v0.type})'
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    if v0.HasField("name"):
        new.name = v0.name
    if v0.HasField("type"):
        new.type = new.DESCRIPTOR.enum_types_by_name["LayerType"].values_by_name[TYPES[v0.type]].number
    new.blobs.extend(v0.blobs)
    new.blobs_lr.extend(v0.blobs_lr)
    new.weight_decay.extend(v0.weight_decay)
    for field, value in v0.ListFields():
        if field.name in _TRANSFORM:
            setattr(new.transform_param, _TRANSFORM[field.name], value)
        elif field.name == "hdf5_output_param" and v0.type == "hdf5_output":
            new.hdf5_output_param.CopyFrom(value)
        elif field.name in _FIELDS and v0.type in _FIELDS[field.name][1]:
            _set(getattr(new, _PARAMS[v0.type]), _FIELDS[field.name][0], value)
        elif field.name in _FIELDS or field.name == "hdf5_output_param":
            warnings.warn(
                f"{where}: field {field.name} does not belong to this type; ignored, as in Caffe", stacklevel=2
            )


def _set(param: Any, field: str, value: Any) -> None:
    """Sets a field that may be a message, repeated (a convolution's kernel_size), or a scalar."""
    if isinstance(value, Message):
        getattr(param, field).CopyFrom(value)
    elif hasattr(getattr(param, field), "append"):
        getattr(param, field).append(value)
    else:
        setattr(param, field, value)
