"""Temporal models: what a frame's features become in the light of the frames before it.

Each is called as ``outputs, state = temporal(features, is_first, state, lengths)``: features ``(B, T, D)``, outputs
``(B, T, H)``. Memory is an argument and a return value, never hidden in the module, so a stream fed frame by frame, a
state carried across batches and a reset in the middle of one are all this one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.contract import State, check_sequences
from seqclf.models.cpu_lstm import lstm_layer
from seqclf.models.segments import Segments, find_segments, pack, unpack

_KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}
_CELLS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
}
"""One layer's step of one frame."""


class Identity(nn.Module):
    """No memory: each frame is classified on its own (the single-frame model). H is D, and the state is None."""

    causal, carries_state, frame_wise = True, False, True

    def __init__(self, input_size: int | None = None) -> None:
        super().__init__()
        self.out_features = input_size

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        check_sequences(features.shape[:2], is_first, lengths)
        if lengths is not None:
            features = features * valid_frames(lengths, features.shape, features.device)[..., None]
        return features, None


class _Recurrent(nn.RNNBase):
    """What LSTM, GRU and RNN share. Parameters, their names and their order are ``torch.nn``'s."""

    causal, carries_state = True, True

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden: int,
        layers: int,
        dropout: float,
        dropout_after: float,
        init: Callable[[nn.RNNBase], None] | None,
    ) -> None:
        if hidden < 1 or layers < 1:
            raise SeqclfError(f"a recurrent model needs hidden >= 1 and layers >= 1, not {hidden} and {layers}")
        for name, p in (("dropout", dropout), ("dropout_after", dropout_after)):
            if not 0 <= p < 1:
                raise SeqclfError(f"{name} is a probability from 0 to below 1, not {p}")
        super().__init__(mode, input_size, hidden, layers)
        self.out_features = hidden
        self.dropout_between, self.dropout_after = dropout, dropout_after
        if init is not None:
            init(self)

    def forward(  # type: ignore[override]
        self,
        features: Tensor,
        is_first: Tensor | None = None,
        state: State = None,
        lengths: Tensor | None = None,
        weights: Sequence[Tensor] | None = None,
        gates: str = "ifgo",
    ) -> tuple[Tensor, State]:
        """Outputs at every frame, and the state after each stream's last valid frame.

        Args:
            features: ``(B, T, D)`` float.
            is_first: ``(B, T)`` bool, True where a frame begins a new sequence; None for nowhere.
            state: the memory before frame 0, ``(layers, B, H)`` (a pair of them for LSTM); None for none.
            lengths: ``(B,)`` int64 from 1 to T: frames from there on are padding, and their outputs zero.
            weights: what to compute with in place of the module's own parameters, in their order and shapes: for
                parameters that are kept elsewhere.
            gates: the order of the gates in the rows of an LSTM's ``weights``.

        Returns:
            ``(B, T, H)``, and the state to go on from.

        Raises:
            SeqclfError: a shape or dtype is not the above.
        """
        if features.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):  # half precision gains a CPU nothing here, and fp16 it lacks
                dtype = self.get_parameter("weight_hh_l0").dtype if weights is None else weights[0].dtype
                return self.forward(features.to(dtype), is_first, state, lengths, weights, gates)
        self._check(features, is_first, state, lengths)
        T = features.shape[1]
        every = self._flat_weights if weights is None else weights
        hx = None if state is None else state if isinstance(state, tuple) else (state,)
        if (is_first is not None and bool(is_first[:, 1:].any())) or (lengths is not None and int(lengths.min()) < T):
            if is_first is None:
                is_first = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
            segments = find_segments(is_first, lengths)
            if hx is not None:
                hx = tuple(h[:, segments.stream].masked_fill(~segments.carried[:, None], 0) for h in hx)
            packed, final = self._layers(pack(features, segments), hx, segments, every, gates)
            outputs = unpack(packed, segments, T)
        else:
            if hx is not None and is_first is not None:
                hx = tuple(h.masked_fill(is_first[:, 0, None], 0) for h in hx)
            steps, final = self._layers(rearrange(features, "b t d -> t b d"), hx, None, every, gates)
            outputs = rearrange(steps, "t b h -> b t h").contiguous()  # a head on the strided view takes twice as long
        return outputs, final if len(final) > 1 else final[0]

    def _layers(
        self, x: Tensor, hx: tuple[Tensor, ...] | None, segments: Segments | None, weights: Sequence[Any], gates: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers: x is ``(T, B, D)``, or packed ``(N, D)`` where there are segments."""
        each = self.num_layers if self.training and self.dropout_between > 0 else 1
        depth = self.num_layers // each
        finals = []
        for start in range(0, self.num_layers, depth):
            part = None if hx is None else tuple(h[start : start + depth] for h in hx)
            x, final = self._kernel(x, part, segments, list(weights[4 * start : 4 * (start + depth)]), gates)
            finals.append(final)
            p = self.dropout_between if start + depth < self.num_layers else self.dropout_after
            if self.training and p > 0:
                x = F.dropout(x, p)
        return x, tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*finals, strict=True))

    def _kernel(
        self,
        x: Tensor,
        hx: tuple[Tensor, ...] | None,
        segments: Segments | None,
        weights: list[Tensor],
        gates: str,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As many layers as there are weights for, by the fastest kernel for the case."""
        depth = len(weights) // 4
        if self.mode == "LSTM" and x.device.type == "cpu" and (segments is not None or self._own_loop_wins(x)):
            return _cpu_lstm(x, hx, segments, weights, gates)
        if self.mode == "LSTM" and gates != "ifgo":
            weights = [torch.cat([w.chunk(4)[gates.index(gate)] for gate in "ifgo"]) for w in weights]
        rows = x.shape[1] if segments is None else segments.sizes[0]
        if hx is None:
            zeros = torch.zeros(depth, rows, self.hidden_size, dtype=x.dtype, device=x.device)
            hx = (zeros, zeros) if self.mode == "LSTM" else (zeros,)
        if segments is None and len(x) == 1 and x.device.type == "cpu" and not torch.is_grad_enabled():
            return self._one_frame(x, hx, weights)
        h = hx if self.mode == "LSTM" else hx[0]
        # True: has biases; 0.0: no dropout inside; False: one direction (and, where not packed, time-major)
        rest = (weights, True, depth, 0.0, self.training, False)
        with _weights_apart() if weights[0] is not self._flat_weights[0] or depth < self.num_layers else nullcontext():
            if segments is None:
                y, *final = _KERNELS[self.mode](x, h, *rest, False)
            else:
                y, *final = _KERNELS[self.mode](x, torch.tensor(segments.sizes), h, *rest)
        if segments is not None:
            final = [f[:, segments.final] for f in final]
        return y, tuple(final)

    def _one_frame(self, x: Tensor, hx: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One frame ``(1, B, D)`` of a stream, on the CPU: the kernels for sequences prepare more than they compute."""
        out, finals = x[0], []
        for layer in range(len(weights) // 4):
            before, own = tuple(h[layer] for h in hx), weights[4 * layer : 4 * layer + 4]
            after = _CELLS[self.mode](out, before if len(before) > 1 else before[0], *own)
            finals.append(after if isinstance(after, tuple) else (after,))
            out = finals[-1][0]
        return out[None], tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _own_loop_wins(self, x: Tensor) -> bool:
        """Where our loop beats oneDNN's LSTM on a whole batch: wide inputs, by a grid of D, H, B, T on 2 cores."""
        if not torch.backends.mkldnn.is_available():
            return True
        return x.shape[-1] >= 2048 and x.shape[1] * self.hidden_size >= 1000

    def _check(self, features: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None) -> None:
        name = type(self).__name__
        if features.dim() != 3 or features.shape[-1] != self.input_size:
            raise SeqclfError(f"{name} expects features (B, T, {self.input_size}), not {tuple(features.shape)}")
        B, T, _ = features.shape
        if B == 0 or T == 0:
            raise SeqclfError(f"{name} needs at least one clip of one frame, not features {tuple(features.shape)}")
        check_sequences((B, T), is_first, lengths)
        if state is not None:
            parts = state if isinstance(state, tuple) else (state,)
            want = (self.num_layers, B, self.hidden_size)
            if len(parts) != (2 if self.mode == "LSTM" else 1) or any(p.shape != want for p in parts):
                form = f"a pair (h, c), each {want}" if self.mode == "LSTM" else f"one tensor {want}"
                raise SeqclfError(f"{name}'s state must be {form}, not {[tuple(p.shape) for p in parts]}")


@contextmanager
def _weights_apart() -> Iterator[None]:
    """Weights that are not all of cuDNN's flat buffer are copied into one: small, known, no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        yield


def _cpu_lstm(
    x: Tensor, hx: tuple[Tensor, ...] | None, segments: Segments | None, weights: list[Tensor], gates: str
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Layers of LSTM by ``lstm_layer``, on ``(T, B, D)`` or packed ``(N, D)``."""
    shape = x.shape
    sizes = [shape[1]] * shape[0] if segments is None else segments.sizes
    flat = x.reshape(-1, shape[-1])
    last = slice(flat.shape[0] - sizes[-1], None) if segments is None else segments.last
    finals = []
    for layer in range(len(weights) // 4):
        w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
        h0, c0 = (None, None) if hx is None else (hx[0][layer], hx[1][layer])
        flat, cell = lstm_layer(flat, sizes, h0, c0, w_ih, w_hh, b_ih + b_hh, gates)
        finals.append((flat[last], cell[last]))
    h, c = (torch.stack(parts) for parts in zip(*finals, strict=True))
    return (flat if segments is not None else flat.view(*shape[:2], -1)), (h, c)


class LSTM(_Recurrent):
    """Long short-term memory, as ``torch.nn.LSTM``, with resets inside the batch and padding.

    Args:
        input_size: D, the features per frame.
        hidden: H, the units of each layer.
        layers: how many layers, one reading the outputs of the one before.
        dropout: probability between layers (drawn by ``torch.nn.functional.dropout``, from PyTorch's own generator).
        dropout_after: probability on the last layer's outputs.
        forget_bias: the forget gate's bias at the start (Jozefowicz et al. 2015 advise 1); None leaves it to ``init``.
        init: a function that initialises the module, such as ``orthogonal``; None for PyTorch's uniform.
    """

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        dropout_after: float = 0.0,
        forget_bias: float | None = None,
        init: Callable[[nn.RNNBase], None] | None = None,
    ) -> None:
        super().__init__("LSTM", input_size, hidden, layers, dropout, dropout_after, init)
        if forget_bias is not None:
            with torch.no_grad():  # the two biases of a gate are added
                for layer in range(layers):
                    getattr(self, f"bias_ih_l{layer}")[hidden : 2 * hidden] = forget_bias
                    getattr(self, f"bias_hh_l{layer}")[hidden : 2 * hidden] = 0


class GRU(_Recurrent):
    """Gated recurrent unit, as ``torch.nn.GRU``; arguments as of ``LSTM``."""

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        dropout_after: float = 0.0,
        init: Callable[[nn.RNNBase], None] | None = None,
    ) -> None:
        super().__init__("GRU", input_size, hidden, layers, dropout, dropout_after, init)


class RNN(_Recurrent):
    """The plain recurrent net, as ``torch.nn.RNN``; ``nonlinearity`` is "tanh" or "relu", the rest as of ``LSTM``."""

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int = 1,
        nonlinearity: str = "tanh",
        dropout: float = 0.0,
        dropout_after: float = 0.0,
        init: Callable[[nn.RNNBase], None] | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise SeqclfError(f'RNN\'s nonlinearity is "tanh" or "relu", not {nonlinearity!r}')
        mode = "RNN_TANH" if nonlinearity == "tanh" else "RNN_RELU"
        super().__init__(mode, input_size, hidden, layers, dropout, dropout_after, init)


def orthogonal(net: nn.RNNBase) -> None:
    """Orthogonal recurrent weights gate by gate (Saxe et al. 2014), Xavier-uniform input weights, biases zero."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.startswith("bias"):
                p.zero_()
                continue
            for gate in p.split(net.hidden_size):
                (nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_)(gate)
