"""A data set of clips in memory, on any device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import IGNORE, Batch, SeqclfError
from seqclf.data.frames.arrays import Array, as_frames, as_groups, as_labels, as_lengths
from seqclf.data.frames.source import Source
from seqclf.data.labelling import Labelled, Labelling, last_frame
from seqclf.data.multi_label import as_multi_labels, check_columns, frame_labels
from seqclf.data.order import sample_order
from seqclf.runtime.text import class_range


class Clips:
    """A data set of N clips of up to T frames, in one tensor.

    Tensors, NumPy arrays and lists are accepted. Frames that are neither uint8 nor float32 are converted; see
    ``as_frames``.

    Args:
        frames: ``(N, T, *frame_shape)``, ``(N, T)`` for one feature per frame, or a list of N clips
            ``(T_i, *frame_shape)`` of any lengths, which are padded at their end.
        labels: ``(N,)`` integers, one per clip; or one per frame, ``(N, T)`` or a list of N arrays ``(T_i,)``, with
            ``IGNORE`` where a frame has no label. See ``multi_label`` for labels of several classes.
        lengths: ``(N,)`` integers from 1 to T, the valid frames of each clip. None: T, or the lengths in the list.
        labelling: which frames carry a label: ``last_frame``, ``last_frames``, ``every_frame`` or ``given``.
        readers: for prediction, a function ``reader(path)`` for each kind of file ("image", "video", "folder",
            "array"). ``.npy`` arrays ``(T, *frame_shape)`` can always be read.
        multi_label: whether a clip can have several classes at once. Labels are then 0, 1, or ``IGNORE`` (or NaN) for
            unknown: ``(N, K)`` per clip, ``(N, T, K)`` per frame, or a list of N arrays ``(T_i, K)``.
        groups: the group of each clip, such as its subject or recording; None for no groups. ``validation=`` and
            cross-validation never divide a group.

    Attributes:
        notes: a line for each conversion.

    Raises:
        SeqclfError: there are no clips; shapes do not agree; values are not finite; labelling and labels do not fit.
    """

    def __init__(
        self,
        frames: Array | Sequence[Array],
        labels: Array | Sequence[Array],
        lengths: Array | None = None,
        labelling: Labelling = last_frame,
        readers: Mapping[str, Callable[..., Source]] | None = None,
        multi_label: bool = False,
        groups: Sequence[Any] | None = None,
    ) -> None:
        if not callable(labelling):
            raise SeqclfError(f"labelling must be a function such as seqclf.labelling.every_frame, not {labelling!r}")
        self.frames, known, self.notes = as_frames(frames)
        if known is not None and lengths is not None:
            raise SeqclfError("lengths: a list of clips has its own lengths, leave this argument out")
        self.labels = (as_multi_labels if multi_label else as_labels)(labels, self.frames, known)
        self.lengths = known if lengths is None else as_lengths(lengths, self.frames)
        self.labelling, self.readers, self.multi_label = labelling, dict(readers or {}), multi_label
        self.groups = as_groups(groups, len(self.frames))
        one_class = self.labels[..., 0] if multi_label else self.labels
        labelling(one_class, self.lengths, self.num_frames)  # raises if the labels do not fit

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return tuple(self.frames.shape[2:])

    @property
    def frame_dtype(self) -> torch.dtype:
        return self.frames.dtype

    @property
    def per_frame(self) -> bool:
        """Whether each frame has its own label, instead of each clip."""
        return self.labels.dim() - self.multi_label > 1

    @property
    def num_frames(self) -> int:
        """T."""
        return self.frames.shape[1]

    def to(self, device: torch.device | str) -> Clips:
        """A copy of the data set on another device, where ``batch`` then gathers clips."""
        lengths = None if self.lengths is None else self.lengths.to(device)
        frames, labels = self.frames.to(device), self.labels.to(device)
        return Clips(frames, labels, lengths, self.labelling, self.readers, self.multi_label, self.groups)

    def subset(self, rows: Sequence[int], like: Labelled | None = None) -> Clips:
        """A copy of some of the clips, with the labelling of ``like``, or their own if it is None."""
        at = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
        return Clips(
            self.frames[at],
            self.labels[at],
            None if self.lengths is None else self.lengths[at],
            self.labelling if like is None else like.labelling,
            self.readers,
            self.multi_label,
            None if self.groups is None else [self.groups[i] for i in rows],
        )

    @property
    def device(self) -> torch.device:
        """The device of the clips and of their batches."""
        return self.frames.device

    def order(self, batch_size: int, seed: int, step: int) -> Tensor:
        """The sample numbers ``(batch_size,)`` int64 of a training step; see ``sample_order``."""
        return sample_order(len(self), batch_size, seed, step)

    def batch(self, indices: Tensor, key: int = 0) -> Batch:
        """Gathers a batch of the clips ``indices`` ``(B,)``. ``key`` is unused, because nothing is random."""
        rows = indices.to(self.frames.device, non_blocking=True)
        lengths = None if self.lengths is None else self.lengths[rows]
        labels = frame_labels(self.labelling, self.labels[rows], lengths, self.num_frames, self.multi_label)
        return Batch(self.frames[rows], labels, lengths, indices=rows)

    def frame_labels(self) -> Tensor:
        """The labels of all frames ``(N, T)``, or ``(N, T, K)`` with ``multi_label``."""
        return frame_labels(self.labelling, self.labels, self.lengths, self.num_frames, self.multi_label)

    def label_batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields the labels of frames as in ``batch``, and the lengths, of a thousand clips at a time."""
        for at in range(0, len(self), 1000):
            rows = slice(at, at + 1000)
            lengths = None if self.lengths is None else self.lengths[rows]
            yield frame_labels(self.labelling, self.labels[rows], lengths, self.num_frames, self.multi_label), lengths

    def check_labels(self, num_classes: int, name: str = "the data set") -> None:
        """Raises SeqclfError if labels do not fit the classes, or all are ``IGNORE``."""
        if all((labels == IGNORE).all() for labels, _ in self.label_batches()):
            raise SeqclfError(f"{name}: no frame has a label, all are IGNORE ({IGNORE})")
        if self.multi_label:
            check_columns(self.labels, num_classes, name)
            return
        wrong = (self.labels != IGNORE) & ((self.labels < 0) | (self.labels >= num_classes))
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            known = self.labels[self.labels != IGNORE]
            from_1 = int(known.min()) == 1 and int(known.max()) == num_classes
            raise SeqclfError(
                f"{name}: label {int(self.labels[at])} of sample {at[0]} is out of range: "
                + class_range(num_classes)
                + ("; labels seem to count from 1: subtract 1" if from_1 else "")
            )

    def fingerprint(self) -> str:
        """The SHA-256 of frames, labels and lengths, which identifies the data in a run's record."""
        digest = hashlib.sha256()
        for x in (self.frames, self.labels, self.lengths):
            if x is not None:
                digest.update(f"{x.dtype}{tuple(x.shape)}".encode())
                digest.update(x.cpu().contiguous().numpy().data)
        return digest.hexdigest()
