"""Transforms of frames: one signature, ``transform(frames, generator)``, for clips read from videos and for batches.

``frames`` is one clip ``(T, C, H, W)``, as the ``transform=`` of a video data set receives it, or a batch of clips
``(B, T, ...)``, as ``Experiment.augment`` receives it. With a generator (training), a transform draws its random
parameters from it once per clip, so all frames of a clip change alike. With None (evaluation) it is deterministic:
crops are taken from the center, and nothing is flipped or recolored.

Set parameters with ``functools.partial`` and combine transforms with ``in_turn``::

    partial(in_turn, steps=(partial(resize, size=(240, 320)), partial(random_crop, size=227), flip))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import SeqclfError

Transform = Callable[[Tensor, torch.Generator | None], Tensor]
"""``transform(frames, generator)``; see the module's docstring."""
Size = int | tuple[int, int]
"""Height and width. One number means both, except in ``resize``, where it is the length of the shorter side."""

LRCN_FRAME = (240, 320)
"""Height and width of the frames that LRCN crops from."""


def framewise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator that marks a transform of single frames, with random parameters drawn once per call.

    The frames of a long video are then transformed in pieces while they are decoded, which bounds memory. A transform
    that combines frames, or that draws a value per frame, must not be marked.
    """
    function.framewise = True  # type: ignore[attr-defined]
    return function


def is_framewise(transform: Any) -> bool:
    """Whether a transform, or every step of ``in_turn``, is marked by ``framewise``."""
    keywords: dict[str, Any] = {}
    while isinstance(transform, partial):
        keywords = {**transform.keywords, **keywords}
        transform = transform.func
    if transform is in_turn:
        return all(map(is_framewise, keywords.get("steps", ())))
    return getattr(transform, "framewise", False) is True


def apply_transform(transform: Transform, frames: Tensor, generator: torch.Generator | None, name: str) -> Tensor:
    """The frames of a clip after a transform.

    Raises:
        SeqclfError: the transform returns no tensor, or another number of frames, so that labels would not fit.
    """
    changed = transform(frames, generator)
    if not isinstance(changed, Tensor):
        raise SeqclfError(f"{name}: the transform returns {type(changed).__name__}, expected a tensor of frames")
    if not changed.dim() or len(changed) != len(frames):
        raise SeqclfError(
            f"{name}: the transform returns a tensor {tuple(changed.shape)} for a clip of {len(frames)} frames; it "
            "must keep the number of frames"
        )
    return changed


def clipwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator that applies a transform of one clip to each clip of a batch, with separate random parameters."""

    @wraps(function)
    def apply(frames: Tensor, generator: torch.Generator | None, *args: Any, **keywords: Any) -> Tensor:
        if frames.dim() == 5:
            return torch.stack([function(clip, generator, *args, **keywords) for clip in frames])
        return function(frames, generator, *args, **keywords)

    return framewise(apply)


def compose(*steps: Transform) -> Transform:
    """Composes transforms. The result, ``partial(in_turn, steps=steps)``, can be recorded in a config."""
    return partial(in_turn, steps=steps)


def in_turn(frames: Tensor, generator: torch.Generator | None, steps: Sequence[Transform] = ()) -> Tensor:
    """Applies all steps in their order."""
    for step in steps:
        frames = step(frames, generator)
    return frames


@clipwise
def resize(frames: Tensor, generator: torch.Generator | None, size: Size, antialias: bool = True) -> Tensor:
    """Scales frames bilinearly.

    Args:
        size: ``(height, width)``, or the length of the shorter side; the aspect ratio is then kept.
        antialias: as in ``torchvision.transforms.v2.functional.resize``.
    """
    H, W = picture_size(frames, "resize")
    if isinstance(size, int):
        height, width = (size, max(size, round(W * size / H))) if H <= W else (max(size, round(H * size / W)), size)
    else:
        height, width = size
    _positive(height, width, "resize")
    if (height, width) == (H, W):
        return frames
    from torchvision.transforms.v2 import functional as tv  # slow to import, and few runs need it

    return tv.resize(frames, [height, width], antialias=antialias)


