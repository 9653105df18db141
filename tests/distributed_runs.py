"""Runs that are compared between one and several processes: ``torchrun ... distributed_runs.py FOLDER`` trains all.

Names after the folder select some of them, which are resumed if they exist.
"""

import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from seqclf import GRU, IGNORE, LSTM, TCN, Clips, Data, Experiment, FrameSequenceClassifier, Normalize
from seqclf.cli.main import run
from seqclf.data import shift
from seqclf.data.labelling import every_frame, given
from seqclf.data.samplers import balanced
from seqclf.evaluation.evaluator import evaluate
from seqclf.experiment.binary_loss import binary_cross_entropy
from seqclf.experiment.losses import cross_entropy
from seqclf.runtime.distributed import average_buffers, joined
from seqclf.training import session
from seqclf.training.loop import train

STEPS = 40
STRUCK_AT = 24  # step
calls = 0


def struck(frames, generator):
    """Sends process 1 the signal of ``STRIKE`` at step STRUCK_AT, unless it was restarted. Changes no frames."""
    global calls
    calls += 1
    wanted = os.environ.get("STRIKE")
    if wanted and calls == STRUCK_AT and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.Signals[wanted])
    return frames


def noted(logits, labels, total):
    """Cross-entropy; appends the next random number of this process to the file of ``DRAWS``."""
    with open(f"{os.environ['DRAWS']}_{os.environ['RANK']}", "a") as file:
        print(torch.rand(()).item(), file=file)
    return cross_entropy(logits, labels, total)


def toy_data(kind: str) -> Data:
    """Noise whose class shifts its mean: 41 clips to train and 23 to test, which divide unevenly."""
    generator = torch.Generator().manual_seed(1)

    def part(clips: int) -> Clips:
        labels = torch.randint(0, 3, (clips,), generator=generator)
        frames = torch.rand(clips, 7, 6, generator=generator) + 0.2 * labels[:, None, None]
        lengths = torch.randint(1, 8, (clips,), generator=generator)
        if kind == "clip":
            return Clips(frames, labels)
        if kind == "every":
            return Clips(frames, labels, lengths, every_frame)
        if kind == "several":
            several = torch.randint(0, 2, (clips, 7, 3), generator=generator)
            unknown = torch.rand(clips, 7, 3, generator=generator) < 0.3
            return Clips(frames, several.masked_fill(unknown, IGNORE), lengths, given, multi_label=True)
        per_frame = labels[:, None].expand(-1, 7).masked_fill(torch.rand(clips, 7, generator=generator) < 0.7, IGNORE)
        return Clips(frames, per_frame, lengths, given)

    return Data(part(41), part(23), ["a", "b", "c"], f"toy {kind}")


BASE = Experiment(
    data=partial(toy_data, kind="clip"),
    model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8, layers=2)),
    optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.5),
    steps=STEPS,
    batch_size=7,
    eval_every=20,
    eval_batch=5,
    log_every=10,
    checkpoint_every=20,
)
RUNS = {
    "clip": BASE,
    "every": replace(
        BASE,
        data=partial(toy_data, kind="every"),
        optimizer=partial(torch.optim.AdamW, lr=3e-3),
        loss=partial(cross_entropy, weights="balanced"),
        sampler=balanced,
        ema=0.9,
    ),
    "ragged": replace(
        BASE,
        data=partial(toy_data, kind="given"),
        model=partial(
            FrameSequenceClassifier, preprocess=partial(Normalize, fit="channel"), temporal=partial(GRU, hidden=8)
        ),
        clip_norm=0.5,
        validation=0.3,
        best_by="frame_macro_f1",
    ),
    "parts": replace(
        BASE,
        data=partial(toy_data, kind="given"),
        model=partial(BASE.model, refine=[partial(TCN, channels=(4,), norm="layer")]),
        accumulate=3,
        truncate=2,
    ),
    "several": replace(
        BASE, data=partial(toy_data, kind="several"), loss=partial(binary_cross_entropy, pos_weight=(1, 2, 3)), ema=0.9
    ),
    "moved": replace(BASE, augment=partial(shift, pixels=1)),
    "drawn": replace(BASE, steps=3, loss=noted),
    "struck": replace(BASE, augment=struck, checkpoint_every=10),
}

SAME = [name for name in RUNS if name != "drawn"]
"""Runs that are equal for any number of processes."""


def evaluated(world):
    """Metrics of an untrained model on the toy clips, which batches and processes divide unevenly."""
    torch.manual_seed(0)
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=8), frame_shape=(6,), num_classes=3)
    data = {kind: toy_data(kind).train for kind in ("clip", "every", "given", "several")}
    figures = {kind: evaluate(model, clips, 3, 2, world=world) for kind, clips in data.items()}
    return figures | {"few": evaluate(model, data["clip"], 3, 1000, background=[0], world=world)}


def main() -> int:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    session.report = lambda path: None  # takes longer than all the rest
    with joined("cpu") as world:
        for name in names or SAME:
            train(RUNS[name], folder / name, "cpu", resume=bool(names) and (folder / name).exists())
        torch.save(evaluated(world), folder / f"figures_{world.rank}.pt")
        norm = torch.nn.BatchNorm1d(2)
        norm.running_mean.fill_(world.rank)
        average_buffers(norm, world)
        torch.save(norm.state_dict(), folder / f"norm_{world.rank}.pt")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run(lambda words: main(), []))
