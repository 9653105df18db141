"""Whole processes: the training tool against the plain script, its start, its memory; two processes against one."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from seqclf.benchmark.timing import ROOT, TOOLS, peak_memory, process, show

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
PLAIN = str(Path(__file__).with_name("plain.py"))


OPTIMIZER = "import torch; torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)"
"""What any training in PyTorch begins with: the first optimizer imports a good part of it."""


def start(pairs: int = 5) -> None:
    """What passes before the first step, and around it."""

    def run(code: str) -> float:
        return process(sys.executable, "-c", code)[0]

    with tempfile.TemporaryDirectory() as folder:

        def one_step(number: int) -> float:
            settings = ("data.source=digits", "steps=1", "--device", "cpu")
            return process(*train_command("mnist_lastframe", f"{folder}/{number}", *settings))[0]

        one_step(pairs)  # reads all files once
        times = [(run("import seqclf"), run("import torch")) for _ in range(pairs)]
        show("import seqclf", times, "import torch", 1, "s ")
        times = [(one_step(i), run(OPTIMIZER)) for i in range(pairs)]
        show("train.py: one step, evaluation, report", times, "torch and an optimizer", 1, "s ")


def whole(root: str, pairs: int, steps: int, device: str = "cpu") -> None:
    """The tutorial's recipe by the training tool and by the plain script: time, and memory."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for i in range(pairs):
            settings = (f"data.root={root}", "data.source=mnist", f"steps={steps}", "--device", device)
            settings += ("cuda_graph=true",) if device == "cuda" else ()
            ours = process(*train_command("mnist_seed", f"{folder}/{i}", *settings))
            plain = process(sys.executable, PLAIN, "--root", root, "--steps", str(steps), "--device", device)
            found.append((ours, plain))
    for column, (what, mark) in enumerate((("time", "s "), ("peak memory", "MB"))):
        pairs_of_it = [(ours[column], plain[column]) for ours, plain in found]
        show(f"mnist_seed, {steps} steps, {what}", pairs_of_it, "plain script", 1, mark)


def memory(root: str, steps: int = 500) -> None:
    """The most that a reference run holds; its evaluation takes the most, so that few steps tell it."""
    settings = (f"data.root={root}", "data.source=mnist", f"steps={steps}", "--device", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        ours = process(*train_command("mnist_lastframe", f"{folder}/run", *settings))[1]
    plain = process(sys.executable, PLAIN, "--root", root, "--steps", str(steps))[1]
    show(f"mnist_lastframe, {steps} steps, peak memory", [(ours, plain)], "plain script", 1, "MB")
    alone = [f"'import {name}' alone {peak_memory(f'import {name}'):.0f} MB" for name in ("seqclf", "torch")]
    print(f"  {', '.join(alone)}")


def processes(pairs: int = 3, steps: tuple[int, int] = (600, 60)) -> None:
    """Training by two processes, each with half of the threads, against one with all."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        digits = ("data.videos=100", "data.test_videos=8", f"data.root={folder}/made")
        tasks = {
            "reference task": ("mnist_lastframe", steps[0], 64, ("data.source=digits",)),
            "moving digits": ("moving_digits", steps[1], 16, digits),
        }
        for title, (config, count, batch, settings) in tasks.items():
            counts = (f"steps={count}", f"eval_every={count}", f"log_every={count // 4}", f"checkpoint_every={count}")

            def rate(number: int, config: str = config, settings: tuple[str, ...] = (*settings, *counts)) -> float:
                run = tempfile.mkdtemp(dir=folder)
                python, *tool = train_command(config, run, *settings, "--device", "cpu")
                launcher = [python, *TORCHRUN, str(number)] if number > 1 else [python]
                process(*launcher, *tool, OMP_NUM_THREADS=str(max(1, threads // number)))
                return steps_per_second(run)

            rates = [(rate(2), rate(1)) for _ in range(pairs)]
            show(f"{title}, 2 processes", rates, f"1 of {threads} threads", 1, "steps/s")
            best = [max(column) * batch for column in zip(*rates, strict=True)]
            print(f"  at best {best[0]:,.0f} and {best[1]:,.0f} clips/s")


def train_command(config: str, workdir: str, *settings: str) -> tuple[str, ...]:
    script, path = str(TOOLS / "train.py"), str(ROOT / "configs" / f"{config}.py")
    return (sys.executable, script, "--config", path, "--workdir", workdir, *settings)


def steps_per_second(run: str) -> float:
    """How fast a run was from its first line of figures to its last, by TensorBoard's clock."""
    points = curve(run, "train/loss")
    return (points[-1].step - points[0].step) / (points[-1].wall_time - points[0].wall_time)


def curve(run: str, name: str) -> list[Any]:
    """What a run told TensorBoard under this name: points with step, value and wall_time."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(run)
    events.Reload()
    return events.Scalars(name)
