"""seqclf: classify sequences of frames, per clip or per frame."""

from seqclf.batch import IGNORE, Batch, SeqclfError
from seqclf.config import Experiment
from seqclf.data import (
    Clips,
    Data,
    Video,
    Videos,
    dense,
    every_frame,
    given,
    last_frame,
    mnist,
    no_data,
    shift,
    uniform,
    whole,
    window,
)
from seqclf.models import (
    GRU,
    LSTM,
    RNN,
    Chain,
    Flatten,
    FrameSequenceClassifier,
    Identity,
    LocalResponseNorm,
    Normalize,
    orthogonal,
    param_groups,
)
from seqclf.objective import cross_entropy
from seqclf.predict import Prediction, Predictor, load
from seqclf.schedules import constant, one_cycle, warmup_cosine, warmup_linear

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "IGNORE",
    "LSTM",
    "RNN",
    "Batch",
    "Chain",
    "Clips",
    "Data",
    "Experiment",
    "Flatten",
    "FrameSequenceClassifier",
    "Identity",
    "LocalResponseNorm",
    "Normalize",
    "Prediction",
    "Predictor",
    "SeqclfError",
    "Video",
    "Videos",
    "constant",
    "cross_entropy",
    "dense",
    "every_frame",
    "given",
    "last_frame",
    "load",
    "mnist",
    "no_data",
    "one_cycle",
    "orthogonal",
    "param_groups",
    "shift",
    "uniform",
    "warmup_cosine",
    "warmup_linear",
    "whole",
    "window",
]
