"""A trained run, ready for use: raw frames in, probabilities at every frame out."""

from seqclf.predict.prediction import Prediction, fuse, shares
from seqclf.predict.predictor import Predictor, Stream
from seqclf.predict.run import is_run, load, load_run

__all__ = ["Prediction", "Predictor", "Stream", "fuse", "is_run", "load", "load_run", "shares"]
