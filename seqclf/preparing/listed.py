"""The videos of lists, read with the arguments of the data set that trains on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data import Data, annotated_set, video_set
from seqclf.data.lists.splits import Selection
from seqclf.data.lists.video_list import VideoList, read_list, read_paths
from seqclf.data.sets.video_sets import of_lists
from seqclf.runtime.paths import resolve_path

TRAINING = {
    *("root", "train", "test", "validation", "split", "segments", "workers", "labelling", "decision"),
    *("sampling", "test_sampling", "transform", "test_transform"),
}
"""Arguments of the data sets that do not affect how lists are read, or that are given separately."""


def reading_settings(segments: str | Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments for reading lists, with the defaults of ``annotated_set`` or ``video_set``.

    Args:
        segments: the table of segments; None for lists with a label per video.
        given: the arguments that differ from the defaults.

    Raises:
        SeqclfError: the data set has no such argument.
    """
    ours, other = _known(segments is not None), _known(segments is None)
    for name in given:
        if name not in ours:
            needs = "without" if segments is not None else "with"
            way = f"is for lists {needs} segments=" if name in other else f"expected one of {', '.join(sorted(ours))}"
            raise SeqclfError(f"{name}={given[name]!r}: {way}")
    return ours | dict(given)


def read_listed(
    path: str | Path,
    root: Path,
    how: Mapping[str, Any],
    only_paths: bool,
    first: VideoList | None = None,
    select: Selection | None = None,
) -> VideoList:
    """Reads a list and skips missing videos.

    Args:
        path: the list.
        root: the folder that its paths start from.
        how: what ``reading_settings`` returns.
        only_paths: whether the list has no labels, as with segments.
        first: the list for training, whose classes are those of all lists; None if this is the first.
        select: which rows to take; None for all.
    """
    place = resolve_path(path, root)
    if only_paths:
        return read_paths(place, root, "skip", columns=of_lists(how["columns"]), select=select)
    split = {} if how["split_column"] is None else {"split": how["split_column"]}
    return read_list(
        place,
        root,
        how["form"],
        None if first is None else first.classes,
        how["class_index"],
        "skip",
        numbers=None if first is None else first.numbers,
        first_label=how["first_label"],
        columns={**(how["columns"] or {}), **split},
        select=select,
        clips=how["unit"],
        separator=how["separator"] if how["multi_label"] else None,
        inclusive=how["inclusive"],
    )


def listed_data(
    root: str | Path,
    train: str | Path,
    test: str | Path,
    validation: str | Path | None,
    segments: str | Path | None,
    given: Mapping[str, Any],
) -> Data:
    """Builds the data set of lists: ``annotated_set`` with segments, else ``video_set``.

    Raises:
        SeqclfError: as in ``reading_settings`` and in the data set.
    """
    settings = reading_settings(segments, given)
    lists: dict[str, Any] = {"root": str(root), "train": str(train), "test": str(test)}
    lists["validation"] = None if validation is None else str(validation)
    if segments is None:
        return video_set(**lists, **settings)
    return annotated_set(**lists, segments=str(segments), **settings)


def _known(with_segments: bool) -> dict[str, Any]:
    data_set: Callable[..., Data] = annotated_set if with_segments else video_set
    return {name: p.default for name, p in signature(data_set).parameters.items() if name not in TRAINING}
