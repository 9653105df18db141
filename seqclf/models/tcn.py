"""Temporal convolutional networks: TCN, a stage of MS-TCN, and FCN, as one class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models.contract import State, check_dropout, check_features, parts_of
from seqclf.models.segments import Take
from seqclf.models.time_conv import Sequences, TimeConv


class TCN(nn.Module):
    """A stack of convolutions over time.

    Args:
        input_size: D, the features per frame.
        channels: the channels of each block; H is the last.
        kernel: the number of frames that a convolution reads, for all blocks or one per block.
        dilations: the distance between these frames, one number per block; None for 1, 2, 4, ..., or for 1 with
            ``block="conv"``.
        block: "residual", "dilated_residual" or "conv", see below.
        causal: if True, an output depends on its own and earlier frames, and the model streams. If False, it depends
            on frames on both sides; with an even kernel, on one more after it than before it, as with
            ``padding="same"`` of Keras.
        norm: None, "batch" or "layer". Batch norm computes its statistics over the valid frames of the batch. In
            training, an output then depends on all clips in the batch of its process, and on later frames even with
            ``causal``; a batch of a single frame is an error. Layer norm normalises the channels of each frame.
        dropout: the probability of dropout, from 0 to below 1.

    With ``conv(x) = dropout(relu(norm(convolution(x))))``, a block is one of

    - "residual": ``relu(x + conv2(conv1(x)))`` (Bai et al. 2018, section 3.4). If the number of channels changes, a 1x1
      convolution of x replaces x.
    - "dilated_residual": ``x + dropout(W relu(norm(convolution(x))))`` with a 1x1 convolution W (Farha and Gall 2019,
      section 3.1). All blocks have the same channels, and a 1x1 convolution of the features comes before the first.
    - "conv": ``conv(x)`` (Wang et al. 2017, section II.B).

    The convolutions see zeros before the first and after the last frame of a sequence. The state is a tuple with
    the last inputs of each convolution, ``(context, B, C)``, where context is ``(kernel - 1) * dilation``.

    Raises:
        SeqclfError: an argument is out of range.

    Examples:
        The FCN for time series of Wang et al. 2017, without its pooling, and a stage of MS-TCN:

        >>> fcn = TCN(D, (128, 256, 128), kernel=(8, 5, 3), block="conv", causal=False, norm="batch")
        >>> stage = TCN(D, (64,) * 10, kernel=3, block="dilated_residual", causal=False, dropout=0.5)
    """

    def __init__(
        self,
        input_size: int,
        channels: Sequence[int] = (64, 64, 64, 64),
        kernel: int | Sequence[int] = 3,
        dilations: Sequence[int] | None = None,
        block: str = "residual",
        causal: bool = True,
        norm: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if block not in _BLOCKS:
            raise SeqclfError(f"TCN: block must be one of {', '.join(map(repr, _BLOCKS))}, not {block!r}")
        if norm not in (None, "batch", "layer"):
            raise SeqclfError(f'TCN: norm must be None, "batch" or "layer", not {norm!r}')
        check_dropout("TCN", dropout=dropout)
        if not isinstance(channels, Sequence):
            raise SeqclfError(f"TCN: channels must be a sequence with one number per block, not {channels}")
        channels = _per_block("channels", channels, len(channels))
        kernels = _per_block("kernel", kernel, len(channels))
        if dilations is None:
            dilations = [1 if block == "conv" else 2**i for i in range(len(channels))]
        dilations = _per_block("dilations", dilations, len(channels))
        if block == "dilated_residual" and len(set(channels)) > 1:
            raise SeqclfError(f'TCN: block="dilated_residual" needs equal channels, not {tuple(channels)}')

        self.input_size, self.out_features = input_size, channels[-1]
        self.causal = self.carries_state = causal
        self.enter = nn.Conv1d(input_size, channels[0], 1) if block == "dilated_residual" else nn.Identity()
        widths = [channels[0] if block == "dilated_residual" else input_size, *channels]
        self.blocks = nn.ModuleList(
            _BLOCKS[block](widths[i], width, kernels[i], dilations[i], causal, norm, dropout)
            for i, width in enumerate(channels)
        )

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Returns the outputs at every frame, and the state after each stream's last valid frame.

        Arguments and errors as for ``LSTM.forward``.

        Returns:
            outputs ``(B, T, H)``, zero at padding, and the state; None if the model is not causal.
        """
        memory = self._check(features, is_first, state, lengths)
        sequences = Sequences(features, is_first, memory, lengths)
        x = self.enter(sequences.without_padding(features.transpose(1, 2)))
        for block in self.blocks:
            x = block(x, sequences)
        outputs = sequences.without_padding(x).transpose(1, 2).contiguous()
        return outputs, tuple(sequences.after) if self.causal else None

    def _check(
        self, features: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None
    ) -> tuple[Tensor, ...] | None:
        check_features(self, features, self.input_size, is_first, lengths)
        if state is None:
            return None
        if not self.causal:
            raise SeqclfError("TCN: with causal=False it cannot continue from a state")
        parts = parts_of(state)
        expected = [(c.context, features.shape[0], c.in_channels) for c in self.modules() if isinstance(c, TimeConv)]
        if [tuple(part.shape) for part in parts] != expected:
            raise SeqclfError(f"TCN: the state must be {expected}, not {[tuple(part.shape) for part in parts]}")
        return parts


