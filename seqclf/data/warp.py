"""A smooth random warp of pictures: elastic distortion after Simard et al. 2003, section 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.transforms import clipwise, picture_size


@clipwise
def warp(
    frames: Tensor,
    generator: torch.Generator | None,
    p: float = 0.8,
    affine: float = 0.1,
    pixels: float = 1.5,
    points: int = 5,
) -> Tensor:
    """Warps the pictures smoothly, such as handwriting: each pixel is read, bilinearly, from a place nearby.

    The place is ``(I + A) x + d(x)``, with x measured from the center. The four entries of A are normal with standard
    deviation ``affine``: they scale, rotate and shear. d is normal with standard deviation ``pixels`` at a grid of
    ``points`` x ``points``, and bicubic between them. Outside, the picture continues as its mirror image. Evaluation
    changes nothing.

    Args:
        frames: one clip ``(T, C, H, W)``, all frames of which are warped alike, or a batch ``(B, T, C, H, W)``, of any
            dtype.
        generator: draws A and d; None leaves the frames as they are.
        p: the share of clips that are warped.
        affine: the standard deviation of the entries of A.
        pixels: the standard deviation of d.
        points: the number of points of the grid along each axis.

    Returns:
        frames of the same shape and dtype.

    Raises:
        SeqclfError: the frames are no pictures, or an argument is out of range.
    """
    H, W = picture_size(frames, "warp")
    if not 0 <= p <= 1 or affine < 0 or pixels < 0 or points < 2:
        raise SeqclfError(
            f"warp: p={p}, affine={affine}, pixels={pixels}, points={points}: p must be from 0 to 1, affine and pixels "
            "at least 0, and points at least 2"
        )
    if generator is None:
        return frames
    drawn = torch.rand((), generator=generator, device=generator.device)
    matrix = affine * torch.randn(1, 2, 2, generator=generator, device=generator.device)
    at_points = pixels * torch.randn(1, 2, points, points, generator=generator, device=generator.device)
    if drawn >= p:
        return frames
    identity = torch.eye(2, 3, device=generator.device)[None]
    places = F.affine_grid(identity + F.pad(matrix, (0, 1)), [1, 1, H, W], align_corners=False)
    moved = F.interpolate(at_points, size=(H, W), mode="bicubic", align_corners=True).movedim(1, -1)
    places = places + moved * (2 / torch.tensor([W, H], device=generator.device))  # the picture spans -1 to 1
    planes = frames.reshape(1, -1, H, W).to(torch.float32)  # one warp for all frames
    read = F.grid_sample(planes, places.to(frames.device), padding_mode="reflection", align_corners=False)
    if not frames.is_floating_point():
        read = read.round_()
    return read.to(frames.dtype).view_as(frames)
