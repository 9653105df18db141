"""Models: the classifier and its parts."""

from seqclf.models.backbone import Backbone
from seqclf.models.classifier import FrameSequenceClassifier
from seqclf.models.contract import State, detached, require_streaming
from seqclf.models.encoder import Chain, ChannelScale, Flatten
from seqclf.models.groups import param_groups
from seqclf.models.lrn import LocalResponseNorm
from seqclf.models.preprocess import Normalize
from seqclf.models.temporal import GRU, LSTM, RNN, Identity, orthogonal

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Backbone",
    "Chain",
    "ChannelScale",
    "Flatten",
    "FrameSequenceClassifier",
    "Identity",
    "LocalResponseNorm",
    "Normalize",
    "State",
    "detached",
    "orthogonal",
    "param_groups",
    "require_streaming",
]
