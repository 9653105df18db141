"""Data sets of videos in shards (tar files), read sequentially."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.data import Data
from seqclf.data.frames.source import VIDEOS, Source, Video
from seqclf.data.frames.span import VideoSpan
from seqclf.data.input_spec import DecisionRule
from seqclf.data.labelling import Labelled, Labelling
from seqclf.data.lists.class_index import read_classes
from seqclf.data.order import mix, take
from seqclf.data.sampling import CLIP, Sampling, reads_whole, whole
from seqclf.data.sets.parts import SetParts
from seqclf.data.shards.frames import PackedFrames
from seqclf.data.shards.index import Part, Sample, label_rows, read_part
from seqclf.data.transforms import Transform
from seqclf.data.video.container import Place
from seqclf.data.video.file import VideoFile
from seqclf.data.videos import Videos
from seqclf.runtime.paths import resolve_path
from seqclf.runtime.text import some

LANES = 8
"""The default number of shards read in parallel. The number of shards written is a multiple of it."""


def shard_set(
    root: str,
    train: str = "train",
    test: str = "test",
    validation: str | None = None,
    classes: str | Sequence[str] | None = None,
    background: str | None = None,
    fps: float | None = None,
    sampling: Sampling = CLIP,
    test_sampling: Sampling = whole,
    transform: Transform | None = None,
    test_transform: Transform | None = None,
    labelling: Labelling | None = None,
    workers: int = 2,
    on_error: str = "raise",
    lanes: int = LANES,
    decision: DecisionRule | None = None,
) -> Data:
    """Videos in shards ``<root>/<part>-000000.tar`` and so on, written by ``seqclf prepare shards`` or WebDataset.

    Frames and labels equal those of the unpacked videos; only the order differs, see ``Shards``. Arguments that are not
    listed are those of ``video_set``.

    Args:
        root: the folder of the shards.
        train, test, validation: the parts, by the prefix of their shards' names.
        classes: the class names, or a file with one per line; None takes them from the shards.
        background: the class without segments; None takes it from the shards.
        fps: the frame rate to resample video files to; None for each file's own. With labels per frame it must be the
            rate of the labels, which is the default.
        labelling: which frames of a clip are labelled; None for every frame, or the labelled ones.
        lanes: the number of shards to read in parallel. With several processes, use a multiple of their number, so that
            each reads its own shards.

    Raises:
        SeqclfError: a shard or a sample is missing or invalid. The message names the shard and the sample's key.
    """
    given = {"train": train, "validation": validation, "test": test}
    shards = {name: read_part(root, part) for name, part in given.items() if part is not None}
    names = _classes(root, classes, list(shards.values()))
    parts = SetParts(sampling, test_sampling, transform, test_transform, labelling, workers, on_error)
    counts = []
    for name, part in shards.items():
        clips: Videos = _shards(part, fps, len(names), lanes, **parts.settings(name))
        parts.found[name] = clips
        counts.append(f"{name}: {len(clips.videos):,} videos in {len(part.shards):,} shards")
    marked: list[int] | None = _background(background, shards.values(), names, root)
    clips = parts.found["test"]
    if not clips.per_frame or clips.multi_label or not reads_whole(test_sampling):
        marked = None  # no segments are measured
    return parts.data(names, f"{root} ({'; '.join(counts)})", background=marked, decision=decision, name=root)


def _background(given: str | None, parts: Iterable[Part], classes: list[str], root: str) -> list[int]:
    """The index of the background class, as given or as in the shards; empty if there is none."""
    name = given or next((part.background for part in parts if part.background), None)
    if name is not None and name not in classes:
        raise SeqclfError(f"{root}: background {name!r} is not one of the classes {some(classes)}")
    return [] if name is None else [classes.index(name)]


def _shards(part: Part, fps: float | None, num_classes: int, lanes: int, **how: Any) -> Shards:
    """The data set of a part; ``how`` are arguments of ``Videos``."""
    samples = [sample for shard in part.shards.values() for sample in shard]
    groups = None if samples[0].group is None else [sample.group for sample in samples]
    videos = [_videos(path, found, fps, num_classes) for path, found in part.shards.items()]
    return Shards(videos, lanes, multi_label=samples[0].multi_label, groups=groups, **how)


def _classes(root: str, classes: str | Sequence[str] | None, parts: list[Part]) -> list[str]:
    """The class names: as given, or from the indexes, or from the samples, or numbers."""
    if classes is not None:
        return read_classes(resolve_path(classes, root)) if isinstance(classes, str) else list(classes)
    known = [part.classes for part in parts if part.classes is not None]
    for other in known[1:]:
        if other != known[0]:
            raise SeqclfError(f"{root}: the parts have different classes, or in a different order")
    if known:
        return known[0]
    samples = [sample for part in parts for shard in part.shards.values() for sample in shard]
    names: dict[int, str] = {}
    labels: list[int] = []
    for sample in samples:
        values = [sample.label] if sample.label is not None else sample.labels or []
        rows = [row or [] for row in values] if sample.multi_label else [values]
        labels += [k if k >= 0 or not sample.multi_label else -1 - k for row in rows for k in row]
        name = sample.class_name
        if sample.label is not None and name is not None and names.setdefault(sample.label, name) != name:
            raise SeqclfError(
                f"{root}: sample {sample.key}: class {sample.label} is {name!r}, but {names[sample.label]!r} in "
                "earlier samples"
            )
    return [names.get(k, str(k)) for k in range(max(labels, default=0) + 1)]


def _videos(shard: Path, samples: Sequence[Sample], fps: float | None, num_classes: int) -> list[Video]:
    """The videos of a shard. Clips inside a video share its source, so that it is indexed once."""
    sources: dict[str, Source] = {}
    return [_video(shard, sample, fps, num_classes, sources) for sample in samples]


def _video(shard: Path, sample: Sample, fps: float | None, num_classes: int, sources: dict[str, Source]) -> Video:
    where = f"{shard}: sample {sample.key}"
    if sample.labels is not None and fps is not None and fps != sample.fps:
        raise SeqclfError(f"{where}: has labels of frames at fps={sample.fps}, so it can't be read at fps={fps}")
    if sample.key not in sources and sample.kind in VIDEOS:
        place = Place(str(shard), sample.at[0], sample.sizes[0], where)
        sources[sample.key] = VideoFile(place, sample.fps if fps is None else fps, sample.stream)
    elif sample.key not in sources:
        sources[sample.key] = PackedFrames(str(shard), sample.key, sample.at, sample.sizes)
    source = sources[sample.key]
    if sample.span is not None:
        source = VideoSpan(source, sample.span[0], sample.span[1], "frames")
    values = [sample.label] if sample.labels is None else sample.labels
    if not sample.multi_label:
        return Video(sample.name, source, sample.label if sample.labels is None else torch.tensor(values))
    rows = label_rows(values, num_classes)
    return Video(sample.name, source, rows[0] if sample.labels is None else rows)


class Shards(Videos):
    """Clips of videos in shards.

    In training, a batch consists of ``lanes`` lanes of consecutive positions. Each lane reads its own shards one after
    the other, and shuffles the shards and the samples in each shard for every pass. When a lane has read all its
    shards, it starts its next pass, independently of the others. If the number of processes divides the number of
    lanes, each process therefore reads only its own shards, sequentially. The batch is a function of seed and step, the
    same for any number of processes. Samples of a lane with fewer samples are drawn more often; ``seqclf prepare
    shards`` gives all lanes nearly the same number.

    In evaluation, samples are in the order of the shards.

    Args:
        shards: the videos of each shard.
        lanes: the largest number of lanes; there are never more lanes than shards, or than samples in a batch.
        keywords: further arguments of ``Videos``.
    """

    def __init__(self, shards: Sequence[Sequence[Video]], lanes: int = LANES, **keywords: Any) -> None:
        if lanes < 1:
            raise SeqclfError(f"lanes={lanes}: expected at least 1")
        super().__init__([video for shard in shards for video in shard], **keywords)
        self.lanes = lanes
        ends = np.cumsum([len(shard) for shard in shards]).tolist()
        self.shards = [range(start, end) for start, end in zip([0, *ends], ends, strict=False) if start < end]
        self._shares: dict[int, list[list[int]]] = {}
        self._passes: dict[tuple[int, ...], tuple[tuple[int, int], Tensor]] = {}  # the newest pass of each lane

    def subset(self, rows: Sequence[int], like: Labelled | None = None) -> Videos:
        """As in ``Videos``. Training videos stay in their shards."""
        part = super().subset(rows, like)
        if like is not None:
            return part
        kept = set(rows)
        shards = [[self.videos[i] for i in shard if i in kept] for shard in self.shards]
        return Shards(shards, self.lanes, **part.settings(), groups=part.groups)

    def order(self, batch_size: int, seed: int, step: int) -> Tensor:
        """The sample numbers ``(batch_size,)`` of a training step.

        Lane l of L lanes has the positions ``l * batch_size // L`` to ``(l + 1) * batch_size // L - 1``.
        """
        lanes = self.shares(min(self.lanes, len(self.shards), batch_size))
        parts = []
        for lane, shards in enumerate(lanes):
            count = (lane + 1) * batch_size // len(lanes) - lane * batch_size // len(lanes)
            size = sum(len(self.shards[shard]) for shard in shards)
            parts.append(take(size, count, step, partial(self._pass, tuple(shards), seed)))
        return torch.cat(parts)

    def shares(self, lanes: int) -> list[list[int]]:
        """The shards of each lane, assigned largest first to the lane with the fewest samples."""
        if lanes not in self._shares:
            shares: list[list[int]] = [[] for _ in range(lanes)]
            samples = [0] * lanes
            for shard in sorted(range(len(self.shards)), key=lambda shard: -len(self.shards[shard])):
                lane = samples.index(min(samples))
                shares[lane].append(shard)
                samples[lane] += len(self.shards[shard])
            self._shares[lanes] = shares
        return self._shares[lanes]

    def _pass(self, shards: tuple[int, ...], seed: int, turn: int) -> Tensor:
        """The sample numbers of one pass of a lane, in order."""
        known, order = self._passes.get(shards, (None, None))
        if order is None or known != (seed, turn):
            with torch.inference_mode(False):  # the cached tensor must be usable outside inference mode
                generator = torch.Generator().manual_seed(mix(seed, turn, shards[0]))
                drawn = [self.shards[shards[k]] for k in torch.randperm(len(shards), generator=generator)]
                order = torch.cat([s.start + torch.randperm(len(s), generator=generator) for s in drawn])
            self._passes[shards] = (seed, turn), order
        return order
