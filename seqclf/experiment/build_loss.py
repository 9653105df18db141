"""Builds the loss of a run: computes balanced class weights from the training labels, and wraps modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import Data
from seqclf.data.class_counts import class_counts
from seqclf.experiment.config import Experiment, build
from seqclf.experiment.losses import divisor, labelled_rows, mean_loss

Loss = Callable[..., Tensor]

OF_LOGITS: dict[type[nn.Module], type[nn.Module]] = {nn.NLLLoss: nn.CrossEntropyLoss, nn.BCELoss: nn.BCEWithLogitsLoss}
"""Losses of probabilities, and those that are the same on logits."""


def balanced_weights(data: Data) -> tuple[float, ...]:
    """Class weights for which each class has the same share of the loss: ``n / (K n_k)``, as scikit-learn's "balanced".

    n is the number of training labels, n_k the number of class k, and K the number of classes that have labels. If the
    data has a label per clip, clips are counted; if it has labels per frame, labelled frames. A class without training
    labels has weight 0.

    Args:
        data: the data; only its training part is read.

    Returns:
        a weight for each class.

    Raises:
        SeqclfError: the data is multi-label.
    """
    if data.multi_label:
        raise SeqclfError(
            "setting loss.weights=balanced: multi-label data has no such weights: set loss.pos_weight of "
            "binary_cross_entropy"
        )
    counts = class_counts(data.train, data.num_classes).double()
    weights = counts.sum() / ((counts > 0).sum() * counts)
    return tuple(weights.where(counts > 0, 0).tolist())


def build_loss(experiment: Experiment, data: Data, device: torch.device) -> Loss:
    """The loss that a run minimises.

    - ``weights="balanced"`` of a loss function is replaced by ``balanced_weights(data)``.
    - A ``nn.Module``, or a class of one such as ``partial(nn.CrossEntropyLoss, label_smoothing=0.1)``, becomes a
      ``ModuleLoss`` on the device.
    - Any other function is returned as it is.

    Raises:
        SeqclfError: the module cannot be built, has parameters or takes probabilities, or the labels have no balanced
            weights.
    """
    loss = experiment.loss
    kind = loss.func if isinstance(loss, partial) else loss
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        loss = build("loss", loss)
    for wrong, right in OF_LOGITS.items():
        if isinstance(loss, wrong):
            raise SeqclfError(
                f"setting loss={wrong.__name__}: it takes probabilities or their logarithms, but models return logits: "
                f"set loss=torch.nn.{right.__name__}"
            )
    if isinstance(loss, nn.Module):
        return ModuleLoss(loss.to(device))
    weights = _weights_of(loss)
    balanced = isinstance(weights, str) and weights == "balanced"
    return partial(loss, weights=balanced_weights(data)) if balanced else loss


def class_weights_of(loss: Loss) -> list[float] | None:
    """The class weights of a loss that ``build_loss`` returned; None if it has none."""
    weights = _weights_of(loss)
    return list(weights) if isinstance(weights, (tuple, list)) else None


def _weights_of(loss: Loss) -> object:
    """The value of a loss function's argument ``weights``; None if it has none."""
    try:
        parameter = inspect.signature(loss).parameters.get("weights")
    except (TypeError, ValueError):  # not a Python function
        return None
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


class ModuleLoss:
    """A ``nn.Module`` as a loss: the mean of its losses over labelled frames.

    The module is called with logits ``(M, K)`` and classes ``(M,)`` and returns one loss per frame ``(M,)``. If it has
    an attribute ``reduction``, as the losses of PyTorch do, it is set to "none". The M frames may include frames
    without a label; their losses are left out.

    Args:
        module: the module. It must have no parameters, because no optimizer trains them.

    Raises:
        SeqclfError: it has parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.name = module, type(module).__name__
        if any(True for _ in module.parameters()):
            raise SeqclfError(
                f"setting loss: {self.name} has parameters, which would not be trained or saved: put them in the model"
            )
        if hasattr(module, "reduction"):
            module.reduction = "none"  # type: ignore[assignment]

    def __call__(self, logits: Tensor, labels: Tensor, total: int | Tensor | None = None) -> Tensor:
        """The loss of logits ``(B, T, K)`` and labels ``(B, T)``; arguments as in ``cross_entropy``.

        Raises:
            SeqclfError: the labels are multi-label, or the module does not return one loss per frame.
        """
        if labels.dim() == 3:
            raise SeqclfError(
                f"{self.name} is a module, which takes one class per frame: for multi-label data use "
                "binary_cross_entropy, or write the loss as a function"
            )
        total = divisor(total, labels)
        logits, labels = labelled_rows(logits, labels)
        losses = self.module(logits, labels.clamp(min=0))
        if losses.shape != labels.shape:
            raise SeqclfError(
                f"{self.name} returns {tuple(losses.shape)} for {len(labels)} frames, expected one loss per frame "
                f'({len(labels)},): give it reduction="none"'
            )
        return mean_loss(losses, labels, total)
