"""Runs Caffe's solvers and nets as the ``caffe`` program does, looks into them, and converts them.

seqclf caffe train --solver solver.prototxt [--weights a.caffemodel,b.caffemodel | --snapshot x.solverstate]
seqclf caffe test --model train_val.prototxt --weights w.caffemodel --iterations 100
seqclf caffe time --model deploy.prototxt --iterations 10
seqclf caffe inspect FILE [--weights w.caffemodel]      FILE: a net, a solver or a .caffemodel
seqclf caffe draw net.prototxt net.svg                  or net.png
seqclf caffe convert --model deploy.prototxt --weights w.caffemodel --workdir runs/<new> [--classes FILE]
seqclf caffe convert runs/<run> out.prototxt out.caffemodel

Options are Caffe's own, with one dash or two; every command has --help, and --flavour lisa for nets of lisa-caffe.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any

import torch

from seqclf import SeqclfError, caffe
from seqclf.cli.parser import make_parser, spelling

# ---- Caffe's log


def log(line: str, place: str = "caffe.cpp:251", say: Callable[[str], None] | None = None) -> None:
    """A line as glog writes it, to stderr, which is what programs that read Caffe's logs look for."""
    line = f"I{datetime.now():%m%d %H:%M:%S.%f} {os.getpid():5} {place}] {line}"
    if say is None:
        print(line, file=sys.stderr, flush=True)
    else:
        say(line)


def log_solver(line: str, say: Callable[[str], None] | None = None) -> None:
    """A line of the solver's."""
    log(line, "sgd_solver.cpp:106" if "lr = " in line or "solver st" in line else "solver.cpp:228", say)


# ---- options that commands share


def gpus(text: str | None) -> list[int]:
    """Caffe's ``--gpu``: numbers with commas between, or "all"."""
    if not text:
        return []
    if text == "all":
        return list(range(torch.cuda.device_count())) or [0]
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise SeqclfError(f"--gpu {text}: expected a number, or all")
    return [int(number) for number in text.split(",")]


def use_device(numbers: Sequence[int]) -> torch.device:
    """The first of these GPUs, or the CPU, told as Caffe tells it."""
    if not numbers:
        log("Use CPU.")
        return torch.device("cpu")
    there = torch.cuda.device_count()
    if numbers[0] >= there:
        raise SeqclfError(
            f"GPU {numbers[0]}: PyTorch finds {f'{there} CUDA devices' if there else 'no CUDA device'} here"
        )
    for number in numbers[1:]:
        log(f"Not using GPU #{number} for single-GPU function")
    log(f"Using GPU {numbers[0]}: {torch.cuda.get_device_name(numbers[0])}")
    return torch.device("cuda", numbers[0])


