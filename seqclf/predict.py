"""A trained run, ready for use: raw frames in, probabilities at every frame out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.checkpoint import load_checkpoint, load_newest, load_weights
from seqclf.config import Experiment, called, load_experiment
from seqclf.data import dense
from seqclf.data.frames_augment import Size, center_crop, mirror, ten_crops
from seqclf.data.frames_augment import resize as resized
from seqclf.data.source import Source
from seqclf.models import State
from seqclf.record import read_json
from seqclf.segmental import segments

Frames = Tensor | np.ndarray[Any, Any]
PIECE = 32
"""A whole video goes through the model so many frames at a time, its memory carried, so that any length fits."""


@dataclass
class Prediction:
    """What a model says of one clip.

    Attributes:
        probabilities: ``(T, K)`` float32 on the CPU, at every frame.
        classes: the K names.
    """

    probabilities: Tensor
    classes: Sequence[str]

    def label(self, rule: str = "last") -> tuple[str, float]:
        """The clip's class and its probability, by the "last" frame or by the "mean" over frames (LRCN's rule)."""
        return self.ranking(rule, 1)[0]

    def ranking(self, rule: str = "last", most: int = 5) -> list[tuple[str, float]]:
        """The clip's most probable classes and their probabilities, the best first; rules as of ``label``."""
        if rule not in ("last", "mean"):
            raise SeqclfError(f'a clip is labelled by "last" or "mean", not {rule!r}')
        p = self.probabilities[-1] if rule == "last" else self.probabilities.mean(0)
        order = p.argsort(descending=True, stable=True)[:most].tolist()
        return [(self.classes[k], float(p[k])) for k in order]

    def segments(self) -> list[tuple[str, int, int]]:
        """The runs of frames of one predicted class: (class, first frame, frame after the last)."""
        return [(self.classes[k], start, end) for k, start, end in segments(self.probabilities.argmax(1))]


