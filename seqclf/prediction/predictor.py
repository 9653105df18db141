"""A trained model, ready for use: raw frames in, probabilities at every frame out; clips, videos and streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import dense, open_video
from seqclf.data.source import Source
from seqclf.data.transforms import Size, Transform, center_crop, mirror, ten_crops
from seqclf.data.transforms import resize as resized
from seqclf.models import State
from seqclf.prediction.prediction import Prediction

Frames = Tensor | np.ndarray[Any, Any] | list[Any] | tuple[Any, ...]
"""Raw frames as an array, a tensor, or a list of such: uint8, or float from 0 to 1; channels come first, as RGB."""
PIECE = 32
"""A whole video goes through the model so many frames at a time, its memory carried, so that any length fits."""


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

        Pictures are RGB with the channels first. OpenCV's are BGR with the channels last: of such a ``frame``,
        ``frame[..., ::-1].transpose(2, 0, 1)`` is what is meant here.

        Raises:
            SeqclfError: the frames are of another shape than the model's, no numbers of this kind, or not finite.
        """
        logits, _ = self.model(self.clip(frames)[None].to(self.device))
        return Prediction(logits[0].float().softmax(-1).cpu(), self.classes)

    def clip(self, frames: Frames, name: str = "the clip") -> Tensor:
        """Frames as a tensor ``(T, *frame_shape)``; errors as of a call."""
        clip, shape = _tensor(frames), self.frame_shape
        if shape is not None and tuple(clip.shape[1:]) != shape:
            raise _misfit(tuple(clip.shape[1:]), shape, name)
        if not len(clip):
            raise SeqclfError(f"{name}: has no frames")
        if clip.is_floating_point():
            if not clip.sum().isfinite() and not clip.isfinite().all():  # the sum is the quick look
                raise SeqclfError(f"{name}: holds values that are not finite (NaN or infinite)")
            if clip.dim() == 4 and clip.amax() > 1 and (clip == clip.round()).all():
                warn(f"{name}: floats are taken to run from 0 to 1, but these look like uint8", stacklevel=3)
        return clip

    @torch.inference_mode()
    def windows(
        self,
        video: Frames | Source | str | Path,
        frames: int | None = 16,
        stride: int | None = None,
        crops: int = 1,
        crop_size: Size | None = None,
        resize: Size | None = None,
        negate_x: bool = False,
        step: int = 1,
        transform: Transform | None = None,
    ) -> Prediction:
        """A video window by window, each with a memory of its own, as LRCN's ``classify_video.py`` does it.

        Every window is seen in every crop; the prediction at a frame is the mean of the probabilities over the crops of
        the windows that cover it, and ``label("mean")``, over the frames of all windows, is the video's. (The original
        counts the last window twice.) Frames are read once, in order.

        Args:
            video: frames ``(T, *frame_shape)``, a ``Source``, or the path of a video, a folder of frames or features.
            frames: of a window; a shorter video is one window. None: the whole video is one window, of any length.
            stride: from window to window, 1 to ``frames``; the last window ends at the last frame. None: half a window.
            crops, crop_size, resize, negate_x: as of ``fit``.
            step: from frame to frame inside a window; all frames get a prediction, by windows that start at each.
            transform: what is done to frames first, as in evaluation (``transform(clip, None)``).

        Raises:
            SeqclfError: a frame can't be read or does not fit the model, or an argument is out of range.
        """
        if isinstance(video, str | Path):
            video = open_video(video)
        source = _Held(_tensor(video)) if isinstance(video, Tensor | np.ndarray | list | tuple) else video
        if step < 1:
            raise SeqclfError(f"step={step}: expected at least 1")
        if len(source) < 1:
            raise SeqclfError(f"{source.path}: has no frames")
        p = torch.zeros(len(source), len(self.classes), dtype=torch.float64)
        seen = torch.zeros(len(source))
        for phase in range(min(step, len(source))):
            held: dict[int, Tensor] = {}  # frames (crops, *frame_shape) that windows to come need, too
            state: State = None
            for numbers, goes_on in _plan(len(range(phase, len(source), step)), frames, stride):
                numbers = [phase + n * step for n in numbers]
                held = {n: frame for n, frame in held.items() if n >= numbers[0]}
                new = [n for n in numbers if n not in held]
                raw = source.read(new)
                raw = raw if transform is None else transform(raw, None)
                clip = self.fit(raw, crops, crop_size, resize, negate_x, source.path)
                held.update(zip(new, clip.unbind(1), strict=True))
                clip = torch.stack([held[n] for n in numbers], 1)
                logits, state = self.model(clip.to(self.device), state=state if goes_on else None)
                p[numbers] += logits.float().softmax(-1).mean(0).cpu()
                seen[numbers] += 1
        return Prediction((p / seen[:, None]).float(), self.classes, seen)

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
            negate_x: frames are flow, whose first channel mirroring negates (see ``transforms.mirror``).
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
            if shape is not None and tuple(clip.shape[1:]) != shape:
                raise _misfit(tuple(clip.shape[1:]), shape, name)
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
        """Probabilities ``(K,)`` after one more frame ``(*frame_shape)``; errors as of the predictor's call."""
        clip = self.predictor.clip(_tensor(frame)[None], "the frame")
        logits, self.state = self.predictor.model(clip[None].to(self.predictor.device), state=self.state)
        probabilities: Tensor = logits[0, 0].float().softmax(-1).cpu()
        return probabilities

    def reset(self) -> None:
        """The next frame begins a new sequence."""
        self.state = None


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
    """Frames as a tensor of uint8, other whole numbers from 0 to 255, or floats."""
    if isinstance(frames, list | tuple):
        if not frames:
            raise SeqclfError("there are no frames: the list is empty")
        frames = [_tensor(frame) for frame in frames]
        if len({frame.shape for frame in frames}) > 1:
            raise SeqclfError("the frames of a list are of different shapes: resize or crop them to one")
        return torch.stack(frames)
    if isinstance(frames, np.ndarray):  # a flipped one, such as BGR made RGB, or a read-only one, is copied
        frames = np.require(frames, requirements=["C", "W"])
    try:
        tensor = torch.as_tensor(frames)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SeqclfError(f"frames must be an array or a tensor of numbers ({error})") from None
    if tensor.is_floating_point() or tensor.dtype == torch.uint8:
        return tensor
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise SeqclfError(f"frames are uint8 or float, not {str(tensor.dtype).removeprefix('torch.')}")
    wide = tensor.long()  # PyTorch does not compare all kinds of whole numbers
    if wide.numel() and not 0 <= int(wide.min()) <= int(wide.max()) <= 255:
        raise SeqclfError(
            f"frames of whole numbers run from 0 to 255, these from {int(wide.min())} to {int(wide.max())}"
        )
    return wide.to(torch.uint8)


def _misfit(given: tuple[int, ...], shape: tuple[int, ...], name: str) -> SeqclfError:
    """What is wrong with frames of the shape ``given``, and what to do about it."""
    hint = ""
    if len(shape) == 3 and len(given) == 3 and given[2] == shape[0]:
        hint = (
            ": channels come first, frames.transpose(0, 3, 1, 2) (as RGB: OpenCV's are BGR, frames[..., ::-1] before)"
        )
    elif len(shape) == 3 and len(given) == 3 and given[0] == shape[0]:
        hint = ": resize or crop them, as predictor.fit does"
    elif len(given) == len(shape) - 1:
        hint = ": a clip is (T, ...), one frame is frame[None]"
    elif len(given) == len(shape) + 1:
        hint = ": one clip is given at a time, and to a stream one frame"
    return SeqclfError(f"{name}: has frames {given}, but the model takes {shape}{hint}")


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
