"""Prepare videos for training: frames as pictures, features of frames, shards of many videos."""

from seqclf.preparing.features import prepare_features
from seqclf.preparing.frames import prepare_frames
from seqclf.preparing.jobs import Summary
from seqclf.preparing.shards import prepare_shards

__all__ = ["Summary", "prepare_features", "prepare_frames", "prepare_shards"]
