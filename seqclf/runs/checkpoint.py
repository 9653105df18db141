"""Checkpoints: tensors and plain values, written atomically and durably, and checked before they are believed."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError

FORMAT = 1
"""The layout of a checkpoint's content; raised when an older program could misread it."""


def save_checkpoint(content: dict[str, Any], folder: Path, step: int, keep: int, best: int | None = None) -> Path:
    """Writes ``step_<n>.pt``, then deletes the older ones beyond the newest ``keep``, but not the best.

    The file is complete and on the disk before it gets its name, and nothing older is deleted before that.

    Args:
        content: tensors and plain values; ``format`` and ``step`` are added.
        best: the step of the checkpoint to keep whatever its age.

    Raises:
        SeqclfError: the file can't be written (a full disk, say); what was there before is untouched.
    """
    path = folder / f"step_{step}.pt"
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            torch.save({"format": FORMAT, "step": step, **content}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
        part.unlink(missing_ok=True)
        kept = [p.name for p in list_checkpoints(folder)]
        raise SeqclfError(
            f"{path}: could not be written ({error}; {_free(folder)} free on the disk); "
            f"earlier checkpoints are untouched: {', '.join(kept) or 'none'}"
        ) from None
    for old in list_checkpoints(folder)[keep:]:
        if step_of(old) != best:
            old.unlink()
    for stray in folder.glob("step_*.part"):  # of a run that was killed while it wrote
        stray.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, every byte of it checked against its CRC, on the CPU.

    Raises:
        SeqclfError: the file is missing, damaged, or not a checkpoint of this program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise SeqclfError(f"checkpoint {path} is damaged (its part {broken} fails its checksum)")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SeqclfError(f"checkpoint {path}: no such file") from None
    except SeqclfError:
        raise
    except Exception as error:  # whatever reading a damaged file runs into
        raise SeqclfError(f"checkpoint {path} is damaged ({type(error).__name__}: {error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SeqclfError(f"checkpoint {path} is not one that this seqclf reads (format {FORMAT})")
    return content


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest (highest step) first."""
    found = [p for p in folder.glob("step_*.pt") if re.fullmatch(r"step_\d+\.pt", p.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(path.stem.removeprefix("step_"))


def load_newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """The newest checkpoint that is whole: its path, its content, and a sentence for each damaged one passed over.

    Returns None where there is no checkpoint at all.

    Raises:
        SeqclfError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return path, load_checkpoint(path), damaged
        except SeqclfError as error:
            damaged.append(str(error))
    if damaged:
        raise SeqclfError("no checkpoint is whole: " + "; ".join(damaged))
    return None


def load_weights(model: torch.nn.Module, content: dict[str, Any], name: str | Path) -> None:
    """Puts a checkpoint's weights into a model.

    Raises:
        SeqclfError: they are another model's; the first weight that does not fit is named.
    """
    ours, theirs = model.state_dict(), content["model"]
    for key in [*ours, *theirs]:
        mine, other = ours.get(key), theirs.get(key)
        if mine is None or other is None or mine.shape != other.shape:
            have, want = (None if x is None else tuple(x.shape) for x in (other, mine))
            raise SeqclfError(f"{name} is of another model: {key} is {have or 'absent'} there, {want or 'absent'} here")
    model.load_state_dict(theirs)


def start_from(model: torch.nn.Module, path: str | Path) -> tuple[list[str], list[str]]:
    """Puts into a model those weights of another run that have a name and shape in common with its own.

    Args:
        path: a run's folder (its newest whole checkpoint) or a checkpoint.

    Returns:
        the names of the weights that were taken, and of the model's others, which stay as they are.

    Raises:
        SeqclfError: there is no checkpoint there, it is damaged, or no weight fits.
    """
    path = Path(path)
    if path.is_dir():
        found = load_newest(path / "checkpoints")
        if found is None:
            raise SeqclfError(f"{path} holds no checkpoint to start from")
        path, content, _ = found
    else:
        content = load_checkpoint(path)
    ours, theirs = model.state_dict(), content["model"]
    taken = {name: theirs[name] for name in ours if name in theirs and theirs[name].shape == ours[name].shape}
    if not taken:
        raise SeqclfError(f"{path} has no weight of a name and shape that this model has")
    model.load_state_dict(taken, strict=False)
    return list(taken), [name for name in ours if name not in taken]


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB"
    except OSError:
        return "unknown space"


def _sync_folder(folder: Path) -> None:
    """Makes a rename in a folder durable, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
