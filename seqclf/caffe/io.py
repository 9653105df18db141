"""What pycaffe's ``caffe.io`` does, in PyTorch: images read, resized, cropped and preprocessed; mean files.

Images are ``(H, W, K)``, as pycaffe has them; NumPy arrays are taken as tensors are. What comes back is float32, new
memory, and no function changes what it is given. pycaffe's did: ``Transformer.preprocess`` scaled a float32 image in
place where it neither resized it nor swapped its channels, and lisa-caffe's ``flip_image`` changed a flow image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from operator import index as whole
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.files import LARGEST_BLOB, countable
from seqclf.caffe.schema import FLAVOURS, schema

Array: TypeAlias = Tensor | np.ndarray[Any, Any]

GREY = (0.2125, 0.7154, 0.0721)
"""What skimage's ``rgb2gray`` weighs red, green and blue with."""
ORDERS = (0, 1, 3)
"""The orders of interpolation: nearest pixel, linear, cubic spline."""
BORDERS = {"bvlc": "zero", "lisa": "edge"}
"""What a fork's ``resize_image`` sees outside of an image."""


# ---- images


def load_image(filename: str | Path, color: bool = True) -> Tensor:
    """An image file as ``(H, W, 3)`` RGB float32 from 0 to 1, or ``(H, W, 1)`` grey where ``color`` is False.

    Transparency is dropped, not blended; a grey image becomes three equal channels, or stays one. (lisa-caffe left
    colour images in colour where ``color`` was False.)

    Raises:
        SeqclfError: the file is missing, no image, damaged, or of a kind of pixel that has no white (32 bits).
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
            else:  # through RGBA, as a palette's transparency has two forms, one of which PIL warns of
                palette = image.mode in ("P", "PA")
                pixels = np.array((image.convert("RGBA") if palette else image).convert("RGB"))
    except FileNotFoundError:
        raise SeqclfError(f"{filename}: no such file") from None
    except Exception as error:  # PIL's readers raise almost anything where a file is damaged
        raise SeqclfError(f"{filename}: not an image that can be read ({error})") from None
    x = torch.from_numpy(pixels).float() / white
    if color:
        return x if x.ndim == 3 else x[..., None].repeat(1, 1, 3)
    return (x @ x.new_tensor(GREY) if x.ndim == 3 else x)[..., None]


def resize_image(image: Array, new_dims: Sequence[int], interp_order: int = 1, flavour: str = "bvlc") -> Tensor:
    """Images ``(..., H, W, K)`` resized to ``new_dims`` = (height, width), without anti-aliasing, as in Caffe's time.

    Images of 1 or 3 channels: the image's range is put to 0..1, skimage's ``resize`` (pixels are squares, the outer
    edges fall upon each other), and back. Outside of the image BVLC Caffe sees 0, so that the image's minimum bleeds
    into the border where it grows; lisa-caffe sees the nearest pixel. Images of other counts of channels:
    ``scipy.ndimage.zoom`` (the centres of the corner pixels fall upon each other).

    Args:
        interp_order: 0 nearest pixel, 1 linear, 3 cubic spline.

    Raises:
        SeqclfError: not such images, sizes, order or flavour.
    """
    if flavour not in BORDERS:
        raise SeqclfError(f'flavour={flavour!r}: expected "bvlc" or "lisa"')
    if interp_order not in ORDERS:
        raise SeqclfError(f"interp_order={interp_order!r}: expected 0 (nearest), 1 (linear) or 3 (cubic spline)")
    x = _images(image).float()
    size = _size(new_dims, "new_dims")
    if x.shape[-1] not in (1, 3):
        return _resample(x, size, interp_order, "corners")
    low, high = x.amin((-3, -2, -1), keepdim=True), x.amax((-3, -2, -1), keepdim=True)
    span = high - low
    x = (x - low).div_(torch.where(span > 0, span, 1))  # an image of one value is 0 here, and itself at the end
    x = _resample(x, size, interp_order, BORDERS[flavour])
    if interp_order == 3:
        x = x.clamp_(0, 1)  # skimage cuts where splines overshoot
    return x.mul_(span).add_(low)


def oversample(images: Array | Iterable[Array], crop_dims: Sequence[int], flow: bool = False) -> Tensor:
    """Ten crops of each of N images ``(H, W, K)`` of one shape: ``(10 N, *crop_dims, K)``.

    The four corners (top left, top right, bottom left, bottom right) and the centre, rounded towards the top left;
    then the same five mirrored. ``flow`` is lisa-caffe's for images of optical flow: a mirrored crop's channel 0, the
    motion to the right, becomes 1 - itself.

    Raises:
        SeqclfError: no images, not images of one shape, or crops larger than they are.
    """
    x = _images(images if isinstance(images, (Tensor, np.ndarray)) else _stack(images))
    if x.ndim != 4:
        raise SeqclfError(f"images of shape {tuple(x.shape)}: expected (N, H, W, K)")
    (N, H, W, K), (h, w) = x.shape, _size(crop_dims, "crop_dims")
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
    """lisa-caffe's mirror image of images ``(..., H, W, K)``: ``axis`` 0 upside down, 1 left to right.

    With ``flow``, channel 0 becomes 1 - itself, or 128 - itself where an image's values go beyond 1.

    Raises:
        SeqclfError: not such images, or another axis.
    """
    if axis not in (0, 1):
        raise SeqclfError(f"axis={axis!r}: expected 0 (upside down) or 1 (left to right)")
    x = _images(image).float().flip(axis - 3)
    if flow:
        top = torch.where(x.amax((-3, -2, -1)) > 1, 128.0, 1.0)[..., None, None]
        x[..., 0] = top - x[..., 0]
    return x


class Transformer:
    """Images as a net's inputs take them, and back: pycaffe's ``Transformer``.

    Args:
        inputs: the shape ``(N, K, H, W)`` of each input, by its name.
        flavour: whose border ``resize_image`` has; lisa-caffe also refuses a mean of another size.

    Every method raises ``SeqclfError`` for an input that is not there, or what does not fit the input's shape.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]], flavour: str = "bvlc") -> None:
        if flavour not in FLAVOURS:
            raise SeqclfError(f'flavour={flavour!r}: expected "bvlc" or "lisa"')
        self.inputs = {name: _shape(shape, name) for name, shape in inputs.items()}
        self.flavour = flavour
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Tensor] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: Array) -> Tensor:
        """Images ``(..., H', W', K)`` as the input's ``(..., K, H, W)``.

        In this order, each where it is set: resized to the input's H x W, axes transposed, channels swapped,
        times ``raw_scale``, minus ``mean``, times ``input_scale``.
        """
        _, _, *size = self._shape(in_)
        x = _images(data).float()
        if list(x.shape[-3:-1]) != size:
            x = resize_image(x, size, flavour=self.flavour)
        if in_ in self.transpose:
            x = _permute(x, self.transpose[in_])
        if in_ in self.channel_swap:
            x = _take(x, self.channel_swap[in_])
        else:
            x = x.clone(memory_format=torch.contiguous_format)  # the caller's data stay as they are
        if in_ in self.raw_scale:
            x.mul_(self.raw_scale[in_])
        if in_ in self.mean:
            x.sub_(self._mean_for(in_, x))
        if in_ in self.input_scale:
            x.mul_(self.input_scale[in_])
        return x

    def deprocess(self, in_: str, data: Array) -> Tensor:
        """The way back, all but the resizing: the input's ``(K, H, W)``, or ``(1, K, H, W)``, as ``(H, W, K)``."""
        self._shape(in_)
        x = _tensor(data, "data")
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
            x = _take(x, _inverse(self.channel_swap[in_], f'the channel swap of input "{in_}"'))
        if in_ in self.transpose:
            x = _permute(x, _inverse(self.transpose[in_], f'the transposition of input "{in_}"'))
        return x.contiguous()

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of an image's axes in the net: (2, 0, 1) from H x W x K to K x H x W."""
        axes = len(self._shape(in_)) - 1
        self.transpose[in_] = _order(order, axes, "transpose order")
        _inverse(self.transpose[in_], "the transpose order")

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of the channels in the net, the first axis after the transposition: (2, 1, 0) from RGB to BGR."""
        self.channel_swap[in_] = _order(order, self._shape(in_)[1], "channel swap")

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """What images are multiplied with before the mean is taken away: 255 for nets that count from 0 to 255."""
        self._shape(in_)
        self.raw_scale[in_] = _number(scale, "raw scale")

    def set_mean(self, in_: str, mean: Array) -> None:
        """What is taken away: per channel ``(K,)``, or an image ``(K, H, W)``, or ``(H, W)`` for all channels.

        BVLC Caffe resizes an image of another size; lisa-caffe refuses it. A float64 mean is taken away in float64.
        """
        _, K, *size = self._shape(in_)
        m = _tensor(mean, "mean")
        m = m if m.dtype == torch.float64 else m.float()
        m = m[None] if m.ndim == 2 else m
        if m.shape not in ((K,), (K, *size)) and (self.flavour == "lisa" or m.ndim != 3 or len(m) not in (1, K)):
            raise SeqclfError(f"mean of shape {tuple(mean.shape)}: expected ({K},) or {(K, *size)}, as the input has")
        if m.ndim == 1:
            m = m[:, None, None]
        elif list(m.shape[1:]) != size:
            m = _permute(resize_image(_permute(m, (1, 2, 0)), size), (2, 0, 1))
        self.mean[in_] = m.clone()

    def set_input_scale(self, in_: str, scale: float) -> None:
        """What the net's input is multiplied with at last, after the mean is taken away."""
        self._shape(in_)
        self.input_scale[in_] = _number(scale, "input scale")

    def set_is_flow(self, in_: str, is_flow: bool) -> None:
        """lisa-caffe's mark that an input is optical flow; there as here it changes nothing that this class does."""
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


