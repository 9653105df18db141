"""Reading, resizing, cropping and mirroring of images as in pycaffe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.caffe.images.arrays import Array, as_images, as_size, stack_images
from seqclf.caffe.images.interpolation import resample

GREY = (0.2125, 0.7154, 0.0721)
"""The weights of red, green and blue in skimage's ``rgb2gray``."""
ORDERS = (0, 1, 3)
"""Orders of interpolation: nearest pixel, linear, cubic spline."""
BORDERS = {"bvlc": "zero", "lisa": "edge"}
"""What ``resize_image`` of each fork reads outside an image."""


def load_image(filename: str | Path, color: bool = True) -> Tensor:
    """Reads an image file as ``(H, W, 3)`` RGB float32 from 0 to 1, or ``(H, W, 1)`` grey if ``color`` is False.

    Transparency is dropped, not blended. A grey image becomes three equal channels, or stays one. lisa-caffe, unlike
    this function, keeps colour images in colour even if ``color`` is False. Of 16-bit colour images, the lower 8 bits
    are dropped. The EXIF orientation is ignored.

    Raises:
        SeqclfError: the file is missing, damaged or not an image, or has 32 bits per value.
    """
    from PIL import Image

    try:
        with Image.open(filename) as image:
            white = 255
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # 16-bit grey
                pixels, white = np.array(image, dtype=np.float32), 65535
            elif image.mode in ("I", "F"):
                raise ValueError(f"its pixels are of mode {image.mode}, expected 8 bits, or 16 bits of grey")
            elif image.mode in ("1", "L", "LA"):
                pixels = np.array(image.convert("L"))
            else:  # through RGBA, because Pillow warns about palettes with transparency
                palette = image.mode in ("P", "PA")
                pixels = np.array((image.convert("RGBA") if palette else image).convert("RGB"))
    except FileNotFoundError:
        raise SeqclfError(f"{filename}: no such file") from None
    except Exception as error:  # Pillow raises almost anything for a damaged file
        raise SeqclfError(f"{filename}: not an image that can be read ({error})") from None
    x = torch.from_numpy(pixels).float() / white
    if color:
        return x if x.ndim == 3 else x[..., None].repeat(1, 1, 3)
    return (x @ x.new_tensor(GREY) if x.ndim == 3 else x)[..., None]


def resize_image(image: Array, new_dims: Sequence[int], interp_order: int = 1, flavour: str = "bvlc") -> Tensor:
    """Resizes images ``(..., H, W, K)`` to ``new_dims``, (height, width), without anti-aliasing.

    Images of 1 or 3 channels are scaled to the range 0..1, resized like skimage's ``resize`` (which aligns the outer
    edges), and scaled back. Outside an image, BVLC Caffe reads 0, which darkens the border of an enlarged image;
    lisa-caffe reads the nearest pixel. Other images are resized like ``scipy.ndimage.zoom`` (which aligns the centres
    of the corner pixels).

    Args:
        interp_order: 0 nearest pixel, 1 linear, 3 cubic spline.

    Raises:
        SeqclfError: the images, size, order or flavour are invalid.
    """
    if flavour not in BORDERS:
        raise SeqclfError(f'flavour={flavour!r}: expected "bvlc" or "lisa"')
    if interp_order not in ORDERS:
        raise SeqclfError(f"interp_order={interp_order!r}: expected 0 (nearest), 1 (linear) or 3 (cubic spline)")
    x = as_images(image).float()
    size = as_size(new_dims, "new_dims")
    if x.shape[-1] not in (1, 3):
        return resample(x, size, interp_order, "corners")
    low, high = x.amin((-3, -2, -1), keepdim=True), x.amax((-3, -2, -1), keepdim=True)
    span = high - low
    x = (x - low).div_(torch.where(span > 0, span, 1))  # an image of one value becomes 0, and is restored at the end
    x = resample(x, size, interp_order, BORDERS[flavour])
    if interp_order == 3:
        x = x.clamp_(0, 1)  # skimage clips the overshoot of splines
    return x.mul_(span).add_(low)


def oversample(images: Array | Iterable[Array], crop_dims: Sequence[int], flow: bool = False) -> Tensor:
    """Returns ten crops of each of N images ``(H, W, K)`` of one shape: ``(10 N, *crop_dims, K)``.

    The crops are the four corners (top left, top right, bottom left, bottom right) and the centre (rounded towards the
    top left), then the same five mirrored. With ``flow``, for lisa-caffe's images of optical flow, channel 0 of
    mirrored crops (the motion to the right) becomes 1 - x.

    Raises:
        SeqclfError: no images, not images of one shape, or crops larger than they are.
    """
    x = as_images(images if isinstance(images, (Tensor, np.ndarray)) else stack_images(images))
    if x.ndim != 4:
        raise SeqclfError(f"images of shape {tuple(x.shape)}: expected (N, H, W, K)")
    (N, H, W, K), (h, w) = x.shape, as_size(crop_dims, "crop_dims")
    if h > H or w > W:
        raise SeqclfError(f"crop_dims {h} x {w}: larger than the images, {H} x {W}")
    crops, mirrored = torch.empty(N, 10, h, w, K, device=x.device), x.flip(2)
    corners = [(top, left) for top in (0, H - h) for left in (0, W - w)]
    for k, (top, left) in enumerate([*corners, ((H - h) // 2, (W - w) // 2)]):
        right = W - w - left
        crops[:, k] = x[:, top : top + h, left : left + w]
        crops[:, k + 5] = mirrored[:, top : top + h, right : right + w]
    if flow:
        crops[:, 5:, ..., 0] = 1 - crops[:, 5:, ..., 0]
    return crops.flatten(0, 1)


def flip_image(image: Array, axis: int = 1, flow: bool = False) -> Tensor:
    """Mirrors images ``(..., H, W, K)`` as lisa-caffe does.

    Args:
        image: the images.
        axis: 0 for upside down, 1 for left to right.
        flow: for optical flow: channel 0 becomes 1 - x, or 128 - x if an image has values above 1.

    Raises:
        SeqclfError: the images or the axis are invalid.
    """
    if axis not in (0, 1):
        raise SeqclfError(f"axis={axis!r}: expected 0 (upside down) or 1 (left to right)")
    x = as_images(image).float().flip(axis - 3)
    if flow:
        top = torch.where(x.amax((-3, -2, -1)) > 1, 128.0, 1.0)[..., None, None]
        x[..., 0] = top - x[..., 0]
    return x
