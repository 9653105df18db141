"""The frames that an export is checked and measured on: test clips of the run, or random frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqclf.batch import Batch, SeqclfError
from seqclf.data import Clips, Videos, batches
from seqclf.data.input_spec import InputSpec
from seqclf.experiment.config import Experiment, build_data

MOST_FRAMES = 64
"""The largest number of frames that checks use."""


@dataclass
class Sample:
    """The frames of an export's checks.

    Attributes:
        frames: ``(M, *frame_shape)``, as the model takes them.
        source: one line that says where they come from.
        length: the number of frames of a clip.
        clips: the test clips; None if they cannot be read.
    """

    frames: Tensor
    source: str
    length: int = 16
    clips: Clips | Videos | None = None


def sample_frames(experiment: Experiment, spec: InputSpec, source: str, dtype: str | None) -> Sample:
    """Frames of the run's test clips, or random frames if the clips cannot be read.

    Args:
        spec: how the run reads input.
        source: the data that the run was trained on, as its record names it.
        dtype: "uint8" or "float32"; None for that of the clips.

    Raises:
        SeqclfError: the clips have another dtype.
    """
    try:
        data = build_data(experiment)
        if tuple(data.test.frame_shape) != spec.frame_shape or tuple(data.classes) != spec.classes:
            raise SeqclfError(f"{data.source} has other frames or classes")
        rows = torch.linspace(0, len(data.test) - 1, min(4, len(data.test))).long()
        some = [_valid(batch) for batch in batches(data.test, ((row, 0) for row in rows.split(1)))]
    except SeqclfError as error:
        return _random_frames(spec, dtype, str(error))
    frames = torch.cat([clip[: MOST_FRAMES // len(some)] for clip in some])
    found = str(frames.dtype).removeprefix("torch.")
    if dtype not in (None, found):
        raise SeqclfError(f"dtype={dtype}: the frames of {data.source} are {found}")
    other = "" if data.source == source else f" (the run was trained on {source})"
    return Sample(frames, f"test clips of {data.source}{other}", len(some[0]), data.test)


def _random_frames(spec: InputSpec, dtype: str | None, reason: str) -> Sample:
    dtype = dtype or spec.dtype or ("uint8" if len(spec.frame_shape) == 3 else "float32")
    draw = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (MOST_FRAMES, *spec.frame_shape), dtype=torch.uint8, generator=draw)
    source = f"random {dtype} frames, because the test clips cannot be read ({reason})"
    return Sample(frames if dtype == "uint8" else frames / 255, source)


def _valid(batch: Batch) -> Tensor:
    """The frames of the first clip of a batch, without padding."""
    return batch.frames[0] if batch.lengths is None else batch.frames[0, : batch.lengths[0]]
