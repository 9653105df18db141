"""A trained run, ready for use: raw frames in, probabilities at every frame out."""

from seqclf.prediction.prediction import Prediction, fuse, shares
from seqclf.prediction.predictor import Predictor, Stream
from seqclf.prediction.run import load, load_run

__all__ = ["Prediction", "Predictor", "Stream", "fuse", "load", "load_run", "shares"]
