"""Clips of raw frames through a model, several in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from warnings import warn

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data.input_spec import LARGEST, DecisionRule, InputSpec
from seqclf.evaluation.evaluator import autocast
from seqclf.evaluation.multi_label import Threshold, as_thresholds, probabilities_of
from seqclf.models import State
from seqclf.prediction.frames import Frames, to_tensor, wrong_shape
from seqclf.prediction.prediction import Prediction


class BatchPredictor:
    """Classifies clips of raw frames with a model, in evaluation mode.

    Args:
        model: a ``FrameSequenceClassifier``.
        classes: the class names.
        device: the device to run on.
        decision: how a clip is classified: by its "last" frame, or by the "mean" of the probabilities over its frames.
        spec: how the run reads input; None for a model without a run.
        sources: the folder of the user's modules that the spec refers to.
        precision: the precision of evaluation, "fp32", "bf16" or "fp16".
        multi_label: whether a clip can have several classes at once, so that probabilities are sigmoids, not a softmax.
            None: as the spec says; False without one.
        threshold: with ``multi_label``, the lowest probability of a class that is predicted: a number, or one for each
            class. None for 0.5.

    Raises:
        SeqclfError: the threshold is out of range, or given without ``multi_label``.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        device: torch.device | str = "cpu",
        decision: DecisionRule = "last",
        spec: InputSpec | None = None,
        sources: Path | None = None,
        precision: str = "fp32",
        multi_label: bool | None = None,
        threshold: Threshold | None = None,
    ) -> None:
        self.model, self.classes, self.device = model.to(device).eval(), list(classes), torch.device(device)
        self.decision, self.spec, self.sources, self.precision = decision, spec, sources, precision
        self.multi_label = (spec is not None and spec.multi_label) if multi_label is None else multi_label
        if threshold is not None and not self.multi_label:
            raise SeqclfError(f"threshold={threshold}: is for multi-label models, but this one has one class per clip")
        self.threshold = 0.5 if threshold is None else threshold
        as_thresholds(self.threshold, len(self.classes))  # raises

    @property
    def frame_shape(self) -> tuple[int, ...] | None:
        """The shape of one frame, ``(C, H, W)`` or ``(D,)``; None if the model does not declare it."""
        return getattr(self.model, "frame_shape", None)

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Prediction:
        """Classifies one clip.

        Pictures are RGB with channels first. For an OpenCV ``frame`` (BGR, channels last), use
        ``frame[..., ::-1].transpose(2, 0, 1)``.

        Args:
            frames: ``(T, *frame_shape)``; T is 1 or more. A model that was trained on uint8 frames takes uint8, or
                floats from 0 to 1. A model that was trained on floats takes floats on the same scale.

        Raises:
            SeqclfError: the frames do not have the shape of the model's input, are not numbers, or are not finite.
        """
        return self.batch([frames])[0]

    @torch.inference_mode()
    def batch(self, clips: Sequence[Frames], names: Sequence[str] | None = None) -> list[Prediction]:
        """Classifies several clips in one call of the model; shorter clips are padded.

        Args:
            clips: the frames of each clip, as in a call.
            names: the names of the clips, for errors.
        """
        clips = list(clips)
        tensors = [
            self.check(clip, "the clip" if len(clips) == 1 else f"clip {k}" if names is None else names[k])
            for k, clip in enumerate(clips)
        ]
        if not tensors:
            return []
        lengths = torch.tensor([len(clip) for clip in tensors])
        padded = nn.utils.rnn.pad_sequence(tensors, batch_first=True)
        full = int(lengths.min()) == padded.shape[1]
        p, _ = self.run(padded, lengths=None if full else lengths.to(self.device))
        return [self.prediction(row[:length]) for row, length in zip(p, lengths.tolist(), strict=True)]

    def prediction(self, probabilities: Tensor) -> Prediction:
        """Probabilities ``(T, K)`` as the prediction of a sequence."""
        return Prediction(
            probabilities, self.classes, self.decision, multi_label=self.multi_label, threshold=self.threshold
        )

    @torch.inference_mode()
    def run(self, clips: Tensor, state: State = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Computes probabilities ``(B, T, K)``, on the CPU, and the final state of clips.

        Args:
            clips: checked frames ``(B, T, *frame_shape)``, padded to one length.
            state: the state returned by an earlier call, to continue its sequences.
            lengths: ``(B,)``, the valid frames of each clip; None for all.
        """
        with autocast(self.device, self.precision):
            logits, state = self.model(clips.to(self.device), state=state, lengths=lengths)
        return probabilities_of(logits.float(), self.multi_label).cpu(), state

    def check(self, frames: Frames, name: str = "the clip") -> Tensor:
        """Converts and checks frames ``(T, *frame_shape)``. Errors as in a call."""
        clip, shape = to_tensor(frames), self.frame_shape
        if shape is not None and tuple(clip.shape[1:]) != shape:
            raise wrong_shape(tuple(clip.shape[1:]), shape, name)
        if not len(clip):
            raise SeqclfError(f"{name}: has no frames")
        if self.spec is not None and self.spec.dtype == "float32" and not clip.is_floating_point():
            raise SeqclfError(f"{name}: holds integers, but the model was trained on float32: convert them to float32")
        self.check_values(clip, name)
        return clip

    def check_values(self, clip: Tensor, name: str) -> None:
        """Checks the values of float frames ``(T, ...)``: raises if one is not finite, and warns of another scale."""
        if not clip.is_floating_point():
            return
        if not math.isfinite(clip.sum().item()) and not clip.isfinite().all():  # the sum is the quick check
            raise SeqclfError(f"{name}: holds values that are not finite (NaN or infinite)")
        from_0_to_1 = clip.dim() == 4 if self.spec is None else self.spec.dtype == "uint8"
        largest = clip.amax()
        if from_0_to_1 and largest > 1 and (largest > LARGEST or (clip == clip.round()).all()):
            warn(f"{name}: expected floats from 0 to 1, or uint8, but they are up to {largest:g}", stacklevel=4)
