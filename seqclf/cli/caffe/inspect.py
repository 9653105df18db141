"""Print a net's layers, shapes, parameters, memory and operations, without building it or reading its data.

For a solver, also print its settings and learning rates. With --weights, compare a weights file with the net; the exit
code is 2 if it does not fit.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from seqclf import SeqclfError, caffe
from seqclf.caffe.description.inspect import (
    LayerFigures,
    figures,
    figures_of_weights,
    is_solver,
    learning_rates,
    solver_settings,
)
from seqclf.caffe.description.sketch import Sketch, SolverSketch
from seqclf.caffe.nets.load import read_net_structure
from seqclf.caffe.nets.net import Net
from seqclf.caffe.nets.weight_check import find_mismatches
from seqclf.cli.caffe.options import (
    add_phase,
    add_python,
    add_shape,
    add_state,
    apply_state,
    import_python_layers,
    make_command_parser,
    make_sketch,
    parse_shape,
    phase_of,
    print_notes,
)

BYTES = ((9, "GB"), (6, "MB"), (3, "kB"), (0, "B"))
COUNTS = ((12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, ""))


def main(args: list[str]) -> int:
    parser = make_command_parser("inspect", __doc__)
    parser.add_argument("model", metavar="FILE", help="prototxt of a net or a solver, or a .caffemodel")
    parser.add_argument("--weights", metavar="FILE", help=".caffemodel or .h5 file to compare with the net")
    add_state(parser)
    add_phase(parser)
    add_shape(parser)
    add_python(parser)
    options = parser.parse_args(args)
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, emoji=False, markup=False)
    if is_solver(options.model, options.flavour):
        inspect_solver(options, console)
    else:
        inspect_net(options, console)
    return 0


def inspect_solver(options: Namespace, console: Console) -> None:
    param = caffe.read_solver(options.model, options.flavour)
    apply_state(options, param)
    console.print(f"{options.model}: a solver")
    for line in solver_settings(param):
        console.print(f"  {line}")
    rates = ", ".join(f"{rate:.6g} at {iteration:,}" for iteration, rate in learning_rates(param))
    console.print(f"  learning rate: {rates}")
    shapes, python = dict(map(parse_shape, options.shape)), import_python_layers(options.python)
    solver = SolverSketch(param, options.model, options.flavour, shapes, python)
    for title, net in [("train net", solver.net), *((f"test net #{i}", n) for i, n in enumerate(solver.test_nets))]:
        if isinstance(net, Sketch):
            print_notes(net)
        console.print()
        print_figures(console, f"{title}: {net.file}", figures(net))
    compare_weights(console, solver.net, options.weights)


def inspect_net(options: Namespace, console: Console) -> None:
    saved = Path(options.model).suffix == ".caffemodel"
    phase = phase_of(options)
    try:
        with torch.device("meta"):
            net = make_sketch(options, read_net_structure(options.model, options.flavour), phase)
    except SeqclfError as error:
        if not saved or options.weights:
            raise
        message = read_net_structure(options.model, options.flavour)
        print_figures(console, options.model, figures_of_weights(options.model, message, options.flavour))
        print(f"note: the shapes of the blobs are not known: {error}", file=sys.stderr)
        return
    print_figures(console, f"{options.model}, phase {phase}", figures(net))
    compare_weights(console, net, options.weights)


def print_figures(console: Console, title: str, layers: Sequence[LayerFigures]) -> None:
    table = Table(title=title, title_justify="left", show_footer=True)
    memory, values, operations = (sum(getattr(x, name) for x in layers) for name in ("memory", "values", "operations"))
    known = any(x.shapes for x in layers)
    table.add_column("layer", f"{len(layers)} layers", overflow="fold")
    table.add_column("type")
    table.add_column("blobs", overflow="fold")
    table.add_column("shapes of tops", overflow="fold")
    table.add_column("memory", with_unit(memory, BYTES, 1) if known else "", justify="right")
    table.add_column("parameters", with_unit(4 * values, BYTES, 1), overflow="fold")
    table.add_column("values", f"{values:,}", justify="right")
    table.add_column("operations", with_unit(operations, COUNTS, 2) if known else "", justify="right")
    for x in layers:
        table.add_row(
            x.name,
            x.type,
            " → ".join(", ".join(names) for names in (x.bottoms, x.tops) if names),
            "\n".join(map(format_shape, x.shapes)),
            with_unit(x.memory, BYTES, 1) if x.memory else "",
            "\n".join(map(format_shape, x.blobs)),
            f"{x.values:,}" if x.values else "",
            with_unit(x.operations, COUNTS, 2) if x.operations else "",
        )
    console.print(table)


def compare_weights(console: Console, net: Net, path: str | None) -> None:
    """Prints how a weights file differs from a net.

    Raises:
        SeqclfError: it differs.
    """
    if path is None:
        return
    differences = find_mismatches(net, path)
    for line in differences:
        console.print(f"{path}: {line}")
    if differences:
        raise SeqclfError(f"{path} does not fit the net: {len(differences)} differences, listed above")
    console.print(f"{path}: fits")


def format_shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "()"


def with_unit(n: float, units: Sequence[tuple[int, str]], digits: int) -> str:
    exponent, unit = next((e, unit) for e, unit in units if n >= 10**e or not e)
    return f"{n / 10**exponent:,.{digits if exponent else 0}f} {unit}".strip()
