"""Models: the classifier and its parts."""

from seqclf.models.classifier import FrameSequenceClassifier
from seqclf.models.encoder import Flatten
from seqclf.models.preprocess import Normalize
from seqclf.models.temporal import GRU, LSTM, RNN, Identity, State, orthogonal

__all__ = ["GRU", "LSTM", "RNN", "Flatten", "FrameSequenceClassifier", "Identity", "Normalize", "State", "orthogonal"]
