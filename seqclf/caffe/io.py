"""pycaffe's ``caffe.io`` in PyTorch: images read, resized, cropped and preprocessed; mean files.

Images are ``(H, W, K)``, as in pycaffe; NumPy arrays and tensors are accepted. Results are float32 in new memory, and
no function changes its arguments. pycaffe did: ``Transformer.preprocess`` scaled a float32 image in place if it neither
resized it nor swapped its channels, and lisa-caffe's ``flip_image`` changed an image of optical flow.
"""

from seqclf.caffe.images.mean import array_to_blobproto, blobproto_to_array, read_mean
from seqclf.caffe.images.processing import flip_image, load_image, oversample, resize_image
from seqclf.caffe.images.transformer import Transformer

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "blobproto_to_array",
    "flip_image",
    "load_image",
    "oversample",
    "read_mean",
    "resize_image",
]
