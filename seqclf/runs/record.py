"""A run's folder: what was run, and its figures as they come."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError


def write_json(path: Path, content: Any) -> None:
    """Writes a file of JSON, whole or not at all."""
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(part, path)
    except OSError as error:
        raise SeqclfError(f"{path}: could not be written ({error})") from None


def read_json(path: Path) -> Any:
    """The content of a file of JSON.

    Raises:
        SeqclfError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise SeqclfError(f"{path}: damaged ({error})") from None


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """What a run ran on and with, in plain values."""
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


def _code_version() -> str | None:
    """The commit of the checkout that this code lies in, with a mark where it was changed; None outside of one."""
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
    """The time, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Record:
    """Writes ``metrics.jsonl`` (one JSON object a line) and TensorBoard's events; on resuming, from ``step`` on.

    Lines of steps after ``step``, which a killed run may have left behind its last checkpoint, are taken back, so that
    the file ends as an uninterrupted run's does. It holds no times, for the same reason; TensorBoard has them. Without
    a folder nothing is written.
    """

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self.path: Path | None = None
        if folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "metrics.jsonl"
        if step and self.path.exists():
            kept = []
            for line in self.path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] > step:
                        continue
                except (ValueError, KeyError):
                    continue  # the half line that a kill left behind
                kept.append(line + "\n")
            part = self.path.with_suffix(".part")
            part.write_text("".join(kept))
            os.replace(part, self.path)
        self.stream = self.path.open("a" if step else "w")
        self.events = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def add(self, step: int, part: str, values: dict[str, float | None], **untold: float) -> None:
        """Figures of a part of the data ("train", "validation", "test") after so many steps.

        ``untold`` ones, such as times, go to TensorBoard alone.
        """
        if self.path is None:
            return
        try:
            self.stream.write(json.dumps({"step": step, "part": part, **values}) + "\n")
            self.stream.flush()
        except OSError as error:
            raise SeqclfError(f"{self.path}: could not be written ({error}); checkpoints are untouched") from None
        for name, value in {**values, **untold}.items():
            if value is not None:
                self.events.add_scalar(f"{part}/{name}", value, step)

    def close(self) -> None:
        """Ends the files; raises SeqclfError where the last of them can't be written."""
        if self.path is None:
            return
        try:
            self.stream.close()
            self.events.close()
        except OSError as error:
            raise SeqclfError(f"{self.path}: could not be written ({error}); checkpoints are untouched") from None
