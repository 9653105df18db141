"""What is made of a video, whole or not at all: its frames as pictures, or features of its frames, with their labels.

The first two are made by generators that yield how many frames a piece of the work was; one that is closed, or fails,
leaves nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.source import Source, Video
from seqclf.data.transforms import Size, resize
from seqclf.runtime.files import write_atomic

PIECE = 16
"""Frames that are held at a time."""


def write_frames(
    source: Source, folder: Path, size: Size | None = None, form: Literal["jpg", "png"] = "jpg", quality: int = 95
) -> Generator[int, None, None]:
    """The frames of a video as ``<folder>/<its name>.0001.jpg`` and so on, numbered from 1 with 4 digits or more.

    Args:
        source: frames ``(3, H, W)`` uint8.
        folder: for the pictures; it is there when all of them are.
        size: height and width to scale to, or the shorter side; None for the frames as they are.
        form: "png" keeps the frames bit for bit.
        quality: of a JPEG, 1 to 100.

    Raises:
        SeqclfError: a frame can't be read, or is no picture.
    """
    from PIL import Image

    options: dict[str, Any] = {"quality": quality} if form == "jpg" else {}
    digits = max(4, len(str(len(source))))
    part = folder.with_name(f".{folder.name}.part")  # hidden, so that half a video is no video
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for piece in _pieces(len(source), PIECE):
            frames = source.read(piece)
            if frames.dim() != 4:
                raise SeqclfError(f"{source.path}: its frames are {tuple(frames.shape[1:])}, which are no pictures")
            if size is not None:
                frames = resize(frames, None, size)
            for number, picture in zip(piece, frames.permute(0, 2, 3, 1).contiguous().numpy(), strict=True):
                path = part / f"{folder.name}.{number + 1:0{digits}}.{form}"
                Image.fromarray(picture).save(path, **options)
            yield len(piece)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_features(
    source: Source, path: Path, encode: Callable[[Tensor], Tensor], chunk: int
) -> Generator[int, None, None]:
    """The features of a video's frames as an ``.npy`` file of ``(D, T)`` float32.

    Args:
        encode: frames ``(n, *frame_shape)`` as the source has them, to features ``(n, D)``.
        chunk: n, how many frames are read and encoded at a time.

    Raises:
        SeqclfError: a frame can't be read or encoded; features of a frame are not finite.
    """
    T, features = len(source), np.empty(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        for piece in _pieces(T, chunk):
            encoded = encode(source.read(piece)).float().cpu()
            finite = encoded.isfinite().all(1)
            if not finite.all():
                at = piece[int((~finite).nonzero()[0])]
                raise SeqclfError(f"{source.path}: the features of frame {at} are not finite")
            if piece.start == 0:  # frame after frame in the file, so that a clip is one piece of it
                shape = (encoded.shape[1], T)
                features = np.lib.format.open_memmap(part, "w+", np.float32, shape, fortran_order=True)
            features[:, piece.start : piece.stop] = encoded.numpy().T
            yield len(piece)
        del features  # which writes what is left
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_annotations(out: Path, classes: Sequence[str], parts: Mapping[str, Sequence[tuple[str, Video]]]) -> None:
    """Writes ``groundTruth/``, ``mapping.txt`` and ``splits/`` beside features, as ``feature_set`` reads them.

    Args:
        parts: of "train" and "test" the videos, each with its name and the labels of its frames.

    Raises:
        SeqclfError: a frame has no label.
    """
    files = {"mapping.txt": [f"{k} {name}" for k, name in enumerate(classes)]}
    for part, videos in parts.items():
        files[f"splits/{part}.split1.bundle"] = [f"{name}.txt" for name, _ in videos]
        for name, video in videos:
            assert isinstance(video.labels, Tensor)
            labels = video.labels.tolist()
            if IGNORE in labels:
                raise SeqclfError(
                    f"{video.name}: frame {labels.index(IGNORE)} is in no segment, and here every frame needs a label: "
                    "say which class is meant by --background"
                )
            files[f"groundTruth/{name}.txt"] = [classes[k] for k in labels]
    for file, lines in files.items():
        path = out / file
        write_atomic(path, "".join(f"{line}\n" for line in lines))


def _pieces(length: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, length)) for start in range(0, length, size))
