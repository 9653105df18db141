"""pycaffe's ``Transformer``: converts images to a net's inputs, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.caffe.formats.schema import FLAVOURS
from seqclf.caffe.images.arrays import (
    Array,
    as_images,
    as_number,
    as_order,
    as_shape,
    as_tensor,
    inverse_order,
    permute_images,
    take_channels,
)
from seqclf.caffe.images.processing import resize_image


class Transformer:
    """Converts images to a net's inputs, and back, like pycaffe's ``Transformer``.

    Args:
        inputs: the shape ``(N, K, H, W)`` of each input, by name.
        flavour: the fork whose ``resize_image`` is used; lisa-caffe also refuses a mean of another size.

    Every method raises ``SeqclfError`` for an unknown input, or for values that do not fit the input's shape.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]], flavour: str = "bvlc") -> None:
        if flavour not in FLAVOURS:
            raise SeqclfError(f'flavour={flavour!r}: expected "bvlc" or "lisa"')
        self.inputs = {name: as_shape(shape, name) for name, shape in inputs.items()}
        self.flavour = flavour
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Tensor] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: Array) -> Tensor:
        """Converts images ``(..., H', W', K)`` to the input's ``(..., K, H, W)``.

        Applies these steps in order, each if it is set: resize to the input's H x W, transpose, swap channels, multiply
        by ``raw_scale``, subtract ``mean``, multiply by ``input_scale``.
        """
        _, _, *size = self._shape(in_)
        x = as_images(data).float()
        if list(x.shape[-3:-1]) != size:
            x = resize_image(x, size, flavour=self.flavour)
        if in_ in self.transpose:
            x = permute_images(x, self.transpose[in_])
        if in_ in self.channel_swap:
            x = take_channels(x, self.channel_swap[in_])
        else:
            x = x.clone(memory_format=torch.contiguous_format)  # the caller's data must not change
        if in_ in self.raw_scale:
            x.mul_(self.raw_scale[in_])
        if in_ in self.mean:
            x.sub_(self._mean_for(in_, x))
        if in_ in self.input_scale:
            x.mul_(self.input_scale[in_])
        return x

    def deprocess(self, in_: str, data: Array) -> Tensor:
        """Inverts ``preprocess``, except for resizing: from ``(K, H, W)`` or ``(1, K, H, W)`` to ``(H, W, K)``."""
        self._shape(in_)
        x = as_tensor(data, "data")
        if x.ndim == 4 and len(x) == 1:
            x = x[0]
        if x.ndim != 3:
            raise SeqclfError(f"data of shape {tuple(x.shape)}: expected (K, H, W) or (1, K, H, W)")
        x = x.to(torch.float32, copy=True)
        if in_ in self.input_scale:
            x.div_(self.input_scale[in_])
        if in_ in self.mean:
            x.add_(self._mean_for(in_, x))
        if in_ in self.raw_scale:
            x.div_(self.raw_scale[in_])
        if in_ in self.channel_swap:
            x = take_channels(x, inverse_order(self.channel_swap[in_], f'the channel swap of input "{in_}"'))
        if in_ in self.transpose:
            x = permute_images(x, inverse_order(self.transpose[in_], f'the transposition of input "{in_}"'))
        return x.contiguous()

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Sets the order of an image's axes in the net: (2, 0, 1) from H x W x K to K x H x W."""
        axes = len(self._shape(in_)) - 1
        self.transpose[in_] = as_order(order, axes, "transpose order")
        inverse_order(self.transpose[in_], "the transpose order")

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Sets the order of the channels, the first axis after the transposition: (2, 1, 0) from RGB to BGR."""
        self.channel_swap[in_] = as_order(order, self._shape(in_)[1], "channel swap")

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Sets the factor applied before the mean is subtracted: 255 for nets that work with values from 0 to 255."""
        self._shape(in_)
        self.raw_scale[in_] = as_number(scale, "raw scale")

    def set_mean(self, in_: str, mean: Array) -> None:
        """Sets the mean to subtract: per channel ``(K,)``, or an image ``(K, H, W)``, or ``(H, W)`` for all channels.

        BVLC Caffe resizes a mean image of another size; lisa-caffe refuses it. A float64 mean is subtracted in float64.
        """
        _, K, *size = self._shape(in_)
        m = as_tensor(mean, "mean")
        m = m if m.dtype == torch.float64 else m.float()
        m = m[None] if m.ndim == 2 else m
        if m.shape not in ((K,), (K, *size)) and (self.flavour == "lisa" or m.ndim != 3 or len(m) not in (1, K)):
            raise SeqclfError(f"mean of shape {tuple(mean.shape)}: expected ({K},) or {(K, *size)}, as the input has")
        if m.ndim == 1:
            m = m[:, None, None]
        elif list(m.shape[1:]) != size:
            m = permute_images(resize_image(permute_images(m, (1, 2, 0)), size), (2, 0, 1))
        self.mean[in_] = m.clone()

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Sets the factor applied last, after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = as_number(scale, "input scale")

    def set_is_flow(self, in_: str, is_flow: bool) -> None:
        """Marks an input as optical flow; as in lisa-caffe, this changes nothing in this class."""
        self._shape(in_)

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise SeqclfError(f'"{in_}" is not one of the net\'s inputs: {", ".join(self.inputs)}')
        if len(self.inputs[in_]) != 4:
            raise SeqclfError(f'input "{in_}" of shape {self.inputs[in_]}: expected (N, K, H, W)')
        return self.inputs[in_]

    def _mean_for(self, in_: str, x: Tensor) -> Tensor:
        mean = self.mean[in_].to(x.device)
        if any(m not in (1, n) for m, n in zip(mean.shape, x.shape[-3:], strict=True)):
            raise SeqclfError(
                f'input "{in_}": a mean of shape {tuple(mean.shape)} does not fit data of shape {tuple(x.shape)}'
            )
        return mean