# ---- means


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Tensor:
    """A ``BlobProto``'s data, or its diff, as a float32 tensor of its shape.

    Raises:
        CaffeFormatError: the shape is none, or the values are not as many as it says.
    """
    return _to_tensor(blob, return_diff, "BlobProto")


def array_to_blobproto(array: Array, diff: Array | None = None, flavour: str = "bvlc") -> Any:
    """An array, and its diff, as a ``BlobProto``; lisa-caffe's has four axes and the fields num to width.

    Raises:
        SeqclfError: the diff is of another shape, the array is not one of numbers, or lisa-caffe's is not 4-d.
    """
    blob: Any = schema(flavour).BlobProto()
    x = _tensor(array, "array")
    if flavour == "bvlc":
        blob.shape.dim.extend(x.shape)
    elif x.ndim == 4:
        blob.num, blob.channels, blob.height, blob.width = x.shape
    else:
        raise SeqclfError(f"array of shape {tuple(x.shape)}: lisa-caffe's blobs have four axes")
    blob.data.extend(x.float().flatten().tolist())
    if diff is not None:
        d = _tensor(diff, "diff")
        if d.shape != x.shape:
            raise SeqclfError(f"diff of shape {tuple(d.shape)}: expected {tuple(x.shape)}, that of the array")
        blob.diff.extend(d.float().flatten().tolist())
    return blob


