"""Changes of a clip's frames, all frames alike: steps ``step(clip, generator)``, set with ``functools.partial``.

A clip is ``(T, C, H, W)`` uint8. With a generator, in training, a step is drawn from it, once for the whole clip: the
same generator gives the same change. With None, in evaluation, it is the same always: the middle, unmirrored, as it is.

    partial(in_turn, steps=(partial(resize, size=(240, 320)), partial(random_crop, size=227), flip))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from seqclf.batch import SeqclfError

Step = Callable[[Tensor, torch.Generator | None], Tensor]
Size = int | tuple[int, int]
"""Height and width; one number for both, but in ``resize``."""

LRCN_FRAME = (240, 320)
"""The frames that LRCN crops from."""


def compose(*steps: Step) -> Step:
    """The steps one after the other, as one step: ``partial(in_turn, steps=steps)``, which a config can hold."""
    return partial(in_turn, steps=steps)


def in_turn(clip: Tensor, generator: torch.Generator | None, steps: Sequence[Step] = ()) -> Tensor:
    """The clip after all of the steps."""
    for step in steps:
        clip = step(clip, generator)
    return clip


def resize(clip: Tensor, generator: torch.Generator | None, size: Size, antialias: bool = True) -> Tensor:
    """The clip scaled bilinearly to ``size``: (height, width), or the length of the shorter side, in proportion."""
    H, W = _picture(clip, "resize")
    if isinstance(size, int):
        height, width = (size, max(size, round(W * size / H))) if H <= W else (max(size, round(H * size / W)), size)
    else:
        height, width = size
    _positive(height, width, "resize")
    if (height, width) == (H, W):
        return clip
    from torchvision.transforms.v2 import functional as tv  # here, as it takes long and few runs need it

    return tv.resize(clip, [height, width], antialias=antialias)


def random_crop(clip: Tensor, generator: torch.Generator | None, size: Size) -> Tensor:
    """A part of this size, from any place; in evaluation from the middle."""
    if generator is None:
        return center_crop(clip, generator, size)
    H, W, h, w = _crop_sizes(clip, size, "random_crop")
    return _crop(clip, _draw(H - h + 1, generator), _draw(W - w + 1, generator), h, w)


def center_crop(clip: Tensor, generator: torch.Generator | None, size: Size) -> Tensor:
    """The middle, of this size; where that falls between two pixels, the upper and the left one begins it (Caffe)."""
    H, W, h, w = _crop_sizes(clip, size, "center_crop")
    return _crop(clip, (H - h) // 2, (W - w) // 2, h, w)


def corner_crop(clip: Tensor, generator: torch.Generator | None, size: Size) -> Tensor:
    """One of the four corners or the middle, of this size (TSN); in evaluation the middle."""
    H, W, h, w = _crop_sizes(clip, size, "corner_crop")
    top, left = corners_and_center(H, W, h, w)[4 if generator is None else _draw(5, generator)]
    return _crop(clip, top, left, h, w)


def corners_and_center(H: int, W: int, h: int, w: int) -> list[tuple[int, int]]:
    """(top, left) of the five crops ``(h, w)`` of a picture ``(H, W)``, in the order of Caffe's ``oversample``: the
    corners row by row, then the middle."""
    return [*((top, left) for top in (0, H - h) for left in (0, W - w)), ((H - h) // 2, (W - w) // 2)]


def ten_crops(clip: Tensor, size: Size, negate_x: bool = False) -> Tensor:
    """``(10, T, C, h, w)``: the four corners and the middle, then these mirrored, to average predictions over."""
    H, W, h, w = _crop_sizes(clip, size, "ten_crops")
    crops = torch.stack([_crop(clip, top, left, h, w) for top, left in corners_and_center(H, W, h, w)])
    return torch.cat([crops, mirror(crops, negate_x)])


def flip(clip: Tensor, generator: torch.Generator | None, p: float = 0.5, negate_x: bool = False) -> Tensor:
    """The clip mirrored left to right with probability ``p``; in evaluation never. ``negate_x``: see ``mirror``."""
    if not 0 <= p <= 1:
        raise SeqclfError(f"flip: p={p}, expected a probability from 0 to 1")
    if generator is None or float(torch.rand((), generator=generator)) >= p:
        return clip
    return mirror(clip, negate_x)


def mirror(clip: Tensor, negate_x: bool = False) -> Tensor:
    """``(..., C, H, W)`` mirrored left to right.

    With ``negate_x`` it is optical flow as a picture: channel 0, the flow to the right, c becomes 255 - c, as what
    moves to the right moves to the left in a mirror (LRCN).
    """
    clip = clip.flip(-1)  # a copy
    if negate_x:
        if clip.dtype != torch.uint8:
            raise SeqclfError(f"negate_x: expected flow as uint8 pictures, not {clip.dtype}")
        clip[..., 0, :, :] = 255 - clip[..., 0, :, :]
    return clip


def colour(
    clip: Tensor,
    generator: torch.Generator | None,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
) -> Tensor:
    """Brightness, contrast and saturation, in this order, each times a factor from 1 - x to 1 + x; not in evaluation.

    Contrast is about each frame's own mean. Needs 3 channels, or 1.
    """
    amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, amount in amounts.items():
        if not 0 <= amount <= 1:
            raise SeqclfError(f"colour: {name}={amount}, expected a number from 0 to 1")
    _picture(clip, "colour")
    if clip.shape[1] not in (1, 3):
        raise SeqclfError(f"colour: frames have {clip.shape[1]} channels, expected 3 (RGB) or 1")
    if generator is None:
        return clip
    from torchvision.transforms.v2 import functional as tv

    for name, amount in amounts.items():
        factor = 1 + amount * (2 * float(torch.rand((), generator=generator)) - 1)
        if amount:
            clip = getattr(tv, f"adjust_{name}")(clip, factor)
    return clip


def lrcn_crop(
    clip: Tensor, generator: torch.Generator | None, size: int = 227, faithful: bool = False, negate_x: bool = False
) -> Tensor:
    """LRCN's crop and flip of frames of 240x320; others are first scaled to that, their proportions not kept.

    The sane default crops at a random place and mirrors every second clip; in evaluation it takes the middle.

    ``faithful`` repeats LRCN's ``sequence_input_layer.py`` (``processImageCrop``): smaller frames alone are scaled, and
    crop and mirror belong together:

    * every second clip is mirrored, then cropped at a random place, whose offsets are drawn from 0 to 240 - size - 1
      and 320 - size - 1 (the last place, one further, never comes; drawn for 240x320 also where frames are larger);
    * a clip that is not mirrored is not cropped: the whole frame is squeezed to size x size, bilinearly, without
      antialiasing, by what makes it the net's input.

    LRCN did the same, at random, with its test batches while training; here evaluation is never random: the middle.
    """
    H, W = _picture(clip, "lrcn_crop")
    height, width = LRCN_FRAME
    if min(H - height, W - width) < 0 or not faithful:
        clip = resize(clip, generator, LRCN_FRAME, antialias=not faithful)
    if generator is None:
        return center_crop(clip, generator, size)
    if not faithful:
        return flip(random_crop(clip, generator, size), generator, negate_x=negate_x)
    if not 1 <= size < height:
        raise SeqclfError(f"lrcn_crop: size={size}, expected 1 to {height - 1}")
    top, left = _draw(height - size, generator), _draw(width - size, generator)
    if _draw(2, generator):
        return _crop(mirror(clip, negate_x), top, left, size, size)
    return resize(clip, generator, (size, size), antialias=False)


def _draw(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))


def _crop(clip: Tensor, top: int, left: int, h: int, w: int) -> Tensor:
    return clip[..., top : top + h, left : left + w]


def _picture(clip: Tensor, step: str) -> tuple[int, int]:
    """The height and width of a clip's frames."""
    if clip.dim() != 4:
        raise SeqclfError(f"{step}: expected a clip of pictures (T, C, H, W), not {tuple(clip.shape)}")
    return clip.shape[2], clip.shape[3]


def _positive(height: int, width: int, step: str) -> None:
    if height < 1 or width < 1:
        raise SeqclfError(f"{step}: size {height}x{width}, expected at least 1x1")


def _crop_sizes(clip: Tensor, size: Size, step: str) -> tuple[int, int, int, int]:
    """(H, W) of the frames and (h, w) of the crop, which must fit."""
    H, W = _picture(clip, step)
    h, w = (size, size) if isinstance(size, int) else size
    _positive(h, w, step)
    if h > H or w > W:
        raise SeqclfError(f"{step}: a crop of {h}x{w} does not fit into frames of {H}x{W} (height x width)")
    return H, W, h, w
