"""Data out of shards (tar files of many videos), in an order that reads each from its beginning to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.classes import read_classes
from seqclf.data.data import Data
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.labelling import Labelling
from seqclf.data.order import mix
from seqclf.data.pictures import decode_picture
from seqclf.data.sampling import CLIP, Sampling, whole
from seqclf.data.shard_index import Part, Sample, read_part
from seqclf.data.source import VIDEOS, Source, Video
from seqclf.data.transforms import Transform
from seqclf.data.video_container import Place
from seqclf.data.video_file import VideoFile
from seqclf.data.videos import Videos

LANES = 8
"""How many places in the shards are read side by side; shards are made in multiples of it, to be as many for each."""


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
) -> Data:
    """Videos in shards ``<root>/<part>-000000.tar`` and so on, as ``tools/prepare.py shards`` or WebDataset write them.

    The frames and labels are those of the same videos in files and folders; the order is another, see ``Shards``.

    Args:
        root: the folder of the shards.
        train, test, validation: the parts, by what their shards' names begin with.
        classes: the classes' names, or a file with one a line; None for those that the shards tell.
        background: the class of frames that is no segment; None for the one that the shards tell.
        fps: the rate that video files are resampled to; None for each one's own, or the one that labels of frames were
            counted at, which can't be another.
        lanes: how many places in the shards are read side by side; a multiple of the number of processes, so that each
            reads shards of its own.

    The other arguments are those of ``video_set``; ``labelling`` None: every frame, or those that have a label.

    Raises:
        SeqclfError: a shard or a sample is missing or wrong: the shard and the sample's key.
    """
    parts = {
        name: read_part(root, part)
        for name, part in (("train", train), ("validation", validation), ("test", test))
        if part is not None
    }
    names = _classes(root, classes, list(parts.values()))
    background = background or next((part.background for part in parts.values() if part.background), None)
    if background is not None and background not in names:
        raise SeqclfError(f"{root}: background {background!r} is none of the classes {', '.join(names[:8])}")
    data, notes = {}, []
    for name, part in parts.items():
        data[name] = Shards(
            [[_video(path, sample, fps) for sample in samples] for path, samples in part.shards.items()],
            lanes,
            sampling=sampling if name == "train" else test_sampling,
            transform=transform if name == "train" or test_transform is None else test_transform,
            training=name == "train",
            labelling=labelling,
            workers=workers,
            on_error=on_error,
        )
        notes.append(f"{name}: {len(data[name].videos):,} videos in {len(part.shards):,} shards")
    marked = None
    if data["test"].per_frame:
        marked = [] if background is None else [names.index(background)]
    return Data(
        data["train"], data["test"], names, f"{root} ({'; '.join(notes)})", data.get("validation"), background=marked
    )


def _classes(root: str, classes: str | Sequence[str] | None, parts: list[Part]) -> list[str]:
    """The classes' names: as they are given, as the indexes or else the samples tell them, or numbers."""
    if classes is not None:
        path = Path(classes) if isinstance(classes, str) and Path(classes).exists() else Path(root, str(classes))
        return read_classes(path) if isinstance(classes, str) else list(classes)
    known = [part.classes for part in parts if part.classes is not None]
    for other in known[1:]:
        if other != known[0]:
            raise SeqclfError(f"{root}: the parts' shards were made with other classes, or in another order")
    if known:
        return known[0]
    samples = [sample for part in parts for shard in part.shards.values() for sample in shard]
    names: dict[int, str] = {}
    labels: list[int] = []
    for sample in samples:
        labels += [sample.label] if sample.label is not None else sample.labels or []
        name = sample.class_name
        if sample.label is not None and name is not None and names.setdefault(sample.label, name) != name:
            raise SeqclfError(
                f"{root}: sample {sample.key}: class {sample.label} is {name!r}, but {names[sample.label]!r} before"
            )
    return [names.get(k, str(k)) for k in range(max(labels, default=0) + 1)]


def _video(shard: Path, sample: Sample, fps: float | None) -> Video:
    where = f"{shard}: sample {sample.key}"
    if sample.labels is not None and fps is not None and fps != sample.fps:
        raise SeqclfError(f"{where}: its labels are of frames at fps={sample.fps}, which can't be read at fps={fps}")
    source: Source
    if sample.kind in VIDEOS:
        place = Place(str(shard), sample.at[0], sample.sizes[0], where)
        source = VideoFile(place, sample.fps if fps is None else fps)
    else:
        source = PackedFrames(str(shard), sample.key, sample.at, sample.sizes)
    labels = sample.label if sample.labels is None else torch.tensor(sample.labels)
    return Video(sample.name, source, labels)


