"""Measures seqclf against its floors and rivals, side by side: medians of times, ratios of pairs with their spread.

    python tools/benchmark.py                            # everything but whole processes: about a minute
    python tools/benchmark.py step resets start          # some of it
    python tools/benchmark.py caffe                      # Caffe nets against Caffe's own times, and loading weights
    python tools/benchmark.py whole --root ../shared/data --pairs 3      # mnist_seed against a plain script, whole runs
    python tools/benchmark.py plain --root ../shared/data                # the plain script itself

The two of a pair run in turn, so that a machine whose speed drifts slows both. `step`: the reference task's training
step against bare nn.LSTM on a tensor in memory, and the share of the matrix products' own time. `resets`: LSTM with
sequences that begin inside the batch against the same without. `wide`: at LRCN's shape against nn.LSTM. `start`: what
passes before the first step. `whole`: the training tool as a process against the straightforward script. `caffe`: nets
that run and learn from Caffe's files, beside the times that the original Caffe took on 2 virtual EPYC cores (OpenBLAS,
2 threads), which say something on such a machine only; and a large .caffemodel loaded against its bytes read.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf import LSTM, Clips, FrameSequenceClassifier, SeqclfError, cross_entropy, last_frame
from seqclf.allocator import keep_freed_memory
from seqclf.data import sample_order
from seqclf.tool import make_parser, run_tool

REFERENCE = {"B": 64, "T": 28, "D": 28, "H": 100, "layers": 3}
WIDE = {"B": 24, "T": 16, "D": 4096, "H": 256, "layers": 1}


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def compare(title: str, ours: Callable[[], object], rival: Callable[[], object], name: str, pairs: int = 25) -> None:
    """One line: both medians, and the ratio ours / rival over pairs run in turn."""
    for _ in range(3):
        ours(), rival()
    times = [(seconds(ours), seconds(rival)) for _ in range(pairs)]
    show(title, times, name)


def show(title: str, times: list[tuple[float, float]], name: str, unit: float = 1e3, mark: str = "ms") -> None:
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(column) * unit for column in zip(*times, strict=True))
    print(
        f"{title:<44} {a:8.2f} {mark}   {name:<24} {b:8.2f} {mark}   "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(ratios)} pairs)",
        flush=True,
    )


def products(B: int, T: int, D: int, H: int, layers: int, input_gradient: bool) -> Callable[[], None]:
    """The matrix products of an LSTM's forward and backward alone, those over all frames at once as one each."""
    h, gates, w = torch.randn(B, H), torch.randn(B, 4 * H), torch.randn(H, 4 * H)
    all_gates, all_h = torch.randn(T * B, 4 * H), torch.randn(T * B, H)
    inputs = [(torch.randn(T * B, D), torch.randn(D, 4 * H))] + [(all_h, w)] * (layers - 1)

    def run() -> None:
        for layer, (x, w_in) in enumerate(inputs):
            x @ w_in
            for _ in range(T):
                h @ w
            for _ in range(T):
                gates @ w.t()
            x.t() @ all_gates
            all_h.t() @ all_gates
            if layer or input_gradient:
                all_gates @ w_in.t()

    return run


def flop(B: int, T: int, D: int, H: int, layers: int, input_gradient: bool) -> float:
    first = B * T * 4 * H * 2 * (D * (3 if input_gradient else 2) + 3 * H)
    return first + (layers - 1) * B * T * 4 * H * 2 * 6 * H


