"""LSTM, GRU and RNN in the forms that exporters can trace: operators of ONNX, and cells of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.exporting.memory import CannotExport
from seqclf.models import GRU, LSTM, RNN
from seqclf.models.contract import State, parts_of

OPERATORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # mode of a recurrent module: ONNX operator, order of the gates in ONNX, attributes
    "LSTM": ("LSTM", "iofg", {}),
    "GRU": ("GRU", "zrn", {"linear_before_reset": 1}),
    "RNN_TANH": ("RNN", "h", {"activations": ["Tanh"]}),
    "RNN_RELU": ("RNN", "h", {"activations": ["Relu"]}),
}
GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"}
"""The order of the gates in PyTorch; z is the update gate of a GRU, and g (n) the new content."""
CELLS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
}
"""One step of one layer, by mode of the recurrent module."""


class _Traceable(nn.Module):
    """A recurrent model without resets, padding and dropout; subclasses run a layer."""

    def __init__(self, net: LSTM | GRU | RNN) -> None:
        super().__init__()
        self.net, self.mode = net, net.mode
        self.causal, self.carries_state, self.out_features = net.causal, net.carries_state, net.out_features

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As the model's; ``is_first`` and ``lengths`` must be None."""
        x = features.transpose(0, 1)
        x = x if self.net.projection is None else self.net.projection(x)
        before = parts_of(state)
        after = []
        for layer in range(self.net.num_layers):
            y, final = self.layer(layer, x, tuple(part[layer : layer + 1] for part in before))
            after.append(final)
            x = self.net.add_and_norm(layer, x, y)
        if self.net.bidirectional:
            return x.transpose(0, 1), None
        state = tuple(torch.cat(parts) for parts in zip(*after, strict=True))
        return x.transpose(0, 1), state if len(state) > 1 else state[0]

    def layer(self, layer: int, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Inputs ``(T, B, D)`` and state ``(1, B, H)``, or none, to outputs ``(T, B, H)`` and the state after."""
        raise NotImplementedError


class OnnxRecurrent(_Traceable):
    """Recurrent layers as ONNX's LSTM, GRU or RNN, for graphs only: PyTorch cannot run them."""

    def __init__(self, net: LSTM | GRU | RNN) -> None:
        super().__init__(net)
        operator, order, _ = OPERATORS[net.mode]
        places = [GATES[operator].index(gate) for gate in order]
        for layer in range(net.num_layers):
            sides = [layer_weights(net, layer, suffix) for suffix in ("", "_reverse")[: 1 + net.bidirectional]]
            ordered = [[torch.cat([w.chunk(len(places))[place] for place in places]) for w in side] for side in sides]
            self.register_buffer(f"W_{layer}", torch.stack([side[0] for side in ordered]))
            self.register_buffer(f"R_{layer}", torch.stack([side[1] for side in ordered]))
            self.register_buffer(f"b_{layer}", torch.stack([torch.cat(side[2:]) for side in ordered]))

    def layer(self, layer: int, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        operator, _, attributes = OPERATORS[self.mode]
        if not hasattr(torch.onnx, "ops"):
            raise CannotExport(f"{operator} in ONNX needs PyTorch 2.8 or newer, this is {torch.__version__}")
        sides, H = 1 + self.net.bidirectional, self.net.hidden_size
        attributes = {"hidden_size": H, "direction": "bidirectional" if sides == 2 else "forward", **attributes}
        if sides == 2 and "activations" in attributes:
            attributes["activations"] = attributes["activations"] * 2
        T, B = x.shape[:2]
        finals = 2 if operator == "LSTM" else 1
        y, *final = torch.onnx.ops.symbolic_multi_out(
            operator,
            [x, *(self.get_buffer(f"{name}_{layer}") for name in "WRb"), *((None, *state) if state else ())],
            attributes,
            dtypes=[x.dtype] * (1 + finals),
            shapes=[(T, sides, B, H), *[(sides, B, H)] * finals],
        )
        return y.transpose(1, 2).flatten(2), tuple(final)


class CellRecurrent(_Traceable):
    """Recurrent layers of one direction as a loop of PyTorch's cells over the frames."""

    def layer(self, layer: int, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        weights = layer_weights(self.net, layer)
        parts = tuple(part[0] for part in state)
        if not parts:
            parts = (x.new_zeros(x.shape[1], self.net.hidden_size),) * (2 if self.mode == "LSTM" else 1)
        outputs = []
        for frame in x.unbind(0):
            found = CELLS[self.mode](frame, parts if len(parts) > 1 else parts[0], *weights)
            parts = found if isinstance(found, tuple) else (found,)
            outputs.append(parts[0])
        return torch.stack(outputs), tuple(part[None] for part in parts)


def layer_weights(net: Any, layer: int, suffix: str = "") -> tuple[Tensor, ...]:
    """The weights of a recurrent layer for inputs and memory, and the two biases."""
    names = (f"{kind}_{side}_l{layer}{suffix}" for kind in ("weight", "bias") for side in ("ih", "hh"))
    return tuple(net.get_parameter(name) for name in names)


def replace_recurrent(model: nn.Module, form: type[OnnxRecurrent] | type[CellRecurrent]) -> None:
    """Replaces the recurrent models inside a module, in place; cells do not replace bidirectional ones."""
    for name, module in list(model.named_modules()):
        if type(module) in (LSTM, GRU, RNN) and (form is OnnxRecurrent or not module.bidirectional):
            model.set_submodule(name, form(module))  # type: ignore[arg-type]
