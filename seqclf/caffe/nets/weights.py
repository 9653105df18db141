"""Reading of weights by layer, and copying into a net's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats import hdf5
from seqclf.caffe.formats.binary import Blob, blob_of, cut, parse_binary
from seqclf.caffe.formats.files import is_hdf5, is_text, read_bytes
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.formats.upgrade import upgrade_net
from seqclf.caffe.formats.upgrade_v0 import is_v0


def read_weights(path: str | Path, flavour: str = "bvlc") -> dict[str, list[Blob]]:
    """Reads the parameters in a file, by layer, in Caffe's order.

    Args:
        path: a ``.caffemodel``, whose values are views of the mapped file, or an HDF5 file, recognized by content.
        flavour: "bvlc" or "lisa".

    Raises:
        CaffeFormatError: the file is missing or damaged, or is of another kind; a blob's shape does not match its
            values.
    """
    if is_hdf5(path):
        return hdf5.read_weights(path)
    name, data = str(path), read_bytes(path)
    if ".solverstate" in Path(path).suffixes:
        raise CaffeFormatError(f"{name}: is a solver's snapshot, expected the .caffemodel or .caffemodel.h5 beside it")
    if is_text(data, name):
        raise CaffeFormatError(f"{name}: is text, expected weights: a .caffemodel or .caffemodel.h5 file")
    rest, cuts = cut(data, "NetParameter", name)
    net: Any = parse_binary(rest, schema(flavour).NetParameter(), name)
    if is_v0(net):  # its blobs are one level deeper, and were not cut out
        upgrade_net(net, name)
        return _by_layer(((layer.name, [(blob, None) for blob in layer.blobs]) for layer in net.layer), name)
    messages = [list(layer.blobs) for layer in (*net.layers, *net.layer)]
    for layer in (*net.layers, *net.layer):
        layer.ClearField("blobs")
    upgrade_net(net, name)
    names = [layer.name for layer in net.layer][len(net.layer) - len(messages) :]  # the upgrade may add an Input layer
    pieces = [list(zip(m, p, strict=True)) for m, p in zip(messages, (*cuts[2], *cuts[100]), strict=True)]
    return _by_layer(zip(names, pieces, strict=True), name)


def _by_layer(layers: Any, file: str) -> dict[str, list[Blob]]:
    """Returns blobs by layer name, from names and pairs of a ``BlobProto`` and the values cut out of it."""
    found: dict[str, list[Blob]] = {}
    for name, blobs in layers:
        if blobs and found.get(name):
            raise CaffeFormatError(f'{file}: two layers "{name}" have weights')
        if blobs or name not in found:
            found[name] = [
                blob_of(blob, numbers, f'{file}: layer "{name}", blob {j}') for j, (blob, numbers) in enumerate(blobs)
            ]
    return found


def assign(
    found: Mapping[str, list[Blob]],
    params: Mapping[str, nn.ParameterList],
    shared: Mapping[str, set[int]],
    path: str | Path,
    strict: bool,
) -> tuple[list[str], list[str]]:
    """Copies weights into a net's parameters, or changes nothing if they do not fit.

    Args:
        found: the weights in the file, by layer.
        params: the net's parameters, by layer.
        shared: for each layer of the net, the indices of the parameters that other layers own.
        path: the file, for errors.
        strict: see ``Net.load_weights``.

    Returns:
        the layers that the file does not fill, and the layers in the file that the net does not have.
    """
    missing = [name for name in params if name not in found]
    unread = [name for name, blobs in found.items() if blobs and name not in shared]
    for name, blobs in found.items():
        if name in params:
            _check_blobs(name, blobs, params[name], shared[name], path)
        elif name in shared and blobs:
            raise CaffeFormatError(f'{path}: layer "{name}": has {len(blobs)} blobs, but the net\'s layer has none')
    if strict and (missing or unread):
        problems = [f"no weights for layer {', '.join(missing)}"] if missing else []
        problems += [f"weights for layer {', '.join(unread)}, which the net does not have"] if unread else []
        raise CaffeFormatError(f"{path}: {'; '.join(problems)} (strict=False takes what matches)")
    for name, blobs in found.items():
        for blob, mine in zip(blobs, params.get(name, ()), strict=False):
            if not blob.absent:
                copy_blob(blob, mine)
    return missing, unread


def _check_blobs(name: str, blobs: list[Blob], mine: nn.ParameterList, shared: set[int], path: str | Path) -> None:
    absent = {j for j, blob in enumerate(blobs) if blob.absent}
    if is_hdf5(path):  # it does not contain parameters that another layer owns
        absent |= {j for j in shared if j >= len(blobs)}
    if len(set(range(len(blobs))) | absent) != len(mine) or not absent <= shared:
        there = len(blobs) - sum(blob.absent for blob in blobs)
        raise CaffeFormatError(f'{path}: layer "{name}": has {there} blobs, expected {len(mine)}')
    for j, blob in enumerate(blobs):
        shape = tuple(mine[j].shape)
        if not (blob.fits(shape) or blob.absent):
            raise CaffeFormatError(f'{path}: layer "{name}": blob {j} has shape {blob.shape}, expected {shape}')


def copy_blob(blob: Blob, into: Tensor) -> None:
    """Copies a file's values into a tensor with as many elements."""
    if into.is_meta:
        return
    source, target = blob.data, into.detach()
    if target.device.type == "cpu" and target.is_contiguous():
        array = target.view(-1).numpy()
        if array.dtype == source.dtype:
            array.view(np.uint8)[:] = source.view(np.uint8)  # as bytes, because floats in a file are not aligned
        else:
            with np.errstate(over="ignore"):  # doubles too large for a float become infinite
                array[:] = source
    else:
        target.copy_(torch.from_numpy(np.array(source)).view(target.shape))