class PackedFrames(Source):
    """Pictures in a shard as the frames of a video; nothing is kept open.

    Args:
        shard: the file.
        key: of the sample, for errors.
        at, sizes: where in the shard each picture begins, and its bytes.

    Raises:
        SeqclfError: (on reading) the shard is missing or cut off; a picture is damaged, or of another size than the
            first.
    """

    def __init__(self, shard: str, key: str, at: Sequence[int], sizes: Sequence[int]) -> None:
        self.shard, self.key = shard, key
        self.places = np.array([at, sizes], np.int64)
        self._size: tuple[int, int] | None = None

    kind = "folder"

    def reader(self) -> Callable[..., Source]:
        """Opens the same pictures where they are files in a folder."""
        return FrameFolder

    @property
    def path(self) -> str:
        """The shard, and the sample in it."""
        return f"{self.shard}: sample {self.key}"

    def __len__(self) -> int:
        return self.places.shape[1]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(3, H, W)``, of the first picture."""
        if self._size is None:
            with self._open() as file:
                height, width, _ = self._picture(file, 0).shape
            self._size = (height, width)
        return (3, *self._size)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The frames of these numbers, ``(n, 3, H, W)`` uint8 RGB, channels last in memory, as decoders give them."""
        _, height, width = self.frame_shape
        frames = np.empty((len(numbers), height, width, 3), np.uint8)
        with self._open() as file:
            for row, number in enumerate(numbers):
                picture = self._picture(file, number)
                if picture.shape[:2] != (height, width):
                    size = f"{picture.shape[1]}x{picture.shape[0]}"
                    raise SeqclfError(f"{self.path}: frame {number} is {size}, but frame 0 is {width}x{height}")
                frames[row] = picture
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _open(self) -> IO[bytes]:
        try:
            return open(self.shard, "rb", buffering=0)
        except OSError as error:
            raise SeqclfError(f"{self.path}: the shard can't be read ({error.strerror})") from None

    def _picture(self, file: IO[bytes], number: int) -> NDArray[np.uint8]:
        """One picture ``(H, W, 3)``."""
        if not 0 <= number < len(self):
            raise SeqclfError(f"{self.path}: there is no frame {number}: it has {len(self)}, from 0")
        at, size = self.places[:, number].tolist()
        file.seek(at)
        content = bytearray(file.read(size))
        if len(content) < size:
            raise SeqclfError(f"{self.path}: frame {number}: the shard is cut off")
        return decode_picture(content, f"{self.path}: frame {number}")


class Shards(Videos):
    """Clips of videos in shards.

    In training a batch has ``lanes`` lanes of positions that follow each other. Each goes through shards of its own,
    one after the other, their order and that of the samples in each drawn anew for every pass; a lane that has come to
    its end begins its next pass, whatever the others do. So whoever takes whole lanes of every batch, as each of N
    processes does where N divides the lanes, reads only its own shards, each from end to end; and the batch is a
    function of seed and step, the same for any N. (Samples of a lane with fewer ones come more often: shards as
    ``tools/prepare.py`` makes them are of about one size, and as many for each lane.)

    In evaluation samples come in the order of the shards.

    Args:
        shards: the videos of each shard.
        lanes: at most; never more than shards, or samples of a batch.
        keywords: as in ``Videos``.
    """

    def __init__(self, shards: Sequence[Sequence[Video]], lanes: int = LANES, **keywords: Any) -> None:
        if lanes < 1:
            raise SeqclfError(f"lanes={lanes}: expected at least 1")
        super().__init__([video for shard in shards for video in shard], **keywords)
        self.lanes = lanes
        ends = np.cumsum([len(shard) for shard in shards]).tolist()
        self.shards = [range(start, end) for start, end in zip([0, *ends], ends, strict=False) if start < end]
        self._shares: dict[int, list[list[int]]] = {}
        self._passes: dict[tuple[int, ...], tuple[tuple[int, int], Tensor]] = {}  # of each lane the one last asked for

    def order(self, batch_size: int, seed: int, step: int) -> Tensor:
        """Which samples ``(batch_size,)`` make the batch of a training step.

        Of L lanes lane l has the positions ``l * batch_size // L`` to ``(l + 1) * batch_size // L - 1``.
        """
        lanes = self.shares(min(self.lanes, len(self.shards), batch_size))
        parts = []
        for lane, shards in enumerate(lanes):
            count = (lane + 1) * batch_size // len(lanes) - lane * batch_size // len(lanes)
            position = step * count
            while count > 0:
                turn, start = divmod(position, sum(len(self.shards[shard]) for shard in shards))
                part = self._pass(tuple(shards), seed, turn)[start : start + count]
                parts.append(part)
                position += len(part)
                count -= len(part)
        return torch.cat(parts)

    def shares(self, lanes: int) -> list[list[int]]:
        """The shards of each lane: the largest are dealt first, each to the lane with the fewest samples so far."""
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
        """The samples of a lane in the order of one of its passes."""
        known, order = self._passes.get(shards, (None, None))
        if order is None or known != (seed, turn):
            with torch.inference_mode(False):  # what is kept must be an ordinary tensor, whoever asks first
                generator = torch.Generator().manual_seed(mix(seed, turn, shards[0]))
                drawn = [self.shards[shards[k]] for k in torch.randperm(len(shards), generator=generator)]
                order = torch.cat([s.start + torch.randperm(len(s), generator=generator) for s in drawn])
            self._passes[shards] = (seed, turn), order
        return order
