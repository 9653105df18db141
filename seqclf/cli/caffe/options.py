"""Options that several commands share, and their values as Python objects."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from seqclf import SeqclfError
from seqclf.caffe.description.inspect import saved_phase
from seqclf.caffe.description.sketch import Sketch, sketch
from seqclf.cli.caffe.log import log
from seqclf.cli.parser import make_parser


def make_command_parser(command: str, doc: str | None) -> ArgumentParser:
    """Returns a parser with the option that all commands have."""
    parser = make_parser(f"caffe {command}", doc)
    parser.add_argument("--flavour", default="bvlc", choices=("bvlc", "lisa"), help="fork of Caffe (default: bvlc)")
    return parser


def add_state(parser: ArgumentParser) -> None:
    parser.add_argument("--level", type=int, default=0, metavar="N", help="level of the net's state (default: 0)")
    parser.add_argument("--stage", default="", metavar="A,B", help="stages of the net's state")


def add_phase(parser: ArgumentParser) -> None:
    help = "phase of the net (default: TEST; for a .caffemodel, the phase that it was saved in)"
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), help=help)


def add_gpu(parser: ArgumentParser, default: str = "use the CPU") -> None:
    parser.add_argument("--gpu", metavar="N", help=f"index of a CUDA device (default: {default})")


def add_iterations(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help=f"number of {what} (default: 50)")


def add_python(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="function that returns the batches of Python layers of class NAME; called as f(param_str=...)",
    )


def add_shape(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="BLOB=N,C,H,W",
        help="shape of a top of a data layer, which then needs no data",
    )


def apply_state(options: Namespace, solver: Any) -> None:
    """Writes the level and stages of the options into a ``SolverParameter``."""
    if options.level:
        solver.train_state.level = options.level
    if options.stage:
        solver.train_state.stage.extend(parse_stages(options.stage))


def parse_stages(text: str) -> list[str]:
    return [stage for stage in text.split(",") if stage]


def parse_gpus(text: str | None) -> list[int]:
    """Parses Caffe's ``--gpu``: indices separated by commas, or "all"."""
    if not text:
        return []
    if text == "all":
        return list(range(torch.cuda.device_count())) or [0]
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise SeqclfError(f"--gpu {text}: expected a number, or all")
    return [int(index) for index in text.split(",")]


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Parses ``--shape data=16,3,227,227``."""
    name, _, dims = text.rpartition("=")
    if not name or not re.fullmatch(r"(\d+(,\d+)*)?", dims):
        raise SeqclfError(f"--shape {text}: expected a blob and its dimensions, such as data=16,3,227,227")
    return name, tuple(int(n) for n in dims.split(",") if n)


def import_python_layers(options: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """Imports the functions of ``--python NAME=module:function``; the working directory is on the import path."""
    found = {}
    for text in options:
        match = re.fullmatch(r"(\w+)=([\w.]+):(\w+)", text)
        if match is None:
            raise SeqclfError(f"--python {text}: expected NAME=module:function")
        name, module, function = match.groups()
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            found[name] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise SeqclfError(f"--python {text}: {error}") from None
    return found


def check_iterations(options: Namespace) -> None:
    if options.iterations < 1:
        raise SeqclfError(f"--iterations {options.iterations}: expected 1 or more")


def use_device(gpus: Sequence[int]) -> torch.device:
    """Returns the first of these CUDA devices, or the CPU if there are none, and logs it as Caffe does."""
    if not gpus:
        log("Use CPU.")
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if gpus[0] >= count:
        found = f"{count} CUDA devices" if count else "no CUDA device"
        raise SeqclfError(f"GPU {gpus[0]}: PyTorch finds {found} on this machine")
    for index in gpus[1:]:
        log(f"Not using GPU #{index} for single-GPU function")
    log(f"Using GPU {gpus[0]}: {torch.cuda.get_device_name(gpus[0])}")
    return torch.device("cuda", gpus[0])


def phase_of(options: Namespace) -> str:
    """Returns the phase given by ``add_phase``'s option, or its default."""
    if options.phase:
        return str(options.phase)
    saved = Path(options.model).suffix == ".caffemodel"
    return saved_phase(options.model, options.flavour) if saved else "TEST"


def make_sketch(options: Namespace, message: Any, phase: str) -> Sketch:
    """Returns a net whose data need not exist, and prints which shapes are assumed."""
    net = sketch(
        message,
        options.model,
        phase,
        options.flavour,
        options.level,
        parse_stages(options.stage),
        dict(map(parse_shape, options.shape)),
        import_python_layers(options.python),
    )
    print_notes(net)
    return net


def print_notes(net: Sketch) -> None:
    for note in net.notes:
        print(f"note: {note}", file=sys.stderr)
