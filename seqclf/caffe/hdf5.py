"""Weights and snapshots in HDF5 (Net::ToHDF5, SGDSolver::SnapshotSolverStateToHDF5), by the ``h5py`` package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.files import Blob


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise CaffeFormatError("HDF5 files need the h5py package: pip install 'seqclf[caffe]'") from None
    return h5py


def read_weights(path: str | Path) -> dict[str, list[Blob]]:
    """The parameters in an HDF5 file of Caffe's, by layer: its datasets ``/data/<layer>/<number>``.

    Raises:
        CaffeFormatError: the file is missing or damaged, or is laid out otherwise.
    """
    found: dict[str, dict[int, Blob]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, _, number = name.rpartition("/")
            if not layer or not number.isdigit():
                raise CaffeFormatError(f"{path}: dataset /data/{name}: expected /data/<layer>/<number>")
            found.setdefault(layer, {})[int(number)] = _blob(item, f'{path}: layer "{layer}", blob {number}')

    h5py = _h5py()
    try:
        with h5py.File(_existing(path), "r") as file:
            file["data"].visititems(visit)
    except CaffeFormatError:
        raise
    except Exception as error:  # what h5py runs into in a damaged file
        raise CaffeFormatError(f"{path}: not an HDF5 file of Caffe's weights, or damaged ({error})") from None
    for layer, blobs in found.items():
        if sorted(blobs) != list(range(len(blobs))):
            raise CaffeFormatError(
                f'{path}: layer "{layer}": has blobs {sorted(blobs)}, expected 0 to {len(blobs) - 1}'
            )
    return {layer: [blobs[i] for i in range(len(blobs))] for layer, blobs in found.items()}


def write_weights(path: str | Path, params: Mapping[str, Sequence[Tensor]]) -> Path:
    """Writes parameters by layer; one that two layers share is written once, by its owner, as Caffe does."""
    written: set[int] = set()

    def content(file: Any) -> None:
        for layer, blobs in params.items():
            group = file.require_group("data").require_group(layer)  # one without parameters too
            for j, blob in enumerate(blobs):
                if blob.data_ptr() not in written or not blob.numel():
                    written.add(blob.data_ptr())
                    group.create_dataset(str(j), data=blob.detach().cpu().numpy())

    return _write(path, content)


def read_state(path: str | Path) -> dict[str, Any]:
    """A solver's snapshot: ``iter``, ``learned_net``, ``current_step`` and ``history`` (a list of Blob).

    Raises:
        CaffeFormatError: the file is missing or damaged, or is laid out otherwise.
    """
    try:
        with _h5py().File(_existing(path), "r") as file:
            state = {name: int(np.ravel(file[name])[0]) for name in ("iter", "current_step")}
            learned = file["learned_net"][()]
            history = file["history"]
            numbers = sorted(map(int, history))
            if numbers != list(range(len(numbers))):
                raise CaffeFormatError(f"{path}: group history: has {numbers}, expected 0 to {len(numbers) - 1}")
            blobs = [_blob(history[str(i)], f"{path}: history {i}") for i in numbers]
    except CaffeFormatError:
        raise
    except Exception as error:  # what h5py runs into in a damaged file
        raise CaffeFormatError(f"{path}: not an HDF5 snapshot of a Caffe solver, or damaged ({error})") from None
    return {**state, "learned_net": learned.decode() if isinstance(learned, bytes) else str(learned), "history": blobs}


def write_state(
    path: str | Path, iteration: int, learned_net: str, current_step: int, history: Sequence[Tensor]
) -> Path:
    """Writes a solver's snapshot."""

    def content(file: Any) -> None:
        file.create_dataset("iter", data=np.array([iteration], np.int32))
        ended = f"S{len(learned_net.encode()) + 1}"  # a C string with its end
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


def _blob(dataset: Any, name: str) -> Blob:
    if dataset.dtype not in (np.float32, np.float64):
        raise CaffeFormatError(f"{name}: holds {dataset.dtype}, expected float32 or float64")
    if dataset.size * dataset.dtype.itemsize > 2 * dataset.id.get_storage_size() and not dataset.compression:
        raise CaffeFormatError(f"{name}: shape {dataset.shape} is of more values than the file holds")
    return Blob(tuple(dataset.shape), False, np.asarray(dataset[()]).reshape(-1))


def _write(path: str | Path, content: Any) -> Path:
    """Writes a file whole or not at all."""
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _h5py().File(str(beside), "w") as file:
            content(file)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CaffeFormatError(f"{path}: can't be written ({error})") from None
    return path
