"""A trained run, ready for use: raw frames or files in, probabilities at every frame out."""

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