def read_mean(path: str | Path, flavour: str = "bvlc") -> Tensor:
    """A mean file, ``.binaryproto`` (a ``BlobProto``) or ``.npy``, as ``Transformer.set_mean`` takes it.

    Returns:
        float32, ``(K, H, W)``, ``(H, W)`` or ``(K,)``; the first axis of a mean ``(1, K, H, W)`` is dropped.

    Raises:
        CaffeFormatError: the file is missing, damaged, or its mean is none.
    """
    path = Path(path)
    blob: Any = schema(flavour).BlobProto()
    try:
        if not path.is_file():
            raise CaffeFormatError(f"{path}: no such file")
        if path.stat().st_size > LARGEST_BLOB:
            raise CaffeFormatError(f"{path}: larger than 2 GiB, more than Caffe reads")
        content = path.read_bytes()
    except OSError as error:
        raise CaffeFormatError(f"{path}: can't be read ({error.strerror})") from None
    if content.startswith(np.lib.format.MAGIC_PREFIX):
        mean = _read_npy(content, path)
    else:
        try:
            blob.ParseFromString(content)
        except DecodeError as error:
            raise CaffeFormatError(f"{path}: not a BlobProto, or damaged ({error})") from None
        mean = _to_tensor(blob, False, str(path))
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    if mean.ndim not in (1, 2, 3) or not mean.numel():
        raise CaffeFormatError(f"{path}: holds an array of shape {tuple(mean.shape)}, expected a mean (K, H, W)")
    if not mean.isfinite().all():
        raise CaffeFormatError(f"{path}: its data hold values that are not finite")
    return mean


