"""Measure speed and memory against other programs: medians, and ratios of pairs measured in turn, ours / theirs.

examples:
  seqclf benchmark                          the first ten parts, a few minutes
  seqclf benchmark step resets start
  seqclf benchmark whole --root DIR         longer parts run only if named
  seqclf benchmark gpu --root DIR

parts (ratios of times; ratios of rates where the unit is "per second"):
  step       training step of the reference task, against bare nn.LSTM and against its matrix products
  resets     LSTM with sequences that start inside the batch, against the same without
  wide       LSTM at the shape of LRCN and others, against nn.LSTM
  tcn        TCN against the same convolutions without padding and resets
  start      importing seqclf, and one training step as a process
  caffe      nets of Caffe files, against times of the original Caffe; loading a large .caffemodel
  reader     reading clips from video files and frame folders, against PyAV, PIL or torchcodec, with 1 and 2 threads
  lrcn       LRCN, against the original Caffe and the same net of torch.nn; its peak memory
  streaming  latency and memory frame by frame over 100,000 frames, against a bare loop; live video through a pipe
  onnx       one-frame streaming, against ONNX Runtime in floats and in 8 bits

  ragged     LSTM on clips of unequal length, against nn.LSTM padded and packed; fits the rule that chooses its kernel
  whole      seqclf train with the config mnist_seed, against a plain script (seqclf/benchmark/plain.py): time, memory
  memory     peak memory of a reference run, against the same script
  video_memory  peak memory of evaluating a 40 s 720p video for a model of 64x64
  processes  training with two processes, against one with as many threads
  gpu        with CUDA: the reference task, LSTM with resets against cuDNN, LRCN and ResNet-LSTM from video files

The times of the original Caffe are from 2 virtual EPYC cores (OpenBLAS, 2 threads): compare on such a machine only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from seqclf import SeqclfError
from seqclf.cli.parser import make_parser

QUICK = ("step", "resets", "wide", "tcn", "start", "caffe", "reader", "lrcn", "streaming", "onnx")
LONG = ("ragged", "whole", "memory", "video_memory", "processes", "gpu")


def main(words: Sequence[str]) -> int:
    parser = make_parser("benchmark", __doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="see above (default: the first ten)")
    parser.add_argument("--root", default="data", help="the folder that holds MNIST/raw, for whole, memory and gpu")
    parser.add_argument("--pairs", type=int, default=3, help="repetitions of whole processes (default: 3)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of whole processes (default: 3000)")
    args = parser.parse_args(words)
    for name in args.parts:
        if name not in QUICK + LONG:
            raise SeqclfError(f"benchmark part {name!r}: expected one of {', '.join(QUICK + LONG)}")

    import torch

    from seqclf.runtime.allocator import keep_freed_memory

    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU {torch.backends.cpu.get_cpu_capability()}"
    )
    keep_freed_memory()  # for both sides of each pair
    parts = benchmarks(str(Path(args.root).resolve()), args.pairs, args.steps)
    for name in args.parts or QUICK:
        parts[name]()
    return 0


def benchmarks(root: str, pairs: int, steps: int) -> dict[str, Callable[[], None]]:
    """The benchmarks by name."""
    from seqclf.benchmark import caffe_nets, gpu, lrcn, lstm, processes, ragged, reader, streaming, tcn, video_memory

    return {
        "step": lstm.step,
        "resets": lstm.resets,
        "wide": lstm.wide,
        "tcn": tcn.tcn,
        "start": processes.start,
        "caffe": caffe_nets.caffe_nets,
        "reader": reader.reader,
        "lrcn": lrcn.lrcn,
        "streaming": streaming.streaming,
        "onnx": streaming.onnx,
        "ragged": ragged.ragged,
        "whole": lambda: processes.whole(root, pairs, steps),
        "memory": lambda: processes.memory(root),
        "video_memory": video_memory.video_memory,
        "processes": lambda: processes.processes(pairs),
        "gpu": lambda: gpu.gpu(root, pairs, steps),
    }
