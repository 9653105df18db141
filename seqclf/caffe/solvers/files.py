"""Builds solvers from their prototxts, new or from a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.binary import parse_binary
from seqclf.caffe.formats.files import is_text, read_bytes
from seqclf.caffe.formats.schema import Flavour, schema
from seqclf.caffe.formats.text import decode, parse_text
from seqclf.caffe.formats.upgrade import read_upgraded
from seqclf.caffe.solvers.solver import Solver


def read_solver(path: str | Path, flavour: str = "bvlc") -> Any:
    """Reads the ``SolverParameter`` in a solver's prototxt and upgrades it to the newest form.

    Raises:
        CaffeFormatError: the file is missing, or is not a solver.
    """
    data, message, name = read_bytes(path), schema(flavour).SolverParameter(), str(path)
    parsed = parse_text(decode(data, name), message, name) if is_text(data, name) else parse_binary(data, message, name)
    return read_upgraded(parsed, name)


def load_solver(
    path: str | Path,
    weights: str | Path | Sequence[str | Path] | None = None,
    snapshot: str | Path | None = None,
    flavour: Flavour = "bvlc",
    device: str | torch.device = "cpu",
    python: Mapping[str, Callable[..., Any]] | None = None,
    log: Callable[[str], None] | None = None,
) -> Solver:
    """Loads a solver with its nets, new or from a snapshot.

    Args:
        path: the solver's prototxt. Paths in it are relative to the working directory, or else to the prototxt.
        weights: files of trained parameters to start from, matched by layer name; other layers are logged.
        snapshot: a ``.solverstate`` or ``.solverstate.h5`` to resume from.
        flavour: "bvlc" or "lisa".
        device: the device of the nets; ``solver_mode`` in the prototxt is ignored.
        python: replacements for ``Python`` layers, by the layer's class name.
        log: called with each line that Caffe would log; None for silence.

    Raises:
        CaffeFormatError: a file or field is invalid, or both weights and a snapshot are given.
    """
    if weights is not None and snapshot is not None:
        raise CaffeFormatError("give either a snapshot to resume from, or weights to start from, not both")
    solver = Solver(read_solver(path, flavour), str(path), flavour, device, python, log)
    if snapshot is not None:
        solver.restore(snapshot)
    for one in [weights] if isinstance(weights, (str, Path)) else weights or ():
        solver.load_weights(one)
    return solver