def _read_npy(content: bytes, path: Path) -> Tensor:
    stream = BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read_header(stream)
    except Exception as error:  # a header is parsed as Python, and fails in many ways
        raise CaffeFormatError(f"{path}: a .npy file whose header is damaged ({error})") from None
    data = content[stream.tell() :]
    if dtype.kind not in "fiu" or len(shape) > 4:
        raise CaffeFormatError(f"{path}: holds {dtype} in {len(shape)} axes, expected numbers in at most 4")
    if any(n < 1 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise CaffeFormatError(f"{path}: its data are {len(data)} bytes, but its shape is {_times(shape)} of {dtype}")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return _tensor(array, str(path)).float()


def _to_tensor(blob: Any, return_diff: bool, where: str) -> Tensor:
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):  # these go before a shape (Blob::FromProto)
        field, shape = " x ".join(legacy), [getattr(blob, name) for name in legacy]
    else:
        field, shape = "shape", list(blob.shape.dim)
    if not countable(shape):
        raise CaffeFormatError(
            f"{where}: {field} is {_times(shape)}, expected at most 32 axes, none negative, of at most 2**31 - 1 values"
        )
    name = "diff" if return_diff else "data"
    name = f"double_{name}" if getattr(blob, f"double_{name}") else name
    values = getattr(blob, name)
    if len(values) != math.prod(shape):
        raise CaffeFormatError(f"{where}: {name} holds {len(values)} values, but {field} is {_times(shape)}")
    array = np.fromiter(values, np.float64 if name.startswith("double") else np.float32, len(values))
    return torch.from_numpy(array).float().reshape(shape)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[:40])) + (" x ..." if len(shape) > 40 else "") or "empty"


# ---- interpolation


def _resample(x: Tensor, size: tuple[int, int], order: int, border: str) -> Tensor:
    """Images ``(..., H, W, K)`` interpolated at the pixels of images of another size, one axis after the other."""
    *batch, H, W, K = x.shape
    if math.prod((*batch, *size, K)) > LARGEST_BLOB:
        raise SeqclfError(f"new_dims {_times(size)}: more than 2**31 - 1 values, which no blob of Caffe's holds")
    x = _along(x.reshape(-1, H, W * K), *_taps(H, size[0], 1, order, border, x.device))
    x = _along(x.reshape(-1, W * K, 1), *_taps(W, size[1], K, order, border, x.device))
    return x.reshape(*batch, *size, K)


