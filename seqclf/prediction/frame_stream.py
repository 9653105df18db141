"""One sequence, fed frame by frame."""

from __future__ import annotations

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

    def __call__(self, frame: Frames) -> Tensor:
        """Probabilities ``(K,)`` after one more frame ``(*frame_shape)``; errors as in the predictor's call."""
        clip = self.predictor.check(to_tensor(frame)[None], "the frame")
        probabilities, self.state = self.predictor.run(clip[None], self.state)
        return probabilities[0, 0]

    def reset(self) -> None:
        """Starts a new sequence with the next frame."""
        self.state = None
