"""One sequence, fed frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor

from seqclf.models import State, require_streaming
from seqclf.prediction.batch import BatchPredictor
from seqclf.prediction.frames import Frames, to_tensor


class Stream:
    """One sequence, fed frame by frame; each frame costs the same, however long the stream.

    Raises:
        SeqclfError: the model does not declare that it can continue a sequence from its state.
    """

    def __init__(self, predictor: BatchPredictor) -> None:
        require_streaming(predictor.model, "a stream")
        self.predictor = predictor
        self.state: State = None

    @torch.inference_mode()
    def __call__(self, frame: Frames) -> Tensor:
        """Probabilities ``(K,)`` after one more frame ``(*frame_shape)``; errors as of the predictor's call."""
        clip = self.predictor.check(to_tensor(frame)[None], "the frame")
        logits, self.state = self.predictor.model(clip[None].to(self.predictor.device), state=self.state)
        probabilities: Tensor = logits[0, 0].float().softmax(-1).cpu()
        return probabilities

    def reset(self) -> None:
        """Starts a new sequence with the next frame."""
        self.state = None
