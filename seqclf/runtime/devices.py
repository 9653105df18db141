"""Devices by name."""

from __future__ import annotations

import torch

from seqclf.batch import SeqclfError
from seqclf.runtime.distributed import ALONE, World


def pick_device(name: str, world: World = ALONE) -> torch.device:
    """Returns the device of this process.

    Args:
        name: "auto" (CUDA if available, else the CPU), "cpu", "cuda" or "cuda:<n>".
        world: the processes of the run. With several, each takes the GPU of its local rank.

    Raises:
        SeqclfError: the name is unknown, or there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SeqclfError(f"--device {name}: expected auto, cpu, cuda or cuda:<n>") from None
    if device.type not in ("cpu", "cuda"):
        raise SeqclfError(f"--device {name}: expected auto, cpu, cuda or cuda:<n>")
    if device.type == "cuda" and world.size > 1:
        if device.index is not None:
            raise SeqclfError(f"--device {name}: with {world.size} processes each takes its own GPU; use --device cuda")
        device = torch.device("cuda", world.local_rank)
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise SeqclfError(f"--device {device}: PyTorch finds {torch.cuda.device_count()} CUDA devices on this machine")
    return device
