"""The made data set: videos of moving digits, one label each or a label per frame, as real files with real lists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.mnist_rows import _cache_folder, _raw_files, mnist
from seqclf.data.order import mix

BACKGROUND = 10
"""The class of a frame without a digit, in the task of a label per frame; a digit's class is the digit."""
SIZE = 64
RATE = 25
VERSION = 1
"""Of the pictures: counted up when they are drawn in another way, so that an old folder is not taken for a new one."""


def make_moving_digits(
    root: str | Path,
    videos: int = 1000,
    test_videos: int = 200,
    task: Literal["clip", "frames"] = "clip",
    form: Literal["mp4", "folders"] = "mp4",
    seed: int = 0,
    frames: tuple[int, int] = (24, 60),
    source: Literal["auto", "digits", "mnist"] = "auto",
    mnist_root: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes videos of digits that move, bounce, turn and grow before a moving texture, 64x64 RGB, 25 frames a second.

    Now and then about half of a digit is hidden for some frames: which digit it is, is then known from the frames
    before. Training and test videos show different handwritten digits. The pictures are a function of the arguments.

    Under ``root``: ``videos/train_00000.mp4`` or ``videos/train_00000/train_00000.0001.jpg``; ``train.txt`` and
    ``test.txt``, a line ``path label`` per video (for ``task="frames"`` the path alone); ``classes.txt``, a name a
    line; for ``task="frames"`` also ``segments.csv`` (video, start, end, label): the digits' segments in frames, the
    end exclusive, all other frames being background. ``made.json``, the settings, is written last: a folder that has
    it with the same settings is left as it is, one where the work was cut short is made anew.

    Args:
        root: the folder; empty, missing, or made by this function.
        videos, test_videos: how many.
        task: "clip": one digit per video; "frames": segments of digits, and of background, class 10.
        form: "mp4" video files (extra ``video``), or "folders" of .jpg frames.
        seed: same arguments and seed, same pictures.
        frames: the least and the most frames of a video.
        source: where the digits come from: "mnist", "digits" (built in), or "auto": MNIST where it is on this machine
            (nothing is downloaded), else the built-in digits; a folder made of either is what "auto" asks for.
        mnist_root: the folder that holds ``MNIST/raw``; None for ``~/.cache/seqclf``.
        progress: called with the videos done and those to do, after each.

    Returns:
        The folder.

    Raises:
        SeqclfError: an argument is out of range, the folder holds something else or was made with other settings, or
            PyAV is not installed.
    """
    root = Path(root).expanduser()
    settings = {
        "what": "moving digits",
        "version": VERSION,
        "videos": videos,
        "test_videos": test_videos,
        "task": task,
        "form": form,
        "seed": seed,
        "frames": list(frames),
        "source": source,
    }
    _check(videos, test_videos, task, form, frames, source)
    if _is_made(root, settings):
        return root
    parts, settings["source"] = _digits(source, mnist_root)
    write = _write_mp4 if form == "mp4" else _write_folder
    if form == "mp4":
        _pyav()  # found missing before anything is written
    root.mkdir(parents=True, exist_ok=True)
    making = root / "making.json"
    making.write_text(json.dumps(settings, indent=1))
    shutil.rmtree(root / "videos", ignore_errors=True)
    (root / "videos").mkdir()
    segments = ["video,start,end,label"]
    counts = {"train": videos, "test": test_videos}
    for p, (part, count) in enumerate(counts.items()):
        lines = []
        for v in range(count):
            generator = torch.Generator().manual_seed(mix(seed, p, v))
            pictures, shown = draw_video(*parts[part], task, frames, generator, digit=v % 10)
            path = f"videos/{part}_{v:05}" + (".mp4" if form == "mp4" else "")
            write(root / path, pictures.permute(0, 2, 3, 1).contiguous().numpy())
            lines.append(path if task == "frames" else f"{path} {shown[0].label}")
            segments += [f"{path},{s.start},{s.end},{s.label}" for s in shown if s.label != BACKGROUND]
            if progress is not None:
                progress(v + 1 if p == 0 else videos + v + 1, videos + test_videos)
        (root / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines))
    classes = [*map(str, range(10)), *(["background"] if task == "frames" else [])]
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    if task == "frames":
        (root / "segments.csv").write_text("".join(f"{line}\n" for line in segments))
    making.replace(root / "made.json")
    return root


# ---- the pictures


@dataclass
class Segment:
    """Frames ``start`` to ``end - 1`` of a video, all of one class: a digit, or ``BACKGROUND``."""

    start: int
    end: int
    label: int


def draw_video(
    images: Tensor, labels: Tensor, task: str, frames: tuple[int, int], generator: torch.Generator, digit: int
) -> tuple[Tensor, list[Segment]]:
    """One video, drawn by the generator: ``(T, 3, 64, 64)`` uint8 RGB, and its segments in order, without gaps.

    Args:
        images: ``(N, 28, 28)`` uint8, white digits on black, in their middle 20x20; ``labels`` ``(N,)`` int64.
        task: "clip" shows the ``digit`` from the first frame to the last, "frames" begins with it or before it.
    """
    T = int(_between(*frames, generator))
    segments = [Segment(0, T, digit)] if task == "clip" else _plan(T, digit, generator)
    video = _texture(T, generator)
    for segment in segments:
        if segment.label != BACKGROUND:
            own = (labels == segment.label).nonzero()[:, 0]
            if not len(own):
                raise SeqclfError(f"there is no image of the digit {segment.label} to make videos of")
            image = images[own[int(_between(0, len(own) - 1, generator))]]
            shown = video[segment.start : segment.end]
            alpha = _cover(image, len(shown), generator)
            shown += alpha * (_colour(generator) - shown)
    return video.round_().clamp_(0, 255).to(torch.uint8), segments


def _plan(T: int, digit: int, generator: torch.Generator) -> list[Segment]:
    """Digits of 12 to 24 frames, background of 6 to 14 after most, no class twice in a row, no scrap at the end."""
    segments: list[Segment] = []
    end = 0
    label = BACKGROUND if _uniform(0, 1, generator) < 0.5 else digit
    while end < T:
        start = end
        end = start + int(_between(6, 14, generator) if label == BACKGROUND else _between(12, 24, generator))
        if T - end < 6:
            end = T
        segments.append(Segment(start, end, label))
        if label == BACKGROUND:  # the one shown before it may come back
            label = int(_between(0, 9, generator)) if len(segments) > 1 else digit
        else:
            following = (label + int(_between(1, 9, generator))) % 10
            label = BACKGROUND if _uniform(0, 1, generator) < 0.7 else following
    return segments


def _texture(T: int, generator: torch.Generator) -> Tensor:
    """``(T, 3, 64, 64)`` float: a window that wanders over a dark coloured texture, with noise in every frame."""
    coarse = 60 + 20 * torch.randn(1, 3, 12, 12, generator=generator)
    texture = F.interpolate(coarse, size=(2 * SIZE, 2 * SIZE), mode="bicubic", align_corners=False).clamp(0, 120)[0]
    windows = texture.unfold(1, SIZE, 1).unfold(2, SIZE, 1)  # (3, 65, 65, 64, 64), a view
    down, right = (_bounce(T, 0, SIZE, 1.5, generator).long() for _ in range(2))
    return windows[:, down, right].transpose(0, 1) + 8 * torch.randn(T, 1, SIZE, SIZE, generator=generator)


def _cover(image: Tensor, T: int, generator: torch.Generator) -> Tensor:
    """``(T, 1, 64, 64)`` from 0 to 1: how much of each pixel the moving digit covers."""
    time = torch.arange(T)
    turn = _wave(time, generator) * 0.35  # at most 20 degrees: 6 and 9 stay themselves
    scale = _uniform(1.0, 1.25, generator) * (1 + 0.12 * _wave(time, generator))  # ink 18 to 28 pixels high
    x, y = (_bounce(T, 14, SIZE - 14, 2.0, generator) for _ in range(2))
    # from the frame's pixels to the digit's own coordinates, where its 28x28 image reaches from -1 to 1
    columns, rows = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="xy")
    dx, dy = ((grid - at[:, None, None]) / (14 * scale[:, None, None]) for grid, at in ((columns, x), (rows, y)))
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    own = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx], dim=-1)
    ink = (image.float() / 255).expand(T, 1, -1, -1)
    alpha = F.grid_sample(ink, own, mode="bilinear", padding_mode="zeros", align_corners=False)
    start = int(_between(4, 12, generator))
    while start < T:
        end = start + int(_between(3, 8, generator))
        direction = _uniform(0, 2 * torch.pi, generator)
        cut = _quantile(ink[0, 0], direction, _uniform(0.4, 0.6, generator))
        alpha[start:end, 0] *= ((_side(own[start:end], direction) - cut) * 14 + 0.5).clamp(0, 1)
        start = end + int(_between(6, 16, generator))
    return alpha


def _side(own: Tensor, direction: Tensor) -> Tensor:
    """How far places ``(..., 2)`` lie in a direction, an angle."""
    return own[..., 0] * direction.cos() + own[..., 1] * direction.sin()


def _quantile(ink: Tensor, direction: Tensor, part: Tensor) -> Tensor:
    """Where in a direction this part of the ink ``(28, 28)`` is passed: what is hidden is half a digit, never all."""
    at = (torch.arange(28) + 0.5) / 14 - 1
    columns, rows = torch.meshgrid(at, at, indexing="xy")
    side, order = _side(torch.stack([columns, rows], dim=-1), direction).flatten().sort()
    passed = ink.flatten()[order].cumsum(0)
    return side[torch.searchsorted(passed, part * passed[-1])]


def _colour(generator: torch.Generator) -> Tensor:
    """``(3, 1, 1)``: a light colour, one channel at 255 and none below 155."""
    colour = 155 + 100 * torch.rand(3, generator=generator)
    colour[int(_between(0, 2, generator))] = 255
    return colour[:, None, None]


def _bounce(T: int, low: float, high: float, fastest: float, generator: torch.Generator) -> Tensor:
    """``(T,)``: a place that moves by up to ``fastest`` a frame, back and forth between the walls."""
    speed = _uniform(fastest / 4, fastest, generator) * (1 if _uniform(0, 1, generator) < 0.5 else -1)
    way = _uniform(0, 2 * (high - low), generator) + speed * torch.arange(T)
    return high - (way % (2 * (high - low)) - (high - low)).abs()


def _wave(time: Tensor, generator: torch.Generator) -> Tensor:
    """``(T,)`` from -1 to 1: a sine of 30 to 80 frames a period, anywhere in it at first."""
    return torch.sin(2 * torch.pi * (time / _uniform(30, 80, generator) + _uniform(0, 1, generator)))


def _uniform(low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand((), generator=generator)


def _between(low: int, high: int, generator: torch.Generator) -> Tensor:
    """A whole number from low to high, both among them."""
    return torch.randint(low, high + 1, (), generator=generator)


# ---- the files


def _check(videos: int, test_videos: int, task: str, form: str, frames: tuple[int, int], source: str) -> None:
    for name, value, known in (
        ("task", task, ("clip", "frames")),
        ("form", form, ("mp4", "folders")),
        ("source", source, ("auto", "digits", "mnist")),
    ):
        if value not in known:
            raise SeqclfError(f"moving digits: {name}={value!r}, expected one of {', '.join(known)}")
    if videos < 1 or test_videos < 1:
        raise SeqclfError(f"moving digits: videos={videos}, test_videos={test_videos}, expected at least 1 of each")
    if len(frames) != 2 or not 1 <= frames[0] <= frames[1]:
        raise SeqclfError(f"moving digits: frames={tuple(frames)}, expected the least and the most, such as (24, 60)")


def _is_made(root: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds this data set already; an error where it holds something else."""
    made = root / "made.json"
    if made.is_file():
        try:
            there = dict(json.loads(made.read_text()))
        except (ValueError, TypeError):
            raise SeqclfError(f"{made}: damaged; delete the folder to make the data anew") from None
        wanted = {**settings, "source": there.get("source")} if settings["source"] == "auto" else settings
        other = [f"{k}={there.get(k)!r}, not {v!r}" for k, v in wanted.items() if there.get(k) != v]
        if other:
            raise SeqclfError(f"{root}: was made with {'; '.join(other)}; take another folder, or delete this one")
        return True
    if root.is_dir() and any(root.iterdir()) and not (root / "making.json").is_file():
        raise SeqclfError(f"{root}: holds other files; moving digits need a folder of their own")
    if root.exists() and not root.is_dir():
        raise SeqclfError(f"{root}: is a file, not a folder for moving digits")
    return False


def _digits(source: str, mnist_root: str | None) -> tuple[dict[str, tuple[Tensor, Tensor]], str]:
    """Images ``(N, 28, 28)`` and labels ``(N,)`` of the parts train and test, and which source they are of."""
    if source == "auto":
        folder = Path(mnist_root).expanduser() if mnist_root is not None else _cache_folder()
        source = "mnist" if all(path.is_file() for path in _raw_files(folder)) else "digits"
    data = mnist(axis="rows", root=mnist_root, source=source)  # type: ignore[arg-type]  # rows: the image itself
    return {name: (part.frames, part.labels) for name, part in data.parts().items()}, source  # type: ignore[union-attr]


def _pyav() -> Any:
    try:
        import av
    except ImportError:
        raise SeqclfError("writing .mp4 files needs PyAV: pip install 'seqclf[video]', or form='folders'") from None
    return av


def _write_mp4(path: Path, pictures: np.ndarray) -> None:
    """``pictures`` ``(T, H, W, 3)`` uint8 as MPEG-4 part 2, one thread: the same pictures give the same stream."""
    av = _pyav()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"qmin": "2", "qmax": "4"})
        stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, RATE)
        stream.bit_rate = 2_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_folder(path: Path, pictures: np.ndarray) -> None:
    """``pictures`` ``(T, H, W, 3)`` uint8 as ``<video>/<video>.0001.jpg`` and so on, as LRCN names them."""
    from PIL import Image

    path.mkdir()
    for number, picture in enumerate(pictures, start=1):
        Image.fromarray(picture).save(path / f"{path.name}.{number:04}.jpg", quality=92)
