"""Caffe nets, weights, solvers and snapshots in PyTorch, for BVLC Caffe and lisa-caffe (LRCN).

``load_net`` and ``load_solver`` read Caffe's files, ``save_net`` writes them. ``to_classifier``, ``from_classifier``
and ``write_run`` convert between nets and classifiers. ``policies`` contains the learning-rate policies.

The modules, by what they are about:

- nets: ``net``, ``layers`` (one class per layer type), ``graph``, ``sharing``, ``fillers``, ``threads``
- files of nets: ``load``, ``save``; ``text`` and ``binary`` (protobuf), ``hdf5``, ``schema``, ``upgrade``,
  ``upgrade_v0``, ``files``; ``weights``, ``weight_check``; ``error``
- training: ``solver``, ``solver_files``, ``solver_nets``, ``snapshot``, ``optim``, ``optimizer``, ``policies``
- pycaffe's ``io``: ``images``, ``interpolation``, ``decode``, ``mean``, ``transformer``, ``arrays``;
  ``transform`` of data layers
- conversion to and from classifiers: ``lrcn``, ``net_to_classifier``, ``layers_to_modules``, ``classifier_to_net``,
  ``modules_to_layers``, ``run``
- descriptions of nets: ``sketch``, ``inspect``, ``draw``, ``timing``, ``layers_table``
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqclf.caffe import io, policies
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.load import load_net, read_net
from seqclf.caffe.net import Net
from seqclf.caffe.optim import SGD, AdaDelta, AdaGrad, Adam, Nesterov, RMSProp
from seqclf.caffe.save import save_net
from seqclf.caffe.solver import Solver
from seqclf.caffe.solver_files import load_solver, read_solver

if TYPE_CHECKING:
    from seqclf.caffe.classifier_to_net import from_classifier
    from seqclf.caffe.net_to_classifier import to_classifier
    from seqclf.caffe.run import write_run

_LAZY = {"from_classifier": "classifier_to_net", "to_classifier": "net_to_classifier", "write_run": "run"}
"""The modules of names that are imported on first use, because they need all of seqclf, unlike ``caffe train``."""

__all__ = [
    "SGD",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "CaffeFormatError",
    "Nesterov",
    "Net",
    "RMSProp",
    "Solver",
    "from_classifier",
    "io",
    "load_net",
    "load_solver",
    "policies",
    "read_net",
    "read_solver",
    "save_net",
    "to_classifier",
    "write_run",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'seqclf.caffe' has no attribute {name!r}")
    value = getattr(import_module(f"seqclf.caffe.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
