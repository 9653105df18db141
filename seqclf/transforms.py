"""Changes to the frames of a clip: resizing, cropping, augmentation."""

from seqclf.data.transforms import (
    center_crop,
    colour,
    compose,
    corner_crop,
    flip,
    framewise,
    in_turn,
    lrcn_crop,
    random_crop,
    resize,
    shift,
)
from seqclf.data.warp import warp

__all__ = [
    "center_crop",
    "colour",
    "compose",
    "corner_crop",
    "flip",
    "framewise",
    "in_turn",
    "lrcn_crop",
    "random_crop",
    "resize",
    "shift",
    "warp",
]
