"""A data set of clips that fits in memory, gathered on the device it lies on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from seqclf.batch import IGNORE, Batch, SeqclfError
from seqclf.data.labelling import Labelling, last_frame
from seqclf.data.order import sample_order
from seqclf.data.source import Source


class Clips:
    """N clips of up to T frames in one tensor.

    Args:
        frames: ``(N, T, *frame_shape)``, uint8 (raw) or float.
        labels: ``(N,)`` int64, one per clip, or ``(N, T)``, one per frame with ``IGNORE`` where there is none.
        lengths: ``(N,)`` int64, valid frames per clip from 1 to T; None where all have T.
        labelling: which frames carry a label: ``last_frame``, ``every_frame`` or ``given``.
        readers: ``reader(path)`` by the kind of file that new clips come from ("image", "video", "folder", "array"),
            for prediction; None for ``.npy`` arrays ``(T, *frame_shape)`` only.

    Raises:
        SeqclfError: there is no clip, or sizes do not agree.
    """

    def __init__(
        self,
        frames: Tensor,
        labels: Tensor,
        lengths: Tensor | None = None,
        labelling: Labelling = last_frame,
        readers: Mapping[str, Callable[..., Source]] | None = None,
    ) -> None:
        n = len(frames)
        if n == 0 or frames.dim() < 3 or frames.shape[1] == 0:
            raise SeqclfError(f"the data set is empty: frames {tuple(frames.shape)}, expected (N, T, *frame_shape)")
        if labels.shape not in ((n,), (n, frames.shape[1])):
            raise SeqclfError(f"labels {tuple(labels.shape)} do not fit frames {tuple(frames.shape)}: (N,) or (N, T)")
        if lengths is not None and (
            lengths.is_floating_point()
            or lengths.shape != (n,)
            or int(lengths.min()) < 1
            or int(lengths.max()) > frames.shape[1]
        ):
            raise SeqclfError(f"lengths {tuple(lengths.shape)} must be {n} whole numbers from 1 to {frames.shape[1]}")
        self.frames, self.labels, self.labelling = frames, labels.long(), labelling
        self.lengths = None if lengths is None else lengths.long()
        self.readers = dict(readers or {})

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return tuple(self.frames.shape[2:])

    @property
    def num_frames(self) -> int:
        """T."""
        return self.frames.shape[1]

    def to(self, device: torch.device | str) -> Clips:
        """The same clips on another device, where ``batch`` will gather them."""
        lengths = None if self.lengths is None else self.lengths.to(device)
        return Clips(self.frames.to(device), self.labels.to(device), lengths, self.labelling, self.readers)

    @property
    def device(self) -> torch.device:
        """Where the clips lie, and their batches."""
        return self.frames.device

    def order(self, batch_size: int, seed: int, step: int) -> Tensor:
        """Which clips ``(batch_size,)`` make the batch of a training step: ``sample_order``."""
        return sample_order(len(self), batch_size, seed, step)

    def batch(self, indices: Tensor, key: int = 0) -> Batch:
        """The clips of these indices ``(B,)`` as a batch, on the clips' device; nothing here is drawn by the key."""
        rows = indices.to(self.frames.device, non_blocking=True)
        lengths = None if self.lengths is None else self.lengths[rows]
        labels = self.labelling(self.labels[rows], lengths, self.num_frames)
        return Batch(self.frames[rows], labels, lengths, indices=rows)

    def check_labels(self, num_classes: int, name: str = "the data set") -> None:
        """Raises SeqclfError where a label is neither ``IGNORE`` nor from 0 to num_classes - 1."""
        wrong = (self.labels != IGNORE) & ((self.labels < 0) | (self.labels >= num_classes))
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            raise SeqclfError(
                f"{name}: label {int(self.labels[at])} of sample {at[0]} is out of range: "
                f"there are {num_classes} classes, 0 to {num_classes - 1}"
            )

    def fingerprint(self) -> str:
        """SHA-256 over frames, labels and lengths: the data's identity in a run's record."""
        digest = hashlib.sha256()
        for x in (self.frames, self.labels, self.lengths):
            if x is not None:
                digest.update(f"{x.dtype}{tuple(x.shape)}".encode())
                digest.update(x.cpu().contiguous().numpy().data)
        return digest.hexdigest()
