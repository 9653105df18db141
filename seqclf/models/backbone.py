"""A torchvision model without its classifier, as a frame encoder: drawn, or trained elsewhere; learning, or frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError


class Backbone(nn.Module):
    """Frames ``(M, 3, H, W)`` float to features ``(M, out_features)``: what the model's last Linear would read.

    Args:
        frame_shape: ``(3, H, W)``.
        name: torchvision's name of a classification model, such as "resnet18".
        weights: None for drawn ones; a file of the model's state dict (its classifier's weights are passed over); or
            torchvision's name of its own, such as "DEFAULT" or "IMAGENET1K_V1", which are downloaded if need be.
        frozen: "none"; "all"; or the name of a part, such as "layer2": it and all parts before it neither learn nor
            change in another way, so they stay in evaluation mode (batch norm keeps its statistics), also in training.

    Raises:
        SeqclfError: there is no such model, file or part; weights don't fit, or can't be downloaded; frames are not
            RGB; the model has no Linear at its end.
    """

    def __init__(
        self, frame_shape: Sequence[int], name: str = "resnet18", weights: str | None = None, frozen: str = "none"
    ) -> None:
        super().__init__()
        from torchvision import models  # here, as it takes long and few runs need it

        if len(frame_shape) != 3 or frame_shape[0] != 3:
            raise SeqclfError(f"Backbone takes frames (3, H, W), not {tuple(frame_shape)}")
        if name not in models.list_models(module=models):
            raise SeqclfError(f"Backbone: torchvision has no classification model {name!r}")
        net: nn.Module = models.get_model(name)
        last, classifier = [*net.named_modules()][-1]
        if not isinstance(classifier, nn.Linear) or getattr(net, "aux_logits", False):
            raise SeqclfError(f"Backbone: {name} does not end in one Linear, before which its features would be")
        self.out_features = classifier.in_features
        net.set_submodule(last, nn.Identity())
        if weights is not None:
            _load(net, name, weights, last + ".")
        self.net = net
        self._still = _up_to(net, name, frozen)
        for module in self._still:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train()

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for module in self._still:
            module.training = False
        return self


def _up_to(net: nn.Module, name: str, frozen: str) -> list[nn.Module]:
    """The modules that are frozen: those of which every part comes no later than the last one of ``frozen``."""
    if frozen == "none":
        return []
    modules = [*net.named_modules()]
    if frozen == "all":
        return [module for _, module in modules]
    inside = [i for i, (part, _) in enumerate(modules) if f"{part}.".startswith(f"{frozen}.")]
    if not inside:
        parts = ", ".join(part for part, _ in net.named_children())
        raise SeqclfError(f'Backbone: frozen={frozen!r}: {name} has no such part; "none", "all", or one of {parts}')
    # a module's parts follow it in the list, so its last one is as many places on as it has parts
    ends = [i + sum(1 for _ in module.modules()) - 1 for i, (_, module) in enumerate(modules)]
    return [module for (_, module), end in zip(modules, ends, strict=True) if end <= inside[-1]]


def _load(net: nn.Module, name: str, weights: str, classifier: str) -> None:
    """Loads a file, or torchvision's own weights; what begins with ``classifier`` is passed over."""
    from torchvision.models import get_model_weights

    own = get_model_weights(name).__members__
    if Path(weights).is_file():
        try:
            state: Any = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # a file that is none makes torch.load raise nearly anything
            raise SeqclfError(f"{weights}: not a state dict that can be read ({_line(error)})") from None
        source = weights
    elif weights in own:
        source = own[weights].url
        try:
            state = own[weights].get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise SeqclfError(
                f"Backbone: {name}'s weights {weights} can't be downloaded from {source} ({_line(error)}): "
                "download them elsewhere, and give the file as weights="
            ) from None
    else:
        raise SeqclfError(
            f"Backbone: weights={weights!r}: no such file, and torchvision's weights of {name} are {', '.join(own)}"
        )
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SeqclfError(f"{source}: expected a state dict of {name}, tensors by name")
    try:
        net.load_state_dict({key: value for key, value in state.items() if not key.startswith(classifier)})
    except RuntimeError as error:
        raise SeqclfError(f"{source}: these are not the weights of {name} ({_line(error)})") from None


def _line(error: Exception) -> str:
    """An error's message in one line, not without end."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
