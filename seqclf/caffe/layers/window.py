"""One-line description of a sliding window, for drawings."""

from __future__ import annotations

from typing import Any


def window_summary(p: Any) -> str:
    """Describes the window of a ``ConvolutionParameter`` or ``PoolingParameter``, such as "3×3 /2 pad 1".

    Stride, padding and dilation appear only where they differ from their defaults.
    """
    parts = ["×".join(map(str, _sizes(p, "kernel", p.kernel_size)))]
    dilation = tuple(getattr(p, "dilation", ()))
    settings = (("/", _sizes(p, "stride", p.stride), 1), ("pad ", _sizes(p, "pad", p.pad), 0))
    for word, values, default in (*settings, ("dilation ", dilation, 1)):
        if any(value != default for value in values):
            parts.append(word + "×".join(map(str, dict.fromkeys(values))))
    return " ".join(parts)


def _sizes(p: Any, name: str, value: Any) -> tuple[int, ...]:
    if p.HasField(f"{name}_h") or p.HasField(f"{name}_w"):
        return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w"))
    if isinstance(value, int):
        return (value, value)
    return tuple(value) * (2 if len(value) == 1 else 1)
