"""Clips of unequal length through PyTorch's LSTM for whole batches: the fastest on a CPU, but it takes no lengths.

One more input marks padding: 1 there, 0 elsewhere. Its weights are -10,000 to the input gate and 10,000 to the forget
gate, which makes i = 0 and f = 1 exactly. So the cell keeps its value through padding, c_t = f c_{t-1} + i g = c_{t-1},
and c after the last step is c after each clip's last valid frame, with the same gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seqclf.models.segments import Take

SATURATE = 1e4
"""An input of a gate at which the logistic function is 0 or 1 exactly, and its derivative 0."""


class PaddedSteps:
    """A padded batch as steps of whole rows, zero at padding.

    Args:
        counts: the number of valid frames of each clip, from 1 to T.
        T: the number of steps.

    Attributes:
        padding: ``(T, B, 1)`` float32, 1 at padding, 0 elsewhere.
        last: ``(B,)`` int64, where each clip's last valid frame is among the ``T * B`` rows of all steps.
    """

    def __init__(self, counts: list[int], T: int) -> None:
        # Small arrays are faster in NumPy.
        self._counts, self._time, self._clip = np.array(counts), np.arange(T)[:, None], np.arange(len(counts))
        self._valid = self._time < self._counts
        self._outside = torch.from_numpy(~self._valid[..., None])
        self.padding = self._outside.float()
        self.last = torch.from_numpy((self._counts - 1) * len(counts) + self._clip)

    def steps(self, features: Tensor) -> Tensor:
        """Features ``(B, T, D)`` as steps ``(T, B, D)``. Padding is overwritten, as it may not be finite."""
        return features.transpose(0, 1).masked_fill(self._outside, 0)

    def reverse(self, steps: Tensor) -> Tensor:
        """Steps ``(T, B, D)`` with the valid frames of each clip in the opposite order."""
        opposite = np.where(self._valid, self._counts - 1 - self._time, self._time) * len(self._clip) + self._clip
        rows = torch.from_numpy(opposite.ravel())
        return Take.apply(steps.flatten(0, 1), rows, rows).view_as(steps)

    def outputs(self, steps: Tensor) -> Tensor:
        """Steps ``(T, B, H)`` as outputs ``(B, T, H)``, zero at padding."""
        return steps.transpose(0, 1).contiguous().masked_fill(self._outside.transpose(0, 1), 0)


def padded_lstm(
    padded: PaddedSteps, x: Tensor, weights: list[Tensor], state: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs layers of LSTM over a padded batch without resets.

    Args:
        x: ``(T, B, D)`` float32, finite at padding.
        weights: ``w_ih, w_hh, b_ih, b_hh`` of each layer in turn, as in ``torch.nn.LSTM``.
        state: h and c before frame 0, each ``(layers, B, H)``; None for zeros.

    Returns:
        outputs ``(T, B, H)``, arbitrary at padding, and h and c after each clip's last valid frame.
    """
    hidden = weights[1].shape[1]
    mark = torch.from_numpy(np.repeat(np.array([-SATURATE, SATURATE, 0, 0], np.float32), hidden)[:, None])
    finals = []
    for layer in range(len(weights) // 4):
        w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
        hx = [x.new_zeros(1, x.shape[1], hidden)] * 2 if state is None else [s[layer : layer + 1] for s in state]
        marked = [torch.cat([w_ih, mark], 1), w_hh, b_ih, b_hh]
        # with biases, one layer, no dropout, what the backward pass needs, one direction, time-major
        options = (True, 1, 0.0, torch.is_grad_enabled(), False, False)
        x, _, c = torch.lstm(torch.cat([x, padded.padding], 2), hx, marked, *options)
        finals.append((x.flatten(0, 1).index_select(0, padded.last), c[0]))
    return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def padded_lstm_wins(weights: Sequence[Tensor], counts: list[int]) -> bool:
    """Whether ``padded_lstm`` is faster than ``lstm_layer`` on packed frames, for clips of these lengths.

    It computes padding too, but has little overhead per step. The constants are those with which the choice costs least
    on the grid of ``seqclf benchmark ragged``, which fits them again.
    """
    products = sum(w_ih.numel() + w_hh.numel() for w_ih, w_hh in zip(weights[::4], weights[1::4], strict=True)) / 4
    saved = len(counts) - SLOWER * sum(counts) / max(counts)  # rows per step
    return saved * products < OVERHEAD * (len(weights) // 4)


SLOWER = 1.1
"""The time of a packed frame, relative to a padded one."""
OVERHEAD = 2e5
"""The overhead of a step of ``lstm_layer``, in units of the time per H * (D + H) of a frame in ``padded_lstm``."""
