"""A torchvision model without its classifier, as a frame encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError

if TYPE_CHECKING:
    from typing_extensions import Self


class Pretrained(nn.Module):
    """A network with parts that may be frozen."""

    def __init__(self, net: nn.Module, name: str, frozen: str, pretrained: bool) -> None:
        super().__init__()
        self.net, self.pretrained = net, pretrained
        self._frozen = _up_to(net, f"{type(self).__name__}: {name}", frozen)
        for module in self._frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train()

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self


class Backbone(Pretrained):
    """Encodes frames ``(M, 3, H, W)`` float to features ``(M, D)``, the input of the model's last Linear layer.

    Args:
        frame_shape: ``(3, H, W)``.
        name: the name of a classification model of torchvision, such as "resnet18".
        weights: None for random initialisation; the path of a state dict of the model, whose classifier is ignored; or
            the name of weights of torchvision, such as "DEFAULT" or "IMAGENET1K_V1", which are downloaded once.
        frozen: "none", "all", or the name of a part, such as "layer2". That part and all before it are not trained and
            stay in evaluation mode, so that batch norm keeps its statistics.

    Raises:
        SeqclfError: there is no such model, file or part; the weights do not fit or cannot be downloaded; the frames
            are not RGB; the model does not end in a Linear layer.
    """

    def __init__(
        self, frame_shape: Sequence[int], name: str = "resnet18", weights: str | None = None, frozen: str = "none"
    ) -> None:
        from torchvision import models  # slow to import, and few runs need it

        if len(frame_shape) != 3 or frame_shape[0] != 3:
            raise SeqclfError(f"Backbone expects frames (3, H, W), not {tuple(frame_shape)}")
        if name not in models.list_models(module=models):
            raise SeqclfError(f"Backbone: torchvision has no classification model {name!r}")
        net: nn.Module = models.get_model(name)
        last, classifier = [*net.named_modules()][-1]
        if not isinstance(classifier, nn.Linear) or getattr(net, "aux_logits", False):
            raise SeqclfError(
                f"Backbone: {name} does not end in a single Linear layer, which is needed to find its features"
            )
        net.set_submodule(last, nn.Identity())
        if weights is not None:
            _load(net, name, weights, last + ".")
        super().__init__(net, name, frozen, weights is not None)
        self.out_features = classifier.in_features


def _up_to(net: nn.Module, name: str, frozen: str) -> list[nn.Module]:
    """The modules to freeze: those whose last part does not come after the last part of ``frozen``."""
    if frozen == "none":
        return []
    modules = [*net.named_modules()]
    if frozen == "all":
        return [module for _, module in modules]
    inside = [i for i, (part, _) in enumerate(modules) if f"{part}.".startswith(f"{frozen}.")]
    if not inside:
        parts = ", ".join(part for part, _ in net.named_children())
        raise SeqclfError(f'{name} has no part {frozen!r} to freeze; expected "none", "all" or one of {parts}')
    # named_modules() lists a module's parts right after it
    ends = [i + sum(1 for _ in module.modules()) - 1 for i, (_, module) in enumerate(modules)]
    return [module for (_, module), end in zip(modules, ends, strict=True) if end <= inside[-1]]


def _load(net: nn.Module, name: str, weights: str, classifier: str) -> None:
    """Loads a file or weights of torchvision, except the parameters whose names begin with ``classifier``."""
    from torchvision.models import get_model_weights

    own = get_model_weights(name).__members__
    if Path(weights).is_file():
        load_file(net, name, weights, [classifier])
        return
    if weights in own:
        source = own[weights].url
        try:
            state: Any = own[weights].get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise SeqclfError(
                f"Backbone: the weights {weights} of {name} cannot be downloaded from {source} ({line(error)}); "
                "download the file another way and pass its path as weights="
            ) from None
    else:
        raise SeqclfError(
            f"Backbone: weights={weights!r} is neither a file nor weights of {name}, which are {', '.join(own)}"
        )
    _load_state(net, name, state, source, [classifier])


def load_file(net: nn.Module, name: str, path: str, classifier: Sequence[str]) -> None:
    """Loads a state dict from a file, except the parameters whose names begin with one of ``classifier``.

    Raises:
        SeqclfError: the file cannot be read, or does not fit the network, which the message calls ``name``.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for files of other kinds
        raise SeqclfError(f"{path}: cannot be read as a state dict ({line(error)})") from None
    _load_state(net, name, state, path, classifier)


def _load_state(net: nn.Module, name: str, state: Any, source: str, classifier: Sequence[str]) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SeqclfError(f"{source}: expected a state dict of {name}, a mapping of names to tensors")
    try:
        net.load_state_dict({key: value for key, value in state.items() if not key.startswith(tuple(classifier))})
    except RuntimeError as error:
        raise SeqclfError(f"{source}: the weights do not fit {name} ({line(error)})") from None


def line(error: Exception) -> str:
    """An error's message as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
