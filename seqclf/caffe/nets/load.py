"""Builds nets from prototxts and ``.caffemodel`` files, and loads their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.binary import cut, parse_binary
from seqclf.caffe.formats.files import is_hdf5, is_text, read_bytes
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.formats.text import decode, parse_known_fields
from seqclf.caffe.formats.upgrade import read_upgraded
from seqclf.caffe.nets.graph import filter_layers
from seqclf.caffe.nets.net import PHASES, Net


def load_net(
    prototxt: str | Path,
    weights: str | Path | None = None,
    phase: str = "TEST",
    flavour: str = "bvlc",
    *,
    level: int = 0,
    stages: Sequence[str] = (),
    python: Mapping[str, Callable[..., Any]] | None = None,
    strict: bool = True,
) -> Net:
    """Loads a Caffe net from its prototxt, with its weights.

    Args:
        prototxt: the net's definition, in any of Caffe's forms (2013, 2014 or today's); or a ``.caffemodel``, which
            contains one.
        weights: a ``.caffemodel`` or HDF5 file. None: the weights in a ``.caffemodel`` given as ``prototxt``, or else
            weights drawn by the fillers from PyTorch's generator.
        phase: "TRAIN" or "TEST".
        flavour: "bvlc", or "lisa" for nets and files of lisa-caffe, where the two differ (see docs/caffe.md).
        level: the level that ``include`` and ``exclude`` rules are compared with.
        stages: the stages that these rules are compared with.
        python: replacements for ``Python`` layers, by the layer's class name; see ``seqclf.caffe.layers.python``.
        strict: raise an error if a layer gets no weights, or if the file has weights of layers that the net lacks.
            False: initialize layers without weights with their fillers.

    Returns:
        the net, in that phase, on the CPU.

    Raises:
        CaffeFormatError: a file can't be read, or the net can't be built. All problems of the net are listed, each
            with its layer.
    """
    problems: list[str] = []
    message = read_net_structure(prototxt, flavour, problems)
    return build_net(message, str(prototxt), weights, phase, flavour, level, stages, python, strict, problems)


def build_net(
    message: Any,
    file: str,
    weights: str | Path | None = None,
    phase: str = "TEST",
    flavour: str = "bvlc",
    level: int = 0,
    stages: Sequence[str] = (),
    python: Mapping[str, Callable[..., Any]] | None = None,
    strict: bool = True,
    problems: Sequence[str] = (),
) -> Net:
    """Like ``load_net``, from an upgraded ``NetParameter``.

    Args:
        message: the net; its layers are filtered in place.
        file: its file, for errors.
        weights, phase, flavour, level, stages, python, strict: see ``load_net``.
        problems: problems found so far, reported together with those of building.
    """
    if phase not in PHASES:
        raise CaffeFormatError(f'phase={phase!r}: expected "TRAIN" or "TEST"')
    filter_layers(message, phase, level, tuple(stages), file)
    net = Net(message, phase, flavour, file, python, problems)
    if weights is None and Path(file).suffix == ".caffemodel":
        weights = file
    missing = list(net.params) if weights is None else net.load_weights(weights, strict)[0]
    net.fill(missing)
    return net


def read_net(path: str | Path, flavour: str = "bvlc") -> Any:
    """Reads the ``NetParameter`` in a ``.prototxt`` or ``.caffemodel``, with all layers and blobs, and upgrades it.

    Raises:
        CaffeFormatError: the file is missing or damaged.
    """
    problems: list[str] = []
    message = _read(path, flavour, problems)
    if problems:
        raise CaffeFormatError(str(path), problems)
    return message


def read_net_structure(path: str | Path, flavour: str = "bvlc", problems: list[str] | None = None) -> Any:
    """Like ``read_net``, without the values of blobs, for a ``.caffemodel`` that is used as a net's definition.

    Args:
        path: the file.
        flavour: "bvlc" or "lisa".
        problems: a list to which unknown fields are appended. None: they are an error.
    """
    found: list[str] = []
    message = _read(path, flavour, found, numbers=False)
    if problems is None and found:
        raise CaffeFormatError(str(path), found)
    if problems is not None:
        problems += found
    return message


def _read(path: str | Path, flavour: str, problems: list[str], numbers: bool = True) -> Any:
    data, name = read_bytes(path), str(path)
    message = schema(flavour).NetParameter()
    if is_text(data, name):
        message, unknown = parse_known_fields(decode(data, name), message, name)
        problems += map(str, unknown)
        try:
            return read_upgraded(message, name)
        except CaffeFormatError as error:
            if not problems:
                raise
            own = error.problems or [str(error).removeprefix(f"{name}: ")]
            raise CaffeFormatError(name, [*problems, *own]) from None
    if is_hdf5(path):
        raise CaffeFormatError(
            f"{name}: contains weights but no net definition: give the prototxt too, "
            f'as in load_net("net.prototxt", "{Path(name).name}")'
        )
    if numbers:
        return read_upgraded(parse_binary(data, message, name), name)
    rest, _ = cut(data, "NetParameter", name)
    message = read_upgraded(parse_binary(rest, message, name), name)
    for layer in message.layer:
        layer.ClearField("blobs")
        layer.ClearField("phase")  # the phase of the net that was saved
    return message
