"""Base class of the layers that read images, and the layer that reads them from a list of files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.images.data_transform import Transform
from seqclf.caffe.images.decode import decode, resize
from seqclf.caffe.images.mean import read_mean_image
from seqclf.caffe.layers.base import Shape
from seqclf.caffe.layers.source import Source, locate, read_text


class ImageSource(Source):
    """Base class of layers that provide transformed images ``(N, C, h, w)``, BGR, and labels ``(N,)``."""

    settings: Any
    """The parameters of the layer's own type."""

    def open(self) -> list[Shape]:
        p = self.param.transform_param
        mean = self.caught(read_mean_image, locate(self, p.mean_file, "mean_file")) if p.HasField("mean_file") else None
        self.transform = self.caught(Transform, p, mean)
        self.open_pictures()
        self.batch_size = self.size(self.settings)
        skip = self.settings.rand_skip
        self.skip = int(torch.randint(skip, (), generator=self.generator("skip"))) if skip else 0
        where, picture, _ = next(self.pictures(self.skip, 1))
        shape = self.caught(self.transform.shape, tuple(picture.shape), where=where)
        return [(self.batch_size, *shape), (self.batch_size,)][: len(self.param.top)]

    def open_pictures(self) -> None:
        """Opens the source, and sets ``settings``."""
        raise NotImplementedError

    def pictures(self, first: int, count: int) -> Iterator[tuple[str, Tensor, int]]:
        """Place, pixels ``(C, H, W)`` and label of images from ``first`` on, which may be past the last one."""
        raise NotImplementedError

    def caught(self, function: Callable[..., Any], *args: Any, where: str = "") -> Any:
        """Calls a function; its error becomes the layer's."""
        try:
            return function(*args)
        except CaffeFormatError as error:
            self.fail(f"{where}: {error}" if where else str(error))

    def batch(self, n: int) -> tuple[Tensor, ...]:
        size, generator = self.batch_size, self.generator("batch", n)
        data, labels = torch.empty(0), torch.empty(size)
        for i, (where, picture, label) in enumerate(self.pictures(self.skip + n * size, size)):
            x = self.caught(self.transform, picture, self.training, generator, where=where)
            if i == 0:  # the first image determines the shape of a batch
                data = x.new_empty(size, *x.shape)
            if x.shape != data.shape[1:]:
                self.fail(f"{where}: a picture of shape {tuple(x.shape)} in a batch of {tuple(data.shape[1:])}")
            data[i], labels[i] = x, label
        return (data, labels)[: len(self.param.top)]


class ImageData(ImageSource):
    """Images from files in a list, each with a label after the last space (image_data_layer.cpp)."""

    category = "data"
    caffe_source = "image_data_layer.cpp"
    limits = "resizes bit for bit like OpenCV; random crops, mirroring and order differ from Caffe's"
    tops = (2, 2)

    def open_pictures(self) -> None:
        p = self.settings = self.param.image_data_param
        for name in ("force_color", "force_gray", "flow"):
            if getattr(self.param.transform_param, name, False):
                self.fail(
                    f"transform_param: {name} is for Data layers; is_color says whether pictures are in colour here"
                )
        for kind in ("new", "min"):
            height, width = getattr(p, f"{kind}_height", 0), getattr(p, f"{kind}_width", 0)
            if bool(height) != bool(width):
                self.fail(f"{kind}_height {height} and {kind}_width {width}, expected both or neither")
        self.list = locate(self, p.source, "source")
        self.lines: list[tuple[str, str, int]] = []
        for number, line in enumerate(read_text(self, self.list).split("\n"), 1):
            if line.strip():
                parts = re.fullmatch(r"\s*(\S.*?)\s+(-?\d+)\s*", line)
                if parts is None:
                    self.fail(f"{self.list}, line {number}: {line.strip()!r}, expected a file and a whole number")
                self.lines.append((f"{self.list}, line {number}", parts[1], int(parts[2])))
        if len(self.lines) < max(p.rand_skip, 1):
            self.fail(
                f"{self.list} names {len(self.lines)} pictures, expected {max(p.rand_skip, 1)} or more (rand_skip)"
            )

    def pictures(self, first: int, count: int) -> Iterator[tuple[str, Tensor, int]]:
        p = self.settings
        for i in range(first, first + count):
            turn, row = divmod(i, len(self.lines))
            line, name, label = self.lines[int(self.order(len(self.lines), turn)[row]) if p.shuffle else row]
            path = locate(self, p.root_folder + name, f"{line}: picture")
            where = f"{line}: {path}"
            picture = self.caught(decode, path, p.is_color, where=where)
            _, height, width = picture.shape
            new = (p.new_height, p.new_width) if p.new_height else _enlarged(height, width, p)
            yield where, picture if new == (height, width) else resize(picture, *new), label

    @staticmethod
    def summary(param: Any) -> str:
        return Path(param.image_data_param.source).name


def _enlarged(height: int, width: int, param: Any) -> tuple[int, int]:
    """The size by lisa-caffe's ``min_height`` and ``min_width``: the side that lacks more grows, the ratio is kept."""
    low, narrow = getattr(param, "min_height", 0), getattr(param, "min_width", 0)
    if height >= low and width >= narrow:
        return height, width
    h, w = np.float32(height), np.float32(width)
    if narrow - width > low - height:
        return int(float(np.float32(narrow) * (h / w)) + 0.5), narrow
    return low, int(float(np.float32(low) * (w / h)) + 0.5)
