"""seqclf: classify sequences of frames, per clip or per frame.

The names of ``__all__`` are imported on first use, so that ``import seqclf`` is quick. Functions that come in families
live in namespaces: ``seqclf.labelling.last_frame``, ``seqclf.sampling.dense``, ``seqclf.transforms.resize``,
``seqclf.losses.cross_entropy``, ``seqclf.samplers.balanced``, ``seqclf.schedules.one_cycle``,
``seqclf.caffe.policies.step``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqclf import caffe, data, labelling, losses, samplers, sampling, schedules, transforms
    from seqclf.batch import IGNORE, Batch
    from seqclf.data import (
        Clips,
        Data,
        Video,
        Videos,
        annotated_set,
        feature_set,
        mnist,
        moving_digits,
        shard_set,
        video_set,
    )
    from seqclf.errors import SeqclfError
    from seqclf.experiment.config import Experiment
    from seqclf.experiment.loading import load_experiment
    from seqclf.exporting import export
    from seqclf.models import (
        GRU,
        LSTM,
        RNN,
        TCN,
        Attention,
        Backbone,
        Chain,
        Flatten,
        FrameSequenceClassifier,
        Identity,
        Normalize,
        Pool,
        TemporalChain,
        TimmEncoder,
        check_temporal,
        orthogonal,
        param_groups,
        timm_normalize,
    )
    from seqclf.prediction import (
        Prediction,
        Predictor,
        evaluate,
        fuse,
        load,
        predict,
        predict_part,
        report_videos,
        stream,
    )
    from seqclf.preparing import check_videos, prepare_features, prepare_frames, prepare_shards
    from seqclf.reporting.compare_runs import compare
    from seqclf.reporting.html import report
    from seqclf.training.cross_validation import cross_validate
    from seqclf.training.loop import train

__version__ = "0.2.0"

_MODULES = {
    "seqclf.batch": ("IGNORE", "Batch"),
    "seqclf.data": (
        "Clips",
        "Data",
        "Video",
        "Videos",
        "annotated_set",
        "feature_set",
        "mnist",
        "moving_digits",
        "shard_set",
        "video_set",
    ),
    "seqclf.errors": ("SeqclfError",),
    "seqclf.experiment.config": ("Experiment",),
    "seqclf.experiment.loading": ("load_experiment",),
    "seqclf.exporting": ("export",),
    "seqclf.models": (
        "GRU",
        "LSTM",
        "RNN",
        "Attention",
        "TCN",
        "Backbone",
        "Chain",
        "Flatten",
        "FrameSequenceClassifier",
        "Identity",
        "Normalize",
        "Pool",
        "TemporalChain",
        "TimmEncoder",
        "check_temporal",
        "orthogonal",
        "param_groups",
        "timm_normalize",
    ),
    "seqclf.prediction": (
        "Prediction",
        "Predictor",
        "evaluate",
        "fuse",
        "load",
        "predict",
        "predict_part",
        "report_videos",
        "stream",
    ),
    "seqclf.preparing": ("check_videos", "prepare_features", "prepare_frames", "prepare_shards"),
    "seqclf.reporting.compare_runs": ("compare",),
    "seqclf.reporting.html": ("report",),
    "seqclf.training.cross_validation": ("cross_validate",),
    "seqclf.training.loop": ("train",),
}
_NAMESPACES = ("caffe", "data", "labelling", "losses", "samplers", "sampling", "schedules", "transforms")
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "GRU",
    "IGNORE",
    "LSTM",
    "RNN",
    "TCN",
    "Attention",
    "Backbone",
    "Batch",
    "Chain",
    "Clips",
    "Data",
    "Experiment",
    "Flatten",
    "FrameSequenceClassifier",
    "Identity",
    "Normalize",
    "Pool",
    "Prediction",
    "Predictor",
    "SeqclfError",
    "TemporalChain",
    "TimmEncoder",
    "Video",
    "Videos",
    "annotated_set",
    "caffe",
    "check_temporal",
    "check_videos",
    "compare",
    "cross_validate",
    "data",
    "evaluate",
    "export",
    "feature_set",
    "fuse",
    "labelling",
    "load",
    "load_experiment",
    "losses",
    "mnist",
    "moving_digits",
    "orthogonal",
    "param_groups",
    "predict",
    "predict_part",
    "prepare_features",
    "prepare_frames",
    "prepare_shards",
    "report",
    "report_videos",
    "samplers",
    "sampling",
    "schedules",
    "shard_set",
    "stream",
    "timm_normalize",
    "train",
    "transforms",
    "video_set",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        value: Any = import_module(f"seqclf.{name}")
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'seqclf' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
