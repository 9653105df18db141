"""Comparison of a weights file with a net."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seqclf.caffe.layers import Shape
from seqclf.caffe.nets.net import Net
from seqclf.caffe.nets.weights import read_weights


def find_mismatches(net: Net, path: str | Path) -> list[str]:
    """Returns one sentence for every parameter that a weights file lacks, has in excess, or has in another shape.

    Args:
        net: a net, or a ``Sketch``.
        path: a ``.caffemodel`` or HDF5 file.

    Raises:
        CaffeFormatError: the file is missing or damaged.
    """
    stored = read_weights(path, net.flavour)
    names = {param.name for param, _ in net.sequence}
    found = []
    for name, blobs in net.params.items():
        expected = [tuple(blob.shape) for blob in blobs]
        if name not in stored:
            found.append(f'layer "{name}": has no weights, expected {_join(expected)}')
        elif len(stored[name]) != len(expected):
            found.append(f'layer "{name}": has {len(stored[name])} blobs, expected {_join(expected)}')
        else:
            found += [
                f'layer "{name}": blob {j} has shape {blob.shape}, expected {shape}'
                for j, (blob, shape) in enumerate(zip(stored[name], expected, strict=True))
                if not blob.fits(shape)
            ]
    for name, stored_blobs in stored.items():
        if stored_blobs and name not in net.params:
            reason = "the net's layer has no parameters" if name in names else "the net has no such layer"
            found.append(f'layer "{name}": has {_join(blob.shape for blob in stored_blobs)}, but {reason}')
    return found


def _join(shapes: Iterable[Shape]) -> str:
    return ", ".join(map(str, shapes))