class Predictor:
    """Classifies raw frames with a run's model, in evaluation mode.

    Args:
        model: a ``FrameSequenceClassifier``.
        classes: the names of its classes.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.model, self.classes, self.device = model.to(device).eval(), list(classes), torch.device(device)

    @property
    def frame_shape(self) -> tuple[int, ...] | None:
        """What the model takes: ``(C, H, W)`` or ``(D,)``; None where it does not say."""
        return getattr(self.model, "frame_shape", None)

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Prediction:
        """One clip: frames ``(T, *frame_shape)``, uint8 or float (from 0 to 1), of any T from 1.

        Raises:
            SeqclfError: the frames are of another shape than the model's.
        """
        logits, _ = self.model(_tensor(frames)[None].to(self.device))
        return Prediction(logits[0].float().softmax(-1).cpu(), self.classes)

    @torch.inference_mode()
    def windows(
        self,
        video: Frames | Source,
        frames: int | None = 16,
        stride: int | None = None,
        crops: int = 1,
        crop_size: Size | None = None,
        resize: Size | None = None,
        negate_x: bool = False,
        step: int = 1,
    ) -> Prediction:
        """A video window by window, each with a memory of its own, as LRCN's ``classify_video.py`` does it.

        Every window is seen in every crop; the prediction at a frame is the mean of the probabilities over the crops of
        the windows that cover it, and ``label("mean")`` the video's. (LRCN takes the mean over all windows' frames, so
        that a frame counts as often as it is covered; here each counts once.) Frames are read once, in order.

        Args:
            video: frames ``(T, *frame_shape)``, or a ``Source`` such as ``VideoFile("a.mp4")``.
            frames: of a window; a shorter video is one window. None: the whole video is one window, of any length.
            stride: from window to window, 1 to ``frames``; the last window ends at the last frame. None: half a window.
            crops, crop_size, resize, negate_x: as of ``fit``.
            step: from frame to frame inside a window; all frames get a prediction, by windows that start at each.

        Raises:
            SeqclfError: a frame can't be read or does not fit the model, or an argument is out of range.
        """
        source = _Held(_tensor(video)) if isinstance(video, Tensor | np.ndarray) else video
        if step < 1:
            raise SeqclfError(f"step={step}: expected at least 1")
        if len(source) < 1:
            raise SeqclfError(f"{source.path}: has no frames")
        p = torch.zeros(len(source), len(self.classes), dtype=torch.float64)
        times = torch.zeros(len(source), 1)
        for phase in range(min(step, len(source))):
            held: dict[int, Tensor] = {}  # frames (crops, *frame_shape) that windows to come need, too
            state: State = None
            for numbers, goes_on in _plan(len(range(phase, len(source), step)), frames, stride):
                numbers = [phase + n * step for n in numbers]
                held = {n: frame for n, frame in held.items() if n >= numbers[0]}
                new = [n for n in numbers if n not in held]
                clip = self.fit(source.read(new), crops, crop_size, resize, negate_x, source.path)
                held.update(zip(new, clip.unbind(1), strict=True))
                clip = torch.stack([held[n] for n in numbers], 1)
                logits, state = self.model(clip.to(self.device), state=state if goes_on else None)
                p[numbers] += logits.float().softmax(-1).mean(0).cpu()
                times[numbers] += 1
        return Prediction((p / times).float(), self.classes)

    def fit(
        self,
        clip: Frames,
        crops: int = 1,
        crop_size: Size | None = None,
        resize: Size | None = None,
        negate_x: bool = False,
        name: str = "the clip",
    ) -> Tensor:
        """Frames ``(T, ...)`` as the model takes them: ``(crops, T, *frame_shape)``.

        Args:
            crops: 1, the middle, or 10: corners and middle, and these mirrored (just the frames and their mirror
                images where there is nothing to crop; their mean is the same).
            crop_size: height and width, or both in one; None for the model's.
            resize: height and width to scale to before, or the shorter side.
            negate_x: frames are flow, whose first channel mirroring negates (see ``frames_augment.mirror``).
            name: of the clip, for errors.

        Raises:
            SeqclfError: the frames don't fit.
        """
        clip, shape = _tensor(clip), self.frame_shape
        if crops not in (1, 10):
            raise SeqclfError(
                f"crops={crops}: expected 1 (the middle) or 10 (the corners and the middle, and mirrored)"
            )
        pictures = clip.dim() == 4 and (shape is None or (len(shape) == 3 and clip.shape[1] == shape[0]))
        if not pictures:
            if shape is not None and clip.shape[1:] != shape:
                hint = ": channels come first" if len(shape) == 3 and shape[0] == clip.shape[-1] else ""
                raise SeqclfError(f"{name}: has frames {tuple(clip.shape[1:])}, but the model takes {shape}{hint}")
            if crops != 1 or crop_size is not None or resize is not None:
                raise SeqclfError(
                    f"{name}: has frames {tuple(clip.shape[1:])}, only pictures (C, H, W) are cropped or resized"
                )
            return clip[None]
        if resize is not None:
            clip = resized(clip, None, resize)
        H, W = clip.shape[2:]
        h, w = (H, W) if shape is None else shape[1:]
        if crop_size is not None:
            h, w = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        if h > H or w > W:
            raise SeqclfError(
                f"{name}: has frames of {H}x{W} (height x width), smaller than {h}x{w}: resize them (resize=, --resize)"
            )
        if crops == 1:
            return center_crop(clip, None, (h, w))[None]
        return torch.stack([clip, mirror(clip, negate_x)]) if (h, w) == (H, W) else ten_crops(clip, (h, w), negate_x)

    def stream(self) -> Stream:
        """A stream to feed frame by frame, its memory carried from one to the next."""
        return Stream(self)


class Stream:
    """One sequence, fed frame by frame; each frame costs the same, however long the stream."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.state: State = None

    @torch.inference_mode()
    def __call__(self, frame: Frames) -> Tensor:
        """Probabilities ``(K,)`` after one more frame ``(*frame_shape)``."""
        x = _tensor(frame)[None, None].to(self.predictor.device)
        logits, self.state = self.predictor.model(x, state=self.state)
        probabilities: Tensor = logits[0, 0].float().softmax(-1).cpu()
        return probabilities

    def reset(self) -> None:
        """The next frame begins a new sequence."""
        self.state = None


def fuse(predictions: Sequence[Prediction], weights: Sequence[float] | None = None) -> Prediction:
    """Late fusion: the weighted mean of what several models say of the same frames, such as LRCN's RGB and flow.

    Args:
        predictions: of the same frames and classes.
        weights: one for each, of which only the proportions matter, such as (1, 2); None: all the same.

    Raises:
        SeqclfError: there is nothing to fuse; frames, classes or the number of weights differ; a weight is negative or
            not finite, or all are 0.
    """
    if not predictions:
        raise SeqclfError("there is no prediction to fuse")
    first = predictions[0]
    for other in predictions[1:]:
        if list(other.classes) != list(first.classes):
            raise SeqclfError("predictions to fuse must be of the same classes in the same order")
        if other.probabilities.shape != first.probabilities.shape:
            sizes = " and ".join(str(len(p.probabilities)) for p in (first, other))
            raise SeqclfError(f"predictions to fuse must be of the same frames, not of {sizes} frames")
    share = shares(len(predictions), weights)
    p = sum(w * prediction.probabilities.double() for w, prediction in zip(share, predictions, strict=True))
    assert isinstance(p, Tensor)
    return Prediction(p.float(), first.classes)


def shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights of so many models as shares of 1; errors as of ``fuse``."""
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise SeqclfError(f"there are {count} models to fuse, but {len(weights)} weights")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
        raise SeqclfError(f"weights {', '.join(map(str, weights))}: expected numbers from 0, not all 0")
    return [w / sum(weights) for w in weights]


class _Held:
    """Frames in memory, as a ``Source``."""

    path = "the frames"

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return tuple(self.frames.shape[1:])

    def read(self, numbers: Sequence[int]) -> Tensor:
        return self.frames[list(numbers)]


def _tensor(frames: Frames) -> Tensor:
    if isinstance(frames, np.ndarray):  # a flipped one, such as BGR made RGB, or a read-only one, is copied
        frames = np.require(frames, requirements=["C", "W"])
    try:
        return torch.as_tensor(frames)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SeqclfError(f"frames must be an array or a tensor of numbers ({error})") from None


def _plan(length: int, frames: int | None, stride: int | None) -> Iterator[tuple[list[int], bool]]:
    """What goes through the model, in order: the numbers of its frames, and whether the memory goes on from before."""
    if frames is None:
        if stride is not None:
            raise SeqclfError(f"stride={stride}: a whole video has no windows (frames=None)")
        for start in range(0, length, PIECE):
            yield list(range(start, min(start + PIECE, length))), start > 0
        return
    stride = max(1, frames // 2) if stride is None else stride
    if not 1 <= stride <= max(1, frames):
        raise SeqclfError(f"stride={stride}: expected 1 to {frames}, the window's frames, so that no frame is left out")
    for window in dense(length, None, frames, stride):
        yield window, False


def is_run(folder: str | Path) -> bool:
    """Whether a path is meant as a run: a folder with ``config.py`` or ``run.json``."""
    return any(Path(folder, name).is_file() for name in ("config.py", "run.json"))


def load_run(
    run: str | Path, checkpoint: str = "newest", overrides: Sequence[str] = ()
) -> tuple[Experiment, nn.Module, dict[str, Any], Path]:
    """A run's experiment, its model with the weights of a checkpoint, its ``run.json``, and the checkpoint's path.

    Args:
        run: the run's folder.
        checkpoint: "newest", "best" (by the validation part), or the number of a step.
        overrides: ``key=value`` changes of the experiment, such as ``data.root=DIR``.

    Raises:
        SeqclfError: the folder is no run, or the checkpoint is not there, damaged, or another model's.
    """
    run = Path(run)
    for name in ("config.py", "run.json"):
        if not (run / name).is_file():
            raise SeqclfError(f"{run} is not a run folder (it has no {name if run.is_dir() else 'files'})")
    experiment = load_experiment(run / "config.py", overrides)
    record = read_json(run / "run.json")
    found = load_newest(run / "checkpoints")
    if found is None:
        raise SeqclfError(f"{run} has no checkpoint yet")
    path, content, _ = found
    if checkpoint == "best":
        if content["best"] is None:
            raise SeqclfError(f"{run} has no best checkpoint: it was run without validation (data.validation=)")
        checkpoint = str(content["best"]["step"])
    if checkpoint != "newest":
        path = run / "checkpoints" / f"step_{checkpoint}.pt"
        content = load_checkpoint(path)
    data = record["data"]
    shape, classes = tuple(data["train"]["frame_shape"]), len(data["classes"])
    model = called("model", experiment.model, frame_shape=shape, num_classes=classes)
    load_weights(model, content, path)
    return experiment, model.eval(), record, path


def load(run: str | Path, checkpoint: str = "newest", device: torch.device | str = "cpu") -> Predictor:
    """A run as a ``Predictor``: ``seqclf.load("runs/<run>")(frames)``. Arguments and errors as of ``load_run``."""
    _, model, record, _ = load_run(run, checkpoint)
    return Predictor(model, record["data"]["classes"], device)
