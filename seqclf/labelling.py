"""Which frames of a clip carry its label."""

from seqclf.data.labelling import every_frame, given, last_frame, last_frames

__all__ = ["every_frame", "given", "last_frame", "last_frames"]
