"""Data: clips with a label per frame, and where they come from."""

from seqclf.data.clips import Clips
from seqclf.data.data import Data, no_data
from seqclf.data.digit_videos import moving_digits
from seqclf.data.find import find_videos, open_video
from seqclf.data.labelling import every_frame, given, last_frame, last_frames
from seqclf.data.loader import batches
from seqclf.data.mnist_rows import mnist
from seqclf.data.order import mix, sample_order
from seqclf.data.sampling import whole, window
from seqclf.data.segmentation import feature_set
from seqclf.data.sets import annotated_set, video_set
from seqclf.data.shards import Shards, shard_set
from seqclf.data.source import Source, Video
from seqclf.data.transforms import Transform, shift
from seqclf.data.videos import Videos

__all__ = [
    "Clips",
    "Data",
    "Shards",
    "Source",
    "Transform",
    "Video",
    "Videos",
    "annotated_set",
    "batches",
    "every_frame",
    "feature_set",
    "find_videos",
    "given",
    "last_frame",
    "last_frames",
    "mix",
    "mnist",
    "moving_digits",
    "no_data",
    "open_video",
    "sample_order",
    "shard_set",
    "shift",
    "video_set",
    "whole",
    "window",
]
