"""A solver's snapshots: files with its net and the history of its optimizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats import hdf5
from seqclf.caffe.formats.binary import blob_of, cut, parse_binary, with_blobs
from seqclf.caffe.formats.files import is_hdf5, read_bytes, write_file
from seqclf.caffe.formats.schema import schema


def read_state(path: str | Path, flavour: str = "bvlc") -> dict[str, Any]:
    """Reads a ``.solverstate`` or ``.solverstate.h5``: iter, learned_net, current_step, and history as ``Blob``s.

    Raises:
        CaffeFormatError: the file is missing or damaged, or contains weights.
    """
    if ".caffemodel" in Path(path).suffixes:
        state_file = str(path).replace(".caffemodel", ".solverstate")
        there = f", {state_file}" if os.path.isfile(state_file) else ""
        raise CaffeFormatError(
            f"{path}: contains only weights. To resume, give the .solverstate file of the snapshot{there}. To start "
            "training from these weights, pass them as weights (--weights)"
        )
    state = hdf5.read_state(path) if is_hdf5(path) else _read_binary(path, flavour)
    for field in ("iter", "current_step"):
        if state[field] < 0:
            raise CaffeFormatError(f"{path}: field {field}: is {state[field]}, expected 0 or more")
    return state


def _read_binary(path: str | Path, flavour: str) -> dict[str, Any]:
    rest, cuts = cut(read_bytes(path), "SolverState", str(path))
    message: Any = parse_binary(rest, schema(flavour).SolverState(), str(path))
    if not message.HasField("iter"):
        raise CaffeFormatError(f"{path}: is not the snapshot of a solver, expected a .solverstate file")
    pieces = list(chain.from_iterable(cuts[3]))
    history = [
        blob_of(blob, piece, f"{path}: history {i}")
        for i, (blob, piece) in enumerate(zip(message.history, pieces, strict=True))
    ]
    return {
        "iter": message.iter,
        "learned_net": message.learned_net,
        "current_step": message.current_step,
        "history": history,
    }


def write_state(
    path: str, iteration: int, model: str, current_step: int, history: Sequence[Tensor], flavour: str
) -> None:
    """Writes a ``.solverstate``, or an HDF5 file if the suffix is ``.h5``. ``model`` is the path of the weights."""
    if path.endswith(".h5"):
        hdf5.write_state(path, iteration, model, current_step, history)
        return
    message: Any = schema(flavour).SolverState(iter=iteration, learned_net=model, current_step=current_step)
    write_file(path, with_blobs(message, 3, (blob.detach().cpu().numpy() for blob in history)))


def find_weights(path: str | Path, learned_net: str) -> str:
    """Finds the weights of a snapshot: at the path in it, or else beside it.

    Raises:
        CaffeFormatError: there is no such file.
    """
    places = (learned_net, os.path.join(os.path.dirname(path), os.path.basename(learned_net)))
    found = next((place for place in places if os.path.isfile(place)), None)
    if found is None:
        raise CaffeFormatError(f'{path}: field learned_net: there is no file "{learned_net}"')
    return found
