"""Checks before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from seqclf.batch import SeqclfError
from seqclf.data import Clips, Data, Videos
from seqclf.data.class_counts import class_counts
from seqclf.evaluation.evaluator import evaluation_batch
from seqclf.evaluation.metrics import Metrics
from seqclf.evaluation.multi_label import MultiLabelMetrics
from seqclf.evaluation.segment_metrics import SegmentMetrics
from seqclf.evaluation.user_metrics import Metric, metric_value
from seqclf.experiment.build_loss import Loss, ModuleLoss
from seqclf.experiment.config import Experiment
from seqclf.models import Normalize, check_user_temporal, require_streaming
from seqclf.models.contract import check_arguments, check_result, declares
from seqclf.runtime.distributed import World
from seqclf.runtime.random import default_generator, seeded
from seqclf.runtime.text import some
from seqclf.training.fitting import part_to_fit


def check_processes(fingerprints: list[list[str]], batch_size: int) -> None:
    """Checks that all processes have the same data, and at least one clip of each batch.

    Args:
        fingerprints: for each process, those of the parts of its data.
        batch_size: clips per step, of all processes together.

    Raises:
        SeqclfError: they do not.
    """
    for rank, prints in enumerate(fingerprints):
        if prints != fingerprints[0]:
            raise SeqclfError(
                f"process {rank} of {len(fingerprints)} has other data than process 0: all need the same files"
            )
    if batch_size < len(fingerprints):
        raise SeqclfError(f"setting batch_size={batch_size}: must be at least {len(fingerprints)}, the processes")


def check_graph(experiment: Experiment, clips: Clips | Videos, device: torch.device, world: World) -> None:
    """Checks that ``cuda_graph=True`` is possible: each step must run the same operations on the same shapes.

    Raises:
        SeqclfError: it is not.
    """
    for wrong, reason in (
        (device.type != "cuda", "the run uses no GPU"),
        (world.size > 1, "the run has several processes"),
        (not isinstance(clips, Clips) or clips.lengths is not None, "clips must be in memory and of one length"),
        (experiment.precision == "fp16", "fp16's loss scaling depends on the values of each step"),
    ):
        if wrong:
            raise SeqclfError(f"setting cuda_graph=True: {reason}")


def check_loss(loss: Callable[..., Tensor], num_classes: int, multi_label: bool, device: torch.device) -> None:
    """Calls the loss once on zeros, with more frames than classes so that the axes can't be mistaken.

    Raises:
        SeqclfError: it does not take the arguments of a loss, fails, or returns no scalar; it is for the other kind of
            labels; or it is a module whose buffers change.
    """
    buffers = {} if not isinstance(loss, ModuleLoss) else dict(loss.module.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    error = _error_of(loss, num_classes, multi_label, device)
    for name, buffer in before.items():
        if not torch.equal(buffer, buffers[name]):
            raise SeqclfError(f"setting loss: it changes its buffer {name}, which a checkpoint does not hold")
    if error is None:
        return
    if _error_of(loss, num_classes, not multi_label, device) is None:
        function = getattr(loss, "func", loss)
        title = getattr(function, "name", None) or getattr(function, "__name__", type(loss).__name__)
        kinds, fits = ("one class per frame", "multi-label data"), ("cross_entropy", "binary_cross_entropy")
        raise SeqclfError(
            f"setting loss={title}: it is for {kinds[not multi_label]}, but the labels are {kinds[multi_label]}: set "
            f"loss=seqclf.losses.{fits[multi_label]}"
        )
    if isinstance(error, SeqclfError):
        raise SeqclfError(f"setting loss: {error}")
    labels, example = ("(B, T, K)", "binary_cross_entropy") if multi_label else ("(B, T)", "cross_entropy")
    reason = str(error).splitlines()[0] if str(error) else ""
    raise SeqclfError(
        f"setting loss: {type(error).__name__}: {reason}; a loss takes (logits, labels, total), with logits (B, T, K), "
        f"labels {labels} and the number of labels in the batch, and returns a scalar (see seqclf.losses.{example})"
    )


def _error_of(
    loss: Callable[..., Tensor], num_classes: int, multi_label: bool, device: torch.device
) -> Exception | None:
    """The error of a loss on labels of this kind; None if it takes them."""
    logits = torch.zeros(2, num_classes + 1, num_classes, device=device, requires_grad=True)
    labels = torch.zeros(logits.shape if multi_label else logits.shape[:2], dtype=torch.int64, device=device)
    try:
        with seeded(0, device):
            found = loss(logits, labels, torch.tensor(labels.numel(), device=device))
    except Exception as error:  # user code
        return error
    if not isinstance(found, Tensor) or found.dim():
        return TypeError("it returned no scalar")
    return None if found.requires_grad else TypeError("it returned a scalar without a gradient")


def check_sampler(experiment: Experiment, clips: Clips | Videos) -> None:
    """Calls the sampler for two steps, in both orders.

    Raises:
        SeqclfError: it fails, does not return the numbers of samples, or is no function of the seed and the step.
    """
    size, seed = experiment.batch_size, experiment.seed
    try:
        first, second, again = (experiment.sampler(clips, size, seed, step) for step in (0, 1, 0))
        for rows in (first, second):
            if rows.dtype != torch.int64 or rows.shape != (size,) or not ((rows >= 0) & (rows < len(clips))).all():
                raise SeqclfError(
                    f"it returned {rows.dtype} {tuple(rows.shape)}, expected ({size},) int64, the numbers of samples "
                    f"from 0 to {len(clips) - 1}"
                )
        if not torch.equal(first, again):
            raise SeqclfError("its samples differ from call to call: they must depend on the seed and the step only")
    except SeqclfError as error:
        raise SeqclfError(f"setting sampler: {error}") from None
    except Exception as error:  # user code
        raise SeqclfError(
            f"setting sampler: {type(error).__name__}: {error}; a sampler takes (clips, batch_size, seed, step)"
        ) from None


def label_warnings(data: Data) -> list[str]:
    """A sentence about classes without training labels, and one about data of a single class."""
    counts, found = class_counts(data.train, data.num_classes).tolist(), []
    absent = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    if absent:
        label = "positive training label" if data.multi_label else "training label"
        found.append(f"no {label} for {len(absent)} of {data.num_classes} classes: {some(absent, 10)}")
    if data.num_classes == 1 and not data.multi_label:
        found.append(f"{data.classes[0]} is the only class, so there is nothing to learn")
    return found


def check_metrics(metrics: Mapping[str, Metric], num_classes: int, multi_label: bool) -> None:
    """Calls each of the user's metrics once, on three clips of each class with random probabilities.

    Raises:
        SeqclfError: one has the name of another metric, does not take the arguments of a metric, fails, or returns no
            finite number.
    """
    if not isinstance(metrics, Mapping):
        kind = type(metrics).__name__
        raise SeqclfError(
            f'setting metrics: expected functions by name, such as {{"brier": brier_score}}, not a {kind}'
        )
    known = {
        "step",
        "part",
        *Metrics(num_classes).result(),
        *MultiLabelMetrics(num_classes).result(),
        *SegmentMetrics().result(),
    }
    truth = np.arange(num_classes).repeat(3)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(num_classes), len(truth)).astype(np.float32)
    predicted, shape = probabilities.argmax(1), "(N,), (N,) and (N, K)"
    if multi_label:
        truth, predicted, shape = np.eye(num_classes, dtype=int)[truth], (probabilities >= 0.5).astype(int), "(N, K)"
    for name, metric in metrics.items():
        if not isinstance(name, str):
            raise SeqclfError(f"setting metrics: the name {name!r} is no string")
        if name in known:
            raise SeqclfError(f"setting metrics: there is a metric {name!r} already, choose another name")
        reason = metric_value(metric, truth, predicted, probabilities)[1]
        if reason is not None:
            raise SeqclfError(
                f"setting metrics: {name}: {reason}; a metric takes (truth, predicted, probabilities), NumPy arrays "
                f"{shape}, and returns a number"
            )


def check_model(model: nn.Module, clips: Clips | Videos, num_classes: int, device: torch.device) -> None:
    """Calls the model once in evaluation mode, and warns if it draws random numbers, as ``F.dropout`` does by default.

    Raises:
        SeqclfError: it does not take the arguments of a model, or does not return logits ``(B, T, K)`` and a state.
    """
    check_arguments(model)
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        return
    training = model.training
    frames = torch.zeros(1, 2, *clips.frame_shape, dtype=clips.frame_dtype, device=device)
    with seeded(0, device), torch.no_grad():
        generator = default_generator(device)
        before, result = generator.get_state(), None
        with suppress(Exception):  # a model that can't take two frames; the first step reports what is wrong
            result = model.eval()(frames)
        drawn = not torch.equal(generator.get_state(), before)
    model.train(training)
    if result is not None:
        logits, _ = check_result(model, result, frames.shape)
        if logits.shape[2] != num_classes:
            raise SeqclfError(
                f"setting model: it returns logits {tuple(logits.shape)} for frames {tuple(frames.shape)}, but there "
                f"are {num_classes} classes"
            )
    if drawn:
        warnings.warn(
            f"{type(model).__name__} draws random numbers in evaluation, so its predictions differ from call to call "
            "(F.dropout needs training=self.training)",
            stacklevel=2,
        )


def check_normalize(model: nn.Module, clips: Clips | Videos) -> None:
    """Checks the scale of ``Normalize``, and warns if an encoder with pretrained weights reads frames without it.

    Raises:
        SeqclfError: the mean is on the scale from 0 to 255, but uint8 frames are scaled to 0 to 1.
    """
    normalize = getattr(model, "preprocess", None)
    if not isinstance(normalize, Normalize) or normalize.fit is not None:
        return
    highest = float(normalize.mean.max())
    if clips.frame_dtype == torch.uint8 and highest > 1:
        raise SeqclfError(
            f"Normalize: mean {highest:g} is above 1, but uint8 frames are scaled to 0 to 1: divide mean and std by 255"
        )
    plain = not normalize.mean.any() and bool((normalize.std == 1).all())
    if plain and getattr(getattr(model, "encoder", None), "pretrained", False) is True:
        warnings.warn(
            "the encoder has pretrained weights, but frames are not normalised as for them: for those of ImageNet set "
            "preprocess=partial(Normalize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))",
            stacklevel=2,
        )


def check_equal_lengths(experiment: Experiment, data: Data, model: nn.Module) -> None:
    """Checks that a model which ignores ``lengths`` gets no padded batch.

    Clips that training draws from videos are not checked here: their lengths are not known before they are drawn.

    Raises:
        SeqclfError: a part of the data would be padded.
    """
    temporal = getattr(model, "temporal", model)
    if not declares(temporal, "equal_lengths"):
        return
    for name, clips in data.parts().items():
        if isinstance(clips, Clips):
            padded = clips.lengths is not None and int(clips.lengths.min()) < clips.num_frames
            way_out = "mask padding by lengths"
        else:
            lengths = set() if clips.training else {len(numbers) for _, numbers in clips.clips}
            padded = len(lengths) > 1 and evaluation_batch(clips, experiment.eval_batch) > 1
            way_out = "mask padding by lengths, or evaluate one clip at a time (eval_batch=1)"
        if padded:
            module = type(temporal).__name__
            raise SeqclfError(
                f"{module} declares equal_lengths = True, but the {name} clips have different lengths: {way_out}"
            )


def check_experiment(
    experiment: Experiment, data: Data, model: nn.Module, loss: Loss, device: torch.device, world: World
) -> None:
    """Checks settings, and the loss of the run, against the data and the model.

    Raises:
        SeqclfError: a setting is not possible with them.
    """
    if experiment.cuda_graph:
        check_graph(experiment, data.train, device, world)
    check_sampler(experiment, data.train)
    check_loss(loss, data.num_classes, data.multi_label, device)
    check_metrics(experiment.metrics or {}, data.num_classes, data.multi_label)
    part_to_fit(model)
    check_normalize(model, data.train)
    check_user_temporal(model)
    check_equal_lengths(experiment, data, model)
    check_model(model, data.test, data.num_classes, device)
    if experiment.truncate is not None:
        require_streaming(model, f"setting truncate={experiment.truncate}")