def bench_step() -> None:
    B, T, D, H, layers = REFERENCE.values()
    images = torch.randint(0, 256, (6000, T, D), dtype=torch.uint8)
    clips = Clips(images, torch.randint(0, 10, (6000,)), labelling=last_frame)
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=H, layers=layers), frame_shape=(D,), num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bare = nn.LSTM(D, H, layers)
    bare_optimizer = torch.optim.SGD(bare.parameters(), lr=1e-6)  # at more it runs off into denormal numbers, slow ones
    x = torch.randn(T, B, D)
    steps = iter(range(10**9))

    def ours() -> None:  # a step as in training: gather, classify, loss, backward, norm, update
        batch = clips.batch(sample_order(len(clips), B, 0, next(steps)))
        logits, _ = model(batch.frames, lengths=batch.lengths)
        cross_entropy(logits, batch.labels).backward()
        nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()

    def rival() -> None:
        bare(x)[0].sum().backward()
        bare_optimizer.step()
        bare_optimizer.zero_grad()

    floor = products(B, T, D, H, layers, input_gradient=False)
    compare("reference step", ours, rival, "bare nn.LSTM + SGD")
    compare("reference step", ours, floor, "its matrix products")
    best = min(seconds(floor) for _ in range(20))
    work = flop(B, T, D, H, layers, input_gradient=False)
    ours_best = min(seconds(ours) for _ in range(20))
    rate, peak = work / ours_best / 1e9, work / best / 1e9
    print(f"  {work / 1e9:.2f} GFLOP a step: {rate:.0f} GFLOP/s, its products alone {peak:.0f}")


def forward_backward(module: LSTM, x: Tensor, is_first: Tensor | None = None) -> Callable[[], None]:
    def run() -> None:
        module(x, is_first)[0].sum().backward()
        module.zero_grad()
        x.grad = None

    return run


def bench_resets() -> None:
    for shape in (REFERENCE, {**REFERENCE, "layers": 1}, WIDE):
        B, T, D, H, layers = shape.values()
        x = torch.randn(B, T, D, requires_grad=D >= 1024)
        module = LSTM(D, H, layers)
        start = torch.zeros(B, T, dtype=torch.bool)
        start[:, 0] = True
        dense = torch.rand(B, T) < 0.2
        plain = forward_backward(module, x)
        name = f"B={B} T={T} D={D} H={H} x{layers}"
        compare(f"dense resets, {name}", forward_backward(module, x, dense), plain, "without resets")
        compare(f"resets at frame 0, {name}", forward_backward(module, x, start), plain, "without resets")


def bench_wide() -> None:
    for B, T, D, H, layers in (WIDE.values(), REFERENCE.values(), (1, 100, 64, 64, 1), (16, 64, 1024, 512, 2)):
        x = torch.randn(B, T, D, requires_grad=D >= 1024)
        module, rival = LSTM(D, H, layers), nn.LSTM(D, H, layers)
        y = x.detach().transpose(0, 1).contiguous().requires_grad_(x.requires_grad)

        def bare(rival: nn.LSTM = rival, y: Tensor = y) -> None:
            rival(y)[0].sum().backward()
            rival.zero_grad()
            y.grad = None

        name = f"LSTM, B={B} T={T} D={D} H={H} x{layers}"
        compare(name, forward_backward(module, x), bare, "nn.LSTM, time-major")
        compare(name, forward_backward(module, x), products(B, T, D, H, layers, x.requires_grad), "its matrix products")


