"""Streaming: latency and memory frame by frame, against a bare loop and against ONNX Runtime."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seqclf import LSTM, FrameSequenceClassifier, Predictor
from seqclf.benchmark import lrcn
from seqclf.benchmark.timing import memory_now
from seqclf.data.live.input import LiveInput
from seqclf.data.live.reader import LiveReader
from seqclf.data.transforms import resize
from seqclf.experiment.config import build
from seqclf.experiment.loading import load_experiment
from seqclf.prediction.streams.frames import LiveStream
from seqclf.prediction.streams.summary import StreamSummary

Feed = Callable[[Tensor], object]


def streaming(frames: int = 100_000, lrcn_frames: int = 500, compared: int = 2000) -> None:
    """The reference model and LRCN: time and memory at the start and at the end of a long stream."""
    reference, deep = reference_model(), lrcn.lrcn_rgb()
    flat("reference model", stream_of(reference), (28,), frames, min(1000, frames // 5))
    beside("reference model", reference, loop_of_cells(reference), "nn.LSTMCell, bare", (28,), compared)
    flat("LRCN", stream_of(deep), (3, 227, 227), lrcn_frames, lrcn_frames // 5)
    beside("LRCN", deep, plain_stream(deep), "torch.nn alone", (3, 227, 227), lrcn_frames // 5)
    live()


def live(frames: int = 5000) -> None:
    """Live video: from a decoded frame of 320x240 to its label, through a pipe without drops; memory."""
    import av

    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=64), frame_shape=(3, 60, 80), num_classes=10)
    stream, summary = stream_of(model), StreamSummary()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.ts"
        with av.open(str(path), "w") as container:
            output: Any = container.add_stream("mpeg4", rate=25)
            output.width, output.height, output.pix_fmt = 320, 240, "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))
            for k in range(frames):
                picture.pts = k
                container.mux(output.encode(picture))
            container.mux(output.encode())
        reader = LiveReader(LiveInput("pipe", "pipe", str(path)), drop=False, size=1)
        memory = 0.0
        for raw in LiveStream(reader).frames(lambda: False):
            stream(resize(raw.pixels[None], None, size=(60, 80))[0])
            summary.add(raw.arrived)
            memory = memory or memory_now()
    print(f"live video, {summary}; memory {memory:.0f} MB at the start, {memory_now():.0f} MB at the end", flush=True)


def onnx(compared: int = 2000, lrcn_frames: int = 100) -> None:
    """One-frame streaming: ``Predictor.stream()`` against exported files in ONNX Runtime."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        print(f"onnx: skipped, {' and '.join(missing)} not installed (pip install 'seqclf[export]')")
        return
    models: list[tuple[str, FrameSequenceClassifier, tuple[int, ...], int]] = [
        ("reference model", reference_model(), (28,), compared),
        ("LRCN", lrcn.lrcn_rgb(), (3, 227, 227), lrcn_frames),
    ]
    for title, model, shape, count in models:
        for form in ("float", "int8"):
            beside(title, model, in_onnx_runtime(model, shape, form), f"ONNX Runtime, {form}", shape, count)


def reference_model() -> FrameSequenceClassifier:
    """The model of the config mnist_lastframe, with initial weights."""
    experiment = load_experiment("mnist_lastframe")
    model: FrameSequenceClassifier = build("model", experiment.model, frame_shape=(28,), num_classes=10)
    return model


def stream_of(model: FrameSequenceClassifier) -> Feed:
    """``Predictor.stream()`` of a model."""
    head: Any = model.head
    return Predictor(model, [str(k) for k in range(head.out_features)]).stream()


# ---- measurement


def latencies(feed: Feed, shape: tuple[int, ...], frames: int) -> NDArray[np.float64]:
    """Milliseconds ``(frames,)`` of each frame of a stream."""
    some = torch.randint(0, 256, (16, *shape), dtype=torch.uint8)
    found = np.zeros(frames)
    for i in range(frames):
        frame = some[i % 16]
        began = time.perf_counter()
        feed(frame)
        found[i] = (time.perf_counter() - began) * 1e3
    return found


