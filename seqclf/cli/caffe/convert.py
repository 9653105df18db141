"""Convert an LRCN-shaped net to a run folder, or a run to a net.

seqclf caffe convert --model deploy.prototxt --weights w.caffemodel --workdir runs/new [--config x.py key=value ...]
seqclf caffe convert runs/run out.prototxt out.caffemodel
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seqclf import FrameSequenceClassifier, SeqclfError, caffe
from seqclf.caffe.conversion.net_to_classifier import describe_mapping
from seqclf.caffe.images.mean import read_mean_image
from seqclf.cli.caffe.inspect import format_shape
from seqclf.cli.caffe.options import make_command_parser
from seqclf.cli.parser import CHECKPOINT
from seqclf.experiment.loading import load_experiment
from seqclf.prediction import load_run


def main(args: list[str]) -> int:
    options = parse(args)
    if options.model or options.workdir:
        net_to_run(options)
    else:
        run_to_net(options)
    return 0


def parse(args: list[str]) -> Namespace:
    parser = make_command_parser("convert", __doc__)
    parser.add_argument("rest", nargs="*", metavar="RUN OUT.prototxt OUT.caffemodel | key=value")
    net = parser.add_argument_group("net to run")
    net.add_argument("--model", metavar="FILE", help="prototxt of the net")
    net.add_argument("--weights", metavar="FILE", help="its .caffemodel or .h5 file")
    net.add_argument("--workdir", metavar="DIR", help="run folder to create")
    net.add_argument("--config", metavar="PATH", help="config whose data and training settings the run gets")
    net.add_argument("--classes", metavar="NAMES", help="class names: a file with one per line, or a,b,c")
    net.add_argument(
        "--logits", metavar="BLOB", help="blob with the logits (default: the input of Softmax or the loss)"
    )
    net.add_argument(
        "--mean", metavar="B,G,R", help="mean subtracted from the pixels (0 to 255), or a .binaryproto file"
    )
    net.add_argument("--scale", type=float, metavar="X", help="factor applied after the mean")
    order = net.add_mutually_exclusive_group()
    order.add_argument("--bgr", dest="bgr", action="store_true", default=None, help="the net's channels are BGR")
    order.add_argument("--rgb", dest="bgr", action="store_false", help="the net's channels are RGB")
    help = "how a run without data labels a clip: by the mean over its frames (default) or by its last frame"
    net.add_argument("--decision", default="mean", choices=("mean", "last"), help=help)
    run = parser.add_argument_group("run to net")
    run.add_argument("--frames", type=int, default=16, metavar="T", help="frames of the net's inputs (default: 16)")
    run.add_argument("--streams", type=int, default=1, metavar="N", help="streams of the net's inputs (default: 1)")
    run.add_argument("--checkpoint", default="auto", help=CHECKPOINT)
    return parser.parse_intermixed_args(args)


def net_to_run(options: Namespace) -> None:
    if not (options.model and options.weights and options.workdir):
        raise SeqclfError("--model, --weights and --workdir are all needed to convert a net to a run")
    if options.rest and not options.config:
        raise SeqclfError(f"{options.rest[0]}: settings change a config, but no --config is given")
    experiment = load_experiment(options.config, options.rest) if options.config else None
    classes = parse_classes(options.classes) if options.classes else None
    mean = None if options.mean is None else parse_mean(options.mean)
    net = caffe.load_net(options.model, options.weights, flavour=options.flavour)
    settings = {"logits": options.logits, "mean": mean, "scale": options.scale, "bgr": options.bgr}
    checkpoint = caffe.write_run(net, options.workdir, experiment, classes, **settings, decision=options.decision)
    classifier = caffe.to_classifier(net, **settings)
    print(classifier)
    for line in describe_mapping(net, classifier):
        print(line)
    print(f"checkpoint: {checkpoint}")
    print("next:")
    print(f"  seqclf predict {options.workdir} FILE ...")
    print(f"  seqclf evaluate {options.workdir}")
    print(f"  seqclf train --config {options.config or 'CONFIG.py'} --init {options.workdir}")


def parse_classes(text: str) -> list[str]:
    file = Path(text)
    names = file.read_text(encoding="utf-8").split("\n") if file.is_file() else text.split(",")
    return [name.strip() for name in names if name.strip()]


def parse_mean(text: str) -> list[float]:
    """Parses ``--mean``: numbers, or a mean image, of which each channel's mean is taken."""
    if Path(text).is_file():
        mean = [float(value) for value in read_mean_image(text).mean((1, 2))]
        print(f"{text}: the means of its channels are {', '.join(f'{value:.6g}' for value in mean)}")
        return mean
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise SeqclfError(f"--mean {text}: expected numbers, such as 104,117,123, or a .binaryproto file") from None


def run_to_net(options: Namespace) -> None:
    if [Path(name).suffix for name in options.rest[1:]] != [".prototxt", ".caffemodel"]:
        raise SeqclfError("expected RUN OUT.prototxt OUT.caffemodel, or --model, --weights and --workdir")
    run, prototxt, weights = options.rest
    _, model, _, checkpoint = load_run(run, options.checkpoint)
    if not isinstance(model, FrameSequenceClassifier):
        raise SeqclfError(f"{run}: its model is a {type(model).__name__}, expected a FrameSequenceClassifier")
    net = caffe.from_classifier(model, options.frames, options.streams, Path(prototxt).stem, flavour=options.flavour)
    for path in (prototxt, weights):
        caffe.save_net(net, path)
    print(f"{checkpoint} converted to {prototxt}, {weights}")
    for name in net.inputs:
        print(f"input {name}: {format_shape(net.blob_shapes[name])}")
    print(f"output: {', '.join(net.outputs)}")
