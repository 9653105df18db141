"""LSTM, GRU and the plain recurrent net in NumPy, one clip and one frame at a time: slow, and plainly right.

The equations are written out from the papers in float64, with nothing shared with ``seqclf``: memory is set to zero
where ``is_first`` says so, a clip ends at its length, and outputs of padding are zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

State = tuple[np.ndarray, ...]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def step(kind: str, x: np.ndarray, memory: State, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh) -> State:
    """The memory after a frame; its first part is the layer's output. Gate order is ``torch.nn``'s."""
    h = memory[0]
    from_input, from_memory = w_ih @ x + b_ih, w_hh @ h + b_hh
    if kind == "lstm":
        i, f, g, o = np.split(from_input + from_memory, 4)
        c = sigmoid(f) * memory[1] + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    if kind == "gru":
        (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(from_input, 3), np.split(from_memory, 3)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        n = np.tanh(n_x + r * n_h)
        return ((1 - z) * n + z * h,)
    if kind == "rnn_tanh":
        return (np.tanh(from_input + from_memory),)
    if kind == "rnn_relu":
        return (np.maximum(from_input + from_memory, 0),)
    raise ValueError(kind)


def run(
    kind: str,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    is_first: np.ndarray | None = None,
    state: State | None = None,
    lengths: np.ndarray | None = None,
) -> tuple[np.ndarray, State]:
    """A recurrent net over a batch.

    Args:
        kind: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        weights: a ``torch.nn`` module's state_dict, as arrays.
        x: ``(B, T, D)``.
        is_first: ``(B, T)`` bool.
        state: ``(layers, B, H)``, (h, c) or (h,).
        lengths: ``(B,)``.

    Returns:
        outputs ``(B, T, H)`` and the state after each clip's last valid frame.
    """
    weights = {name: np.asarray(w, dtype=np.float64) for name, w in weights.items()}
    layers = sum(name.startswith("weight_hh") for name in weights)
    B, T, _ = x.shape
    H = weights["weight_hh_l0"].shape[1]
    parts = 2 if kind == "lstm" else 1
    outputs = np.zeros((B, T, H))
    final = tuple(np.zeros((layers, B, H)) for _ in range(parts))
    for b in range(B):
        memories = [
            tuple(np.zeros(H) if state is None else np.asarray(state[p][layer, b], np.float64) for p in range(parts))
            for layer in range(layers)
        ]
        for t in range(T if lengths is None else int(lengths[b])):
            if is_first is not None and is_first[b, t]:
                memories = [tuple(np.zeros(H) for _ in range(parts)) for _ in range(layers)]
            signal = np.asarray(x[b, t], np.float64)
            for layer in range(layers):
                w = (weights[f"{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
                memories[layer] = step(kind, signal, memories[layer], *w)
                signal = memories[layer][0]
            outputs[b, t] = signal
        for layer in range(layers):
            for p in range(parts):
                final[p][layer, b] = memories[layer][p]
    return outputs, final