def _per_block(argument: str, value: int | Sequence[int], blocks: int) -> list[int]:
    """One value per block."""
    values = list(value) if isinstance(value, Sequence) else [value] * blocks
    if not values or len(values) != blocks or not all(isinstance(x, int) and x >= 1 for x in values):
        expected = f"an integer of at least 1 for each of the {blocks} blocks" if blocks else "at least one integer"
        raise SeqclfError(f"TCN: {argument} must be {expected}, not {value!r}")
    return values


class _Norm(nn.Module):
    """The norm of a block, ``(B, C, T)`` to ``(B, C, T)``."""

    def __init__(self, norm: str | None, channels: int) -> None:
        super().__init__()
        kinds: dict[str | None, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.norm = kinds[norm](channels) if norm else None

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        if self.norm is None:
            return x
        if isinstance(self.norm, nn.LayerNorm):
            return self.norm(x.transpose(1, 2)).transpose(1, 2)
        if not self.training:
            return self.norm(x)
        if sequences.valid is None:
            _check_frames(x.shape[0] * x.shape[2])
            return self.norm(x)
        rows = sequences.valid.flatten().nonzero()[:, 0]  # padding must not enter the statistics
        _check_frames(len(rows))
        back = torch.full((sequences.valid.numel(),), len(rows), device=x.device)
        back[rows] = torch.arange(len(rows), device=x.device)
        frames = self.norm(Take.apply(x.transpose(1, 2).flatten(0, 1), rows, back))
        return Take.apply(frames, back, rows).unflatten(0, sequences.valid.shape).transpose(1, 2)


def _check_frames(frames: int) -> None:
    if frames < 2:
        raise SeqclfError(
            'TCN: in training, norm="batch" needs at least two valid frames in the batch of each process: use a larger '
            'batch_size, or norm="layer"'
        )


class _Conv(nn.Module):
    """Convolution, norm, ReLU and dropout."""

    def __init__(
        self, inputs: int, channels: int, kernel: int, dilation: int, causal: bool, norm: str | None, dropout: float
    ) -> None:
        super().__init__()
        self.conv = TimeConv(inputs, channels, kernel, dilation, causal)
        self.norm = _Norm(norm, channels)
        self.dropout = dropout

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        y = F.relu(self.norm(self.conv(x, sequences), sequences))
        return F.dropout(y, self.dropout, self.training)


class _Residual(nn.Module):
    """The residual block of Bai et al. 2018."""

    def __init__(
        self, inputs: int, channels: int, kernel: int, dilation: int, causal: bool, norm: str | None, dropout: float
    ) -> None:
        super().__init__()
        self.conv1 = _Conv(inputs, channels, kernel, dilation, causal, norm, dropout)
        self.conv2 = _Conv(channels, channels, kernel, dilation, causal, norm, dropout)
        self.skip = nn.Identity() if inputs == channels else nn.Conv1d(inputs, channels, 1)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        return F.relu(self.skip(x) + self.conv2(self.conv1(x, sequences), sequences))


class _DilatedResidual(nn.Module):
    """The dilated residual layer of Farha and Gall 2019."""

    def __init__(
        self, inputs: int, channels: int, kernel: int, dilation: int, causal: bool, norm: str | None, dropout: float
    ) -> None:
        super().__init__()
        self.conv = _Conv(inputs, channels, kernel, dilation, causal, norm, dropout=0.0)
        self.pointwise = nn.Conv1d(channels, channels, 1)
        self.dropout = dropout

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        y = self.pointwise(self.conv(x, sequences))
        return x + F.dropout(y, self.dropout, self.training)


_BLOCKS: dict[str, Callable[[int, int, int, int, bool, str | None, float], nn.Module]] = {
    "residual": _Residual,
    "dilated_residual": _DilatedResidual,
    "conv": _Conv,
}
