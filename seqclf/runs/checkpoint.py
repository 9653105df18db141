"""Checkpoint files: tensors and plain values, written atomically and verified when read."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.runtime.files import replacing

FORMAT = 2
"""The version of the content's layout. Raise it when an older program would misread a new checkpoint."""


def save_checkpoint(content: dict[str, Any], folder: Path, step: int, keep: int, best: int | None = None) -> Path:
    """Writes ``step_<n>.pt``, then deletes older checkpoints.

    The file is complete and on the disk before it gets its name. Only then are older checkpoints deleted.

    Args:
        content: tensors and plain values; ``format`` and ``step`` are added.
        folder: the folder of the checkpoints; created if missing.
        step: the number of steps done.
        keep: how many of the newest checkpoints to keep.
        best: the step of a checkpoint that is kept regardless of its age.

    Returns:
        the path of the checkpoint.

    Raises:
        SeqclfError: the file cannot be written, for example because the disk is full.
    """
    path = folder / f"step_{step}.pt"
    try:
        with replacing(path, durable=True) as part, part.open("wb") as stream:
            torch.save({"format": FORMAT, "step": step, **content}, stream)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
        kept = [p.name for p in list_checkpoints(folder)]
        raise SeqclfError(
            f"{path}: cannot be written ({error}; {_free_space(folder)} free on the disk). "
            f"Earlier checkpoints are unchanged: {', '.join(kept) or 'none'}"
        ) from None
    for old in list_checkpoints(folder)[keep:]:
        if step_of(old) != best:
            old.unlink()
    for leftover in folder.glob(".step_*.part"):  # written by a process that was killed
        leftover.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU and verifies the checksum of every part.

    Raises:
        SeqclfError: the file is missing, damaged or not a checkpoint of this format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            marked = next((entry.filename for entry in archive.infolist() if entry.external_attr), None)
        if marked is not None:  # as a folder, which PyTorch reads as arbitrary numbers
            raise SeqclfError(f"checkpoint {path} is damaged (the attributes of {marked} are not those of a file)")
        if broken is not None:
            raise SeqclfError(f"checkpoint {path} is damaged (the checksum of {broken} does not match)")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SeqclfError(f"checkpoint {path}: no such file") from None
    except SeqclfError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise SeqclfError(f"checkpoint {path} is damaged ({type(error).__name__}: {error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise SeqclfError(f"checkpoint {path}: has format {found}; this version of seqclf reads format {FORMAT}")
    return content


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest (highest step) first."""
    found = [p for p in folder.glob("step_*.pt") if re.fullmatch(r"step_\d+\.pt", p.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step in a checkpoint's file name."""
    return int(path.stem.removeprefix("step_"))


def load_newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """Reads the newest undamaged checkpoint.

    Returns:
        its path, its content, and one message for each newer checkpoint that is damaged; None if the folder has no
        checkpoint.

    Raises:
        SeqclfError: all checkpoints are damaged.
    """
    damaged: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return path, load_checkpoint(path), damaged
        except SeqclfError as error:
            damaged.append(str(error))
    if damaged:
        raise SeqclfError("all checkpoints are damaged: " + "; ".join(damaged))
    return None


def load_weights(model: torch.nn.Module, content: dict[str, Any], name: str | Path) -> None:
    """Loads a checkpoint's weights into a model.

    Args:
        model: the model; all its weights are replaced.
        content: the checkpoint.
        name: the checkpoint's path, for errors.

    Raises:
        SeqclfError: names or shapes differ. The message names the first weight that does not fit.
    """
    ours, theirs = model.state_dict(), content["model"]
    for key in [*ours, *theirs]:
        mine, other = ours.get(key), theirs.get(key)
        if mine is None or other is None or mine.shape != other.shape:
            have, want = (None if x is None else tuple(x.shape) for x in (other, mine))
            raise SeqclfError(
                f"{name}: belongs to another model. {key} is {have or 'absent'} in the checkpoint "
                f"and {want or 'absent'} in the model"
            )
    model.load_state_dict(theirs)


def start_from(model: torch.nn.Module, path: str | Path) -> tuple[list[str], list[str]]:
    """Loads those weights of another run whose names and shapes match the model's.

    Args:
        model: the model; its other weights are unchanged.
        path: a run folder (its newest undamaged checkpoint is used) or a checkpoint.

    Returns:
        the names of the loaded weights, and the names of the others.

    Raises:
        SeqclfError: there is no checkpoint, it is damaged, or no weight matches.
    """
    path = Path(path)
    if path.is_dir():
        found = load_newest(path / "checkpoints")
        if found is None:
            raise SeqclfError(f"{path}: has no checkpoint to start from")
        path, content, _ = found
    else:
        content = load_checkpoint(path)
    ours, theirs = model.state_dict(), content["model"]
    taken = {name: theirs[name] for name in ours if name in theirs and theirs[name].shape == ours[name].shape}
    if not taken:
        raise SeqclfError(f"{path}: no weight has a name and shape that this model has")
    model.load_state_dict(taken, strict=False)
    return list(taken), [name for name in ours if name not in taken]


def _free_space(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB"
    except OSError:
        return "unknown space"