def stages(text: str) -> list[str]:
    return [stage for stage in text.split(",") if stage]


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``--shape data=16,3,227,227``."""
    name, _, dims = text.rpartition("=")
    if not name or not re.fullmatch(r"(\d+(,\d+)*)?", dims):
        raise SeqclfError(f"--shape {text}: expected a blob and its dimensions, such as data=16,3,227,227")
    return name, tuple(int(n) for n in dims.split(",") if n)


def python_layers(given: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """``--python videoRead=module:function``, from the Python path and the working directory."""
    found = {}
    for text in given:
        match = re.fullmatch(r"(\w+)=([\w.]+):(\w+)", text)
        if match is None:
            raise SeqclfError(
                f"--python {text}: expected a layer's class and what gives its batches: NAME=module:function"
            )
        name, module, function = match.groups()
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            found[name] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise SeqclfError(f"--python {text}: {error}") from None
    return found


def parser_of(command: str) -> ArgumentParser:
    parser = make_parser(f"caffe {command}", cleandoc(COMMANDS[command].__doc__ or ""))
    parser.add_argument("--flavour", default="bvlc", choices=("bvlc", "lisa"), help="whose Caffe (default: bvlc)")
    return parser


def add_state(parser: ArgumentParser) -> None:
    parser.add_argument("--level", type=int, default=0, metavar="N", help="the level that include rules ask for")
    parser.add_argument("--stage", default="", metavar="A,B", help="the stages that include rules ask for")


def set_state(param: Any, options: Namespace) -> None:
    """The level and stages of the options, in a solver."""
    if options.level:
        param.train_state.level = options.level
    if options.stage:
        param.train_state.stage.extend(stages(options.stage))


def add_gpu(parser: ArgumentParser) -> None:
    parser.add_argument("--gpu", metavar="N", help="the number of a CUDA device (default: the CPU)")


def add_python(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="what stands in for Python layers of this class: called as f(param_str=...), it gives batches",
    )


def add_shape(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="BLOB=N,C,H,W",
        help="the shape of a blob that comes from data, instead of what the data are (needs no data then)",
    )


def console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200, highlight=False, emoji=False, markup=False)


# ---- train


def train(args: list[str]) -> int:
    """Trains as ``caffe train`` does: a solver's prototxt as it stands, logged, snapshot and resumed as Caffe would.

    Ctrl-C finishes the iteration, takes a snapshot and stops (--sigint_effect), with exit code 130; a second one stops
    at once.
    """
    parser = parser_of("train")
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver's prototxt")
    parser.add_argument("--weights", metavar="A,B", help=".caffemodel or .h5 files to start from, by layer names")
    parser.add_argument("--snapshot", metavar="FILE", help="a .solverstate (or .solverstate.h5) to go on from")
    parser.add_argument(
        "--gpu", metavar="N", help="a CUDA device's number (default: the prototxt's solver_mode and device_id)"
    )
    add_state(parser)
    parser.add_argument("--phase", default="TRAIN", choices=("TRAIN",), help="TRAIN, as it is in training")
    effects = ("stop", "snapshot", "none")
    parser.add_argument("--sigint_effect", default="stop", choices=effects, help="of Ctrl-C (default: stop)")
    parser.add_argument("--sighup_effect", default="snapshot", choices=effects, help="of SIGHUP (default: snapshot)")
    add_python(parser)
    options = parser.parse_args(args)
    if options.weights and options.snapshot:
        raise SeqclfError("give a snapshot to resume training or weights to finetune but not both")

    from rich.console import Console

    from seqclf.runtime.allocator import keep_freed_memory
    from seqclf.runtime.progress import Display

    keep_freed_memory()
    param = caffe.read_solver(options.solver, options.flavour)
    device = training_device(options.gpu, param)
    set_state(param, options)
    if options.weights or options.snapshot:
        param.ClearField("weights")
    param.weights.extend([options.weights] if options.weights else [])

    display = Display(param.max_iter)
    display.console = Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)
    say = display.say if display.console.is_terminal else None
    python = python_layers(options.python)
    solver = caffe.Solver(param, options.solver, options.flavour, device, python, partial(log_solver, say=say))
    for net in (solver.net, *solver.test_nets):
        if net.inputs:
            raise SeqclfError(
                f"{net.file}: its inputs {', '.join(net.inputs)} come from no data layer, so there is nothing to train "
                "on here: give it one, or set solver.feed in Python (see seqclf.caffe.load_solver)"
            )
    if options.snapshot:
        log(f"Resuming from {options.snapshot}")
        solver.restore(options.snapshot)
    log("Starting Optimization", say=say)
    display.begin(solver.iter)
    with signals(options.sigint_effect, options.sighup_effect) as (request, stopped):

        def after() -> str | None:
            display.text = f"loss {solver.loss:.4g}"
            display.step(solver.iter)
            return request()

        try:
            solver.solve(after)
        finally:
            display.close()
    if stopped:
        again = f"{solver.prefix}_iter_{solver.iter}.solverstate" + (".h5" if param.snapshot_format == 0 else "")
        if Path(again).exists():
            log(f"To resume: {' '.join(spelling('caffe'))} train --solver {options.solver} --snapshot {again}")
        return 128 + stopped[0]
    log("Optimization Done.")
    return 0


def training_device(text: str | None, param: Any) -> torch.device:
    """As ``--gpu`` says, or else as the prototxt does; its GPU is no must, for it is what Caffe takes by default."""
    numbers = gpus(text)
    if len(numbers) > 1:
        raise SeqclfError(
            f"--gpu {text}: training uses one GPU: give one number, and in the solver iter_size: "
            f"{len(numbers) * param.iter_size} for as large a batch as Caffe's"
        )
    if not numbers and param.solver_mode == param.GPU:
        if not torch.cuda.is_available():
            log("*** NO GPU: solver_mode is GPU, but PyTorch finds no CUDA device here. Training on the CPU. ***")
        else:
            numbers = [param.device_id]
    return use_device(numbers)


@contextmanager
def signals(interrupt: str, hangup: str) -> Iterator[tuple[Callable[[], str | None], list[int]]]:
    """While inside, SIGINT and SIGHUP are noted: what to do after an update, and the signal that is to stop it all."""
    requests: list[str] = []
    stopped: list[int] = []
    effects = {int(signal.SIGINT): interrupt}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        effects[int(signal.SIGHUP)] = hangup
    before: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        if effects[signum] == "stop":
            stopped.append(signum)
            signal.signal(signum, before[signum])  # a second one acts as usual
        elif effects[signum] == "snapshot":
            requests.append("snapshot")

    def request() -> str | None:
        return "stop" if stopped else requests.pop() if requests else None

    try:
        for signum in effects:
            before[signum] = signal.signal(signum, note)
        yield request, stopped
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


# ---- test, time


def test(args: list[str]) -> int:
    """Scores a net on its own test data, as ``caffe test`` does: every output of every batch, and their means."""
    parser = parser_of("test")
    parser.add_argument("--model", required=True, metavar="FILE", help="the net's prototxt")
    parser.add_argument("--weights", required=True, metavar="A,B", help=".caffemodel or .h5 files")
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="how many batches (default: 50)")
    add_gpu(parser)
    add_state(parser)
    add_python(parser)
    options = parser.parse_args(args)
    if options.iterations < 1:
        raise SeqclfError(f"--iterations {options.iterations}: expected 1 or more")
    device = use_device(gpus(options.gpu))
    net = caffe.load_net(
        options.model,
        flavour=options.flavour,
        level=options.level,
        stages=stages(options.stage),
        python=python_layers(options.python),
    )
    if net.inputs:
        raise SeqclfError(
            f"{options.model}: its inputs {', '.join(net.inputs)} come from no data layer: there is nothing to test on"
        )
    for path in options.weights.split(","):
        missing, unread = net.load_weights(path, strict=False)
        for name in unread:
            log(f"Ignoring source layer {name}", "net.cpp:757")
        for name in missing:
            log(f"No weights for layer {name}: drawn by its fillers", "net.cpp:757")
    net.to(device)
    log(f"Running for {options.iterations} iterations.")
    sums: dict[str, torch.Tensor] = {}
    loss = 0.0
    for i in range(options.iterations):
        with torch.no_grad():
            blobs = net.compute({}, keep={*net.outputs, *net.loss_weights})
        loss += float(net.loss(blobs))
        for name in net.outputs:
            for value in blobs[name].flatten().tolist():
                log(f"Batch {i}, {name} = {value:.6g}")
            sums[name] = sums[name] + blobs[name] if name in sums else blobs[name].clone()
    log(f"Loss: {loss / options.iterations:.6g}")
    for name, total in sums.items():
        for value in (total / options.iterations).flatten().tolist():
            weight = net.loss_weights.get(name, 0)
            log(f"{name} = {value:.6g}" + (f" (* {weight:g} = {weight * value:.6g} loss)" if weight else ""))
    return 0


def time(args: list[str]) -> int:
    """Times a net layer by layer, forward and backward, as ``caffe time`` does. Data that are not there are random."""
    parser = parser_of("time")
    parser.add_argument("--model", required=True, metavar="FILE", help="the net's prototxt")
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="how many passes (default: 50)")
    add_gpu(parser)
    add_state(parser)
    parser.add_argument("--phase", default="TRAIN", choices=("TRAIN", "TEST"), help="default: TRAIN")
    add_shape(parser)
    add_python(parser)
    options = parser.parse_args(args)
    if options.iterations < 1:
        raise SeqclfError(f"--iterations {options.iterations}: expected 1 or more")

    from seqclf.caffe.net import read_net_structure
    from seqclf.caffe.timing import measure
    from seqclf.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    device = use_device(gpus(options.gpu))
    net = sketch(options, read_net_structure(options.model, options.flavour), options.phase)
    net.fill()
    times = measure(net.to(device), options.iterations, log)
    log("Average time per layer: ")
    for name, forward, backward in times.layers:
        log(f"{name:>10}\tforward: {forward:.6g} ms.")
        log(f"{name:>10}\tbackward: {backward:.6g} ms.")
    log(f"Average Forward pass: {times.forward:.6g} ms.")
    log(f"Average Backward pass: {times.backward:.6g} ms.")
    log(f"Average Forward-Backward: {times.total / options.iterations:.6g} ms.")
    log(f"Total Time: {times.total:.6g} ms.")
    return 0


def sketch(options: Namespace, message: Any, phase: str) -> Any:
    """The net of the options, whose data need not be there; what is made up is told."""
    from seqclf.caffe import inspect

    net = inspect.sketch(
        message,
        options.model,
        phase,
        options.flavour,
        options.level,
        stages(options.stage),
        dict(map(shape, options.shape)),
        python_layers(options.python),
    )
    for note in net.notes:
        print(f"note: {note}", file=sys.stderr)
    return net


# ---- inspect, draw


def add_phase(parser: ArgumentParser) -> None:
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), help="default: TEST; of a .caffemodel, its own")


def phase_of(options: Namespace) -> str:
    from seqclf.caffe.inspect import saved_phase

    saved = Path(options.model).suffix == ".caffemodel"
    return options.phase or (saved_phase(options.model, options.flavour) if saved else "TEST")


def inspect(args: list[str]) -> int:
    """Tells a net's layers, shapes, parameters, memory and operations, without making it or its data.

    With --weights also what a .caffemodel lacks for it, has too much or in other shapes; then the exit code is 2.
    """
    parser = parser_of("inspect")
    parser.add_argument("model", metavar="FILE", help="the prototxt of a net or a solver, or a .caffemodel")
    parser.add_argument("--weights", metavar="FILE", help="a .caffemodel or .h5 file to be compared with the net")
    add_state(parser)
    add_phase(parser)
    add_shape(parser)
    add_python(parser)
    options = parser.parse_args(args)

    from seqclf.caffe.inspect import is_solver

    return inspect_solver(options) if is_solver(options.model, options.flavour) else inspect_net(options)


def inspect_solver(options: Namespace) -> int:
    from seqclf.caffe.inspect import SolverSketch, figures, misfits, rates, settings

    param = caffe.read_solver(options.model, options.flavour)
    set_state(param, options)
    out = console()
    out.print(f"{options.model}: a solver")
    for line in settings(param):
        out.print(f"  {line}")
    told = ", ".join(f"{rate:.6g} at {iteration:,}" for iteration, rate in rates(param))
    out.print(f"  rate: {told}")
    solver = SolverSketch(
        param, options.model, options.flavour, dict(map(shape, options.shape)), python_layers(options.python)
    )
    wrong = misfits(solver.net, options.weights) if options.weights else []
    nets = [("train net", solver.net), *((f"test net #{i}", net) for i, net in enumerate(solver.test_nets))]
    for title, net in nets:
        for note in net.notes:
            print(f"note: {note}", file=sys.stderr)
        out.print()
        print_figures(out, f"{title}: {net.file}", figures(net))
    return print_misfits(out, options.weights, wrong)


def inspect_net(options: Namespace) -> int:
    from seqclf.caffe.inspect import figures, figures_of_weights, misfits
    from seqclf.caffe.net import read_net_structure

    message = read_net_structure(options.model, options.flavour)
    saved = Path(options.model).suffix == ".caffemodel"
    phase = phase_of(options)
    out = console()
    try:
        with torch.device("meta"):
            net = sketch(options, message, phase)
    except SeqclfError as error:
        if not saved or options.weights:
            raise
        layers = figures_of_weights(options.model, read_net_structure(options.model, options.flavour), options.flavour)
        print_figures(out, options.model, layers)
        print(f"note: the blobs' shapes are not known: {error}", file=sys.stderr)
        return 0
    print_figures(out, f"{options.model}, phase {phase}", figures(net))
    wrong = misfits(net, options.weights) if options.weights else []
    return print_misfits(out, options.weights, wrong)


def print_figures(out: Any, title: str, layers: Sequence[Any]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_footer=True)
    memory, values, operations = (sum(getattr(x, name) for x in layers) for name in ("memory", "values", "operations"))
    known = any(x.shapes for x in layers)
    table.add_column("layer", f"{len(layers)} layers", overflow="fold")
    table.add_column("type")
    table.add_column("blobs", overflow="fold")
    table.add_column("shapes of tops", overflow="fold")
    table.add_column("memory", size(memory) if known else "", justify="right")
    table.add_column("parameters", size(4 * values), overflow="fold")
    table.add_column("values", f"{values:,}", justify="right")
    table.add_column("operations", count(operations) if known else "", justify="right")
    for x in layers:
        table.add_row(
            x.name,
            x.type,
            " → ".join(", ".join(names) for names in (x.bottoms, x.tops) if names),
            "\n".join(map(by, x.shapes)),
            size(x.memory) if x.memory else "",
            "\n".join(map(by, x.blobs)),
            f"{x.values:,}" if x.values else "",
            count(x.operations) if x.operations else "",
        )
    out.print(table)


def print_misfits(out: Any, path: str | None, wrong: Sequence[str]) -> int:
    if path is None:
        return 0
    for line in wrong:
        out.print(f"{path}: {line}")
    if wrong:
        raise SeqclfError(f"{path} does not fit: {len(wrong)} differences, told above")
    out.print(f"{path}: fits")
    return 0


def by(dims: Sequence[int]) -> str:
    return " × ".join(map(str, dims)) or "()"


def size(n: float) -> str:
    """Bytes."""
    return next(f"{n / 10**e:,.{1 if e else 0}f} {unit}" for e, unit in _BYTES if n >= 10**e or not e)


def count(n: float) -> str:
    """Operations."""
    return next(f"{n / 10**e:,.{2 if e else 0}f} {unit}" for e, unit in _COUNTS if n >= 10**e or not e).strip()


_BYTES = ((9, "GB"), (6, "MB"), (3, "kB"), (0, "B"))
_COUNTS = ((12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, ""))


def draw(args: list[str]) -> int:
    """Draws a net as a picture, .svg or .png. Shapes are on the lines where they can be told."""
    parser = parser_of("draw")
    parser.add_argument("model", metavar="FILE", help="the net's prototxt, or a .caffemodel")
    parser.add_argument("picture", help="the picture to write: .svg or .png")
    parser.add_argument("--rankdir", default="TB", choices=("TB", "LR"), help="from top to bottom, or left to right")
    add_state(parser)
    add_phase(parser)
    add_shape(parser)
    add_python(parser)
    options = parser.parse_args(args)

    from seqclf.caffe.draw import draw as paint
    from seqclf.caffe.net import read_net_structure

    message = read_net_structure(options.model, options.flavour)
    shapes: Mapping[str, Sequence[int]] = {}
    try:
        with torch.device("meta"):
            shapes = sketch(options, message, phase_of(options)).blob_shapes
    except SeqclfError as error:
        if options.shape:
            raise
        print(f"note: drawn without shapes: {error}", file=sys.stderr)
    print(paint(message, options.picture, shapes, options.rankdir))
    return 0


# ---- convert


def convert(args: list[str]) -> int:
    """Makes a run folder of an LRCN-shaped net, or a net of a run.

    convert --model deploy.prototxt --weights w.caffemodel --workdir runs/<new> [--config configs/x.py key=value ...]
    convert runs/<run> out.prototxt out.caffemodel
    """
    parser = parser_of("convert")
    parser.add_argument("rest", nargs="*", metavar="RUN OUT.prototxt OUT.caffemodel | key=value")
    parser.add_argument("--model", metavar="FILE", help="the net's prototxt")
    parser.add_argument("--weights", metavar="FILE", help="its .caffemodel or .h5 file")
    parser.add_argument("--workdir", metavar="DIR", help="the run folder to make")
    parser.add_argument("--config", metavar="PATH", help="a config whose data and training settings the run takes")
    parser.add_argument("--classes", metavar="FILE", help="the classes' names, a line each, or with commas between")
    parser.add_argument(
        "--logits", metavar="BLOB", help="the blob to answer with (default: what Softmax or loss reads)"
    )
    parser.add_argument(
        "--mean", metavar="B,G,R", help="what was subtracted from the net's data (0 to 255, BGR), or a .binaryproto"
    )
    parser.add_argument("--scale", type=float, metavar="X", help="what they were multiplied with after that")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--bgr", dest="bgr", action="store_true", default=None, help="the net's channels are BGR")
    order.add_argument("--rgb", dest="bgr", action="store_false", help="the net's channels are RGB")
    parser.add_argument("--frames", type=int, default=16, metavar="T", help="of the net to write (default: 16)")
    parser.add_argument("--streams", type=int, default=1, metavar="N", help="of the net to write (default: 1)")
    parser.add_argument("--checkpoint", default="newest", help="of the run: newest (default), best, or a step")
    options = parser.parse_intermixed_args(args)
    return to_run(options) if options.model or options.workdir else from_run(options)


def to_run(options: Namespace) -> int:
    if not (options.model and options.weights and options.workdir):
        raise SeqclfError("--model, --weights and --workdir are needed to make a run of a net (see convert --help)")
    if options.rest and not options.config:
        raise SeqclfError(f"{options.rest[0]}: settings change a config: give it with --config")

    from seqclf.caffe.inspect import mapping
    from seqclf.experiment.config import load_experiment

    experiment = load_experiment(options.config, options.rest) if options.config else None
    mean = None if options.mean is None else mean_of(options.mean)
    classes = None
    if options.classes:
        listed = Path(options.classes)
        classes = listed.read_text().split("\n") if listed.is_file() else options.classes.split(",")
        classes = [name.strip() for name in classes if name.strip()]
    net = caffe.load_net(options.model, options.weights, flavour=options.flavour)
    settings = {"logits": options.logits, "mean": mean, "scale": options.scale, "bgr": options.bgr}
    checkpoint = caffe.write_run(net, options.workdir, experiment, classes, **settings)
    classifier = caffe.to_classifier(net, **settings)
    print(classifier)
    for line in mapping(net, classifier):
        print(line)
    print(f"checkpoint: {checkpoint}")
    print("next:")
    print(f"  seqclf predict {options.workdir} FILE ...")
    print(f"  seqclf evaluate {options.workdir}")
    print(f"  seqclf train --config {options.config or 'configs/<your own>.py'} --init {options.workdir}")
    return 0


def mean_of(text: str) -> list[float]:
    """``--mean``: numbers, or a mean picture's file, of which the mean of each channel is taken."""
    if Path(text).is_file():
        from seqclf.caffe.transform import read_mean

        mean = read_mean(Path(text)).mean((1, 2)).tolist()
        print(f"{text}: its channels' means are {', '.join(f'{value:.6g}' for value in mean)}")
        return mean
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise SeqclfError(f"--mean {text}: expected numbers, such as 104,117,123, or a .binaryproto file") from None


