"""Classes, splits, labels and groups of feature sequences; see ``segmentation`` for the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.lists.class_index import read_class_index
from seqclf.data.tables.table import numbered_lines, read_table, read_text
from seqclf.runtime.text import some


def read_mapping(path: str | Path) -> list[str]:
    """Reads the class names, in the order of their indices, from lines of "index name" with indices from 0.

    Raises:
        SeqclfError: as in ``read_class_index``; or the lines have no indices, or do not begin with index 0.
    """
    found = read_class_index(path)
    if found.first != 0:
        raise SeqclfError(f'{path}: expected lines of "index name" with indices from 0, such as "0 background"')
    return found.names


def read_bundle(folder: Path, split: str) -> list[str]:
    """Reads the names of the videos in a split, without ".txt"."""
    path = folder / f"{split.removesuffix('.bundle')}.bundle"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.bundle"))) or "none"
        raise SeqclfError(f"{path}: no such file; available splits: {there}")
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path, comments=False):
        name = line.removesuffix(".txt").removesuffix(".npy")
        if name in seen:
            raise SeqclfError(f"{path}, line {number}: video {name} is already in line {seen[name]}")
        seen[name] = number
    return list(seen)


def read_groups(root: Path) -> dict[str, str]:
    """Reads the group of each video from ``groups.csv``; empty if there is no such file."""
    path = root / "groups.csv"
    if not path.is_file():
        return {}
    table = read_table(path)
    if table.header != ["video", "group"]:
        raise SeqclfError(f"{path}: expected the columns video, group, not {some(table.header, 12)}")
    return {record.cells[0]: record.cells[1] for record in table.records}


def truth_file(folder: Path, name: str) -> Path:
    """The file of a video's labels: ``<name>.npy`` if it exists, else ``<name>.txt``."""
    array = folder / f"{name}.npy"
    return array if array.is_file() else folder / f"{name}.txt"


def read_ground_truth(folder: Path, name: str, index: dict[str, int], mapping: Path, multi_label: bool) -> Tensor:
    """Reads the labels of a video from ``<name>.txt`` or ``<name>.npy``; see ``segmentation`` for their form."""
    path, text = truth_file(folder, name), folder / f"{name}.txt"
    if path == text and multi_label:
        raise SeqclfError(f"{text}: has a class per line, expected {name}.npy with labels (T, K) for multi_label=True")
    if path == text:
        return read_labels(text, index, mapping)
    if text.is_file():
        raise SeqclfError(f"{text}: {path.name} is beside it, expected one of them")
    try:
        values = torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise SeqclfError(f"{path}: not an .npy file of labels, or damaged ({error})") from None
    shapes = "(T, K) or (K,)" if multi_label else "(T,) or ()"
    if values.is_floating_point() or values.dim() not in (multi_label, multi_label + 1):
        raise SeqclfError(
            f"{path}: holds {values.dtype} {tuple(values.shape)}, expected labels {shapes} of integers "
            f"(multi_label={multi_label})"
        )
    return values.long()


def read_labels(path: Path, index: dict[str, int], mapping: str | Path) -> Tensor:
    """Reads the labels ``(T,)`` int64 of a file with one class name per line.

    Args:
        path: the file.
        index: the number of each class name.
        mapping: the file of the class names, for error messages.

    Raises:
        SeqclfError: the file is missing, or a class is not in the index; names the line.
    """
    lines = read_text(path).rstrip().split("\n")
    labels = [index.get(line.strip(), -1) for line in lines]
    if -1 in labels:
        number = labels.index(-1)
        name = lines[number].strip()
        wrong = f"class {name!r} is not in {mapping}" if name else "empty, expected a class name"
        raise SeqclfError(f"{path}, line {number + 1}: {wrong}")
    return torch.tensor(labels, dtype=torch.int64)
