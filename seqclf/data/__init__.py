"""Data: clips with a label per frame, and where they come from.

Sub-packages, each of which imports only from those before it:

- ``frames``: sources of frames: their interface, folders of pictures, arrays
- ``video``: video files; ``live``: cameras and network addresses
- ``tables``: text tables; ``lists``: lists of videos; ``annotations``: tables of segments
- ``sets``: functions that read data sets from disk; ``shards``: data sets in tar files
- ``digits``: built-in data: MNIST, and videos of moving digits

Modules, by what they are about:

- data sets: ``clips`` (in memory), ``videos`` (files); ``data`` holds the parts of a task; ``find`` opens videos
- which frames and labels: ``sampling``, ``labelling``, ``multi_label``, ``video_labels``, ``class_counts``
- order, parts and groups: ``order``, ``samplers``, ``held_out``, ``folds``, ``leaks``
- from frames to batches: ``reading``, ``transforms``, ``warp``, ``loader``, ``batch_memory``
- the record of a run: ``input_spec``, ``recipe``
"""

from seqclf.data.annotations.frame_labels import annotate
from seqclf.data.annotations.segments import read_segments
from seqclf.data.clips import Clips
from seqclf.data.data import Data, no_data
from seqclf.data.digits.mnist import ImageFile, mnist
from seqclf.data.digits.moving import make_moving_digits, moving_digits
from seqclf.data.find import find_videos, open_video
from seqclf.data.frames.array_file import ArrayFile
from seqclf.data.frames.feature_file import FeatureFile
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.source import Source, Video
from seqclf.data.frames.times import at_rate
from seqclf.data.labelling import every_frame, given, last_frame, last_frames
from seqclf.data.loader import batches
from seqclf.data.order import mix, sample_order
from seqclf.data.sampling import whole, window
from seqclf.data.sets.segmentation import feature_set
from seqclf.data.sets.video_sets import annotated_set, video_set
from seqclf.data.shards.data_set import Shards, shard_set
from seqclf.data.transforms import Transform, shift
from seqclf.data.video.file import VideoFile
from seqclf.data.videos import Videos

__all__ = [
    "ArrayFile",
    "Clips",
    "Data",
    "FeatureFile",
    "FrameFolder",
    "ImageFile",
    "Shards",
    "Source",
    "Transform",
    "Video",
    "VideoFile",
    "Videos",
    "annotate",
    "annotated_set",
    "at_rate",
    "batches",
    "every_frame",
    "feature_set",
    "find_videos",
    "given",
    "last_frame",
    "last_frames",
    "make_moving_digits",
    "mix",
    "mnist",
    "moving_digits",
    "no_data",
    "open_video",
    "read_segments",
    "sample_order",
    "shard_set",
    "shift",
    "video_set",
    "whole",
    "window",
]
