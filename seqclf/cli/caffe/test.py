"""Score a net on its test data as ``caffe test`` does: print every output of every batch, and their means."""

from __future__ import annotations

from argparse import Namespace

import torch

from seqclf import SeqclfError, caffe
from seqclf.caffe.nets.threads import suitable_threads
from seqclf.cli.caffe.log import log
from seqclf.cli.caffe.options import (
    add_gpu,
    add_iterations,
    add_python,
    add_state,
    check_iterations,
    import_python_layers,
    make_command_parser,
    parse_gpus,
    parse_stages,
    use_device,
)


def main(args: list[str]) -> int:
    parser = make_command_parser("test", __doc__)
    parser.add_argument("--model", required=True, metavar="FILE", help="prototxt of the net")
    parser.add_argument("--weights", required=True, metavar="A,B", help=".caffemodel or .h5 files")
    add_iterations(parser, "batches")
    add_gpu(parser)
    add_state(parser)
    add_python(parser)
    options = parser.parse_args(args)
    check_iterations(options)
    device = use_device(parse_gpus(options.gpu))
    net = load(options).to(device)
    with suitable_threads(net):
        log_scores(net, options.iterations)
    return 0


def load(options: Namespace) -> caffe.Net:
    """Loads the net and its weights; layers without weights keep the values of their fillers, and are logged."""
    net = caffe.load_net(
        options.model,
        flavour=options.flavour,
        level=options.level,
        stages=parse_stages(options.stage),
        python=import_python_layers(options.python),
    )
    if net.inputs:
        raise SeqclfError(f"{options.model}: its inputs {', '.join(net.inputs)} come from no data layer to test on")
    for path in options.weights.split(","):
        missing, unread = net.load_weights(path, strict=False)
        for name in unread:
            log(f"Ignoring source layer {name}", "net.cpp:757")
        for name in missing:
            log(f"No weights for layer {name}: initialized by its fillers", "net.cpp:757")
    return net


def log_scores(net: caffe.Net, iterations: int) -> None:
    log(f"Running for {iterations} iterations.")
    sums: dict[str, torch.Tensor] = {}
    loss = 0.0
    for i in range(iterations):
        with torch.no_grad():
            blobs = net.compute({}, keep={*net.outputs, *net.loss_weights})
        loss += float(net.loss(blobs))
        for name in net.outputs:
            for value in blobs[name].flatten().tolist():
                log(f"Batch {i}, {name} = {value:.6g}")
            sums[name] = sums[name] + blobs[name] if name in sums else blobs[name].clone()
    log(f"Loss: {loss / iterations:.6g}")
    for name, total in sums.items():
        for value in (total / iterations).flatten().tolist():
            weight = net.loss_weights.get(name, 0)
            log(f"{name} = {value:.6g}" + (f" (* {weight:g} = {weight * value:.6g} loss)" if weight else ""))
