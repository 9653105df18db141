"""One sequence, fed frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor

from seqclf.evaluation.evaluator import autocast
from seqclf.evaluation.multi_label import probabilities_of
from seqclf.models import State, require_streaming
from seqclf.models.frame_step import Step, frame_step
from seqclf.prediction.batch import BatchPredictor
from seqclf.prediction.frames import Frames, to_tensor


class Stream:
    """One sequence, fed frame by frame; each frame costs the same, however long the stream.

    Do not change the model during a sequence.

    Raises:
        SeqclfError: the model does not declare that it can continue a sequence from its state.
    """

    def __init__(self, predictor: BatchPredictor) -> None:
        require_streaming(predictor.model, "a stream")
        self.predictor = predictor
        self.reset()

    @property
    def state(self) -> State:
        """The state of the model after the last frame. Set it to continue a sequence; None starts a new one."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        self._step: Step | None = None
        self._kind: tuple[torch.Size, torch.dtype] | None = None

    def __call__(self, frame: Frames) -> Tensor:
        """Probabilities ``(K,)`` after one more frame ``(*frame_shape)``; errors as in the predictor's call."""
        predictor, frame = self.predictor, to_tensor(frame)
        frames, kind = frame[None], (frame.shape, frame.dtype)
        known = kind == self._kind
        (predictor.check_values if known else predictor.check)(frames, "the frame")
        frames = frames.to(predictor.device)
        with torch.inference_mode(), autocast(predictor.device, predictor.precision):
            if known and self._step is not None:
                logits, self._state = self._step(frames, self._state)
            else:  # the model checks its first frame and the state
                (logits,), self._state = predictor.model(frames[None], state=self._state)
                self._step, self._kind = frame_step(predictor.model, frames), kind
            return probabilities_of(logits.float(), predictor.multi_label).cpu()[0]

    def reset(self) -> None:
        """Starts a new sequence with the next frame."""
        self.state = None