def flat(title: str, feed: Feed, shape: tuple[int, ...], frames: int, part: int) -> None:
    """Prints the rate of a long stream, and its first frames against its last."""
    latencies(feed, shape, 10)
    begin = latencies(feed, shape, part)
    memory = memory_now()
    ms = np.concatenate([begin, latencies(feed, shape, frames - part)])
    first, last = np.median(begin), np.median(ms[-part:])
    print(
        f"{title}, a stream of {frames:,} frames: {1e3 / ms.mean():.1f} frames/s, {quantiles(ms)}\n"
        f"  first {part:,} {first:.3f} ms, last {part:,} {last:.3f} ms: ratio {last / first:.2f}; "
        f"memory {memory:.0f} MB at the start, {memory_now():.0f} MB at the end",
        flush=True,
    )


def beside(
    title: str, model: FrameSequenceClassifier, rival: Feed, name: str, shape: tuple[int, ...], frames: int
) -> None:
    """Prints ``Predictor.stream()`` against a rival. They take turns every tenth of the frames."""
    stream = stream_of(model)
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


# ---- rivals


def loop_of_cells(model: FrameSequenceClassifier) -> Feed:
    """The reference model as a chain of ``nn.LSTMCell``, without checks."""
    net: Any = model.temporal
    normalize: Any = model.preprocess
    head: Any = model.head
    cells = [nn.LSTMCell(net.input_size if i == 0 else net.hidden_size, net.hidden_size) for i in range(net.num_layers)]
    for i, cell in enumerate(cells):
        cell.load_state_dict({name: net.get_parameter(f"{name}_l{i}") for name in cell.state_dict()})
    state = [(torch.zeros(1, net.hidden_size),) * 2 for _ in cells]
    scale, offset = 1 / 255 / normalize.std, -normalize.mean / normalize.std

    @torch.inference_mode()
    def feed(frame: Tensor) -> Tensor:
        x = torch.addcmul(offset, frame[None].float(), scale)
        for i, cell in enumerate(cells):
            state[i] = cell(x, state[i])
            x = state[i][0]
        probabilities: Tensor = head(x)[0].softmax(-1)
        return probabilities

    return feed


def plain_stream(model: FrameSequenceClassifier) -> Feed:
    """LRCN of ``torch.nn`` modules with the weights of a model, without checks."""
    plain = lrcn.plain_like(model).eval()
    state = None

    @torch.inference_mode()
    def feed(frame: Tensor) -> Tensor:
        nonlocal state
        logits, state = plain(model.preprocess(frame[None])[None], state)
        probabilities: Tensor = logits[0, 0].softmax(-1)
        return probabilities

    return feed


def in_onnx_runtime(model: FrameSequenceClassifier, shape: tuple[int, ...], form: str) -> Feed:
    """The exported stream in ONNX Runtime with the same number of threads; ``form`` is "float" or "int8"."""
    from onnx import save
    from onnxruntime import InferenceSession, SessionOptions

    from seqclf.exporting.graph import frame_graph, onnx_form
    from seqclf.exporting.int8 import quantize
    from seqclf.exporting.parts import Parts

    parts = Parts(model)
    proto = onnx_form(parts, frame_graph(parts, shape, torch.uint8, 18), shape, "stream")
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "stream.onnx", Path(folder) / "stream.int8.onnx"
        save(proto, path)
        if form == "int8":
            quantize(path, small)
        session = InferenceSession(small if form == "int8" else path, options, providers=["CPUExecutionProvider"])
    net: Any = model.temporal
    state = {name: np.zeros((net.num_layers, 1, net.hidden_size), np.float32) for name in ("h", "c")}
    wanted, no = ["probabilities", "next_h", "next_c"], np.zeros((1, 1), bool)

    def feed(frame: Tensor) -> NDArray[np.float32]:
        p, state["h"], state["c"] = session.run(wanted, {"frames": frame.numpy()[None, None], "is_first": no, **state})
        found: NDArray[np.float32] = p[0, 0]
        return found

    return feed
