"""Recurrent temporal models: LSTM, GRU and RNN, with resets inside a batch, padding and the state as an argument."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models.contract import State, check_counts, check_dropout, check_features, parts_of
from seqclf.models.kernels.layers import Layers, one_frame, run_layers

Init = Callable[[nn.RNNBase], None]
"""A function that initialises a recurrent module in place, such as ``orthogonal``."""


class _Recurrent(nn.RNNBase):
    """What LSTM, GRU and RNN share. Recurrent parameters, their names and their order are those of ``torch.nn``."""

    cell: str  # the mode of nn.RNNBase
    projection: nn.Linear | None
    norms: nn.ModuleList | None

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        dropout_after: float = 0.0,
        init: Init | None = None,
        bidirectional: bool = False,
        residual: bool = False,
        layer_norm: bool = False,
        projection: bool = False,
    ) -> None:
        name = type(self).__name__
        check_counts(name, hidden=hidden, layers=layers)
        check_dropout(name, dropout=dropout, dropout_after=dropout_after)
        if residual and layers == 1 and not projection:
            raise SeqclfError(
                f"{name}: residual=True needs layers=2 or more, or projection=True, as layer 0 adds no input"
            )
        self.in_features = input_size
        self.out_features = 2 * hidden if bidirectional else hidden
        first = self.out_features if projection else input_size
        super().__init__(self.cell, first, hidden, layers, bidirectional=bidirectional)
        self.causal = self.carries_state = not bidirectional
        self.dropout_between, self.dropout_after = dropout, dropout_after
        self.residual = residual
        if init is not None:
            init(self)
        self.projection = nn.Linear(input_size, first) if projection else None
        self.norms = nn.ModuleList(nn.LayerNorm(self.out_features) for _ in range(layers)) if layer_norm else None

    def forward(  # type: ignore[override]
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Returns the outputs at every frame, and the state after each stream's last valid frame.

        Args:
            features: ``(B, T, D)`` float.
            is_first: ``(B, T)`` bool, True where a frame begins a new sequence; None for nowhere.
            state: the state before frame 0, ``(layers, B, H)``, for LSTM a pair (h, c) of such; None for zeros.
            lengths: ``(B,)`` int64 from 1 to T, the number of valid frames; None for T.

        Returns:
            outputs ``(B, T, H)``, zero at padding, and the state. With ``bidirectional`` they are ``(B, T, 2H)``, the
            forward direction first, and None.

        Raises:
            SeqclfError: an argument has the wrong shape or dtype, or a bidirectional model gets a state.
        """
        if features.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # Half precision is no faster here on a CPU, and float16 has no kernel.
            with torch.autocast("cpu", enabled=False):
                return self.forward(features.to(self.get_parameter("weight_hh_l0").dtype), is_first, state, lengths)
        self._check(features, is_first, state, lengths)
        layers = Layers(
            self.mode,
            self._flat_weights,  # type: ignore[arg-type]
            dropout=self.dropout_between if self.training else 0.0,
            dropout_after=self.dropout_after if self.training else 0.0,
            bidirectional=self.bidirectional,
            before=self.projection,
            after=self.add_and_norm if self.residual or self.norms is not None else None,
        )
        memory = state if state is None or isinstance(state, tuple) else (state,)
        outputs, final = run_layers(layers, features, is_first, memory, lengths)
        if self.bidirectional:
            return outputs, None
        return outputs, final if len(final) > 1 else final[0]

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """One frame ``(B, D)`` of streams, on the CPU: as ``forward`` in evaluation mode, without checks.

        Args:
            features: ``(B, D)`` float.
            state: the state before the frame, as ``forward`` returns it.

        Returns:
            outputs ``(B, H)``, and the state after the frame.
        """
        memory = state if isinstance(state, tuple) else (state,)
        read = features if self.projection is None else self.projection(features)
        after = self.add_and_norm if self.residual or self.norms is not None else None
        outputs, final = one_frame(self.mode, read, self._flat_weights, memory, after)  # type: ignore[arg-type]
        return outputs, final if len(final) > 1 else final[0]

    def extensions(self) -> list[str]:
        """The arguments that make it differ from layers of one direction that feed each other, such as Caffe's."""
        used = {
            "bidirectional": self.bidirectional,
            "residual": self.residual,
            "layer_norm": self.norms is not None,
            "projection": self.projection is not None,
        }
        return [f"{name}=True" for name, value in used.items() if value]

    def add_and_norm(self, layer: int, inputs: Tensor, outputs: Tensor) -> Tensor:
        """A layer's outputs, normalised with ``layer_norm``, plus its inputs with ``residual``."""
        if self.norms is not None:
            outputs = self.norms[layer](outputs)
        return inputs + outputs if self.residual and (layer > 0 or self.projection is not None) else outputs

    def _check(self, features: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None) -> None:
        check_features(self, features, self.in_features, is_first, lengths)
        weight: Tensor = self._flat_weights[1]  # type: ignore[assignment]
        if features.device.type == "cpu" and (features.dtype, features.device) != (weight.dtype, weight.device):
            raise SeqclfError(
                f"{type(self).__name__}: the features are {features.dtype} on the CPU, but the weights {weight.dtype} "
                f"on {weight.device}: convert one of them with to()"
            )
        if state is None:
            return
        name = type(self).__name__
        if self.bidirectional:
            raise SeqclfError(
                f"{name}: a bidirectional model reads whole sequences, so it cannot continue from a state"
            )
        parts, expected = parts_of(state), (self.num_layers, len(features), self.hidden_size)
        if len(parts) != (2 if self.mode == "LSTM" else 1) or any(part.shape != expected for part in parts):
            form = f"a pair (h, c), each {expected}" if self.mode == "LSTM" else f"one tensor {expected}"
            raise SeqclfError(f"{name}: the state must be {form}, not {[tuple(part.shape) for part in parts]}")
        like = features.dtype, features.device
        if features.device.type == "cpu" and any((part.dtype, part.device) != like for part in parts):
            found = sorted({f"{part.dtype} on {part.device}" for part in parts})
            raise SeqclfError(f"{name}: the state must be {features.dtype} on the CPU, not {', '.join(found)}")


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with the equations of ``torch.nn.LSTM``.

    Args:
        input_size: D, the features per frame.
        hidden: H, the units of each layer.
        layers: the number of layers; each reads the outputs of the one below.
        dropout: the probability of dropout between layers, from 0 to below 1.
        dropout_after: the probability of dropout on the last layer's outputs.
        forget_bias: the initial bias of the forget gate (1 is recommended by Jozefowicz et al. 2015); None leaves it
            to ``init``.
        init: a function that initialises the recurrent weights, such as ``orthogonal``; None for PyTorch's uniform
            distribution.
        bidirectional: whether each layer also reads every sequence from its last valid frame to its first (Graves and
            Schmidhuber 2005). Outputs have 2H features. The model is not causal, so that it needs whole sequences.
        residual: whether each layer's inputs are added to its outputs where both have the same size: from the second
            layer on, and in the first with ``projection`` (Wu et al. 2016).
        layer_norm: whether each layer's outputs are normalised over their features (Ba et al. 2016), before its inputs
            are added.
        projection: whether a linear layer maps the features to the size of the outputs before the first layer.

    Raises:
        SeqclfError: an argument is out of range, or ``residual`` has nothing to add.
    """

    cell = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        dropout_after: float = 0.0,
        forget_bias: float | None = None,
        init: Init | None = None,
        bidirectional: bool = False,
        residual: bool = False,
        layer_norm: bool = False,
        projection: bool = False,
    ) -> None:
        options = (bidirectional, residual, layer_norm, projection)
        super().__init__(input_size, hidden, layers, dropout, dropout_after, init, *options)
        if forget_bias is not None:
            with torch.no_grad():  # a gate's two biases are added
                for name, p in self.named_parameters():
                    if name.startswith("bias_"):
                        p[hidden : 2 * hidden] = forget_bias if name.startswith("bias_ih") else 0


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014), with the equations of ``torch.nn.GRU``. Arguments as for ``LSTM``."""

    cell = "GRU"


class RNN(_Recurrent):
    """Simple recurrent network (Elman 1990), with the equations of ``torch.nn.RNN``.

    Args:
        nonlinearity: "tanh" or "relu"; the other arguments are those of ``LSTM``.
    """

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int = 1,
        nonlinearity: str = "tanh",
        dropout: float = 0.0,
        dropout_after: float = 0.0,
        init: Init | None = None,
        bidirectional: bool = False,
        residual: bool = False,
        layer_norm: bool = False,
        projection: bool = False,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise SeqclfError(f'RNN: nonlinearity must be "tanh" or "relu", not {nonlinearity!r}')
        self.cell = f"RNN_{nonlinearity.upper()}"
        options = (bidirectional, residual, layer_norm, projection)
        super().__init__(input_size, hidden, layers, dropout, dropout_after, init, *options)


def orthogonal(net: nn.RNNBase) -> None:
    """Initialises a recurrent module in place.

    Recurrent weights are orthogonal, each gate on its own (Saxe et al. 2014), input weights Xavier-uniform, biases 0.
    """
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.startswith("bias_"):
                p.zero_()
            if not name.startswith("weight_"):  # of a layer norm or the projection
                continue
            for gate in p.split(net.hidden_size):
                (nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_)(gate)
