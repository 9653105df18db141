"""A data set of clips from videos, which threads read ahead on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from seqclf.batch import IGNORE, Batch, SeqclfError
from seqclf.data.batch_memory import Memory, Rows
from seqclf.data.frames.arrays import as_groups
from seqclf.data.frames.source import NewArray, Video, one_shape
from seqclf.data.labelling import Labelled, Labelling, every_frame, given
from seqclf.data.multi_label import frame_labels
from seqclf.data.order import mix, sample_order
from seqclf.data.reading import read_frames
from seqclf.data.sampling import Sampling, sample_clips, whole
from seqclf.data.transforms import Transform
from seqclf.data.video.file import VideoFile
from seqclf.data.video_labels import check_labels, clip_labels, have_frame_labels, labels_fingerprint
from seqclf.runtime.random import random_state, seeded

Sample = tuple[int, Tensor, Tensor | int]
"""The sample number, the frames ``(t, *frame_shape)``, and the label, or labels ``(t,)`` or ``(t, K)``."""


class Videos:
    """A data set of clips of videos.

    A sample is a clip. In training there is one sample per video; its clip is drawn by the key of ``batch``, so the
    same key gives the same batch with any number of threads. In evaluation, the samples are all clips that the
    sampling function returns for each video.

    Args:
        videos: the videos, each with one label, or each with a label per frame.
        sampling: which frames form a clip, such as ``partial(window, frames=16)``.
        transform: the transform of a clip's frames; None for none.
        training: whether clips are drawn at random.
        labelling: which frames are labelled. None for ``every_frame``, or for ``given`` with labels per frame.
        workers: the number of threads that read ahead; 0 for none.
        on_error: "raise"; "skip" to leave out videos that can't be read (in training, the next sample replaces them);
            "skip_frames" if sources leave out frames that can't be decoded. ``skipped`` lists both.
        device: the device of batches.
        multi_label: whether a video can have several classes at once; labels are then rows of K classes, see ``Video``.
        groups: the group of each video, such as its subject or recording; None for no groups. ``validation=`` and
            cross-validation never divide a group.

    Attributes:
        skipped: what was left out: name of the video -> reason.
        memory: the memory of batches, which is kept for later ones.

    Raises:
        SeqclfError: there are no videos, an argument is out of range, or labels are of several kinds.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        sampling: Sampling = whole,
        transform: Transform | None = None,
        training: bool = False,
        labelling: Labelling | None = None,
        workers: int = 2,
        on_error: str = "raise",
        device: torch.device | str = "cpu",
        multi_label: bool = False,
        groups: Sequence[Any] | None = None,
    ) -> None:
        if not videos:
            raise SeqclfError("the data set is empty: it has no video")
        if workers < 0:
            raise SeqclfError(f"workers={workers}: expected at least 0")
        if on_error not in ("raise", "skip", "skip_frames"):
            raise SeqclfError(f'on_error={on_error!r}: expected "raise", "skip" or "skip_frames"')
        self.videos, self.sampling, self.transform, self.training = list(videos), sampling, transform, training
        self.multi_label, self.per_frame = multi_label, have_frame_labels(videos, multi_label)
        self.labelling = labelling or (given if self.per_frame else every_frame)
        self.workers, self.on_error, self.device = workers, on_error, torch.device(device)
        self.groups = as_groups(groups, len(self.videos))
        self.skipped: dict[str, str] = {}
        self.memory = Memory()
        self._locks = [Lock() for _ in videos]  # a source is read by one thread at a time
        self._clips: list[tuple[int, list[int]]] | None = None
        self._first: tuple[int, ...] | None = None  # (t, *frame_shape) of the first sample that can be read
        self._dtype: torch.dtype | None = None  # of its frames

    def open(self) -> int:
        """Opens all videos in parallel and returns their total number of frames, without skipped videos.

        Raises:
            SeqclfError: a video can't be read, and ``on_error`` is not "skip".
        """

        def length(video: Video) -> int:
            try:
                frames = len(video.source)
                self._note_lost(video)
                return frames
            except SeqclfError as error:
                self._skip(video, error)
                return 0

        with ThreadPoolExecutor(max(1, self.workers), thread_name_prefix="reader") as pool:
            return sum(pool.map(length, self.videos))

    @property
    def clips(self) -> list[tuple[int, list[int]]]:
        """All samples of an evaluation: the index of the video, and the frame numbers."""
        if self._clips is None:
            self.open()
            self._clips = []
            for v, video in enumerate(self.videos):
                try:
                    clips = sample_clips(self.sampling, len(video.source), None, video.source.path)
                    self._clips += [(v, numbers) for numbers in clips]
                except SeqclfError as error:
                    self._skip(video, error)
            if not self._clips:
                raise self._none_readable()
        return self._clips

    def __len__(self) -> int:
        return len(self.videos) if self.training else len(self.clips)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one transformed frame, from the first readable sample."""
        return self._first_shape()[1:]

    @property
    def num_frames(self) -> int:
        """T, the frames of the longest clip; in training, those of the first readable clip."""
        if self.training:
            return self._first_shape()[0]
        return max(len(numbers) for _, numbers in self.clips)

    @property
    def frame_dtype(self) -> torch.dtype:
        """The dtype of the frames, from the first readable sample."""
        self._first_shape()
        assert self._dtype is not None
        return self._dtype

    def _first_shape(self) -> tuple[int, ...]:
        for i in range(len(self)):
            if self._first is None:
                try:
                    frames = self.sample(i, 0)[1] if self.training else self._fixed_sample(i)
                    self._first, self._dtype = tuple(frames.shape), frames.dtype
                except SeqclfError as error:
                    self._skip(self._video_of(i), error)
        if self._first is None:
            raise self._none_readable()
        return self._first

    def _fixed_sample(self, index: int) -> Tensor:
        """The frames of a sample of an evaluation.

        Raises:
            SeqclfError: the video can't be read; the transform is random, so that no prediction could be repeated.
        """
        for _ in range(2):  # again if numbers were drawn, which another thread of the program may have done
            with seeded(0):
                before = random_state()
                frames = self.sample(index, 0)[1]
                if random_state() == before:
                    return frames
        raise SeqclfError(
            "the transform of evaluation draws random numbers: with generator=None a transform must be deterministic; "
            "draw from the generator that it is given in training, or give another one for evaluation (test_transform=)"
        )

    def to(self, device: torch.device | str) -> Videos:
        """Sets the device of batches, and returns this data set."""
        self.device = torch.device(device)
        return self

    def subset(self, rows: Sequence[int], like: Labelled | None = None) -> Videos:
        """Some of the videos, by their numbers, read as those of ``like`` are; None: as these are."""
        how = like if isinstance(like, Videos) else self
        read_as = {name: getattr(how, name) for name in ("sampling", "transform", "training", "labelling")}
        groups = None if self.groups is None else [self.groups[i] for i in rows]
        part = Videos([self.videos[i] for i in rows], **self.settings() | read_as, groups=groups)
        part.skipped.update(self.skipped if like is None else {})
        return part

    def settings(self) -> dict[str, Any]:
        """The arguments of a data set that reads other videos in the same way."""
        names = ("sampling", "transform", "training", "labelling", "workers", "on_error", "device", "multi_label")
        return {name: getattr(self, name) for name in names}

    def order(self, batch_size: int, seed: int, step: int) -> Tensor:
        """The sample numbers ``(batch_size,)`` int64 of a training step; see ``sample_order``."""
        return sample_order(len(self), batch_size, seed, step)

    def sample(self, index: int, key: int, new: NewArray | None = None) -> Sample:
        """Reads one sample; in training, its clip is drawn by key and indexes. For ``new`` see ``read_frames``.

        Raises:
            SeqclfError: the video can't be read.
        """
        v, numbers = (index, []) if self.training else self.clips[index]
        generator = torch.Generator().manual_seed(mix(key, index)) if self.training else None
        video, source = self.videos[v], self.videos[v].source
        with self._locks[v]:
            if self.training:
                numbers = sample_clips(self.sampling, len(source), generator, source.path)[0]
            frames = read_frames(source, numbers, self.transform, generator, new)
            self._note_lost(video)
        if self._first is not None and tuple(frames.shape[1:]) != self._first[1:]:
            raise SeqclfError(
                f"{video.source.path}: has frames of shape {tuple(frames.shape[1:])}, but other videos have "
                f"{self._first[1:]}: {one_shape(frames.shape[1:])}"
            )
        return index, frames, clip_labels(video, numbers, self.per_frame)

    def label_batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields the labels of frames as in ``batch``, and the lengths, of 16 clips at a time; frames are not read."""
        for start in range(0, len(self.clips), 16):
            found: list[tuple[Tensor | int, int]] = []
            for v, numbers in self.clips[start : start + 16]:
                try:
                    found.append((clip_labels(self.videos[v], numbers, self.per_frame), len(numbers)))
                except SeqclfError as error:
                    self._skip(self.videos[v], error)
            if found:
                labels, lengths = self._padded_labels(*zip(*found, strict=True))
                yield labels.to(self.device), None if lengths is None else lengths.to(self.device)

    def try_sample(self, index: int, key: int, new: NewArray | None = None) -> Sample | None:
        """Reads one sample. With ``on_error="skip"``, the next replaces an unreadable one; in evaluation, None does."""
        for tried in range(len(self)):
            i = (index + tried) % len(self)
            try:
                return self.sample(i, key, new)
            except SeqclfError as error:
                self._skip(self._video_of(i), error)
                if not self.training:
                    return None
        raise self._none_readable()

    def _video_of(self, index: int) -> Video:
        """The video of a sample."""
        return self.videos[index if self.training else self.clips[index][0]]

    def _note_lost(self, video: Video) -> None:
        """Records the frames of a video that were left out."""
        if self.on_error == "skip_frames" and isinstance(video.source, VideoFile) and (lost := video.source.lost()):
            self.skipped[f"{video.name}, frames"] = lost

    def _skip(self, video: Video, error: SeqclfError) -> None:
        if self.on_error != "skip":
            raise error
        self.skipped[video.name] = str(error)

    def _none_readable(self, what: str = "video") -> SeqclfError:
        return SeqclfError(f"no {what} can be read: {next(iter(self.skipped.values()))}")

    def collate(self, samples: Sequence[Sample | None], rows: Rows | None = None) -> Batch:
        """Collates samples to a batch on the device; shorter clips are padded at their end.

        Args:
            samples: the samples; None for those that were left out.
            rows: the memory that samples may have been read into; None to allocate it.
        """
        readable = [sample for sample in samples if sample is not None]
        if not readable:
            raise self._none_readable("clip of a batch")
        frames = (rows or Rows(len(readable), self.memory)).batch([frames for _, frames, _ in readable])
        labels, lengths = self._padded_labels([labels for _, _, labels in readable], [len(x) for _, x, _ in readable])
        batch = Batch(frames, labels, lengths, indices=torch.tensor([index for index, _, _ in readable]))
        if self.device.type == "cuda":
            batch.frames = batch.frames.pin_memory()
        return batch.to(self.device)

    def _padded_labels(self, labels: Sequence[Tensor | int], frames: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The labels of the frames of clips, and the lengths of the clips; None if they are equal."""
        if self.per_frame:
            together = pad_sequence([torch.as_tensor(one) for one in labels], batch_first=True, padding_value=IGNORE)
        elif self.multi_label:
            together = torch.stack([torch.as_tensor(one) for one in labels])
        else:
            together = torch.tensor(labels)
        lengths = None if min(frames) == max(frames) else torch.tensor(frames)
        return frame_labels(self.labelling, together, lengths, max(frames), self.multi_label), lengths

    def batch(self, indices: Tensor, key: int = 0) -> Batch:
        """Reads a batch of the samples ``indices`` ``(B,)``; in training, clips are drawn by the key."""
        return self.collate([self.try_sample(int(i), key) for i in indices])

    def check_labels(self, num_classes: int, name: str = "the data set") -> None:
        """Raises SeqclfError if labels do not fit the classes, or all are ``IGNORE``."""
        check_labels(self.videos, num_classes, self.multi_label, name)

    def fingerprint(self) -> str:
        """The SHA-256 of the videos' names and labels, without frames, which identifies the data in a run's record."""
        return labels_fingerprint(self.videos)
