"""Losses over the labelled frames of a batch."""

from seqclf.experiment.binary_loss import binary_cross_entropy
from seqclf.experiment.build_loss import balanced_weights
from seqclf.experiment.losses import cross_entropy, focal_loss, steady_cross_entropy

__all__ = ["balanced_weights", "binary_cross_entropy", "cross_entropy", "focal_loss", "steady_cross_entropy"]
