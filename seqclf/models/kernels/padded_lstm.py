"""Padding and resets with PyTorch's LSTM for whole batches, which is fast (oneDNN, cuDNN) but supports neither.

An additional input, a *mark*, is 1 at padding and 0 elsewhere. Its weights are -10,000 to the input gate and 10,000 to
the forget gate, which makes i = 0 and f = 1 exactly. The cell therefore keeps its value during padding,
c_t = f c_{t-1} + i g = c_{t-1}, and c after the last step is c after each clip's last valid frame, with the same
gradient.

Each reset is an additional step, marked by a second input. Its weights make i, f and o 0 exactly. Then c_t = 0 and
h_t = 0, and the next frame starts from a state of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from seqclf.models.kernels.cudnn_lstm import cudnn_lstm
from seqclf.models.segments import Mask, Take

SATURATE = 1e4
"""The gate input at which the logistic function is exactly 0 or 1, and its derivative is 0."""


class Steps:
    """A batch as S steps ``(S, B, D)``, each with a row for every clip, and with marks at padding and resets.

    Attributes:
        marks: ``(S, B, marks)`` bool.
        gates: for each mark, the signs of its weights to the gates i, f, g and o.
        last: ``(B,)`` int64, the row of each clip's last valid frame among the ``S * B`` rows of all steps.
    """

    marks: Tensor
    last: Tensor
    gates: tuple[tuple[int, ...], ...]

    def __init__(self, counts: Mask, steps: int) -> None:
        # Small arrays are faster in NumPy.
        self._counts, self._time, self._clip = counts, np.arange(steps)[:, None], np.arange(len(counts))
        self._valid = self._time < counts
        self._last = (counts - 1) * len(counts) + self._clip

    def steps(self, features: Tensor) -> Tensor:
        """Features ``(B, T, D)`` as steps ``(S, B, D)``, zero where marked. Padding may not be finite."""
        raise NotImplementedError

    def outputs(self, steps: Tensor) -> Tensor:
        """Steps ``(S, B, H)`` as outputs ``(B, T, H)``, zero at padding."""
        raise NotImplementedError

    def reverse(self, steps: Tensor) -> Tensor:
        """Steps ``(S, B, D)`` in which the steps of each clip, except padding, are reversed."""
        opposite = np.where(self._valid, self._counts - 1 - self._time, self._time) * len(self._clip) + self._clip
        rows = _tensor(opposite.ravel(), steps.device)
        return Take.apply(steps.flatten(0, 1), rows, rows).view_as(steps)


class PaddedSteps(Steps):
    """The steps of a padded batch without resets: frames, time-major.

    Args:
        counts: the number of valid frames of each clip, from 1 to T.
        T: the number of frames.
        device: of the features.
    """

    gates = ((-1, 1, 0, 0),)

    def __init__(self, counts: list[int], T: int, device: torch.device) -> None:
        super().__init__(np.array(counts), T)
        self.last = _tensor(self._last, device)
        self.marks = _tensor(~self._valid[..., None], device)

    def steps(self, features: Tensor) -> Tensor:
        return features.transpose(0, 1).masked_fill(self.marks, 0)

    def outputs(self, steps: Tensor) -> Tensor:
        return steps.transpose(0, 1).contiguous().masked_fill(self.marks.transpose(0, 1), 0)


class SpreadSteps(Steps):
    """The steps of a batch with resets and padding: its frames, and an additional step for each reset inside a clip.

    Args:
        counts: the number of valid frames of each clip, from 1 to T.
        resets: ``(B, T)`` bool array, True at valid frames after frame 0 that begin a sequence.
        device: of the features.
    """

    gates = ((-1, 1, 0, 0), (-1, -1, 0, -1))

    def __init__(self, counts: list[int], resets: Mask, device: torch.device) -> None:
        B, T = resets.shape
        frames = np.arange(T) < np.array(counts)[:, None]
        whole = frames.all()
        shift = resets.cumsum(1)
        spread = np.array(counts) + shift[:, -1]
        S = max(spread.max(), T + 1)  # more rows than frames, as ``Take`` requires where rows are zero
        super().__init__(spread, S)

        place = (np.arange(T) + shift) * B + np.arange(B)[:, None]
        rows = np.full(S * B, B * T)
        rows[place.ravel() if whole else place[frames]] = np.arange(B * T) if whole else np.flatnonzero(frames)
        marks = np.zeros((S * B, 2), bool)
        marks[:, 0] = ~self._valid.ravel()
        marks[place[resets] - B, 1] = True
        back = place if whole else np.where(frames, place, 0)
        joined = _tensor(np.concatenate([rows, back.ravel(), self._last]), device)  # one transfer
        self._rows, self._back, self.last = joined.split([S * B, B * T, B])
        self.marks = _tensor(marks.reshape(S, B, 2), device)
        self._shape, self._padding = (B, T), None if whole else _tensor(~frames[..., None], device)

    def steps(self, features: Tensor) -> Tensor:
        frames = self._without_padding(features).flatten(0, 1)
        return Take.apply(frames, self._rows, self._back).view(*self.marks.shape[:2], -1)

    def outputs(self, steps: Tensor) -> Tensor:
        outputs = Take.apply(steps.flatten(0, 1), self._back, self._rows)
        return self._without_padding(outputs.view(*self._shape, -1))

    def _without_padding(self, x: Tensor) -> Tensor:
        """Zeros at padding, and no gradient: there ``_back`` points to row 0 instead of a row of zeros."""
        return x if self._padding is None else x.masked_fill(self._padding, 0)


def steps_win_on_gpu(hidden: int, counts: list[int], resets: Mask | None) -> bool:
    """Whether ``padded_lstm`` is faster than a packed sequence on a GPU.

    cuDNN runs all steps of a narrow layer in one kernel, unless the sequence is packed. A packed step takes
    ``PACKED_STEP`` times as long, but with resets there are fewer packed steps.
    """
    if hidden > PERSISTENT:
        return False
    if resets is None:
        return True
    frames = np.arange(resets.shape[1]) < np.array(counts)[:, None]
    begins = resets.copy()
    begins[:, 0] = True
    longest = np.diff(np.flatnonzero(begins[frames]), append=frames.sum()).max()
    return bool(np.max(counts + resets.sum(1)) < PACKED_STEP * longest)


def _tensor(x: Mask, device: torch.device) -> Tensor:
    return torch.from_numpy(x).to(device, non_blocking=True)


@lru_cache(maxsize=16)
def _mark_weights(gates: tuple[tuple[int, ...], ...], hidden: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The weights ``(4H, marks)`` of the marks to all gates. They are shared, so never change them in place."""
    with torch.inference_mode(False):
        signs = torch.tensor(gates, dtype=dtype, device=device).t()
        return (SATURATE * signs).repeat_interleave(hidden, 0)


