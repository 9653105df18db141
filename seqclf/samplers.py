"""Which clips a training step takes."""

from seqclf.data.samplers import balanced, shuffled, weighted

__all__ = ["balanced", "shuffled", "weighted"]