def bench_start() -> None:
    def run(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    run("import seqclf")
    times = [(run("import seqclf"), run("import torch")) for _ in range(5)]
    show("import seqclf", times, "import torch", 1, "s ")
    code = (
        "import time, seqclf, seqclf.train, seqclf.report, torch\n"
        "from torch.utils.tensorboard import SummaryWriter\n"
        "from seqclf.config import load_experiment\n"
        "import torchvision, sys\n"
        "began = time.perf_counter()\n"
        "e = load_experiment('configs/mnist_lastframe.py', ['steps=1', 'data.source=digits'])\n"
        "import tempfile; seqclf.train.train(e, tempfile.mkdtemp(), 'cpu')\n"
        "print(f'from the end of the imports through one step, its evaluation and checkpoint: "
        "{time.perf_counter() - began:.2f} s')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=sys.stdout)


def bench_whole(root: str, pairs: int, steps: int) -> None:
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:

        def ours(number: int) -> None:
            command = [
                sys.executable,
                str(here / "train.py"),
                "--config",
                str(here.parent / "configs" / "mnist_seed.py"),
            ]
            command += ["--workdir", f"{folder}/{number}", "--device", "cpu", f"data.root={root}", "data.source=mnist"]
            subprocess.run([*command, f"steps={steps}"], check=True, stdout=subprocess.DEVNULL)

        def rival(number: int) -> None:
            command = [sys.executable, __file__, "plain", "--root", root, "--steps", str(steps)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        times = [(seconds(partial(ours, i)), seconds(partial(rival, i))) for i in range(pairs)]
    show(f"mnist_seed, {steps} steps, whole process", times, "plain script", 1, "s ")


def plain(root: str, steps: int) -> None:
    """The straightforward script: what one writes after reading the tutorial."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(28, 100, 3, batch_first=True)
            self.fc = nn.Linear(100, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.lstm(x)[0][:, -1])

    train_set = datasets.MNIST(root, train=True, transform=transforms.ToTensor())
    test_set = datasets.MNIST(root, train=False, transform=transforms.ToTensor())
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=1000)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = 0
    while step < steps:
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images.view(-1, 28, 28)), labels)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 500 == 0 or step == steps:
                right = 0
                with torch.no_grad():
                    for test_images, test_labels in test_loader:
                        right += int((net(test_images.view(-1, 28, 28)).argmax(1) == test_labels).sum())
                print(f"step {step}  loss {loss.item():.4f}  accuracy {right / len(test_set):.2%}", flush=True)
            if step == steps:
                break


CAFFE_MS = {
    # what the original Caffe took, forward and forward + backward (lowest and highest median)
    "LSTM 28 x 64 x 28, H=100, and its loss": ((8.3, 10.9), (17.4, 24.2)),
    "the same with 3 layers": ((25.0, 31.0), (55.0, 70.0)),
    "LSTM 16 x 24 x 4096, H=256": ((23.0, 23.0), (63.0, 67.0)),
    "LRCN, 16 frames of 227 x 227": ((613.0, 640.0), (1356.0, 1380.0)),
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
    """LRCN's train net (Donahue et al. 2015) for one clip of T frames."""
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


def bench_caffe() -> None:
    from seqclf import caffe

    texts = (caffe_lstm(28, 64, 28, 100, 1, True), caffe_lstm(28, 64, 28, 100, 3, True))
    texts += (caffe_lstm(16, 24, 4096, 256, 1, False), caffe_lrcn(16))
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

            for what, run, (low, high) in zip(("forward", "+ backward"), (forward, both), theirs, strict=True):
                run(), run()
                ms = statistics.median(seconds(run) for _ in range(7 if high > 100 else 25)) * 1e3
                print(
                    f"{title:<40} {what:<10} {ms:7.1f} ms   Caffe {low:g} to {high:g} ms   "
                    f"ratio {ms / high:.2f} to {ms / low:.2f}",
                    flush=True,
                )
        caffe.save_net(net, weights)
        compare(
            f"load_net, {weights.stat().st_size / 1e6:.0f} MB of weights",
            lambda: caffe.load_net(prototxt, weights),
            weights.read_bytes,
            "reading the file",
            7,
        )


def main() -> int:
    parser = make_parser(__doc__)
    parts = {"step": bench_step, "resets": bench_resets, "wide": bench_wide, "start": bench_start, "caffe": bench_caffe}
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"{', '.join(parts)}, whole or plain (default: the first five)"
    )
    parser.add_argument("--root", default="data", help="the folder that holds MNIST/raw (whole, plain)")
    parser.add_argument("--pairs", type=int, default=3, help="how many pairs of whole processes")
    parser.add_argument("--steps", type=int, default=3000, help="steps of the whole processes")
    args = parser.parse_args()
    chosen = args.parts or list(parts)
    for name in chosen:
        if name not in (*parts, "whole", "plain"):
            raise SeqclfError(f"no benchmark {name!r}: there are {', '.join(parts)}, whole and plain")
    if "plain" in chosen:
        plain(args.root, args.steps)
        return 0
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU {torch.backends.cpu.get_cpu_capability()}"
    )
    keep_freed_memory()  # for both of each pair
    for name in chosen:
        if name == "whole":
            bench_whole(args.root, args.pairs, args.steps)
        else:
            parts[name]()
    return 0


if __name__ == "__main__":
    run_tool(main)
