"""Values that the original Caffe computed, packed in ``caffe_golden.tar.xz``: a folder for each of 349 cases.

Cases without a prefix are BVLC Caffe master's (commit 9b89154), those named ``lisa_`` of lisa-caffe's lstm_video_deploy
(49b8643), both run on a CPU. Each has ``case.json`` (a note, facts), ``data.npz`` (arrays named ``in.<blob>``,
``param.<layer>.<i>``, ``out.<blob>``, ``topdiff.<blob>``, ``indiff.<blob>``, ``paramdiff.<layer>.<i>``), prototxts, and
files that Caffe wrote. Arrays are as Caffe lays them out; a gradient is what reached the blob from the injected
``topdiff``, or from the loss.
"""

from __future__ import annotations

import io
import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

ARCHIVE = Path(__file__).parent / "caffe_golden.tar.xz"


@cache
def _archive() -> dict[str, dict[str, bytes]]:
    cases: dict[str, dict[str, bytes]] = {}
    with tarfile.open(ARCHIVE) as tar:
        for member in tar:
            case, _, file = member.name.partition("/")
            cases.setdefault(case, {})[file] = tar.extractfile(member).read()
    return cases


def names() -> list[str]:
    return sorted(_archive())


def files_of(name: str) -> list[str]:
    return sorted(_archive()[name])


def write_files(name: str, folder: Path) -> None:
    for file, data in _archive()[name].items():
        (folder / file).write_bytes(data)


class Case:
    """One case: a folder with its files, its arrays, and its facts."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.flavour = "lisa" if name.startswith("lisa_") else "bvlc"
        write_files(name, folder)
        self.facts: dict[str, Any] = json.loads(_archive()[name]["case.json"])
        with np.load(io.BytesIO(_archive()[name]["data.npz"])) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose names begin with a prefix, by the rest of their names."""
        return {key[len(prefix) :]: value for key, value in self.arrays.items() if key.startswith(prefix)}


def close(got: Any, want: np.ndarray, what: str, tolerance: float = 1e-5) -> None:
    """Asserts that an array equals Caffe's to ``tolerance`` of its largest value, with NaN in the same places."""
    got = (got.detach().cpu().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)).astype(np.float64)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, Caffe's is {want.shape}"
    nan = np.isnan(want)
    assert (np.isnan(got) == nan).all(), f"{what}: NaN elsewhere than in Caffe"
    huge = np.abs(want) > 1e37  # FLT_MAX, what Caffe's maximum over nothing is
    assert (got[huge] == want[huge]).all(), f"{what}: FLT_MAX elsewhere than in Caffe"
    rest = ~nan & ~huge
    error = np.abs(got[rest] - want[rest]).max(initial=0) / max(np.abs(want[rest]).max(initial=0), 1e-12)
    assert error <= tolerance, f"{what}: off by {error:.2e} of the largest value"
