"""A model of the package timm without its classifier, as a frame encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.models.backbone import Pretrained, line, load_file
from seqclf.models.preprocess import Normalize
from seqclf.runtime.packages import optional_import


class TimmEncoder(Pretrained):
    """Encodes frames ``(M, C, H, W)`` float to features ``(M, D)``, the pooled features of a timm model.

    The frames must be normalised as the model's weights need it: ``preprocess=partial(timm_normalize, name=...)``.

    Args:
        frame_shape: ``(C, H, W)``.
        name: the name of a model of timm, such as "convnext_tiny" or "vit_small_patch16_224.augreg_in21k".
        pretrained: whether to load the weights that timm has for this name, which are downloaded once.
        weights: the path of a state dict of the model, whose classifier is ignored; in place of ``pretrained``.
        frozen: "none", "all", or the name of a part, as for ``Backbone``.

    Raises:
        SeqclfError: timm is not installed or has no such model; the weights cannot be downloaded or read, or do not
            fit; the frames have another shape than the model takes; there is no such part.
    """

    def __init__(
        self,
        frame_shape: Sequence[int],
        name: str,
        pretrained: bool = False,
        weights: str | None = None,
        frozen: str = "none",
    ) -> None:
        if len(frame_shape) != 3:
            raise SeqclfError(f"TimmEncoder expects frames (C, H, W), not {tuple(frame_shape)}")
        if pretrained and weights is not None:
            raise SeqclfError("TimmEncoder: give pretrained=True or weights=, not both")
        timm, config = _timm(), _config(name)
        options: dict[str, Any] = {"img_size": tuple(frame_shape[1:])} if config.fixed_input_size else {}
        try:
            net = timm.create_model(name, pretrained, num_classes=0, in_chans=frame_shape[0], **options)
        except Exception as error:  # timm and its hub raise many types
            if not pretrained:
                raise SeqclfError(
                    f"TimmEncoder: {name} cannot take frames {tuple(frame_shape)} ({line(error)})"
                ) from None
            raise SeqclfError(
                f"TimmEncoder: the pretrained weights of {name} cannot be loaded ({line(error)}); download them "
                "another way and pass the path of the state dict as weights="
            ) from None
        if weights is not None:
            if not Path(weights).is_file():
                raise SeqclfError(f"TimmEncoder: weights={weights!r} is not a file")
            classifier = [config.classifier] if isinstance(config.classifier, str) else config.classifier or []
            load_file(net, name, weights, [f"{part}." for part in classifier])
        super().__init__(net, name, frozen, pretrained or weights is not None)
        self.out_features = getattr(net, "head_hidden_size", net.num_features)


def timm_normalize(name: str) -> Normalize:
    """The normalisation of frames with which the weights of a timm model were trained.

    Args:
        name: the name of the model, as for ``TimmEncoder``.

    Raises:
        SeqclfError: timm is not installed or has no such model.
    """
    config = _config(name)
    return Normalize(config.mean, config.std)


def _timm() -> Any:
    with optional_import("timm", "TimmEncoder needs the package timm"):
        import timm

    return timm


def _config(name: str) -> Any:
    """What timm knows of a model: the constants of its input, and the name of its classifier."""
    timm = _timm()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_pretrained(f"{architecture}.*")):
        raise SeqclfError(f"TimmEncoder: timm has no model {name!r}; timm.list_models() names them")
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
