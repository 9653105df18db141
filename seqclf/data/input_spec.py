"""How a run reads input: recorded when training starts, and used by evaluation, prediction and export.

The record is derived from the data set itself (its sources, sampling, transform and labelling), not from the text of a
config. It is therefore the same for built-in data functions, partials, wrapped functions and closures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError, valid_frames
from seqclf.data.clips import Clips
from seqclf.data.frames.array_file import ArrayFile
from seqclf.data.frames.pictures import is_picture
from seqclf.data.frames.source import FEATURES, Source, is_video, without_suffix
from seqclf.data.frames.span import VideoSpan
from seqclf.data.multi_label import frame_labels
from seqclf.data.recipe import Recipe, from_recipe, opaque_parts, parts_of, to_recipe
from seqclf.data.sampling import Sampling, whole
from seqclf.data.transforms import Transform
from seqclf.data.videos import Videos

DecisionRule = Literal["last", "mean"]
"""How a clip is classified: by its "last" frame, or by the "mean" of the probabilities over its frames."""
LARGEST = 2
"""Above this value, float frames are not on the scale from 0 to 1, even if they are brighter or noisy."""
Reader = Callable[..., Source]
"""``reader(path)``: opens a file or folder as a source of frames."""


def check_decision(decision: str | None) -> None:
    """Raises SeqclfError unless a decision rule is "last", "mean" or None."""
    if decision is not None and decision not in get_args(DecisionRule):
        raise SeqclfError(f'decision={decision!r}: expected "last" or "mean"')


@dataclass(frozen=True)
class InputSpec:
    """How a run reads input.

    Attributes:
        frame_shape: the shape of one frame, as the model takes it.
        classes: the names of the classes, in the order of their indices.
        decision: how a clip is classified.
        dtype: the dtype of the frames, such as "uint8"; None if unknown.
        background: the classes that have no segments.
        labelling: which frames were labelled in training.
        readers: for each kind of file, the function that opens it: "folder" (of pictures), "video", "array" (``.npy``),
            "image" (one picture that is a whole clip).
        sampling: which frames of a file form the clips of an evaluation.
        transform: the transform of evaluation; None for none.
        flow: whether pictures are optical flow, whose first channel is negated in a mirror image.
        root: the folder that the names of the videos are relative to; None if there is no common one.
        multi_label: whether a clip can have several classes at once. Probabilities are then sigmoids, else a softmax.
    """

    frame_shape: tuple[int, ...]
    classes: tuple[str, ...]
    decision: DecisionRule
    dtype: str | None = None
    background: tuple[str, ...] = ()
    labelling: Recipe = None
    readers: Mapping[str, Recipe] = field(default_factory=dict)
    sampling: Recipe = None
    transform: Recipe = None
    flow: bool = False
    root: str | None = None
    multi_label: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``run.json`` holds them."""
        return {
            **asdict(self),
            **{name: list(getattr(self, name)) for name in ("frame_shape", "classes", "background")},
        }

    @staticmethod
    def from_record(record: Mapping[str, Any], name: str | Path) -> InputSpec:
        """Reads the spec from a run's record.

        Args:
            record: the content of ``run.json``.
            name: the run, for errors.

        Raises:
            SeqclfError: the record has no spec, because another version wrote it.
        """
        try:
            plain = dict(record["input"])
            for key in ("frame_shape", "classes", "background"):
                plain[key] = tuple(plain[key])
            return InputSpec(**plain)
        except (KeyError, TypeError) as error:
            raise SeqclfError(
                f"{name}: run.json does not record how the run reads input ({error}): it was written by another "
                "version of seqclf; train the run again"
            ) from None

    def build_sampling(self, sources: Path | None = None) -> Sampling:
        """The sampling of evaluation. Errors as in ``from_recipe``."""
        built: Sampling = whole if self.sampling is None else self._build("sampling", self.sampling, sources)
        return built

    def build_transform(self, sources: Path | None = None) -> Transform | None:
        """The transform of evaluation, or None. Errors as in ``from_recipe``."""
        built: Transform | None = self._build("transform", self.transform, sources)
        return built

    def build_reader(self, kind: str, sources: Path | None = None) -> Reader | None:
        """The reader of a kind of file; None if the run has read no such file. Errors as in ``from_recipe``."""
        built: Reader | None = self._build("reader", self.readers.get(kind), sources)
        return built

    def _build(self, name: str, recipe: Recipe, sources: Path | None) -> Any:
        opaque = opaque_parts(recipe)
        if opaque and name == "reader":
            raise SeqclfError(
                f"the run can't open files as training did: it recorded no importable reader ({opaque[0]}); give the "
                "source a method reader() (see seqclf.data.Source) in a module and train again, or pass experiment="
            )
        if opaque:
            raise SeqclfError(
                f"the run's {name} {opaque[0]} can't be loaded from disk: it has no importable name (a lambda, a "
                f"closure, an object, or a function of __main__); pass it as {name}=, pass experiment=, or define it "
                "in a module"
            )
        return from_recipe(recipe, sources)


