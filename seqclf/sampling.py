"""Which frames of a video make a clip."""

from seqclf.data.sampling import dense, uniform, whole, window

__all__ = ["dense", "uniform", "whole", "window"]
