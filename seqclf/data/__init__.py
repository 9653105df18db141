"""Data: clips with a label per frame, and where they come from."""

from seqclf.data.augment import shift
from seqclf.data.clips import Clips, Data, no_data
from seqclf.data.labelling import Labelling, every_frame, given, last_frame
from seqclf.data.mnist import mnist, read_image
from seqclf.data.order import mix, sample_order

__all__ = [
    "Clips",
    "Data",
    "Labelling",
    "every_frame",
    "given",
    "last_frame",
    "mix",
    "mnist",
    "no_data",
    "read_image",
    "sample_order",
    "shift",
]
