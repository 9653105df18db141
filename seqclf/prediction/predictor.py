"""A trained model, ready for use: raw frames in, probabilities at every frame out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data import open_video
from seqclf.data.frames.source import Source
from seqclf.data.sampling import dense, whole
from seqclf.data.transforms import Size, Transform
from seqclf.prediction.batch import BatchPredictor
from seqclf.prediction.clips import SourcePrediction, predict_source
from seqclf.prediction.fit import Fit
from seqclf.prediction.frame_stream import Stream
from seqclf.prediction.frames import Frames, FramesInMemory, to_tensor


class Predictor(BatchPredictor):
    """Classifies raw frames, videos and streams with a run's model; see ``BatchPredictor`` for its arguments."""

    def fit(self, frames: Frames, name: str = "the clip") -> Tensor:
        """Raw frames as the model takes them, changed as in the run's evaluation: ``(T, *frame_shape)``.

        Args:
            frames: ``(T, ...)``.
            name: of the clip, for errors.

        Raises:
            SeqclfError: the result does not have the model's shape.
        """
        transform = None if self.spec is None else self.spec.build_transform(self.sources)
        return Fit(transform)(to_tensor(frames), self.frame_shape, name)[0]

    def windows(
        self,
        video: Frames | Source | str | Path,
        frames: int | None = 16,
        stride: int | None = None,
        crops: int = 1,
        crop: bool = False,
        resize: Size | None = None,
        flow: bool = False,
        transform: Transform | None = None,
    ) -> SourcePrediction:
        """Classifies a video window by window, each with a state of its own, as LRCN's ``classify_video.py`` does.

        The prediction at a frame is the mean of the probabilities over the crops of the windows that cover it.
        ``label("mean")``, over the frames of all windows, is the video's. (The original counts the last window twice.)

        Args:
            video: frames ``(T, *frame_shape)``, a ``Source``, or the path of a video, a folder of frames or features.
            frames: of a window; a shorter video is one window. None: the whole video is one window, of any length.
            stride: from window to window, 1 to ``frames``; the last window ends at the last frame. None: half a window.
            crops, crop, resize, flow, transform: see ``Fit``.

        Raises:
            SeqclfError: a frame can't be read or does not fit the model, or an argument is out of range.
        """
        if isinstance(video, str | Path):
            video = open_video(video)
        elif isinstance(video, Tensor | np.ndarray | list | tuple):
            video = FramesInMemory(to_tensor(video))
        return predict_source(self, video, windows_of(frames, stride), Fit(transform, resize, crop, crops, flow))

    def stream(self) -> Stream:
        """A stream to feed frame by frame; its state is carried from one frame to the next.

        Raises:
            SeqclfError: the model does not declare that it can continue a sequence from its state.
        """
        return Stream(self)


def windows_of(frames: int | None, stride: int | None = None) -> partial[list[list[int]]]:
    """A sampling function for windows of ``frames`` frames, or for the whole video if it is None.

    Raises:
        SeqclfError: the stride would leave frames out, or is given without a window.
    """
    if frames is None:
        if stride is not None:
            raise SeqclfError(f"stride={stride}: a whole video has no windows (frames=None)")
        return partial(whole)
    if frames < 1:
        raise SeqclfError(f"frames={frames}: expected at least 1")
    stride = max(1, frames // 2) if stride is None else stride
    if not 1 <= stride <= frames:
        raise SeqclfError(f"stride={stride}: expected 1 to {frames}, the window's frames, so that no frame is left out")
    return partial(dense, frames=frames, stride=stride)
