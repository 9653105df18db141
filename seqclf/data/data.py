"""The data of a task: its training, validation and test parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.data.clips import Clips
from seqclf.data.frames.source import one_shape
from seqclf.data.input_spec import DecisionRule, InputSpec, check_decision, describe_input, labels_last_frames
from seqclf.data.leaks import leaks
from seqclf.data.videos import Videos


@dataclass
class Data:
    """The data of a task.

    Attributes:
        train: the clips to train on, in memory or from videos.
        test: the clips to report metrics on. They never choose a checkpoint.
        classes: the names of the classes, in the order of their indices.
        source: a one-line description.
        validation: clips that choose the best checkpoint; None for none.
        warning: what a run or an evaluation prints as a warning, for example that built-in digits replace MNIST; None
            for nothing.
        details: further plain values for the run's record.
        background: the indices of the classes that have no segments. Segment metrics are computed if this is given;
            test clips must then be whole videos with a label per frame. None: no segment metrics.
        decision: how a clip is classified: by its "last" frame, or by the "mean" of the probabilities over its frames.
            None: "last" if only the last frames of training clips are labelled (``last_frame``, ``last_frames``), else
            "mean".
        held_out: which training clips became the validation part, for the run's record; set by ``hold_out``.
        allow_shared: whether a video or group may be in two parts, as in an evaluation on the training videos;
            ``warning`` then names it.
        name: the data set in errors, such as its folder; "" for the source.

    Raises:
        SeqclfError: a part is missing, a class is named twice, a label is out of range, no frame has a label,
            ``background`` does not fit the labels, or a video or group is in two parts.
    """

    train: Clips | Videos
    test: Clips | Videos
    classes: Sequence[str]
    source: str
    validation: Clips | Videos | None = None
    warning: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    background: Sequence[int] | None = None
    decision: DecisionRule | None = None
    held_out: dict[str, Any] | None = None
    allow_shared: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        self.source = str(self.source)
        self.name = self.name or self.source
        check_decision(self.decision)
        self._check_parts()
        self._check_classes()
        self._check_labels()
        self._check_background()
        same, near = leaks(self.parts())
        if same and not self.allow_shared:
            raise SeqclfError(f"{self.source}: {same[0]}")
        for note in [*(one.partition(": ")[0] for one in same), *near]:
            if note not in (self.warning or ""):
                self.warning = f"{self.warning}; {note}" if self.warning else note

    def _check_parts(self) -> None:
        for name, part in (("train", self.train), ("test", self.test), ("validation", self.validation)):
            if not isinstance(part, Clips | Videos) and not (part is None and name == "validation"):
                raise SeqclfError(f"{self.name}: {name}= is a {type(part).__name__}, expected Clips or Videos")

    def _check_classes(self) -> None:
        """Checks the class names, and makes them strings."""
        if not isinstance(self.classes, Iterable) or isinstance(self.classes, Set):
            raise SeqclfError(f"{self.name}: classes={self.classes!r}: expected a list with the name of each class")
        self.classes = [str(name) for name in self.classes]
        if not self.classes:
            raise SeqclfError(f"{self.name}: classes= is empty")
        for name in self.classes:
            if self.classes.count(name) > 1:
                raise SeqclfError(f"{self.name}: class {name!r} is named twice")
            if self.multi_label and "|" in name:
                raise SeqclfError(f"{self.name}: class {name!r} has a |, which separates classes in tables: rename it")

    def _check_labels(self) -> None:
        for name, clips in self.parts().items():
            notes = getattr(clips, "notes", [])
            note = f" ({name}: {', '.join(notes)})" if notes else ""
            self.source += note if note not in self.source else ""
            clips.check_labels(len(self.classes), f"{self.name}, {name} part")
            if clips.multi_label != self.multi_label:
                raise SeqclfError(f"{self.name}: multi_label differs between the train and the {name} part")
            if isinstance(self.train, Clips) and isinstance(clips, Clips):  # videos are not opened yet
                _check_scale(self.train, clips, name, self.name)

    def _check_background(self) -> None:
        if self.background is None:
            return
        if self.multi_label:
            raise SeqclfError(f"{self.name}: background= is for one class per frame, not for multi-label data")
        wrong = [k for k in self.background if k not in range(self.num_classes)]
        if wrong:
            raise SeqclfError(
                f"{self.name}: background={wrong[0]}: expected class indices, 0 to {self.num_classes - 1}"
            )
        for name, clips in self.parts().items():
            if name != "train" and not clips.per_frame:
                raise SeqclfError(
                    f"{self.name}: background= needs labels per frame, but the {name} part has one per clip"
                )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def multi_label(self) -> bool:
        """Whether a clip can have several classes at once."""
        return self.train.multi_label

    def parts(self) -> dict[str, Clips | Videos]:
        """The parts that exist, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: clips for name, clips in parts.items() if clips is not None}

    def to(self, device: torch.device | str) -> Data:
        """The same data on another device."""
        validation = None if self.validation is None else self.validation.to(device)
        return replace(self, train=self.train.to(device), test=self.test.to(device), validation=validation)

    def skipped(self) -> dict[str, str]:
        """The videos that could not be read: name -> reason."""
        return {name: why for clips in self.parts().values() for name, why in getattr(clips, "skipped", {}).items()}

    def decision_rule(self) -> DecisionRule:
        """The rule that classifies a clip: ``decision``, or the default for the labelling of the training part."""
        return self.decision or ("last" if labels_last_frames(self.train) else "mean")

    def input_spec(self) -> InputSpec:
        """How this data reads input, for the run's record.

        Raises:
            SeqclfError: no test clip can be read.
        """
        return describe_input(self.train, self.test, self.classes, self.background, self.decision_rule())

    def identity(self) -> dict[str, Any]:
        """What identifies the data, as plain values: source, sizes, shapes, classes and fingerprints.

        Raises:
            SeqclfError: the parts have frames of different shapes, or no frame can be read.
        """
        for name, clips in self.parts().items():
            if clips.frame_shape != self.train.frame_shape:
                raise SeqclfError(
                    f"{self.name}: train clips have frames of shape {self.train.frame_shape}, but {name} clips have "
                    f"{clips.frame_shape}: {one_shape(clips.frame_shape, isinstance(clips, Clips))}"
                )
            _check_scale(self.train, clips, name, self.name)
        return {
            "source": self.source,
            "warning": self.warning,
            "classes": list(self.classes),
            "background": None if self.background is None else [self.classes[k] for k in self.background],
            **{
                name: {
                    "clips": len(c),
                    "frames": c.num_frames,
                    "frame_shape": list(c.frame_shape),
                    "sha256": c.fingerprint(),
                }
                for name, c in self.parts().items()
            },
            **self.details,
        }


def _check_scale(train: Clips | Videos, clips: Clips | Videos, name: str, source: str) -> None:
    """Raises SeqclfError if one part holds bytes, which are scaled to 0 to 1, and the other floats, which are not."""
    kinds = [str(part.frame_dtype).removeprefix("torch.") for part in (train, clips)]
    if "uint8" in kinds and kinds[0] != kinds[1]:
        raise SeqclfError(
            f"{source}: the frames of the train part are {kinds[0]}, but those of the {name} part {kinds[1]}: "
            "convert both to float32, because uint8 is scaled to 0 to 1, and floats are not"
        )


def no_data(reason: str) -> Data:
    """The ``data`` function of a run without data, such as one converted from Caffe.

    Raises:
        SeqclfError: always, with the reason.
    """
    raise SeqclfError(reason)
