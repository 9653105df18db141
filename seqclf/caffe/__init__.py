"""Caffe's nets, weights, solvers and snapshots, of BVLC Caffe and of lisa-caffe (LRCN), in PyTorch and back."""

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.net import Net, load_net, read_net, save_net
from seqclf.caffe.solver import Solver, load_solver, read_solver

__all__ = ["CaffeFormatError", "Net", "Solver", "load_net", "load_solver", "read_net", "read_solver", "save_net"]
