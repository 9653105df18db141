"""Whole processes: training against the plain script, start-up time, memory, two processes against one."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from seqclf.benchmark.timing import Cost, compare_processes, peak_memory, process, show

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
PLAIN = str(Path(__file__).with_name("plain.py"))

OPTIMIZER = "import torch; torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)"
"""The start of any training in PyTorch: the first optimizer imports a large part of it."""


def start(pairs: int = 5) -> None:
    """Measures importing seqclf, and one training step as a process."""

    def run(code: str) -> Cost:
        return process(sys.executable, "-c", code)

    with tempfile.TemporaryDirectory() as folder:

        def one_step(number: int) -> Cost:
            settings = ("data.source=digits", "steps=1", "--device", "cpu")
            return process(*train_command("mnist_lastframe", f"{folder}/{number}", *settings))

        one_step(pairs)  # fills the file cache
        found = [(run("from seqclf import train"), run("import torch")) for _ in range(pairs)]
        compare_processes("from seqclf import train", found, "import torch")
        found = [(one_step(i), run(OPTIMIZER)) for i in range(pairs)]
        compare_processes("train: one step to report", found, "torch + an optimizer")


def whole(root: str, pairs: int, steps: int, device: str = "cpu") -> None:
    """Time and memory of the tutorial's recipe: ``seqclf train`` against the plain script."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for i in range(pairs):
            settings = [f"data.root={root}", "data.source=mnist", f"steps={steps}", "--device", device]
            settings += ["cuda_graph=true"] if device == "cuda" else []
            ours = process(*train_command("mnist_seed", f"{folder}/{i}", *settings))
            plain = process(sys.executable, PLAIN, "--root", root, "--steps", str(steps), "--device", device)
            found.append((ours, plain))
    compare_processes(f"mnist_seed, {steps} steps", found, "plain script")


def memory(root: str, steps: int = 500) -> None:
    """Peak memory of a reference run. The evaluation needs the most, so a few steps are enough."""
    settings = (f"data.root={root}", "data.source=mnist", f"steps={steps}", "--device", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        ours = process(*train_command("mnist_lastframe", f"{folder}/run", *settings)).memory
    plain = process(sys.executable, PLAIN, "--root", root, "--steps", str(steps)).memory
    show(f"mnist_lastframe, {steps} steps, peak memory", [(ours, plain)], "plain script", 1, "MB")
    alone = [f"'import {name}' alone {peak_memory(f'import {name}'):.0f} MB" for name in ("seqclf", "torch")]
    print(f"  {', '.join(alone)}")


def processes(pairs: int = 3, steps: tuple[int, int] = (600, 60)) -> None:
    """Training with two processes, each with half of the threads, against one process with all."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        digits = ("data.videos=100", "data.test_videos=8", f"data.root={folder}/digits")
        tasks = {
            "reference task": ("mnist_lastframe", steps[0], 64, ("data.source=digits",)),
            "moving digits": ("moving_digits", steps[1], 16, digits),
        }
        for title, (config, count, batch, settings) in tasks.items():
            counts = (f"steps={count}", f"eval_every={count}", f"log_every={count // 4}", f"checkpoint_every={count}")

            def rate(number: int, config: str = config, settings: tuple[str, ...] = (*settings, *counts)) -> float:
                run = tempfile.mkdtemp(dir=folder)
                python, *command = train_command(config, run, *settings, "--device", "cpu")
                launcher = [python, *TORCHRUN, str(number)] if number > 1 else [python]
                process(*launcher, *command, OMP_NUM_THREADS=str(max(1, threads // number)))
                return steps_per_second(run)

            rates = [(rate(2), rate(1)) for _ in range(pairs)]
            show(f"{title}, 2 processes", rates, f"1 of {threads} threads", 1, "steps/s")
            best = [max(column) * batch for column in zip(*rates, strict=True)]
            print(f"  best: {best[0]:,.0f} and {best[1]:,.0f} clips/s")


def train_command(config: str, workdir: str, *settings: str) -> tuple[str, ...]:
    """``seqclf train`` with this Python."""
    return (sys.executable, "-m", "seqclf", "train", "--config", config, "--workdir", workdir, *settings)


def steps_per_second(run: str) -> float:
    """Steps per second between the first and the last metrics of a run, by the times in its TensorBoard events."""
    points = curve(run, "train/loss")
    return (points[-1].step - points[0].step) / (points[-1].wall_time - points[0].wall_time)


def curve(run: str, name: str) -> list[Any]:
    """The TensorBoard scalars of a run under a name: points with ``step``, ``value`` and ``wall_time``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(run)
    events.Reload()
    points: list[Any] = events.Scalars(name)
    return points
