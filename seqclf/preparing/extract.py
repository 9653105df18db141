"""Writes the frames of a video as pictures, the features of its frames, and the labels of annotated videos.

``write_frames`` and ``write_features`` are generators: they yield the number of frames of each piece of work. One that
is closed early, or fails, leaves nothing behind.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.data import Data
from seqclf.data.find import plain_name
from seqclf.data.frames.source import Source, Video
from seqclf.data.frames.times import frame_times
from seqclf.data.shards.writer import unique_keys
from seqclf.data.transforms import Size, resize
from seqclf.data.videos import Videos
from seqclf.runtime.files import write_atomic, write_csv

PIECE = 16
"""Frames that are held in memory at a time."""


def write_frames(
    source: Source, folder: Path, size: Size | None = None, form: Literal["jpg", "png"] = "jpg", quality: int = 95
) -> Generator[int, None, None]:
    """Writes the frames of a video as ``<folder>/<its name>.0000.jpg`` and so on.

    The number in a name is that of the frame in the video file, from 0, whatever rate the file is read at. So segments
    of the file fit the folder. A frame that a higher rate would repeat is written once.

    Args:
        source: frames ``(3, H, W)`` uint8.
        folder: the folder for the pictures. It appears when all of them are written.
        size: the height and width to scale to, or the shorter side; None keeps the size.
        form: "png" keeps the frames bit for bit.
        quality: the quality of JPEG, 1 to 100.

    Yields:
        the number of frames written since the last time.

    Raises:
        SeqclfError: a frame can't be read, or is not a picture.
    """
    from PIL import Image

    options: dict[str, Any] = {"quality": quality} if form == "jpg" else {}
    numbers, places = np.unique(frame_times(source).numbers, return_index=True)
    digits = max(4, len(str(numbers[-1])))
    part = folder.with_name(f".{folder.name}.part")  # hidden, so that an unfinished folder is not taken for a video
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for piece in _pieces(len(numbers), PIECE):
            frames = source.read(places[piece.start : piece.stop].tolist())
            if frames.dim() != 4:
                raise SeqclfError(f"{source.path}: its frames are {tuple(frames.shape[1:])}, expected pictures")
            if size is not None:
                frames = resize(frames, None, size)
            pictures = frames.permute(0, 2, 3, 1).contiguous().numpy()
            for number, picture in zip(numbers[piece.start : piece.stop], pictures, strict=True):
                Image.fromarray(picture).save(part / f"{folder.name}.{number:0{digits}}.{form}", **options)
            yield len(piece)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_features(
    source: Source, path: Path, encode: Callable[[Tensor], Tensor], chunk: int
) -> Generator[int, None, None]:
    """Writes the features of a video's frames as an ``.npy`` file of ``(D, T)`` float32.

    Args:
        source: the frames.
        path: the file. It appears when all features are written.
        encode: maps frames ``(n, *frame_shape)``, as the source reads them, to features ``(n, D)``.
        chunk: n, the number of frames that are read and encoded together.

    Yields:
        the number of frames encoded since the last time.

    Raises:
        SeqclfError: a frame can't be read or encoded; a feature is not finite.
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
            if piece.start == 0:  # Fortran order keeps the frames of a clip together in the file
                shape = (encoded.shape[1], T)
                features = np.lib.format.open_memmap(part, "w+", np.float32, shape, fortran_order=True)
            features[:, piece.start : piece.stop] = encoded.numpy().T
            yield len(piece)
        del features  # closes the file, which writes the rest
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def video_names(videos: Sequence[Video]) -> list[str]:
    """A name for each video or clip: that of its file, or a unique key if files have the same name."""
    names = [plain_name(Path(video.source.path)) for video in videos]
    return names if len(set(names)) == len(names) else unique_keys([video.name for video in videos])


def write_annotations(out: Path, data: Data, names: Sequence[str], left_out: Collection[str] = ()) -> None:
    """Writes ``groundTruth/``, ``mapping.txt``, ``splits/`` and ``groups.csv``, as ``feature_set`` reads them.

    Args:
        out: the folder that holds ``features/``.
        data: data sets of videos.
        names: the names of the videos of all parts, one after the other.
        left_out: the names of the videos without features.
    """
    write_atomic(out / "mapping.txt", "".join(f"{k} {name}\n" for k, name in enumerate(data.classes)))
    rest, groups = iter(names), list[tuple[str, str]]()
    for part, clips in data.parts().items():
        assert isinstance(clips, Videos)
        listed = list(zip(islice(rest, len(clips.videos)), clips.videos, clips.groups or clips.videos, strict=True))
        kept = [entry for entry in listed if entry[0] not in left_out]
        write_atomic(out / "splits" / f"{part}.split1.bundle", "".join(f"{name}.txt\n" for name, *_ in kept))
        for name, video, _ in kept:
            _write_labels(out / "groundTruth", name, torch.as_tensor(video.labels), data)
        groups += [(name, str(group)) for name, _, group in kept if clips.groups is not None]
    if groups:
        write_csv(out / "groups.csv", ["video", "group"], groups)


def _write_labels(folder: Path, name: str, labels: Tensor, data: Data) -> None:
    """Writes one class name per line, or an ``.npy`` file if there are other labels than one per frame."""
    if labels.dim() == 1 and not data.multi_label and IGNORE not in labels:
        write_atomic(folder / f"{name}.txt", "".join(f"{data.classes[k]}\n" for k in labels.tolist()))
        return
    content = io.BytesIO()
    np.save(content, labels.numpy().astype(np.int8 if data.multi_label else np.int32))
    write_atomic(folder / f"{name}.npy", content.getvalue())


def _pieces(length: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, length)) for start in range(0, length, size))