def padded_lstm(
    padded: Steps, x: Tensor, weights: list[Tensor], state: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs LSTM layers over the steps of a batch.

    Args:
        x: ``(T, B, D)`` float, finite at marked steps.
        weights: ``w_ih, w_hh, b_ih, b_hh`` of each layer in turn, as in ``torch.nn.LSTM``.
        state: h and c before frame 0, each ``(layers, B, H)``; None for zeros.

    Returns:
        outputs ``(T, B, H)``, arbitrary at marked steps, and h and c after each clip's last valid frame.
    """
    hidden, marks = weights[1].shape[1], padded.marks.to(x.dtype)
    mark_weights = _mark_weights(padded.gates, hidden, weights[0].dtype, x.device)
    if x.is_cuda and torch.version.hip is None and torch.backends.cudnn.is_acceptable(x):
        if state is None:
            state = (x.new_zeros(len(weights) // 4, x.shape[1], hidden),) * 2
        return cudnn_lstm(x, marks, mark_weights, padded.last, weights, state)
    finals = []
    for layer in range(len(weights) // 4):
        w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
        hx = [x.new_zeros(1, x.shape[1], hidden)] * 2 if state is None else [s[layer : layer + 1] for s in state]
        marked = [torch.cat([w_ih, mark_weights], 1), w_hh, b_ih, b_hh]
        # with biases, one layer, no dropout, what the backward pass needs, one direction, time-major
        options = (True, 1, 0.0, torch.is_grad_enabled(), False, False)
        x, _, c = torch.lstm(torch.cat([x, marks], 2), hx, marked, *options)
        finals.append((x.flatten(0, 1).index_select(0, padded.last), c[0]))
    return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def padded_lstm_wins(weights: Sequence[Tensor], counts: list[int]) -> bool:
    """Whether ``padded_lstm`` is faster than ``cpu_lstm.lstm_layer`` on packed frames, for clips of these lengths.

    It also computes padding, but has less overhead per step. ``seqclf benchmark ragged`` fits the constants ``SLOWER``
    and ``OVERHEAD``, so that the total time over its grid is lowest.
    """
    products = sum(w_ih.numel() + w_hh.numel() for w_ih, w_hh in zip(weights[::4], weights[1::4], strict=True)) / 4
    saved = len(counts) - SLOWER * sum(counts) / max(counts)  # rows per step
    return saved * products < OVERHEAD * (len(weights) // 4)


SLOWER = 1.1
"""The time of a packed frame, relative to a padded one."""
OVERHEAD = 2e5
"""The overhead of a step of ``lstm_layer``, as a number of multiplications H * (D + H) in ``padded_lstm``."""
PERSISTENT = 128
"""The number of units up to which cuDNN runs a layer in one kernel, in fp32 on an H200."""
PACKED_STEP = 5
"""The time of a step of a packed sequence relative to a step in this kernel, on the same GPU."""