def describe_input(
    train: Clips | Videos,
    test: Clips | Videos,
    classes: Sequence[str],
    background: Sequence[int] | None,
    decision: DecisionRule,
) -> InputSpec:
    """Describes how a data set reads input: readers, sampling and transforms of ``test``, and labelling of ``train``.

    The other arguments are those of ``Data``.
    """
    transforms = [to_recipe(getattr(part, "transform", None)) for part in (train, test)]
    return InputSpec(
        frame_shape=tuple(test.frame_shape),
        classes=tuple(map(str, classes)),
        decision=decision,
        dtype=_dtype(test),
        background=tuple(str(classes[k]) for k in background or ()),
        labelling=to_recipe(getattr(train, "labelling", None)),
        readers=_readers(test),
        sampling=to_recipe(getattr(test, "sampling", None)),
        transform=transforms[1],
        flow=any(part.get("keywords", {}).get("negate_x") is True for part in parts_of(transforms)),
        root=_root(test),
        multi_label=test.multi_label,
    )


def labels_last_frames(clips: Clips | Videos) -> bool:
    """Whether only frames at the end of clips are labelled: the last one, or the last few as ``last_frames`` labels."""
    T = max(clips.num_frames, 2)
    per_frame = clips.per_frame
    labels = clips.labelling(torch.zeros((1, T) if per_frame else 1, dtype=torch.int64), None, T)[0]
    at_the_end = bool(labels[0] == IGNORE and labels[-1] != IGNORE)
    if at_the_end or not per_frame:
        return at_the_end
    if isinstance(clips, Clips):
        return _only_last(clips.frame_labels(), clips.lengths)
    each = (torch.as_tensor(video.labels)[None] for video in clips.videos)
    return all(
        _only_last(frame_labels(clips.labelling, labels, None, labels.shape[1], clips.multi_label), None)
        for labels in each
    )


def _only_last(labels: Tensor, lengths: Tensor | None) -> bool:
    """Whether labels ``(B, T)`` or ``(B, T, K)`` are ``IGNORE`` before the last valid frame of each clip."""
    labelled = (labels != IGNORE).any(2) if labels.dim() == 3 else labels != IGNORE
    valid = valid_frames(lengths, labels.shape, labels.device)
    is_last = torch.arange(labels.shape[1], device=labels.device) == valid.sum(1, keepdim=True) - 1
    return not bool((labelled & valid & ~is_last).any())


def _dtype(clips: Clips | Videos) -> str | None:
    return str(clips.frame_dtype).removeprefix("torch.")


def _readers(clips: Clips | Videos) -> dict[str, Recipe]:
    """The recipe of the reader of each kind of file."""
    if isinstance(clips, Clips):
        array = partial(ArrayFile, frame_shape=tuple(clips.frame_shape), dtype=_dtype(clips))
        return {kind: to_recipe(reader) for kind, reader in {"array": array, **clips.readers}.items()}
    found: dict[str, Recipe] = {}
    for video in clips.videos:
        if video.name in clips.skipped:
            continue
        try:
            kind, recipe = kind_of(video.source), _reader(video.source)
        except SeqclfError:  # a file that can't be read, which evaluation reports
            continue
        if found.setdefault(kind, recipe) != recipe:
            found[kind] = {"opaque": f"{kind} files are read in several ways, such as {video.source.path}"}
    return found


def _reader(source: Source) -> Recipe:
    reader = getattr(source, "reader", None)
    if reader is None:
        return {"opaque": f"{type(source).__module__}.{type(source).__qualname__} has no method reader()"}
    return to_recipe(reader())


def kind_of(source: Source) -> str:
    """The kind of file of a source: its attribute ``kind``, or else by its path."""
    kind: str = getattr(source, "kind", None) or kind_of_path(source.path)
    return kind


def kind_of_path(path: str | Path) -> str:
    """The kind of a file, by its path: "folder", "array", "video" or "image"."""
    path = str(path)
    if os.path.isdir(path):
        return "folder"
    if path.lower().endswith(FEATURES):
        return "array"
    return "image" if is_picture(path) and not is_video(path) else "video"


def _root(clips: Clips | Videos) -> str | None:
    """The folder that the names of all videos are relative to; None if there is none."""
    if isinstance(clips, Clips):
        return None
    roots = set()
    for video in clips.videos:
        path, name = str(video.source.path), video.name
        if isinstance(video.source, VideoSpan):
            name = name.rpartition(", ")[0]  # without the span
        whole = path if path.endswith(name) else without_suffix(path)  # lists may leave out suffixes
        if not whole.endswith(name) or whole == name:
            return None
        roots.add(whole.removesuffix(name))
    root = roots.pop() if len(roots) == 1 else None
    return None if root is None or not os.path.isdir(root) else os.path.abspath(root)
