"""Convolution over time in batches with padding and resets, with zeros outside of each sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf.batch import valid_frames


class Sequences:
    """The sequences of a batch, and the memory of the convolutions that run over them.

    Args:
        features: ``(B, T, D)``.
        is_first: ``(B, T)`` bool, True where a frame begins a new sequence; None for nowhere.
        state: the last inputs of each causal convolution, in the order of their calls: ``(context, B, C)`` each. None
            for zeros.
        lengths: ``(B,)`` int64 from 1 to T, the number of valid frames; None for T.

    Attributes:
        lengths: None if no clip has padding.
        valid: ``(B, T)`` bool, False at padding; None without padding.
        number: ``(B, T)`` int64, the number of resets in the clip up to each frame, not counting frame 0; None if there
            are none.
        before: the state of the convolutions that have not run yet.
        after: the state after the last valid frame, of the convolutions that have run.
    """

    def __init__(
        self, features: Tensor, is_first: Tensor | None, state: Sequence[Tensor] | None, lengths: Tensor | None
    ) -> None:
        shape, device = features.shape, features.device
        padded = lengths is not None and int(lengths.min()) < shape[1]
        self.lengths = lengths.to(device) if lengths is not None and padded else None
        self.valid = None if self.lengths is None else valid_frames(self.lengths, shape, device)
        self.number: Tensor | None = None
        if is_first is not None:
            if state is not None:
                state = [part.masked_fill(is_first[:, 0, None], 0) for part in state]
            if bool(is_first[:, 1:].any()):
                self.number = is_first.cumsum(1) - is_first[:, :1].long()
        self.before: Iterator[Tensor] | None = None if state is None else iter(state)
        self.after: list[Tensor] = []

    def without_padding(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` with zeros at padding."""
        return x if self.valid is None else x.masked_fill(~self.valid[:, None], 0)


class TimeConv(nn.Conv1d):
    """Convolution over time, ``(B, C, T)`` to ``(B, out_channels, T)``.

    At the ends of a sequence it sees zeros, whether the sequence is a whole clip, ends at padding, or begins or ends
    inside a clip.

    Args:
        inputs, outputs: the number of channels.
        kernel: the number of frames that each output reads.
        dilation: the distance between these frames.
        causal: if True, the output is at the last of these frames. If False, it is at the middle one; for an even
            kernel at the first of the two middle frames, as with ``padding="same"`` of Keras and PyTorch.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, causal: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, dilation=dilation)
        self.causal = causal
        self.context = (kernel - 1) * dilation
        self.left = self.context if causal else self.context // 2

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:  # type: ignore[override]
        x = sequences.without_padding(x)
        right = self.context - self.left
        if not self.causal and self.left == right and sequences.number is None:
            return F.conv1d(x, self.weight, self.bias, padding=self.left, dilation=self.dilation)
        if self.causal and sequences.before is not None:
            padded = torch.cat([next(sequences.before).permute(1, 2, 0), x], 2)
        else:
            padded = F.pad(x, (self.left, right))
        if self.causal:
            sequences.after.append(self._state_after(padded, sequences))
        if padded.shape[2] == self.context + 1:  # one frame of a stream, for which conv1d takes several times as long
            taps = padded[..., :: self.dilation[0]].flatten(1)
            return F.linear(taps, self.weight.flatten(1), self.bias)[..., None]
        if sequences.number is None:
            return F.conv1d(padded, self.weight, self.bias, dilation=self.dilation)
        return self._tap_by_tap(padded, F.pad(sequences.number, (self.left, right)))

    def _tap_by_tap(self, padded: Tensor, number: Tensor) -> Tensor:
        """The convolution without frames of other sequences; all are ``(…, T + context)``."""
        T = padded.shape[-1] - self.context
        own = number[:, self.left : self.left + T]
        y = torch.zeros((), device=padded.device) if self.bias is None else self.bias[:, None]
        for tap in range(self.kernel_size[0]):
            frames = slice(tap * self.dilation[0], tap * self.dilation[0] + T)
            same = (number[:, frames] == own)[:, None]
            y = y + F.conv1d(padded[..., frames].masked_fill(~same, 0), self.weight[..., tap : tap + 1])
        return y

    def _state_after(self, padded: Tensor, sequences: Sequences) -> Tensor:
        """The ``context`` inputs up to each clip's last valid frame, zero before its sequence: ``(context, B, C)``."""
        T = padded.shape[-1] - self.context
        if sequences.lengths is None:
            last = padded[..., T:]
        else:
            rows = sequences.lengths[:, None] + torch.arange(self.context, device=padded.device)
            last = padded.gather(2, rows[:, None].expand(-1, padded.shape[1], -1))
        if sequences.number is not None:
            number = F.pad(sequences.number, (self.context, 0))
            if sequences.lengths is None:
                same = number[:, T:] == number[:, -1:]
            else:
                final = sequences.number.gather(1, sequences.lengths[:, None] - 1)
                same = number.gather(1, rows) == final
            last = last.masked_fill(~same[:, None], 0)
        return last.permute(2, 0, 1)
