"""Train a net from a solver's prototxt, with the log and the snapshots of ``caffe train``.

Ctrl-C finishes the iteration, takes a snapshot and stops with exit code 130 (see --sigint_effect). A second Ctrl-C
stops at once.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from seqclf import SeqclfError, caffe
from seqclf.cli.caffe.log import log, log_solver
from seqclf.cli.caffe.options import (
    add_gpu,
    add_python,
    add_state,
    apply_state,
    import_python_layers,
    make_command_parser,
    parse_gpus,
    use_device,
)
from seqclf.cli.caffe.signals import EFFECTS, signal_effects
from seqclf.cli.parser import spelling
from seqclf.runtime.allocator import keep_freed_memory
from seqclf.runtime.progress import Display


def main(args: list[str]) -> int:
    options = parse(args)
    keep_freed_memory()
    param = caffe.read_solver(options.solver, options.flavour)
    device = training_device(options.gpu, param)
    apply_options(options, param)
    display = Display(param.max_iter)
    display.console = Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)
    write = display.say if display.console.is_terminal else None
    python = import_python_layers(options.python)
    solver = caffe.Solver(param, options.solver, options.flavour, device, python, partial(log_solver, write=write))
    check_inputs(solver)
    if options.snapshot:
        log(f"Resuming from {options.snapshot}")
        solver.restore(options.snapshot)
    log("Starting Optimization", write=write)
    display.begin(solver.iter)
    with signal_effects(options.sigint_effect, options.sighup_effect) as (next_request, stopped):

        def after_update() -> str | None:
            display.text = f"loss {solver.loss:.4g}"
            display.step(solver.iter)
            return next_request()

        try:
            solver.solve(after_update)
        finally:
            display.close()
    if stopped:
        log_how_to_resume(solver, options.solver)
        return 128 + stopped[0]
    log("Optimization Done.")
    return 0


def parse(args: list[str]) -> Namespace:
    parser = make_command_parser("train", __doc__)
    parser.add_argument("--solver", required=True, metavar="FILE", help="prototxt of the solver")
    parser.add_argument("--weights", metavar="A,B", help=".caffemodel or .h5 files to start from, by layer names")
    parser.add_argument("--snapshot", metavar="FILE", help=".solverstate or .solverstate.h5 file to resume from")
    add_gpu(parser, default="the prototxt's solver_mode and device_id")
    add_state(parser)
    parser.add_argument("--phase", default="TRAIN", choices=("TRAIN",), help="accepted as in Caffe; must be TRAIN")
    for signal, default in (("sigint", "stop"), ("sighup", "snapshot")):
        help = f"what {signal.upper()} does (default: {default})"
        parser.add_argument(f"--{signal}_effect", default=default, choices=EFFECTS, help=help)
    add_python(parser)
    options = parser.parse_args(args)
    if options.weights and options.snapshot:
        raise SeqclfError("--weights and --snapshot: give a snapshot to resume or weights to start from, not both")
    return options


def training_device(text: str | None, param: Any) -> torch.device:
    """Returns the device of ``--gpu``, or else that of the prototxt, or the CPU if that has no GPU to use."""
    gpus = parse_gpus(text)
    if len(gpus) > 1:
        raise SeqclfError(
            f"--gpu {text}: training uses one GPU: give one number; iter_size: {len(gpus) * param.iter_size} in the "
            "solver gives the same batch size"
        )
    if not gpus and param.solver_mode == param.GPU:
        if torch.cuda.is_available():
            gpus = [param.device_id]
        else:
            log("warning: solver_mode is GPU, but PyTorch finds no CUDA device: training on the CPU")
    return use_device(gpus)


def apply_options(options: Namespace, param: Any) -> None:
    """Writes the options that replace fields of the solver into its message."""
    apply_state(options, param)
    if options.weights or options.snapshot:
        param.ClearField("weights")
    param.weights.extend([options.weights] if options.weights else [])


def check_inputs(solver: caffe.Solver) -> None:
    for net in (solver.net, *solver.test_nets):
        if net.inputs:
            raise SeqclfError(
                f"{net.file}: its inputs {', '.join(net.inputs)} come from no data layer: add one, or train in Python "
                "and set solver.feed (see seqclf.caffe.load_solver)"
            )


def log_how_to_resume(solver: caffe.Solver, file: str) -> None:
    suffix = ".h5" if solver.param.snapshot_format == 0 else ""
    state = f"{solver.prefix}_iter_{solver.iter}.solverstate{suffix}"
    if Path(state).exists():
        log(f"To resume: {' '.join(spelling('caffe'))} train --solver {file} --snapshot {state}")