@clipwise
def random_crop(frames: Tensor, generator: torch.Generator | None, size: Size) -> Tensor:
    """Crops at a random position; in evaluation at the center."""
    if generator is None:
        return center_crop(frames, generator, size=size)
    H, W, h, w = _crop_sizes(frames, size, "random_crop")
    return _crop(frames, _draw(H - h + 1, generator), _draw(W - w + 1, generator), h, w)


@clipwise
def center_crop(frames: Tensor, generator: torch.Generator | None, size: Size) -> Tensor:
    """Crops the center. An odd margin is rounded down at the top and at the left, as in Caffe."""
    H, W, h, w = _crop_sizes(frames, size, "center_crop")
    return _crop(frames, (H - h) // 2, (W - w) // 2, h, w)


@clipwise
def corner_crop(frames: Tensor, generator: torch.Generator | None, size: Size) -> Tensor:
    """Crops one of the four corners or the center (TSN); in evaluation the center."""
    H, W, h, w = _crop_sizes(frames, size, "corner_crop")
    top, left = corners_and_center(H, W, h, w)[4 if generator is None else _draw(5, generator)]
    return _crop(frames, top, left, h, w)


def corners_and_center(H: int, W: int, h: int, w: int) -> list[tuple[int, int]]:
    """(top, left) of five crops ``(h, w)`` of a picture ``(H, W)``: the corners row by row, then the center.

    This is the order of Caffe's ``oversample``.
    """
    return [*((top, left) for top in (0, H - h) for left in (0, W - w)), ((H - h) // 2, (W - w) // 2)]


def ten_crops(clip: Tensor, size: Size, negate_x: bool = False) -> Tensor:
    """The corners and the center of a clip, then their mirror images: ``(10, T, C, h, w)``."""
    H, W, h, w = _crop_sizes(clip, size, "ten_crops")
    crops = torch.stack([_crop(clip, top, left, h, w) for top, left in corners_and_center(H, W, h, w)])
    return torch.cat([crops, mirror(crops, negate_x)])


@clipwise
def flip(frames: Tensor, generator: torch.Generator | None, p: float = 0.5, negate_x: bool = False) -> Tensor:
    """Mirrors a clip left to right with probability ``p``, in evaluation never. ``negate_x``: see ``mirror``."""
    if not 0 <= p <= 1:
        raise SeqclfError(f"flip: p={p}, expected a probability from 0 to 1")
    if generator is None or float(torch.rand((), generator=generator, device=generator.device)) >= p:
        return frames
    return mirror(frames, negate_x)


def mirror(clip: Tensor, negate_x: bool = False) -> Tensor:
    """``(..., C, H, W)`` mirrored left to right.

    With ``negate_x`` frames are optical flow stored as pictures. Channel 0 is the horizontal component, and its value c
    becomes 255 - c, because mirroring reverses horizontal motion (LRCN).
    """
    clip = clip.flip(-1)  # a copy
    if negate_x:
        if clip.dtype != torch.uint8:
            raise SeqclfError(f"negate_x: expected flow as uint8 pictures, not {clip.dtype}")
        clip[..., 0, :, :] = 255 - clip[..., 0, :, :]
    return clip


@clipwise
def colour(
    frames: Tensor,
    generator: torch.Generator | None,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
) -> Tensor:
    """Scales brightness, contrast and saturation, in this order, each by a factor from 1 - x to 1 + x.

    Contrast is relative to each frame's own mean. Frames have 3 channels or 1. Evaluation changes nothing.
    """
    amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, amount in amounts.items():
        if not 0 <= amount <= 1:
            raise SeqclfError(f"colour: {name}={amount}, expected a number from 0 to 1")
    picture_size(frames, "colour")
    if frames.shape[1] not in (1, 3):
        raise SeqclfError(f"colour: frames have {frames.shape[1]} channels, expected 3 (RGB) or 1")
    if generator is None:
        return frames
    from torchvision.transforms.v2 import functional as tv

    for name, amount in amounts.items():
        factor = 1 + amount * (2 * float(torch.rand((), generator=generator, device=generator.device)) - 1)
        if amount:
            frames = getattr(tv, f"adjust_{name}")(frames, factor)
    return frames


@clipwise
def lrcn_crop(
    frames: Tensor, generator: torch.Generator | None, size: int = 227, faithful: bool = False, negate_x: bool = False
) -> Tensor:
    """LRCN's crop and flip of frames of 240x320; other frames are first scaled to that size, ignoring aspect ratio.

    By default crops at a random position and mirrors every second clip. Evaluation takes the center.

    ``faithful=True`` repeats LRCN's ``sequence_input_layer.py`` (``processImageCrop``), where crop and flip are coupled
    and only smaller frames are scaled:

    * Half of the clips are mirrored and then cropped. Offsets are drawn from 0 to 240 - size - 1 and 320 - size - 1, so
      the last position is never used. They are drawn for 240x320 even if frames are larger.
    * The other half is not cropped. The whole frame is resized to size x size, bilinearly and without antialiasing.

    LRCN also did this to its test batches during training. Here evaluation always takes the center.
    """
    H, W = picture_size(frames, "lrcn_crop")
    height, width = LRCN_FRAME
    if min(H - height, W - width) < 0 or not faithful:
        frames = resize(frames, generator, size=LRCN_FRAME, antialias=not faithful)
    if generator is None:
        return center_crop(frames, generator, size=size)
    if not faithful:
        return flip(random_crop(frames, generator, size=size), generator, negate_x=negate_x)
    if not 1 <= size < height:
        raise SeqclfError(f"lrcn_crop: size={size}, expected 1 to {height - 1}")
    top, left = _draw(height - size, generator), _draw(width - size, generator)
    if _draw(2, generator):
        return _crop(mirror(frames, negate_x), top, left, size, size)
    return resize(frames, generator, size=(size, size), antialias=False)


def shift(frames: Tensor, generator: torch.Generator | None, pixels: int = 1) -> Tensor:
    """Moves each clip's picture by up to ``pixels`` vertically and horizontally; zeros enter at the border.

    The picture is the last two axes. In a batch ``(B, T, D)`` whose frames are the rows of an image, it is the image
    ``(T, D)``. In ``(B, T, C, H, W)``, and in one clip ``(T, C, H, W)``, it is ``(H, W)``, and all frames of a clip
    move alike. Frames may have any dtype. Evaluation changes nothing.
    """
    if generator is None:
        return frames
    H, W = frames.shape[-2:]
    B = 1 if frames.dim() == 4 else frames.shape[0]
    device = frames.device
    planes = F.pad(frames.reshape(B, -1, H, W), (pixels,) * 4)
    down, right = torch.randint(0, 2 * pixels + 1, (2, B, 1, 1, 1), device=device, generator=generator)
    clip = torch.arange(B, device=device).view(B, 1, 1, 1)
    plane = torch.arange(planes.shape[1], device=device).view(1, -1, 1, 1)
    rows = torch.arange(H, device=device).view(1, 1, H, 1) + down
    columns = torch.arange(W, device=device) + right
    return planes[clip, plane, rows, columns].view_as(frames)


def _draw(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator, device=generator.device))


def _crop(clip: Tensor, top: int, left: int, h: int, w: int) -> Tensor:
    return clip[..., top : top + h, left : left + w]


def picture_size(clip: Tensor, step: str) -> tuple[int, int]:
    """The height and width of a clip's frames."""
    if clip.dim() != 4:
        raise SeqclfError(f"{step}: expected a clip of pictures (T, C, H, W), not {tuple(clip.shape)}")
    return clip.shape[2], clip.shape[3]


def _positive(height: int, width: int, step: str) -> None:
    if height < 1 or width < 1:
        raise SeqclfError(f"{step}: size {height}x{width}, expected at least 1x1")


def _crop_sizes(clip: Tensor, size: Size, step: str) -> tuple[int, int, int, int]:
    """(H, W) of the frames and (h, w) of the crop, which must fit."""
    H, W = picture_size(clip, step)
    h, w = (size, size) if isinstance(size, int) else size
    _positive(h, w, step)
    if h > H or w > W:
        raise SeqclfError(f"{step}: a crop of {h}x{w} does not fit into frames of {H}x{W} (height x width)")
    return H, W, h, w
