"""LSTM on clips of unequal length, against nn.LSTM on padded and on packed batches; fits the rule that chooses."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqclf.benchmark.timing import seconds
from seqclf.models import LSTM
from seqclf.models.kernels import fused_lstm, padded_lstm

Shape = tuple[int, int, int, int, float]
"""B, T, D, H and the share of valid frames."""
GRID: list[Shape] = [
    (B, T, D, H, share)
    for B, T, (D, H), share in itertools.product(
        (2, 8, 32, 128), (20, 200), ((8, 32), (64, 48), (64, 256), (512, 128)), (0.3, 0.6, 0.9)
    )
    if B * T * H * (D + H) < 1e9
]


def random_lengths(B: int, T: int, share: float) -> Tensor:
    """Lengths uniform around ``share * T``, the first one T."""
    shortest, longest = (1, 2 * share * T) if share < 0.5 else (T * (2 * share - 1), T)
    lengths = torch.randint(max(1, int(shortest)), max(1, int(longest)) + 1, (B,))
    lengths[0] = T
    return lengths


@contextmanager
def overhead(value: float) -> Iterator[None]:
    """Disables the extra ``fast``, and runs every ragged batch padded (infinity) or packed (minus infinity)."""
    with patch.object(padded_lstm, "OVERHEAD", value), patch.dict(os.environ, SEQCLF_FUSED="0"):
        yield


def measure(shape: Shape, repeats: int) -> tuple[Tensor, dict[str, float]]:
    """The lengths of a random batch, and the shortest times of forward and backward in seconds, measured in turn."""
    B, T, D, H, share = shape
    x, lengths = torch.randn(B, T, D), random_lengths(B, T, share)
    rival, ours = nn.LSTM(D, H, batch_first=True), LSTM(D, H)

    def packed() -> None:
        y, _ = rival(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        pad_packed_sequence(y, batch_first=True)[0].sum().backward()

    def own(value: float) -> Callable[[], None]:
        def run() -> None:
            with overhead(value):
                ours(x, lengths=lengths)[0].sum().backward()

        return run

    runs = {
        "nn.LSTM, padded": lambda: rival(x)[0].sum().backward(),
        "nn.LSTM, packed": packed,
        "padded": own(math.inf),
        "packed": own(-math.inf),
    }
    if fused_lstm.available():
        runs["fused"] = lambda: ours(x, lengths=lengths)[0].sum().backward()
    times = [{name: seconds(run) for name, run in runs.items()} for _ in range(repeats + 1)][1:]
    return lengths, {name: min(t[name] for t in times) for name in runs}


def ragged(grid: Sequence[Shape] = tuple(GRID), repeats: int = 5) -> None:
    """Prints, per shape, both rivals, both of our ways, and the time of the chosen one relative to the better rival."""
    results = []
    for shape in grid:
        lengths, times = measure(shape, repeats)
        B, T, D, H, _ = shape
        counts = [int(n) for n in lengths]
        weights = [torch.empty(4 * H, D), torch.empty(4 * H, H)] + [torch.empty(4 * H)] * 2
        chosen = "padded" if padded_lstm.padded_lstm_wins(weights, counts) else "packed"
        chosen = "fused" if "fused" in times else chosen
        better = min(times["nn.LSTM, padded"], times["nn.LSTM, packed"])
        figures = "  ".join(f"{name} {1e3 * t:.2f}" for name, t in times.items())
        print(
            f"ragged, B={B} T={T} D={D} H={H}, {sum(counts) / (B * T):.0%} valid: {figures} ms, "
            f"chosen {chosen}, ratio {times[chosen] / better:.2f}",
            flush=True,
        )
        results.append((counts, H * (D + H), times))
    slower, best = fit(results)
    print(f"the best rule on this grid: SLOWER = {slower:.1f}, OVERHEAD = {best:.0e}")


def fit(results: Sequence[tuple[list[int], int, dict[str, float]]]) -> tuple[float, float]:
    """The constants of ``padded_lstm_wins`` with the smallest mean ratio of the chosen time to the better one."""

    def cost(constants: tuple[float, float]) -> float:
        slower, overhead = constants
        total = 0.0
        for counts, products, times in results:
            wins = (len(counts) - slower * sum(counts) / max(counts)) * products < overhead
            total += math.log(times["padded" if wins else "packed"] / min(times["padded"], times["packed"]))
        return total

    return min(itertools.product((1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6), (10 ** (k / 4) for k in range(12, 28))), key=cost)