def from_run(options: Namespace) -> int:
    if [Path(name).suffix for name in options.rest[1:]] != [".prototxt", ".caffemodel"]:
        raise SeqclfError("expected RUN OUT.prototxt OUT.caffemodel, or --model, --weights and --workdir")

    from seqclf.prediction import load_run

    run, prototxt, weights = options.rest
    _, model, _, checkpoint = load_run(run, options.checkpoint)
    name = Path(prototxt).stem
    net = caffe.from_classifier(model, options.frames, options.streams, name, flavour=options.flavour)
    for path in (prototxt, weights):
        caffe.save_net(net, path)
    print(f"{checkpoint} as a net: {prototxt}, {weights}")
    for name in net.inputs:
        print(f"input {name}: {by(net.blob_shapes[name])}")
    print(f"output: {', '.join(net.outputs)}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "test": test,
    "time": time,
    "inspect": inspect,
    "draw": draw,
    "convert": convert,
}
GLOG = {"--logtostderr", "--alsologtostderr"}
"""Flags of the caffe program that ask for what is done here anyway."""


def main(words: Sequence[str]) -> int:
    words = [re.sub(r"^-(?=[a-z_]{2})", "--", word) for word in words]  # -solver as --solver
    words = [word for word in words if word.partition("=")[0] not in GLOG]
    command = next((word for word in words if word in COMMANDS), None)
    if command is None or "--help" in words[: words.index(command)]:
        parser = make_parser("caffe", __doc__)
        parser.add_argument("command", choices=COMMANDS)
        parser.parse_args(words)  # which tells what is wrong, or helps
        return 2
    words.remove(command)
    return COMMANDS[command](words)
