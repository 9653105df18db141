"""A stream fed frame by frame: latency, memory, whether either grows; against a bare loop, and in ONNX Runtime."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seqclf import FrameSequenceClassifier, Predictor
from seqclf.benchmark import lrcn
from seqclf.benchmark.timing import ROOT, memory_now
from seqclf.experiment.config import build, load_experiment

Feed = Callable[[Tensor], object]


def streaming(frames: int = 100_000, lrcn_frames: int = 500, compared: int = 2000) -> None:
    """The reference model and LRCN; cost and memory at the beginning of a long stream and at its end."""
    reference, deep = reference_model(), lrcn.lrcn_rgb()
    flat("reference model", Predictor(reference, range(10)).stream(), (28,), frames, min(1000, frames // 5))
    beside("reference model", reference, loop_of_cells(reference), "nn.LSTMCell, bare", (28,), compared)
    flat("LRCN", Predictor(deep, range(lrcn.CLASSES)).stream(), (3, 227, 227), lrcn_frames, lrcn_frames // 5)
    beside("LRCN", deep, plain_stream(deep), "torch.nn alone", (3, 227, 227), lrcn_frames // 5)


def onnx(compared: int = 2000, lrcn_frames: int = 100) -> None:
    """One-frame streaming in ONNX Runtime, as ``tools/export.py`` writes it, against ``Predictor.stream()``."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        print(f"onnx: left out, {' and '.join(missing)} not installed (pip install 'seqclf[export]')")
        return
    models = (("reference model", reference_model(), (28,), compared),)
    models += (("LRCN", lrcn.lrcn_rgb(), (3, 227, 227), lrcn_frames),)
    for title, model, shape, count in models:
        for form in ("float", "int8"):
            beside(title, model, in_onnx_runtime(model, shape, form), f"ONNX Runtime, {form}", shape, count)


def reference_model() -> FrameSequenceClassifier:
    experiment = load_experiment(ROOT / "configs" / "mnist_lastframe.py")
    return build("model", experiment.model, frame_shape=(28,), num_classes=10)


# ---- how it is measured


def latencies(feed: Feed, shape: tuple[int, ...], frames: int) -> NDArray[np.float64]:
    """Milliseconds ``(frames,)`` for each frame of a stream that goes on."""
    some = torch.randint(0, 256, (16, *shape), dtype=torch.uint8)
    found = np.zeros(frames)
    for i in range(frames):
        frame = some[i % 16]
        began = time.perf_counter()
        feed(frame)
        found[i] = (time.perf_counter() - began) * 1e3
    return found


def flat(title: str, feed: Feed, shape: tuple[int, ...], frames: int, part: int) -> None:
    """A long stream: its rate, and its first frames beside its last."""
    latencies(feed, shape, 10)
    begin = latencies(feed, shape, part)
    memory = memory_now()
    ms = np.concatenate([begin, latencies(feed, shape, frames - part)])
    first, last = np.median(begin), np.median(ms[-part:])
    print(
        f"{title}, a stream of {frames:,} frames: {1e3 / ms.mean():.1f} frames/s, {quantiles(ms)}\n"
        f"  first {part:,} {first:.3f} ms, last {part:,} {last:.3f} ms: ratio {last / first:.2f}; "
        f"memory {memory:.0f} MB, at the end {memory_now():.0f} MB",
        flush=True,
    )


def beside(
    title: str, model: FrameSequenceClassifier, rival: Feed, name: str, shape: tuple[int, ...], frames: int
) -> None:
    """``Predictor.stream()`` and a rival, tenths of the frames in turn (threads of one may stay awake for a moment)."""
    stream = Predictor(model, range(model.head.out_features)).stream()
    for feed in (stream, rival):
        latencies(feed, shape, 10)
    tenths = [(latencies(stream, shape, frames // 10), latencies(rival, shape, frames // 10)) for _ in range(10)]
    ours, theirs = (np.concatenate(column) for column in zip(*tenths, strict=True))
    ratios = [np.median(a) / np.median(b) for a, b in tenths]
    print(
        f"{title + ', one frame':<28} {quantiles(ours)}   {name:<19} {quantiles(theirs)}   "
        f"ratio {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, 10 pairs)",
        flush=True,
    )


def quantiles(ms: NDArray[np.float64]) -> str:
    return f"p50 {np.median(ms):.3f} p99 {np.quantile(ms, 0.99):.3f} ms"


# ---- the rivals


def loop_of_cells(model: FrameSequenceClassifier) -> Feed:
    """The reference model's layers as a chain of nn.LSTMCell, and nothing checked."""
    net = model.temporal
    cells = [nn.LSTMCell(net.input_size if i == 0 else net.hidden_size, net.hidden_size) for i in range(net.num_layers)]
    for i, cell in enumerate(cells):
        cell.load_state_dict({name: net.get_parameter(f"{name}_l{i}") for name in cell.state_dict()})
    state = [(torch.zeros(1, net.hidden_size),) * 2 for _ in cells]
    scale, offset = 1 / 255 / model.preprocess.std, -model.preprocess.mean / model.preprocess.std

    @torch.inference_mode()
    def feed(frame: Tensor) -> Tensor:
        x = torch.addcmul(offset, frame[None].float(), scale)
        for i, cell in enumerate(cells):
            state[i] = cell(x, state[i])
            x = state[i][0]
        return model.head(x)[0].softmax(-1)

    return feed


def plain_stream(model: FrameSequenceClassifier) -> Feed:
    """LRCN of torch.nn's modules with the model's weights, the memory passed on, and nothing checked."""
    plain = lrcn.plain_like(model).eval()
    state = None

    @torch.inference_mode()
    def feed(frame: Tensor) -> Tensor:
        nonlocal state
        logits, state = plain(model.preprocess(frame[None])[None], state)
        return logits[0, 0].softmax(-1)

    return feed


def in_onnx_runtime(model: FrameSequenceClassifier, shape: tuple[int, ...], form: str) -> Feed:
    """The stream's file in ONNX Runtime, on as many threads, fed with NumPy arrays."""
    from onnx import save
    from onnxruntime import InferenceSession, SessionOptions

    from seqclf.exporting.graph import frame_graph, onnx_form
    from seqclf.exporting.int8 import quantize
    from seqclf.exporting.program import Frames

    parts = Frames(model.eval())
    proto = onnx_form(parts, frame_graph(parts, shape, torch.uint8, 18), shape, "stream")
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "stream.onnx", Path(folder) / "stream.int8.onnx"
        save(proto, path)
        if form == "int8":
            quantize(path, small)
        session = InferenceSession(small if form == "int8" else path, options, providers=["CPUExecutionProvider"])
    net = model.temporal
    state = {name: np.zeros((net.num_layers, 1, net.hidden_size), np.float32) for name in ("h", "c")}
    wanted, no = ["probabilities", "next_h", "next_c"], np.zeros((1, 1), bool)

    def feed(frame: Tensor) -> NDArray[np.float32]:
        p, state["h"], state["c"] = session.run(wanted, {"frames": frame.numpy()[None, None], "is_first": no, **state})
        return p[0, 0]

    return feed
