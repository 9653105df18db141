"""A trained run, ready for use: raw frames or files in, probabilities at every frame out.

Sub-packages: ``files`` contains ``predict``; ``streams`` contains ``stream``, and imports from ``files``.

The modules, by what they are about:

- clips and frames in memory: ``predictor``, ``batch``, ``frame_stream``, ``frames``, ``fit``; result: ``prediction``
- a run: ``run`` (from its folder), ``run_input`` and ``reader`` (how it reads files), ``clips`` (the clips of a file)
- ``evaluate`` and ``report_videos`` of a part of the data: ``evaluate_run``, ``part``, ``report_videos``
"""

from seqclf.prediction.evaluate_run import evaluate, predict_part
from seqclf.prediction.files.predict import predict
from seqclf.prediction.frame_stream import Stream
from seqclf.prediction.prediction import Prediction, fuse
from seqclf.prediction.predictor import Predictor
from seqclf.prediction.report_videos import report_videos
from seqclf.prediction.run import load, load_run
from seqclf.prediction.streams.classified import StreamedFrame, StreamedFrames
from seqclf.prediction.streams.stream import stream

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
