"""A trained run, ready for use: raw frames or files in, probabilities at every frame out.

The modules, by what they are about:

- a run: ``run`` (from its folder), ``run_input`` and ``reader`` (how it reads files), ``fused_runs`` (several runs)
- one clip or frame in memory: ``batch``, ``predictor``, ``frame_stream``, ``frames``, ``fit``; result: ``prediction``
- one file: ``clips`` (its clips), ``file_frames`` (its frames before sampling), ``truth`` (its true labels)
- ``predict`` of files: ``predict_files``, ``output``, ``page`` (HTML)
- ``evaluate`` and ``report_videos`` of a part of the data: ``evaluate_run``, ``part``, ``report_videos``
- ``stream``: ``streaming``, ``streamed`` (the loop), ``stream_frames`` (its input), ``stream_output``,
  ``stream_summary``
"""

from seqclf.prediction.evaluate_run import evaluate, predict_part
from seqclf.prediction.frame_stream import Stream
from seqclf.prediction.predict_files import predict
from seqclf.prediction.prediction import Prediction, fuse
from seqclf.prediction.predictor import Predictor
from seqclf.prediction.report_videos import report_videos
from seqclf.prediction.run import load, load_run
from seqclf.prediction.streamed import StreamedFrame, StreamedFrames
from seqclf.prediction.streaming import stream

__all__ = [
    "Prediction",
    "Predictor",
    "Stream",
    "StreamedFrame",
    "StreamedFrames",
    "evaluate",
    "fuse",
    "load",
    "load_run",
    "predict",
    "predict_part",
    "report_videos",
    "stream",
]
