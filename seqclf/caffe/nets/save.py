"""Saving of nets: weights (``.caffemodel`` or HDF5) and definitions (prototxt)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats import hdf5
from seqclf.caffe.formats.binary import head, with_blobs
from seqclf.caffe.formats.files import write_file
from seqclf.caffe.nets.graph import without_input_layers
from seqclf.caffe.nets.net import Net


def save_net(net: Net, path: str | Path) -> Path:
    """Writes a net as Caffe does: its weights (``.caffemodel``, or ``.h5``), or its definition (``.prototxt``).

    The file is written completely or not at all. A ``.caffemodel`` of a net that was loaded from Caffe's own file has
    the same bytes.

    Raises:
        CaffeFormatError: the suffix is unknown, or the file cannot be written.
    """
    ending = Path(path).suffix
    if ending == ".prototxt":
        message = without_input_layers(net.message, shapes=True) if net.flavour == "lisa" else net.message
        return write_file(path, [text_format.MessageToString(message).encode()])
    if ending == ".h5":
        every = {param.name: list(net.params.get(param.name, ())) for param in net.to_message().layer}
        return hdf5.write_weights(path, every)
    if ending != ".caffemodel":
        raise CaffeFormatError(f"{path}: expected the ending .caffemodel, .h5 or .prototxt")
    return write_file(path, _binary(net))


def _binary(net: Net) -> Iterator[Any]:
    """Yields the bytes of a ``.caffemodel``, layer by layer."""
    message = net.to_message()
    top = type(message)()
    top.CopyFrom(message)
    top.ClearField("layer")
    yield top.SerializeToString()
    for layer in message.layer:
        arrays = [blob.detach().cpu().numpy() for blob in net.params.get(layer.name, ())]
        parts = list(with_blobs(layer, 7, arrays))
        yield head(100, sum(map(len, parts)))
        yield from parts
