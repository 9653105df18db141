"""A trained run, ready for use: raw frames in, probabilities at every frame out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.checkpoint import load_checkpoint, load_newest, load_weights
from seqclf.config import Experiment, called, load_experiment
from seqclf.models import State
from seqclf.record import read_json


@dataclass
class Prediction:
    """What a model says of one clip.

    Attributes:
        probabilities: ``(T, K)`` float32 on the CPU, at every frame.
        classes: the K names.
    """

    probabilities: Tensor
    classes: Sequence[str]

    def label(self, rule: str = "last") -> tuple[str, float]:
        """The clip's class and its probability, by the "last" frame or by the "mean" over frames (LRCN's rule)."""
        if rule not in ("last", "mean"):
            raise SeqclfError(f'a clip is labelled by "last" or "mean", not {rule!r}')
        p = self.probabilities[-1] if rule == "last" else self.probabilities.mean(0)
        best = int(p.argmax())
        return self.classes[best], float(p[best])


class Predictor:
    """Classifies raw frames with a run's model, in evaluation mode.

    Args:
        model: a ``FrameSequenceClassifier``.
        classes: the names of its classes.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.model, self.classes, self.device = model.to(device).eval(), list(classes), torch.device(device)

    @torch.inference_mode()
    def __call__(self, frames: Tensor | np.ndarray[Any, Any]) -> Prediction:
        """One clip: frames ``(T, *frame_shape)``, uint8 or float (from 0 to 1), of any T from 1.

        Raises:
            SeqclfError: the frames are of another shape than the model's.
        """
        logits, _ = self.model(torch.as_tensor(frames)[None].to(self.device))
        return Prediction(logits[0].float().softmax(-1).cpu(), self.classes)

    def stream(self) -> Stream:
        """A stream to feed frame by frame, its memory carried from one to the next."""
        return Stream(self)


class Stream:
    """One sequence, fed frame by frame; each frame costs the same, however long the stream."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.state: State = None

    @torch.inference_mode()
    def __call__(self, frame: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """Probabilities ``(K,)`` after one more frame ``(*frame_shape)``."""
        x = torch.as_tensor(frame)[None, None].to(self.predictor.device)
        logits, self.state = self.predictor.model(x, state=self.state)
        return logits[0, 0].float().softmax(-1).cpu()

    def reset(self) -> None:
        """The next frame begins a new sequence."""
        self.state = None


def load_run(
    run: str | Path, checkpoint: str = "newest", overrides: Sequence[str] = ()
) -> tuple[Experiment, nn.Module, dict[str, Any], Path]:
    """A run's experiment, its model with the weights of a checkpoint, its ``run.json``, and the checkpoint's path.

    Args:
        run: the run's folder.
        checkpoint: "newest", "best" (by the validation part), or the number of a step.
        overrides: ``key=value`` changes of the experiment, such as ``data.root=DIR``.

    Raises:
        SeqclfError: the folder is no run, or the checkpoint is not there, damaged, or another model's.
    """
    run = Path(run)
    if not (run / "config.py").is_file() or not (run / "run.json").is_file():
        raise SeqclfError(f"{run} is not a run folder (it has no {'config.py' if run.is_dir() else 'files'})")
    experiment = load_experiment(run / "config.py", overrides)
    record = read_json(run / "run.json")
    found = load_newest(run / "checkpoints")
    if found is None:
        raise SeqclfError(f"{run} has no checkpoint yet")
    path, content, _ = found
    if checkpoint == "best":
        if content["best"] is None:
            raise SeqclfError(f"{run} has no best checkpoint: it was run without validation (data.validation=)")
        checkpoint = str(content["best"]["step"])
    if checkpoint != "newest":
        path = run / "checkpoints" / f"step_{checkpoint}.pt"
        content = load_checkpoint(path)
    data = record["data"]
    shape, classes = tuple(data["train"]["frame_shape"]), len(data["classes"])
    model = called("model", experiment.model, frame_shape=shape, num_classes=classes)
    load_weights(model, content, path)
    return experiment, model.eval(), record, path


def load(run: str | Path, checkpoint: str = "newest", device: torch.device | str = "cpu") -> Predictor:
    """A run as a ``Predictor``: ``seqclf.load("runs/<run>")(frames)``. Arguments and errors as of ``load_run``."""
    _, model, record, _ = load_run(run, checkpoint)
    return Predictor(model, record["data"]["classes"], device)
