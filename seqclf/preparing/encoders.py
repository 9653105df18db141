"""Encoders that turn frames into features: that of a run, or a torchvision model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data.transforms import Size, center_crop, resize
from seqclf.models import Normalize
from seqclf.prediction.reader import RunReader

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Encoder:
    """An encoder of frames.

    Attributes:
        encode: maps frames ``(n, *frame_shape)``, as their source reads them, to features ``(n, D)``.
        fps: the frame rate that videos are resampled to.
        pattern: which pictures of a folder are frames; see ``open_video``.
        settings: a description in plain values.
    """

    encode: Callable[[Tensor], Tensor]
    fps: float | None
    pattern: str | None
    settings: dict[str, Any]


def encoder_of_run(run: str | Path, checkpoint: str, fps: float | None, device: torch.device) -> Encoder:
    """The preprocessing and encoder of a run, on frames that are transformed as in its evaluation.

    Raises:
        SeqclfError: as in ``load_run``; the model of the run has no encoder.
    """
    read = RunReader.load(run, checkpoint, device)
    parts = [getattr(read.predictor.model, name, None) for name in ("preprocess", "encoder")]
    if not all(isinstance(part, nn.Module) for part in parts):
        raise SeqclfError(f"{run}: its model has no preprocess and encoder, as a FrameSequenceClassifier has")
    fps, pattern = fps or read.setting("video", "fps"), read.setting("folder", "pattern")

    def fit(frames: Tensor) -> Tensor:
        return read.fit(frames, read.predictor.frame_shape, "the video")[0]

    settings = {"run": str(Path(run).resolve()), "checkpoint": read.checkpoint.name, "fps": fps}
    return Encoder(_encode(nn.Sequential(*parts), fit, device), fps, pattern, settings)  # type: ignore[arg-type]


def encoder_of_backbone(
    name: str, weights: str | None, size: Size, crop: Size, fps: float | None, device: torch.device
) -> Encoder:
    """A model without its classifier, on frames that are resized, cropped and normalised as its weights need it.

    Arguments and errors are those of ``Backbone``, ``resize`` and ``center_crop``. A name after "timm:" is that of a
    model of timm, whose weights "DEFAULT" are its pretrained ones.
    """
    from seqclf.models.backbone import Backbone
    from seqclf.models.timm_encoder import TimmEncoder, timm_normalize

    torch.manual_seed(0)  # weights=None draws them
    height, width = (crop, crop) if isinstance(crop, int) else crop
    shape, timm_name = (3, height, width), name.removeprefix("timm:")
    if timm_name == name:
        parts = [Normalize(IMAGENET_MEAN, IMAGENET_STD), Backbone(shape, name, weights, "all")]
    else:
        default = weights == "DEFAULT"
        backbone = TimmEncoder(shape, timm_name, default, None if default else weights, "all")
        parts = [timm_normalize(timm_name), backbone]
    model = nn.Sequential(*parts).to(device).eval()

    def fit(frames: Tensor) -> Tensor:
        return center_crop(resize(frames, None, size), None, crop)

    settings = {"backbone": name, "weights": weights, "resize": size, "crop": crop, "fps": fps}
    return Encoder(_encode(model, fit, device), fps, None, settings)


def _encode(model: nn.Module, fit: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    lock = Lock()  # threads decode side by side, but one at a time uses the model

    def encode(frames: Tensor) -> Tensor:
        fitted = fit(frames)
        with lock, torch.inference_mode():
            return model(fitted.to(device))

    return encode
