"""Prepares videos for training: checks them, extracts frames, computes features, packs shards.

- ``check`` of videos, with ``check_result`` and ``check_report``
- ``frames``, ``features`` (with ``encoders``) and ``shards``; ``extract`` writes frames and features
- shared: ``listed`` (videos of lists), ``places`` (of results), ``jobs`` (many videos in threads)
"""

from seqclf.preparing.check import check_videos
from seqclf.preparing.check_result import VideoCheck
from seqclf.preparing.features import prepare_features
from seqclf.preparing.frames import prepare_frames
from seqclf.preparing.jobs import Summary
from seqclf.preparing.shards import prepare_shards

__all__ = ["Summary", "VideoCheck", "check_videos", "prepare_features", "prepare_frames", "prepare_shards"]
