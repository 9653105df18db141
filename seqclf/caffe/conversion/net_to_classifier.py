"""Conversion of LRCN-shaped nets to classifiers. ``from_classifier`` is the inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from seqclf import models
from seqclf.caffe.conversion.lrcn import Description, describe, module_name
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.nets.net import Net


def to_classifier(
    net: Net,
    logits: str | None = None,
    mean: Sequence[float] | None = None,
    scale: float | None = None,
    bgr: bool | None = None,
) -> models.FrameSequenceClassifier:
    """Converts an LRCN-shaped net to a batch-first classifier with the same logits.

    Args:
        net: a net from frames ``(T*N, C, H, W)`` or ``(T, N, ...)`` through LSTMs with ``cont`` to an InnerProduct at
            every step or at the last steps.
        logits: the blob that holds the logits. None: the input of the net's Softmax or loss.
        mean: mean that was subtracted from the net's data, from 0 to 255: one value, or one per channel in the net's
            order. None: as the net's data layer specifies.
        scale: factor that was applied after the mean. None: as the data layer specifies.
        bgr: whether the net's channels are BGR. None: yes if the data layer, ``mean`` or ``scale`` determine the
            preprocessing.

    Returns:
        The classifier, in evaluation mode. Its frames are ``(B, T, C, H, W)`` or ``(B, T, D)``; its ``is_first`` is
        ``cont == 0``. Frames are raw RGB (uint8, or floats from 0 to 1) if the preprocessing is known from the
        arguments or the data layer, else the net's own data (floats).

    Raises:
        CaffeFormatError: the net has another shape; the message names the layer that does not fit.
    """
    return build_classifier(describe(net, logits), mean, scale, bgr)


def build_classifier(
    net: Description, mean: Sequence[float] | None, scale: float | None, bgr: bool | None
) -> models.FrameSequenceClassifier:
    """Like ``to_classifier``, for a net that is already analysed."""
    factory = classifier_factory(net, mean, scale, bgr)
    model = factory(frame_shape=net.frame_shape, num_classes=net.num_classes)
    preprocessing = {name: value for name, value in model.state_dict().items() if name.startswith("preprocess.")}
    model.load_state_dict({**preprocessing, **net.weights})
    return model.eval()


def classifier_factory(
    net: Description, mean: Sequence[float] | None, scale: float | None, bgr: bool | None
) -> Callable[..., models.FrameSequenceClassifier]:
    """Returns a partial that builds the classifier, for the ``model`` of an experiment."""
    settings: dict[str, Any] = {"preprocess": _preprocessing(net, mean, scale, bgr)}
    if net.parts:
        settings["encoder"] = partial(models.Chain, parts=net.parts)
    if net.recurrent:
        temporal: dict[str, Any] = {"hidden": net.hidden, "layers": len(net.recurrent)}
        if net.dropout:
            temporal["dropout"] = net.dropout
        if net.dropout_after:
            temporal["dropout_after"] = net.dropout_after
        settings["temporal"] = partial(models.LSTM, **temporal)
    return partial(models.FrameSequenceClassifier, **settings)


def _preprocessing(
    net: Description, mean: Sequence[float] | None, scale: float | None, bgr: bool | None
) -> Callable[..., nn.Module]:
    transform = net.transform
    if transform is not None:
        if transform.HasField("mean_file") and mean is None:
            raise CaffeFormatError(
                f"transform_param.mean_file {transform.mean_file}: a classifier has no mean image: pass the mean of "
                "each channel as mean="
            )
        mean = (list(transform.mean_value) or None) if mean is None else mean
        scale = transform.scale if scale is None else scale
        bgr = True if bgr is None else bgr
    if mean is None and scale is None and bgr is None:
        return models.Normalize
    scale = 1.0 if scale is None else scale
    values = [float(v) / 255 for v in ([0.0] if mean is None else mean)]
    settings: dict[str, Any] = {"mean": values if len(values) > 1 else values[0], "std": 1 / (255 * scale)}
    if bgr is not False and net.frame_shape[:1] == (3,):
        settings["bgr"] = True
    return partial(models.Normalize, **settings)


def describe_mapping(net: Net, classifier: models.FrameSequenceClassifier) -> list[str]:
    """Returns one line for each layer of a net: the part of the classifier that it was converted to."""
    encoder, head = dict(classifier.encoder.named_children()), classifier.get_parameter("head.weight")
    lstms, lines = 0, []
    for param, layer in net.sequence:
        name = module_name(param.name)
        if name in encoder:
            part = f"encoder.{name}: {' '.join(str(encoder[name]).split())}"
        elif param.type == "LSTM":
            part, lstms = f"temporal, layer {lstms}", lstms + 1
        elif param.type == "InnerProduct" and any(torch.equal(w, head) for w in (layer.blobs[0], layer.blobs[0].t())):
            part = "head"
        elif param.type == "Dropout":
            part = "temporal, dropout"
        elif not param.bottom:
            part = "the classifier's arguments"
        elif layer.category == "shape":
            part = "nothing (a classifier is batch first)"
        else:
            part = "nothing (a classifier ends with its logits)"
        lines.append(f"{param.name} ({param.type}) -> {part}")
    return lines
