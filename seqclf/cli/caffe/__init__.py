"""Train, test, time, inspect, draw and convert Caffe nets.

examples:
  seqclf caffe train --solver solver.prototxt [--weights a.caffemodel,b.caffemodel | --snapshot x.solverstate]
  seqclf caffe test --model train_val.prototxt --weights w.caffemodel --iterations 100
  seqclf caffe time --model deploy.prototxt --iterations 10
  seqclf caffe inspect FILE [--weights w.caffemodel]         FILE: the prototxt of a net or solver, or a .caffemodel
  seqclf caffe draw net.prototxt net.svg                     or .png, .pdf, .dot
  seqclf caffe convert --model deploy.prototxt --weights w.caffemodel --workdir runs/new [--classes FILE]
  seqclf caffe convert runs/run out.prototxt out.caffemodel

The options of train, test and time are those of Caffe's own program, with one dash or two. Every command has --help.
Use --flavour lisa for nets and files of lisa-caffe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module

from seqclf.cli.parser import make_parser

COMMANDS = ("train", "test", "time", "inspect", "draw", "convert")
"""Each is a module of this package with a function ``main(args) -> exit code``."""
GLOG_FLAGS = ("--logtostderr", "--alsologtostderr")
"""Options of Caffe's program that request what always happens here."""


def main(words: Sequence[str]) -> int:
    args = [re.sub(r"^-(?=[a-z_]{2})", "--", word) for word in words]  # -solver as --solver
    args = [arg for arg in args if arg.partition("=")[0] not in GLOG_FLAGS]
    command = next((arg for arg in args if arg in COMMANDS), None)
    if command is None or "--help" in args[: args.index(command)]:
        parser = make_parser("caffe", __doc__)
        parser.add_argument("command", choices=COMMANDS)
        parser.parse_args(args)  # prints the help or the error and exits
        return 2
    args.remove(command)
    exit_code: int = import_module(f"seqclf.cli.caffe.{command}").main(args)
    return exit_code
