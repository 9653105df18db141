"""The parameters of a net and their multipliers. Parameters with the same name are shared (Net::AppendParam)."""

from __future__ import annotations

from typing import Any

from torch import nn

from seqclf.caffe.layers import Layer


class Parameters:
    """Collects the parameters of a net's layers, in order.

    Attributes:
        by_layer: each layer's parameters, by the layer's name.
        multipliers: ``(parameter, lr_mult, decay_mult)`` in Caffe's order, once per parameter; lisa-caffe has one
            entry per use of a shared parameter.
    """

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.by_layer: dict[str, nn.ParameterList] = {}
        self.multipliers: list[tuple[nn.Parameter, float, float]] = []
        self.owners: dict[str, tuple[Any, nn.Parameter]] = {}

    def add(self, param: Any, layer: Layer) -> None:
        """Adds a layer's parameters; ``param`` is its ``LayerParameter``."""
        if len(param.param) > len(layer.blobs):
            number = f"{len(layer.blobs)} parameters" if len(layer.blobs) else "no parameters"
            layer.fail(f"field param: has {len(param.param)} entries, but the layer has {number}")
        if not len(layer.blobs):
            return
        self.by_layer[param.name] = layer.blobs
        for j in range(len(layer.blobs)):
            spec = param.param[j] if j < len(param.param) else None
            name = spec.name if spec is not None else ""
            if name and name in self.owners:
                self._share(layer, j, spec, *self.owners[name])
                continue
            blob = layer.blobs[j]
            lr, decay = (spec.lr_mult, spec.decay_mult) if spec is not None else (1.0, 1.0)
            if layer.statistics:
                if spec is not None and spec.lr_mult:
                    layer.fail("its parameters are statistics, so their lr_mult must be 0")
                lr = decay = 0.0
            blob.requires_grad_(lr != 0)
            self.multipliers.append((blob, lr, decay))
            if spec is not None and name:  # a copy, as sharers may set its multipliers
                self.owners[name] = (type(spec).FromString(spec.SerializeToString()), blob)

    def _share(self, layer: Layer, j: int, spec: Any, owner: Any, blob: nn.Parameter) -> None:
        mine = layer.blobs[j]
        permissive = spec.share_mode == spec.PERMISSIVE
        if mine.shape != blob.shape and not (permissive and mine.numel() == blob.numel()):
            layer.fail(
                f'shares parameter "{spec.name}" of shape {tuple(blob.shape)}, '
                f"but its own blob {j} is {tuple(mine.shape)}"
            )
        if self.flavour == "lisa":  # each use of a parameter has its own multipliers and history
            if bool(spec.lr_mult) != blob.requires_grad:
                layer.fail(
                    f'shares parameter "{spec.name}" with lr_mult {spec.lr_mult:g}: expected lr_mult 0 in all layers '
                    "that share it, or in none"
                )
            self.multipliers.append((blob, spec.lr_mult, spec.decay_mult))
        else:
            self._merge_multipliers(layer, spec, owner, blob)
        layer.share(j, blob)

    def _merge_multipliers(self, layer: Layer, spec: Any, owner: Any, blob: nn.Parameter) -> None:
        """Lets a sharer set multipliers that the owner leaves unset; different values are an error."""
        for field in ("lr_mult", "decay_mult"):
            if not spec.HasField(field):
                continue
            if not owner.HasField(field):
                setattr(owner, field, getattr(spec, field))
                at = next(i for i, entry in enumerate(self.multipliers) if entry[0] is blob)
                self.multipliers[at] = (blob, owner.lr_mult, owner.decay_mult)
                blob.requires_grad_(owner.lr_mult != 0)
            elif getattr(owner, field) != getattr(spec, field):
                layer.fail(
                    f'shares parameter "{spec.name}" with {field} {getattr(spec, field):g}, but its owner has '
                    f"{getattr(owner, field):g}"
                )
