"""A synthetic data set of moving digits: video files or folders of pictures, with lists and labels.

Its folder holds:

- ``videos/train_00000.mp4``, or ``videos/train_00000/train_00000.0000.jpg`` and so on, numbered from 0;
- ``train.txt`` and ``test.txt`` with a line ``path label`` per video, or ``path`` for ``task="frames"``;
- ``classes.txt`` with a name per line;
- for ``task="frames"``, ``segments.csv`` (video, start, end, label) with the digits' segments. They are in frames,
  and ``end`` is exclusive. All other frames are background;
- ``made.json`` with the settings. It is written last. A folder that has it, with the same settings, is left as it
  is; an unfinished folder is made again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.data import Data
from seqclf.data.digits.mnist import mnist
from seqclf.data.digits.mnist_files import raw_files
from seqclf.data.digits.pictures import BACKGROUND, draw_video
from seqclf.data.order import mix
from seqclf.data.sampling import CLIP, Sampling
from seqclf.data.sets.video_sets import annotated_set, video_set
from seqclf.data.transforms import Transform
from seqclf.runtime.files import cache_folder, make_folder
from seqclf.runtime.packages import optional_import

RATE = 25
VERSIONS = {"mp4": 1, "folders": 2}
"""The version of each form. It counts changes of the pictures or names, so that old folders are not reused."""


def moving_digits(
    root: str = "~/.cache/seqclf/moving_digits",
    task: Literal["clip", "frames"] = "clip",
    form: Literal["mp4", "folders"] = "mp4",
    videos: int = 1000,
    test_videos: int = 200,
    seed: int = 0,
    sampling: Sampling = CLIP,
    transform: Transform | None = None,
    workers: int = 2,
) -> Data:
    """Synthetic videos of moving digits, written to files on first use (see ``make_moving_digits``).

    Evaluation uses whole videos.

    Args:
        root: the folder of the data; each combination of settings has its own subfolder.
        task: "clip" for one label per video (the digit), "frames" for a label per frame (the digit or "background").
        form: "mp4" files, or "folders" of pictures.
        videos: the number of training videos.
        test_videos: the number of test videos.
        seed: the seed of the videos.
        sampling: which frames form a clip in training.
        transform: the transform of a clip's frames; None for none.
        workers: the number of threads that read ahead.
    """
    folder = Path(root).expanduser() / f"{task}_{form}_{videos}_{test_videos}_{seed}"
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        if done % 500 == 0:
            left = (total - done) * (time.perf_counter() - began) / done
            print(f"{done:,} of {total:,} videos written to {folder}, {left:.0f} s left", flush=True)

    make_moving_digits(folder, videos, test_videos, task, form, seed, progress=progress)
    settings: dict[str, Any] = {
        "sampling": sampling,
        "transform": transform,
        "test_transform": transform,
        "workers": workers,
    }
    if task == "clip":
        return video_set(str(folder), "train.txt", "test.txt", form="plain", class_index="classes.txt", **settings)
    settings |= {"background": "background", "unit": "frames"}
    return annotated_set(str(folder), "train.txt", "test.txt", "segments.csv", "classes.txt", **settings)


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
    """Writes videos of digits that move, bounce, turn and grow in front of a moving texture; returns the folder.

    Frames are 64x64 RGB at 25 frames per second. From time to time about half of the digit is hidden for some frames,
    so that only earlier frames show which digit it is. Training and test videos show different handwritten digits. The
    pictures depend on the arguments only.

    Args:
        root: the folder: missing, empty, or made by this function.
        videos: the number of training videos.
        test_videos: the number of test videos.
        task: "clip" for one digit per video; "frames" for segments of digits and of background (class 10).
        form: "mp4" for video files (needs PyAV, the extra ``video``), or "folders" for folders of JPEG pictures.
        seed: the seed of the videos.
        frames: the smallest and the largest number of frames of a video.
        source: where the digits come from: "mnist", "digits" (built in), or "auto": MNIST if it is on this machine,
            else the built-in digits. "auto" downloads nothing, and accepts a folder made from either source.
        mnist_root: the folder that holds ``MNIST/raw``; None for ``~/.cache/seqclf``.
        progress: called after each video with the number of videos done and the total.

    Raises:
        SeqclfError: an argument is out of range; the folder holds something else, or was made with other settings; PyAV
            is not installed.
    """
    root = Path(root).expanduser()
    _check(videos, test_videos, task, form, frames, source)
    settings = {"what": "moving digits", "version": VERSIONS[form], "videos": videos, "test_videos": test_videos}
    settings |= {"task": task, "form": form, "seed": seed, "frames": list(frames), "source": source}
    if not _is_made(root, settings):
        digits, settings["source"] = _digits(source, mnist_root)
        if form == "mp4":
            _pyav()  # before anything is written
        make_folder(root)
        making = root / "making.json"
        making.write_text(json.dumps(settings, indent=1))
        _write(root, digits, settings, progress or (lambda done, total: None))
        making.replace(root / "made.json")
    return root


def _write(
    root: Path, digits: dict[str, tuple[Tensor, Tensor]], settings: dict[str, Any], progress: Callable[[int, int], None]
) -> None:
    """Writes the videos, lists and labels."""
    shutil.rmtree(root / "videos", ignore_errors=True)
    (root / "videos").mkdir()
    task, suffix, write = settings["task"], "", _write_folder
    if settings["form"] == "mp4":
        suffix, write = ".mp4", _write_mp4
    counts = {"train": settings["videos"], "test": settings["test_videos"]}
    segments, done = ["video,start,end,label"], 0
    for p, (part, count) in enumerate(counts.items()):
        lines = []
        for v in range(count):
            generator = torch.Generator().manual_seed(mix(settings["seed"], p, v))
            pictures, shown = draw_video(*digits[part], task, settings["frames"], generator, digit=v % 10)
            path = f"videos/{part}_{v:05}{suffix}"
            write(root / path, pictures.permute(0, 2, 3, 1).contiguous().numpy())
            lines.append(path if task == "frames" else f"{path} {shown[0].label}")
            segments += [f"{path},{s.start},{s.end},{s.label}" for s in shown if s.label != BACKGROUND]
            done += 1
            progress(done, sum(counts.values()))
        _write_lines(root / f"{part}.txt", lines)
    _write_lines(root / "classes.txt", [*map(str, range(10)), *(["background"] if task == "frames" else [])])
    if task == "frames":
        _write_lines(root / "segments.csv", segments)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


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
        raise SeqclfError(f"moving digits: frames={tuple(frames)}, expected two numbers, such as (24, 60)")


def _is_made(root: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds this data set.

    Raises:
        SeqclfError: it holds something else.
    """
    made = root / "made.json"
    if made.is_file():
        try:
            there = dict(json.loads(made.read_text()))
        except (ValueError, TypeError):
            raise SeqclfError(f"{made}: damaged; delete the folder to make the data again") from None
        wanted = {**settings, "source": there.get("source")} if settings["source"] == "auto" else settings
        other = [f"{k}={there.get(k)!r}, not {v!r}" for k, v in wanted.items() if there.get(k) != v]
        if other:
            raise SeqclfError(f"{root}: was made with {'; '.join(other)}; choose another folder, or delete this one")
        return True
    if root.is_dir() and any(root.iterdir()) and not (root / "making.json").is_file():
        raise SeqclfError(f"{root}: holds other files; moving digits need an empty folder")
    if root.exists() and not root.is_dir():
        raise SeqclfError(f"{root}: is a file, not a folder for moving digits")
    return False


def _digits(source: str, mnist_root: str | None) -> tuple[dict[str, tuple[Tensor, Tensor]], str]:
    """Images ``(N, 28, 28)`` and labels ``(N,)`` of the parts train and test, and the name of their source."""
    if source == "auto":
        folder = Path(mnist_root).expanduser() if mnist_root is not None else cache_folder()
        source = "mnist" if all(path.is_file() for path in raw_files(folder)) else "digits"
    data = mnist(axis="rows", root=mnist_root, source=source)  # type: ignore[arg-type]  # rows are the image itself
    return {name: (part.frames, part.labels) for name, part in data.parts().items()}, source  # type: ignore[union-attr]


def _pyav() -> Any:
    with optional_import("video", "moving digits: form='folders' needs no package, form='mp4' needs PyAV"):
        import av

    return av


def _write_mp4(path: Path, pictures: np.ndarray) -> None:
    """Writes pictures ``(T, H, W, 3)`` uint8 as MPEG-4 part 2, by one thread, so that files are reproducible."""
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
    """Writes pictures ``(T, H, W, 3)`` uint8 as ``<video>/<video>.0000.jpg`` and so on."""
    from PIL import Image

    path.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{path.name}.{number:04}.jpg", quality=92)
