"""Caffe nets, weights, solvers and snapshots in PyTorch, for BVLC Caffe and lisa-caffe (LRCN).

``load_net`` and ``load_solver`` read Caffe's files, ``save_net`` writes them. ``to_classifier``, ``from_classifier``
and ``write_run`` convert between nets and classifiers. ``policies`` contains the learning-rate policies.

Sub-packages, each of which imports only from those before it:

- ``formats``: Caffe's files; ``images``: images as Caffe and pycaffe read them
- ``layers``: one class per layer type; ``nets``: nets, from files and to files
- ``solvers``: training; ``conversion``: to classifiers and from them; ``description``: ``inspect``, ``draw``, ``time``

Modules: ``io`` (pycaffe's ``caffe.io``), ``policies`` (learning rates), ``error`` (for Caffe's files).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqclf.caffe import io, policies
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.nets.load import load_net, read_net
from seqclf.caffe.nets.net import Net
from seqclf.caffe.nets.save import save_net
from seqclf.caffe.nets.threads import suitable_threads
from seqclf.caffe.solvers.files import load_solver, read_solver
from seqclf.caffe.solvers.solver import Solver
from seqclf.caffe.solvers.update_rules import SGD, AdaDelta, AdaGrad, Adam, Nesterov, RMSProp

if TYPE_CHECKING:
    from seqclf.caffe.conversion.classifier_to_net import from_classifier
    from seqclf.caffe.conversion.net_to_classifier import to_classifier
    from seqclf.caffe.conversion.run import write_run

_LAZY = {"from_classifier": "classifier_to_net", "to_classifier": "net_to_classifier", "write_run": "run"}
"""Names of ``conversion`` and their modules, imported on first use: unlike ``caffe train``, they need all of seqclf."""

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
    "suitable_threads",
    "to_classifier",
    "write_run",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'seqclf.caffe' has no attribute {name!r}")
    value = getattr(import_module(f"seqclf.caffe.conversion.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
