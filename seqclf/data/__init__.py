"""Data: clips with a label per frame, and where they come from.

The modules, by what they are about:

- data sets: ``clips`` (in memory), ``videos`` (files), ``shards`` (tar files); ``data`` holds the parts of a task
- functions that read them from disk: ``sets``, ``set_parts``, ``segmentation``, ``ground_truth``
- built-in data: ``mnist_rows``, ``mnist_files``, ``digits``, ``digit_videos``, ``digit_pictures``
- which frames and labels: ``sampling``, ``labelling``, ``multi_label``, ``video_labels``, ``class_counts``
- order, parts and groups: ``order``, ``samplers``, ``held_out``, ``folds``, ``leaks``
- transforms of frames: ``transforms``, ``warp``
- lists of videos: ``lists``, ``list_lines``, ``list_tables``, ``list_places``, ``splits``, ``classes``, ``class_index``
- tables of segments: ``segments``, ``segment_rows``, ``annotate`` (one video), ``annotated`` (all videos of lists)
- any table: ``tables``, ``json_tables``, ``columns``, ``label_cells``, ``spans`` (start and end)
- sources of frames: ``source`` (the interface), ``find``, ``frame_folder``, ``video_file``, ``feature_file``,
  ``array_file``, ``packed_frames``; ``frame_numbers`` and ``frame_times`` of their frames
- video files: ``video_container``, ``video_codec``, ``video_decoder``, ``video_pixels``; their index: ``video_index``,
  ``video_table``, ``video_scan``, ``video_references``, ``matroska``
- live video: ``live_input``, ``live_reader``, ``live_frames``, ``live_queue``
- from frames to batches: ``reading``, ``loader``, ``batch_memory``, ``arrays``, ``pictures``
- writing: ``extract`` (frames and features), ``shard_files``, ``shard_index``
- the record of a run: ``input_spec``, ``recipe``; ``paths`` resolves those in settings
"""

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
