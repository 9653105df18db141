"""Reading clips from video files and frame folders, against decoding the same frames and nothing else."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from seqclf import Video, Videos
from seqclf.benchmark.timing import compare_rates
from seqclf.data import Source, batches, mix
from seqclf.data.batch_memory import Memory
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.sampling import window
from seqclf.data.video.file import VideoFile

HEIGHT, WIDTH, RATE = 240, 320, 25
CODECS = (("H.264, a keyframe every 50", "libx264", 50), ("MPEG-4, a keyframe every 12", "mpeg4", 12))
BATCH = 8


def reader(videos: int = 64, frames: int = 300, clip: int = 16, pairs: int = 5) -> None:
    """One random window from each of many videos, batched by ``Videos``, against decoding the same frames.

    There are more videos than ``Videos`` keeps open, as in training: both sides open a file for each clip. Some of the
    videos are the same file.
    """
    if importlib.util.find_spec("av") is None:
        print("reader: skipped, PyAV is not installed (pip install 'seqclf[video]')")
        return
    measure = partial(compare_reading, frames=frames, clip=clip, pairs=pairs)
    pictures = [synthetic_pictures(frames, seed) for seed in range(3)]
    with tempfile.TemporaryDirectory() as folder, one_thread():
        for title, codec, gop in CODECS:
            write = partial(write_video, codec=codec, gop=gop)
            paths = repeated(write_copies(f"{folder}/{codec}", ".mp4", len(pictures), pictures, write), videos)
            known = [VideoFile(path) for path in paths]
            measure(title, partial(list, known), partial(decode_video, paths), "PyAV")
            measure(
                "  first time (builds the index)", partial(map, VideoFile, paths), partial(decode_video, paths), "PyAV"
            )
        paths = repeated(write_copies(f"{folder}/frames", "", len(pictures), pictures, write_folder), videos)
        folders = [FrameFolder(path) for path in paths]
        for name, decode in jpeg_decoders():
            measure("folders of JPEGs", lambda: folders, partial(decode_folder, paths, decode), name)


def compare_reading(
    title: str,
    sources: Callable[[], Iterable[Source]],
    decode: Callable[[int, Sequence[int]], object],
    name: str,
    frames: int,
    clip: int,
    pairs: int,
) -> None:
    """Prints a line for one reading thread and one for two. Both sides of a pair read the same windows.

    Args:
        sources: returns the videos.
        decode: ``decode(v, numbers)`` decodes these frames of video v.
    """
    sampling, videos = partial(window, frames=clip), len(list(sources()))
    memory = Memory()  # of all passes, as in training, where one data set serves them all
    for workers in (1, 2):
        ours_keys, rival_keys = count(), count()

        def ours(workers: int = workers, keys: Iterator[int] = ours_keys) -> None:
            data = Videos([Video("", source, 0) for source in sources()], sampling, training=True, workers=workers)
            data.memory = memory
            key = next(keys)
            for _ in batches(data, ((indices, key) for indices in torch.arange(videos).split(BATCH))):
                pass

        def rival(workers: int = workers, keys: Iterator[int] = rival_keys) -> None:
            key = next(keys)
            draws = [torch.Generator().manual_seed(mix(key, v)) for v in range(videos)]
            with ThreadPoolExecutor(workers) as pool:
                for _ in pool.map(decode, range(videos), [sampling(frames, draw)[0] for draw in draws]):
                    pass

        which = f"{title}, {workers} thread{'s' * (workers > 1)}"
        compare_rates(which, ours, rival, name, videos, "clips/s", pairs, warm=3)  # first writes to memory are slow


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's operators use one thread inside the block, so that only reading threads run in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- decoding only


def decode_video(paths: Sequence[str], v: int, numbers: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Seeks to the keyframe before the first of these frames and decodes up to the last, as RGB."""
    import av
    from av.video.reformatter import VideoReformatter

    found: list[Any] = []
    reformatter = VideoReformatter()
    with av.open(paths[v]) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        first = int(numbers[0] / (RATE * stream.time_base))
        container.seek(first, stream=stream)
        for frame in container.decode(stream):
            if frame.pts >= first:
                found.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
            if len(found) == len(numbers):
                break
    return found


def jpeg_decoders() -> list[tuple[str, Callable[[str], object]]]:
    from PIL import Image

    decoders: list[tuple[str, Callable[[str], object]]] = [("PIL", lambda path: np.asarray(Image.open(path)))]
    if importlib.util.find_spec("torchcodec") is not None:
        from torchcodec.decoders import decode_jpeg

        def decode(path: str) -> object:
            return decode_jpeg(torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8))

        decoders.append(("torchcodec", decode))
    return decoders


def decode_folder(
    paths: Sequence[str], decode: Callable[[str], object], v: int, numbers: Sequence[int]
) -> list[object]:
    return [decode(picture_path(paths[v], number)) for number in numbers]


# ---- synthetic videos


def write_copies(
    stem: str, suffix: str, videos: int, pictures: Sequence[NDArray[np.uint8]], write: Callable[..., None]
) -> list[str]:
    """Writes one video for each array of pictures, and copies of them up to ``videos``; returns the paths."""
    paths = [f"{stem}_{v}{suffix}" for v in range(videos)]
    for v, path in enumerate(paths):
        if v < len(pictures):
            write(path, pictures[v])
        elif suffix:
            shutil.copy(paths[v % len(pictures)], path)
        else:
            shutil.copytree(paths[v % len(pictures)], path)
    return paths


def repeated(paths: Sequence[str], count: int) -> list[str]:
    """Returns ``count`` paths by repeating those of the files."""
    return [paths[k % len(paths)] for k in range(count)]


def synthetic_pictures(frames: int, seed: int) -> NDArray[np.uint8]:
    """``(frames, 240, 320, 3)``: a window that moves over a coloured texture, with noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 30, 40, generator=draw) * 255
    texture = F.interpolate(coarse, scale_factor=16, mode="bicubic")[0].clamp(0, 255)
    turn = torch.arange(frames) / 40
    down, right = ((0.5 + 0.5 * wave) * room for wave, room in ((turn.sin(), HEIGHT), ((1.3 * turn).cos(), WIDTH)))
    shown = []
    for y, x in zip(down.int().tolist(), right.int().tolist(), strict=True):
        noise = torch.randn(1, HEIGHT, WIDTH, generator=draw) * 8
        shown.append((texture[:, y : y + HEIGHT, x : x + WIDTH] + noise).clamp(0, 255).byte())
    return torch.stack(shown).permute(0, 2, 3, 1).contiguous().numpy()


def write_video(path: str, pictures: NDArray[np.uint8], codec: str, gop: int) -> None:
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", gop
        stream.bit_rate = 600_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def picture_path(folder: str, number: int) -> str:
    return f"{folder}/{number:04}.jpg"


def write_folder(path: str, pictures: NDArray[np.uint8]) -> None:
    from PIL import Image

    Path(path).mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(picture_path(path, number), quality=90)
