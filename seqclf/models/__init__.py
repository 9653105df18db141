"""Models: the classifier and its parts.

The modules, by what they are about:

- the whole model: ``classifier``, ``frame_step`` (one frame at a time), ``refinement`` (stages)
- before the temporal model: ``preprocess``; encoders: ``encoder``, ``backbone``, ``timm_encoder``, ``lrn``
- temporal models: ``recurrent``, ``attention``, ``tcn``, ``pool``, ``identity``, ``temporal_chain``
- what every temporal model must keep: ``contract``, ``laws``, ``check``
- training: ``groups`` (of parameters); ``trial`` runs learn the sizes that modules do not declare
- padding and resets: ``segments``, ``time_conv``
- the computation of recurrent layers: the sub-package ``kernels``
"""

from seqclf.models.attention import Attention
from seqclf.models.backbone import Backbone
from seqclf.models.check import check_temporal, check_user_temporal
from seqclf.models.classifier import FrameSequenceClassifier
from seqclf.models.contract import State, detached, require_streaming
from seqclf.models.encoder import Chain, ChannelScale, Flatten
from seqclf.models.groups import param_groups
from seqclf.models.identity import Identity
from seqclf.models.lrn import LocalResponseNorm
from seqclf.models.pool import Pool
from seqclf.models.preprocess import Normalize
from seqclf.models.recurrent import GRU, LSTM, RNN, orthogonal
from seqclf.models.tcn import TCN
from seqclf.models.temporal_chain import TemporalChain
from seqclf.models.timm_encoder import TimmEncoder, timm_normalize

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "TCN",
    "Attention",
    "Backbone",
    "Chain",
    "ChannelScale",
    "Flatten",
    "FrameSequenceClassifier",
    "Identity",
    "LocalResponseNorm",
    "Normalize",
    "Pool",
    "State",
    "TemporalChain",
    "TimmEncoder",
    "check_temporal",
    "check_user_temporal",
    "detached",
    "orthogonal",
    "param_groups",
    "require_streaming",
    "timm_normalize",
]
