"""Losses over the labelled frames of a batch."""

from seqclf.experiment.losses import cross_entropy, steady_cross_entropy

__all__ = ["cross_entropy", "steady_cross_entropy"]
