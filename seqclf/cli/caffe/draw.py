"""Draw a net as a graph: layers as boxes, blobs as arrows labelled with their shapes.

The output is Graphviz DOT (.dot or .gv), or an image (.svg, .png or .pdf) that Graphviz's program dot renders.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from seqclf import SeqclfError
from seqclf.caffe.description.draw import RANKDIRS, draw
from seqclf.caffe.layers import Shape
from seqclf.caffe.nets.load import read_net_structure
from seqclf.cli.caffe.options import (
    add_phase,
    add_python,
    add_shape,
    add_state,
    make_command_parser,
    make_sketch,
    phase_of,
)


def main(args: list[str]) -> int:
    parser = make_command_parser("draw", __doc__)
    parser.add_argument("model", metavar="FILE", help="prototxt of the net, or a .caffemodel")
    parser.add_argument("output", metavar="OUT", help="file to write: .dot, .gv, .svg, .png or .pdf")
    parser.add_argument("--rankdir", default="TB", choices=RANKDIRS, help="top to bottom (default) or left to right")
    add_state(parser)
    add_phase(parser)
    add_shape(parser)
    add_python(parser)
    options = parser.parse_args(args)
    message = read_net_structure(options.model, options.flavour)
    shapes: Mapping[str, Shape] = {}
    try:
        with torch.device("meta"):
            shapes = make_sketch(options, message, phase_of(options)).blob_shapes
    except SeqclfError as error:
        if options.shape:
            raise
        print(f"note: drawn without shapes: {error}", file=sys.stderr)
    print(draw(message, options.output, shapes, options.rankdir))
    return 0
