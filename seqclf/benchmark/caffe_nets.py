"""Nets of Caffe files, against the times of the original Caffe; loading of weights."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from seqclf import caffe
from seqclf.benchmark import lrcn
from seqclf.benchmark.timing import compare, seconds
from seqclf.caffe.nets.threads import suitable_threads

TINY = "a net of a few units"
CAFFE_MS = {
    # forward, and forward + backward: lowest and highest median of the original Caffe; None: not measured
    TINY: (None, (0.06, 0.06)),
    "LSTM 28 x 64 x 28, H=100, and its loss": ((8.3, 10.9), (17.4, 24.2)),
    "the same with 3 layers": ((25.0, 31.0), (55.0, 70.0)),
    "LSTM 16 x 24 x 4096, H=256": ((23.0, 23.0), (63.0, 67.0)),
    "LRCN, 16 frames of 227 x 227": tuple(lrcn.CAFFE_MS.values()),
}


def caffe_layer(name: str, kind: str, bottoms: str, top: str, settings: str = "") -> str:
    below = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {below} top: "{top}" {settings} }}\n'


def caffe_inputs(**shapes: tuple[int, ...]) -> str:
    return "".join(
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {n}" for n in shape)} }}\n' for name, shape in shapes.items()
    )


def caffe_lstm(T: int, N: int, D: int, H: int, layers: int, loss: bool) -> str:
    text = caffe_inputs(x=(T, N, D), cont=(T, N), **({"label": (T, N)} if loss else {}))
    blob = "x"
    for i in range(layers):
        settings = f'recurrent_param {{ num_output: {H} weight_filler {{ type: "uniform" min: -0.1 max: 0.1 }} }}'
        text += caffe_layer(f"lstm{i}", "LSTM", f"{blob} cont", f"h{i}", settings)
        blob = f"h{i}"
    if loss:
        settings = 'inner_product_param { num_output: 10 axis: 2 weight_filler { type: "xavier" } }'
        text += caffe_layer("ip", "InnerProduct", blob, "z", settings)
        text += caffe_layer("loss", "SoftmaxWithLoss", "z label", "loss", "softmax_param { axis: 2 }")
    return text


def caffe_lrcn(T: int) -> str:
    """The training net of LRCN (Donahue et al. 2015) for one clip of T frames."""
    text = caffe_inputs(data=(T, 3, 227, 227), cm=(T, 1), label=(T, 1))
    blob = "data"
    convolutions = ((96, 7, 2, 0, 1), (384, 5, 2, 0, 2), (512, 3, 1, 1, 1), (512, 3, 1, 1, 2), (384, 3, 1, 1, 2))
    for i, (width, kernel, stride, pad, group) in enumerate(convolutions, 1):
        settings = (
            f"convolution_param {{ num_output: {width} kernel_size: {kernel} stride: {stride} pad: {pad} "
            f"group: {group} "
            'weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0.1 } }'
        )
        text += caffe_layer(f"conv{i}", "Convolution", blob, f"conv{i}", settings)
        text += caffe_layer(f"relu{i}", "ReLU", f"conv{i}", f"conv{i}")
        blob = f"conv{i}"
        if i in (1, 2, 5):
            text += caffe_layer(f"pool{i}", "Pooling", blob, f"pool{i}", "pooling_param { kernel_size: 3 stride: 2 }")
            blob = f"pool{i}"
        if i in (1, 2):
            text += caffe_layer(f"norm{i}", "LRN", blob, f"norm{i}", "lrn_param { alpha: 0.0001 }")
            blob = f"norm{i}"
    filler = 'weight_filler { type: "gaussian" std: 0.005 }'
    text += caffe_layer("fc6", "InnerProduct", blob, "fc6", f"inner_product_param {{ num_output: 4096 {filler} }}")
    text += caffe_layer("relu6", "ReLU", "fc6", "fc6")
    text += caffe_layer("drop6", "Dropout", "fc6", "fc6", "dropout_param { dropout_ratio: 0.9 }")
    text += caffe_layer("steps", "Reshape", "fc6", "x", f"reshape_param {{ shape {{ dim: {T} dim: 1 dim: 4096 }} }}")
    text += caffe_layer("lstm1", "LSTM", "x cm", "h", f"recurrent_param {{ num_output: 256 {filler} }}")
    text += caffe_layer("drop7", "Dropout", "h", "h2", "dropout_param { dropout_ratio: 0.5 }")
    text += caffe_layer("fc8", "InnerProduct", "h2", "z", f"inner_product_param {{ num_output: 101 axis: 2 {filler} }}")
    return text + caffe_layer("loss", "SoftmaxWithLoss", "z label", "loss", "softmax_param { axis: 2 }")


def caffe_tiny() -> str:
    """Two products of a few units with a loss, whose time is what each layer costs beside its arithmetic."""
    text = caffe_inputs(x=(4, 6), label=(4,))
    filler = 'weight_filler { type: "xavier" }'
    text += caffe_layer("ip1", "InnerProduct", "x", "h", f"inner_product_param {{ num_output: 8 {filler} }}")
    text += caffe_layer("tanh", "TanH", "h", "h")
    text += caffe_layer("ip2", "InnerProduct", "h", "z", f"inner_product_param {{ num_output: 3 {filler} }}")
    return text + caffe_layer("loss", "SoftmaxWithLoss", "z label", "loss")


def caffe_nets() -> None:
    texts = [caffe_tiny(), caffe_lstm(28, 64, 28, 100, 1, True), caffe_lstm(28, 64, 28, 100, 3, True)]
    texts += [caffe_lstm(16, 24, 4096, 256, 1, False), caffe_lrcn(16)]
    with tempfile.TemporaryDirectory() as folder:
        prototxt, weights = Path(folder) / "net.prototxt", Path(folder) / "net.caffemodel"
        for (title, theirs), text in zip(CAFFE_MS.items(), texts, strict=True):
            prototxt.write_text(text)
            net = caffe.load_net(prototxt, phase="TRAIN")
            inputs = {name: torch.rand(net.blob_shapes[name]) for name in net.inputs}
            for name, blob in inputs.items():
                if name in ("cont", "cm"):
                    blob.fill_(1)[0] = 0
                elif name == "label":
                    blob.zero_()
                elif name == "x":
                    blob.requires_grad_(blob.shape[-1] > 1000)

            def forward(net: caffe.Net = net, inputs: dict[str, Tensor] = inputs) -> None:
                with torch.no_grad():
                    net.compute(inputs, keep=net.outputs)

            def both(net: caffe.Net = net, inputs: dict[str, Tensor] = inputs) -> None:
                blobs = net.compute(inputs, keep=net.outputs)
                (net.loss(blobs) if net.loss_weights else blobs[net.outputs[0]].sum()).backward()
                for tensor in (*net.parameters(), *inputs.values()):
                    tensor.grad = None

            for what, run, times in zip(("forward", "+ backward"), (forward, both), theirs, strict=True):
                run(), run()
                slow, fast = times is not None and times[1] > 100, title == TINY
                with suitable_threads(net):
                    ms = statistics.median(seconds(run) for _ in range(7 if slow else 200 if fast else 25)) * 1e3
                rival = (
                    times
                    and f"Caffe {times[0]:g} to {times[1]:g} ms   ratio {ms / times[1]:.2f} to {ms / times[0]:.2f}"
                )
                print(f"{title:<40} {what:<10} {ms:7.2f} ms   {rival or ''}", flush=True)
        caffe.save_net(net, weights)
        compare(
            f"load_net, {weights.stat().st_size / 1e6:.0f} MB of weights",
            lambda: caffe.load_net(prototxt, weights),
            weights.read_bytes,
            "reading the file",
            7,
        )
