"""The software and hardware of a run, for its record."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqclf.models.kernels import fused_lstm


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Versions, device, threads and command line, as plain values."""
    from seqclf import __version__

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "seqclf": __version__,
        "code": _code_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "command": sys.argv,
    }


def lstm_kernel(model: nn.Module, device: torch.device) -> str | None:
    """What runs the LSTM layers of a model: "fused" for the kernels of ``fast``, or "torch"; None if it has none."""
    if not any(getattr(part, "mode", None) == "LSTM" and type(part) is not nn.LSTM for part in model.modules()):
        return None
    return "fused" if device.type == "cpu" and fused_lstm.available() else "torch"


@cache
def _code_version() -> str | None:
    """The commit of the checkout that contains this file, marked if it has changes; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        if head.returncode:
            return None
        dirty = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, timeout=5)
        return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
    except (OSError, subprocess.TimeoutExpired):
        return None


def now() -> str:
    """The current time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
