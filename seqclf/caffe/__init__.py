"""Caffe's nets, weights, solvers and snapshots, of BVLC Caffe and of lisa-caffe (LRCN), in PyTorch and back."""

from seqclf.caffe import io
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.from_classifier import from_classifier
from seqclf.caffe.net import Net, load_net, read_net, save_net
from seqclf.caffe.optim import SGD, AdaDelta, AdaGrad, Adam, Nesterov, RMSProp
from seqclf.caffe.policies import exp, fixed, inv, multistep, poly, sigmoid, step
from seqclf.caffe.run import write_run
from seqclf.caffe.solver import Solver, load_solver, read_solver
from seqclf.caffe.to_classifier import to_classifier

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
    "exp",
    "fixed",
    "from_classifier",
    "inv",
    "io",
    "load_net",
    "load_solver",
    "multistep",
    "poly",
    "read_net",
    "read_solver",
    "save_net",
    "sigmoid",
    "step",
    "to_classifier",
    "write_run",
]
