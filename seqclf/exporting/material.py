"""What an export is checked and measured on: frames of the run's test clips, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import Batch, SeqclfError
from seqclf.data import Clips, Videos, batches
from seqclf.experiment.config import Experiment, build

POOL = 64
"""How many frames of the test clips the checks draw on."""


@dataclass
class Material:
    """What an export is checked on.

    Attributes:
        frames: ``(M, *frame_shape)``, of test clips or random, raw as in use.
        told: one line that says where they are from.
        length: the frames of a clip.
        clips: the test clips; None where they can't be had.
    """

    frames: Tensor
    told: str
    length: int = 16
    clips: Clips | Videos | None = None


def find_material(experiment: Experiment, record: dict[str, Any], dtype: str | None) -> Material:
    """Frames of the run's test clips; random ones where there are none to be had, which is told.

    Args:
        record: the run's ``run.json``.
        dtype: "uint8" or "float32"; None for that of the clips, or for uint8 where random frames are pictures.

    Raises:
        SeqclfError: the clips are of another dtype.
    """
    shape, classes = tuple(record["data"]["train"]["frame_shape"]), list(record["data"]["classes"])
    try:
        data = build("data", experiment.data)
        if tuple(data.test.frame_shape) != shape or list(data.classes) != classes:
            raise SeqclfError(f"{data.source} has other frames or classes")
        rows = torch.linspace(0, len(data.test) - 1, min(4, len(data.test))).long()
        some = [_valid(batch) for batch in batches(data.test, ((row, 0) for row in rows.split(1)))]
    except SeqclfError as error:
        dtype = dtype or ("uint8" if len(shape) == 3 else "float32")
        frames = torch.randint(0, 256, (POOL, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        told = f"random {dtype} frames, as the run's data can't be had ({error})"
        return Material(frames if dtype == "uint8" else frames / 255, told)
    frames = torch.cat([clip[: POOL // len(some)] for clip in some])
    found = str(frames.dtype).removeprefix("torch.")
    if dtype not in (None, found):
        raise SeqclfError(f"frames of {dtype}: {data.source} has {found}")
    told = f"test clips of {data.source}"
    if data.source != record["data"]["source"]:
        told += f" (the run itself was trained on {record['data']['source']})"
    return Material(frames, told, len(some[0]), data.test)


def _valid(batch: Batch) -> Tensor:
    """The frames of a batch's first clip, without padding."""
    return batch.frames[0] if batch.lengths is None else batch.frames[0, : batch.lengths[0]]
