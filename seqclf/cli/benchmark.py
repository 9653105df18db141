"""Measures seqclf against its floors and rivals: medians, and ratios of pairs run in turn, ours to theirs.

    seqclf benchmark                                  # the first nine parts, a few minutes
    seqclf benchmark step resets start                # some of them
    seqclf benchmark whole --root DIR      # those that take longer are asked for by name
    seqclf benchmark gpu --root DIR

Parts (ratios are of times, or of rates where it says things per second):

    step       the reference task's training step against bare nn.LSTM on a tensor in memory, and the matrix products'
               own time
    resets     LSTM with sequences that begin inside the batch against the same without
    wide       LSTM at LRCN's shape, and others, against nn.LSTM
    start      what passes before the first step of training, as a process
    caffe      nets that run and learn from Caffe's files, beside the times of the original Caffe; a large .caffemodel
               loaded against its bytes read
    reader     clips read from made video files and frame folders, against PyAV, PIL or torchcodec decoding the same
               frames, with one thread and with two
    lrcn       LRCN's own config against the original Caffe and the same net of torch.nn; its peak memory
    streaming  frame by frame: latency, and whether it or memory grows over 100,000 frames; against a bare loop
    onnx       one-frame streaming in ONNX Runtime, in floats and in 8 bits, against ours

    whole      the training tool on mnist_seed against the straightforward script (tools/bench/plain.py): time, memory
    memory     peak memory of a reference run against the same script
    processes  training by two processes against one with as many threads
    gpu        on a machine with CUDA: the reference task against the script and against its kernels' own time, LSTM
               with resets against cuDNN's, LRCN and ResNet-LSTM fed from video files against frames on the device

The original Caffe's times were taken on 2 virtual EPYC cores (OpenBLAS, 2 threads); they say something on such a
machine only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from seqclf import SeqclfError
from seqclf.benchmark import caffe_nets, gpu, lrcn, lstm, processes, reader, streaming
from seqclf.cli.parser import make_parser
from seqclf.runtime.allocator import keep_freed_memory


def main(words: Sequence[str]) -> int:
    parser = make_parser("benchmark", __doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help="see above (default: the first nine)")
    parser.add_argument("--root", default="data", help="the folder that holds MNIST/raw (whole, memory, gpu)")
    parser.add_argument("--pairs", type=int, default=3, help="how many pairs of whole processes")
    parser.add_argument("--steps", type=int, default=3000, help="steps of the whole processes")
    args = parser.parse_args(words)
    quick: dict[str, Callable[[], None]] = {
        "step": lstm.step,
        "resets": lstm.resets,
        "wide": lstm.wide,
        "start": processes.start,
        "caffe": caffe_nets.caffe_nets,
        "reader": reader.reader,
        "lrcn": lrcn.lrcn,
        "streaming": streaming.streaming,
        "onnx": streaming.onnx,
    }
    root = str(Path(args.root).resolve())
    parts = quick | {
        "whole": partial(processes.whole, root, args.pairs, args.steps),
        "memory": partial(processes.memory, root),
        "processes": partial(processes.processes, args.pairs),
        "gpu": partial(gpu.gpu, root, args.pairs, args.steps),
    }
    chosen = args.parts or list(quick)
    for name in chosen:
        if name not in parts:
            raise SeqclfError(f"no benchmark {name!r}: there are {', '.join(parts)}")
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU {torch.backends.cpu.get_cpu_capability()}"
    )
    keep_freed_memory()  # for both of each pair
    for name in chosen:
        parts[name]()
    return 0
