"""Weights and snapshots in HDF5 files (Net::ToHDF5, SGDSolver::SnapshotSolverStateToHDF5), read with ``h5py``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.binary import Blob
from seqclf.caffe.formats.files import Array, countable
from seqclf.runtime.files import replacing
from seqclf.runtime.packages import optional_import


def _h5py() -> Any:
    with optional_import("caffe", "HDF5 files need the h5py package"):
        import h5py

    return h5py


def read_weights(path: str | Path) -> dict[str, list[Blob]]:
    """Reads the parameters in a Caffe HDF5 file, from its datasets ``/data/<layer>/<number>``.

    Returns:
        the blobs of each layer, in order; those that another layer owns are ``absent``.

    Raises:
        CaffeFormatError: the file is missing, damaged, or has another layout.
    """
    found: dict[str, dict[int, Blob]] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            found.setdefault(name, {})  # layers without parameters of their own are empty groups
            return
        layer, _, number = name.rpartition("/")
        if not layer or not re.fullmatch("0|[1-9][0-9]?", number):
            raise CaffeFormatError(f"{path}: dataset /data/{name}: expected /data/<layer>/<number>")
        found.setdefault(layer, {})[int(number)] = _blob(item, f'{path}: layer "{layer}", blob {number}')

    h5py = _h5py()
    try:
        with h5py.File(_existing(path), "r") as file:
            file["data"].visititems(visit)
    except CaffeFormatError:
        raise
    except Exception as error:  # h5py raises various errors for a damaged file
        raise CaffeFormatError(f"{path}: not an HDF5 file of Caffe's weights, or damaged ({error})") from None
    absent = Blob((), False, np.empty(0, "<f4"), absent=True)
    return {layer: [blobs.get(i, absent) for i in range(max(blobs, default=-1) + 1)] for layer, blobs in found.items()}


def write_weights(path: str | Path, params: Mapping[str, Sequence[Tensor]]) -> Path:
    """Writes parameters by layer. A shared parameter is written once, by its owner, as in Caffe."""
    written: set[int] = set()

    def content(file: Any) -> None:
        data = file.create_group("data")
        for layer, blobs in params.items():
            if "\0" in layer or not {"", "."}.isdisjoint(layer.split("/")):
                raise ValueError(f'HDF5 can\'t have a layer of the name "{layer}"')
            group = data.require_group(layer)  # even if it has no parameters
            for j, blob in enumerate(blobs):
                if blob.data_ptr() not in written or not blob.numel():
                    written.add(blob.data_ptr())
                    group.create_dataset(str(j), data=blob.detach().cpu().numpy())

    return _write(path, content)


def read_state(path: str | Path) -> dict[str, Any]:
    """Reads a solver's snapshot: ``iter``, ``learned_net``, ``current_step`` and ``history`` (a list of ``Blob``).

    Raises:
        CaffeFormatError: the file is missing, damaged, or has another layout.
    """
    h5py = _h5py()
    try:
        with h5py.File(_existing(path), "r") as file:
            state = {name: _number(file[name], f"{path}: dataset {name}") for name in ("iter", "current_step")}
            learned = _array(file["learned_net"], f"{path}: dataset learned_net").item()
            learned = learned.decode() if isinstance(learned, bytes) else str(learned)
            history = file["history"]
            if not isinstance(history, h5py.Group):
                raise CaffeFormatError(f"{path}: history: is a dataset, expected a group of them")
            numbers = sorted(map(int, history))
            if numbers != list(range(len(numbers))):
                raise CaffeFormatError(f"{path}: group history: has {numbers}, expected 0 to {len(numbers) - 1}")
            blobs = [_blob(history[str(i)], f"{path}: history {i}") for i in numbers]
    except CaffeFormatError:
        raise
    except Exception as error:  # h5py raises various errors for a damaged file
        raise CaffeFormatError(f"{path}: not an HDF5 snapshot of a Caffe solver, or damaged ({error})") from None
    return {**state, "learned_net": learned, "history": blobs}


def write_state(
    path: str | Path, iteration: int, learned_net: str, current_step: int, history: Sequence[Tensor]
) -> Path:
    """Writes a solver's snapshot."""

    def content(file: Any) -> None:
        file.create_dataset("iter", data=np.array([iteration], np.int32))
        ended = f"S{len(learned_net.encode()) + 1}"  # a C string, with its terminator
        file.create_dataset("learned_net", data=np.array(learned_net.encode(), ended))
        file.create_dataset("current_step", data=np.array([current_step], np.int32))
        group = file.create_group("history")
        for i, blob in enumerate(history):
            group.create_dataset(str(i), data=blob.detach().cpu().numpy())

    return _write(path, content)


def _existing(path: str | Path) -> str:
    if not Path(path).is_file():
        raise CaffeFormatError(f"{path}: no such file")
    return str(path)


def _array(dataset: Any, name: str) -> Array:
    """A dataset's values. A dataset far larger than its storage is an error, before memory is allocated for it."""
    if getattr(dataset, "nbytes", None) is None:
        raise CaffeFormatError(f"{name}: is a group or empty, expected a dataset")
    if dataset.nbytes > (1100 if dataset.compression else 2) * dataset.id.get_storage_size():
        raise CaffeFormatError(f"{name}: shape {dataset.shape} is of more values than the file holds")
    return np.asarray(dataset[()])


def _number(dataset: Any, name: str) -> int:
    values = _array(dataset, name)
    if values.size != 1 or values.dtype.kind not in "iu":
        raise CaffeFormatError(f"{name}: holds {values.dtype} of shape {values.shape}, expected one whole number")
    return int(values.item())


def _blob(dataset: Any, name: str) -> Blob:
    if not countable(getattr(dataset, "shape", None) or ()):
        raise CaffeFormatError(
            f"{name}: shape {dataset.shape}: Caffe's blobs have at most 32 axes, and 2**31 - 1 values"
        )
    values = _array(dataset, name)
    if values.dtype.kind not in "fiu":
        raise CaffeFormatError(f"{name}: holds {values.dtype}, expected numbers")
    return Blob(
        values.shape, False, values.reshape(-1).astype("<f8" if values.dtype == np.float64 else "<f4", copy=False)
    )


def _write(path: str | Path, content: Any) -> Path:
    """Writes a file completely or not at all."""
    path = Path(path)
    try:
        with replacing(path) as beside, _h5py().File(str(beside), "w") as file:
            content(file)
    except Exception as error:  # h5py raises various errors for names that HDF5 does not allow
        raise CaffeFormatError(f"{path}: can't be written ({error})") from None
    return path