def _along(x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """``y[:, m] = sum over t of weight[t, m] x[:, index[t, m]]``, of ``(B, N, D)`` and ``(T, M)``: ``(B, M, D)``."""
    y = x.index_select(1, index[0]).mul_(weight[0, :, None])
    for i, w in zip(index[1:], weight[1:, :, None], strict=True):
        y = y.addcmul_(x.index_select(1, i), w)
    return y


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # these are kept, and may be used where there are gradients
def _taps(N: int, M: int, K: int, order: int, border: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which of N pixels of K channels, times what, add up to each of M: two times ``(taps, M K)``.

    ``border`` "zero" or "edge" is what is outside; or it is "corners" for the geometry of scipy's ``zoom``, whose
    splines go on as their mirror image.
    """
    k = torch.arange(M, dtype=torch.float64)
    at = k * ((N - 1) / (M - 1) if M > 1 else 1.0) if border == "corners" else (k + 0.5) * (N / M) - 0.5
    first = (at + 0.5).floor() if order == 0 else at.floor()
    part = at - first
    if order == 0:
        steps, weight = torch.arange(1), torch.ones(1, M, dtype=torch.float64)
    elif order == 1:
        steps, weight = torch.arange(2), torch.stack([1 - part, part])
    else:
        # The spline through the pixels is a sum of B-splines, four of which reach a point; their coefficients are the
        # pixels filtered with sqrt(3) z**|n|, z = sqrt(3) - 2, of which all but 1e-9 is within 16 pixels.
        steps, near = torch.arange(-15, 17), torch.arange(-1, 3)
        distance = (part - near[:, None]).abs()
        spline = torch.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6)
        reach = (steps[:, None] - near).abs()
        weight = math.sqrt(3) * (math.sqrt(3) - 2) ** reach.double() @ spline
    index = first.long() + steps[:, None]
    if border == "zero":
        weight = weight * ((index >= 0) & (index < N))
    elif border == "corners":
        # Where rounding puts the last point beyond the last pixel, scipy sees nothing there, and Caffe had a row of 0.
        weight = weight * (at <= N - 1)
        index = index % max(2 * N - 2, 1)
        index = torch.minimum(index, 2 * N - 2 - index)
    index = index.clamp(0, N - 1)[..., None] * K + torch.arange(K)
    weight = weight.float()[..., None].expand(-1, -1, K)
    return index.flatten(1).to(device), weight.flatten(1).to(device)


# ---- what is given


def _tensor(x: Any, what: str) -> Tensor:
    """A tensor as it is; an array as a tensor with its own memory."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
        return torch.from_numpy(np.array(x, dtype=x.dtype.name if x.dtype.name in ("uint8", "float64") else "float32"))
    if isinstance(x, Tensor) and not x.is_complex():
        return x
    found = x.dtype if isinstance(x, (np.ndarray, Tensor)) else type(x).__name__
    raise SeqclfError(f"{what}: found {found}, expected a tensor or an array of real numbers")


def _images(image: Any) -> Tensor:
    x = _tensor(image, "image")
    if x.ndim < 3 or not x.numel():
        raise SeqclfError(f"image of shape {tuple(x.shape)}: expected (H, W, K), none of them 0")
    return x


def _stack(images: Iterable[Any]) -> Tensor:
    if not isinstance(images, Iterable):
        raise SeqclfError(f"images: found {type(images).__name__}, expected images (H, W, K)")
    tensors = [_images(image) for image in images]
    shapes = sorted({tuple(x.shape) for x in tensors})
    if len(shapes) != 1:
        raise SeqclfError(f"images of shapes {shapes}: expected one or more images, all of one shape")
    return torch.stack([x.float() for x in tensors])


def _size(size: Sequence[int], what: str) -> tuple[int, int]:
    try:
        height, width = (whole(n) for n in size)
    except (TypeError, ValueError):
        raise SeqclfError(f"{what}={size!r}: expected two whole numbers, (height, width)") from None
    if height < 1 or width < 1:
        raise SeqclfError(f"{what}={size!r}: expected a height and a width of at least 1")
    return height, width


def _shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    try:
        sizes = tuple(whole(n) for n in shape)
    except TypeError:
        sizes = (0,)
    if any(n < 1 for n in sizes):
        raise SeqclfError(f'input "{name}" of shape {shape!r}: expected (N, K, H, W)')
    return sizes


def _order(order: Sequence[int], length: int, what: str) -> tuple[int, ...]:
    try:
        numbers = tuple(whole(n) for n in order)
    except TypeError:
        numbers = ()
    if len(numbers) != length or any(not -length <= n < length for n in numbers):
        raise SeqclfError(f"{what} {order!r}: expected {length} whole numbers from 0 to {length - 1}, as the input has")
    return tuple(n % length for n in numbers)


def _inverse(order: tuple[int, ...], what: str) -> tuple[int, ...]:
    if sorted(order) != list(range(len(order))):
        raise SeqclfError(f"{what} is {order}, which has no inverse: expected each number once")
    return tuple(order.index(n) for n in range(len(order)))


def _number(x: Any, what: str) -> float:
    try:
        number = float(x)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise SeqclfError(f"{what} {x!r}: expected a number")
    return number


def _permute(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The last three axes in another order."""
    return x.permute(*range(x.ndim - 3), *(x.ndim - 3 + axis for axis in order))


def _take(x: Tensor, channels: tuple[int, ...]) -> Tensor:
    """These entries of the third axis from the end, in new memory."""
    if max(channels) >= x.shape[-3]:
        raise SeqclfError(f"channel swap {channels}: the data have shape {tuple(x.shape)}, expected channels first")
    return torch.stack([x.select(-3, channel) for channel in channels], -3)
