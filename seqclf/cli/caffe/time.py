"""Time a net layer by layer, forward and backward, as ``caffe time`` does. Missing data are random."""

from __future__ import annotations

from seqclf.caffe.description.timing import measure
from seqclf.caffe.nets.load import read_net_structure
from seqclf.caffe.nets.threads import suitable_threads
from seqclf.cli.caffe.log import log
from seqclf.cli.caffe.options import (
    add_gpu,
    add_iterations,
    add_python,
    add_shape,
    add_state,
    check_iterations,
    make_command_parser,
    make_sketch,
    parse_gpus,
    use_device,
)
from seqclf.runtime.allocator import keep_freed_memory


def main(args: list[str]) -> int:
    parser = make_command_parser("time", __doc__)
    parser.add_argument("--model", required=True, metavar="FILE", help="prototxt of the net")
    add_iterations(parser, "passes")
    add_gpu(parser)
    add_state(parser)
    parser.add_argument("--phase", default="TRAIN", choices=("TRAIN", "TEST"), help="phase (default: TRAIN)")
    add_shape(parser)
    add_python(parser)
    options = parser.parse_args(args)
    check_iterations(options)

    keep_freed_memory()
    device = use_device(parse_gpus(options.gpu))
    net = make_sketch(options, read_net_structure(options.model, options.flavour), options.phase)
    net.fill()
    with suitable_threads(net):
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
