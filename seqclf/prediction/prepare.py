"""Prepares videos for training, many at a time: frames as pictures, features of frames, shards."""

from __future__ import annotations

import glob
import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import Source, Video, find_videos
from seqclf.data.find import plain_name
from seqclf.data.shard_files import in_shards, write_shard
from seqclf.data.shard_index import index_of, write_index
from seqclf.data.transforms import center_crop, resize
from seqclf.models import Normalize
from seqclf.prediction.reader import RunReader
from seqclf.runtime.files import read_json, write_json
from seqclf.runtime.progress import Display

SAY_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""
Job = Generator[int, None, None]
"""Work on a file, that yields how many frames a piece of it was, and can be closed in the middle."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Done:
    """What came of a number of videos: those ``made``, of ``frames`` frames in all; why others failed, by name."""

    made: int = 0
    frames: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def work_off(jobs: Mapping[str, Callable[[], Job]], workers: int, unit: str = "video") -> Done:
    """Runs jobs in threads and shows their progress. A job that fails is reported, and the others continue.

    Args:
        jobs: by name, what is called to begin each. On an interrupt those that are on their way are closed.
        unit: what a job is about.

    Raises:
        SeqclfError: a file can't be written.
    """
    done, began, stop = Done(), time.perf_counter(), Event()
    said = began

    def work(begin: Callable[[], Job]) -> int:
        frames = 0
        with closing(begin()) as job:
            for piece in job:
                frames += piece
                if stop.is_set():
                    break
        return frames

    with closing(Display(len(jobs), unit)) as display, ThreadPoolExecutor(workers) as pool:
        display.begin(0)
        futures = {pool.submit(work, job): name for name, job in jobs.items()}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                try:
                    done.frames += future.result()
                    done.made += 1
                except SeqclfError as error:
                    name = futures[future]
                    done.failed[name] = str(error) if name in str(error) else f"{name}: {error}"
                    print(f"error: {done.failed[name]}", file=sys.stderr, flush=True)
                except OSError as error:
                    raise SeqclfError(f"{futures[future]}: what is made of it can't be written ({error})") from None
                display.step(count)
                if display.bar is not None or time.perf_counter() - said > SAY_EVERY:
                    said = time.perf_counter()
                    display.figures(f"{done.frames:,} frames")
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    done.seconds = time.perf_counter() - began
    return done


def places(paths: Iterable[str | Path], out: Path) -> dict[Path, Path]:
    """Of each video that paths lead to, its place under ``out``, without a suffix.

    That is ``out/<video>``, or for the videos of a folder ``out/<where it is in the folder>/<video>``.

    Raises:
        SeqclfError: as in ``find_videos``; two videos would have one place.
    """
    found: dict[Path, Path] = {}
    for given in map(Path, paths):
        given = given.expanduser()
        for video in find_videos([given]):
            inside = video.relative_to(given).parent if given.is_dir() else Path()
            found[video] = out / inside / plain_name(video)
    return distinct(found)


def distinct(found: dict[Path, Path]) -> dict[Path, Path]:
    """The same places, seen to be of one video each; what was made of one earlier is no video itself."""
    made = {place.resolve() for video, place in found.items() if video.resolve() != place.resolve()}
    found = {video: place for video, place in found.items() if video.resolve() not in made}
    videos: dict[Path, Path] = {}
    for video, place in found.items():
        other = videos.setdefault(place, video)
        if other != video:
            raise SeqclfError(f"{other} and {video} would both become {place}")
    return found


def to_do(found: Mapping[Path, Path], out: Path, settings: Mapping[str, Any]) -> dict[Path, Path]:
    """The videos and places where nothing is yet; ``prepare.json`` under ``out`` says with what settings it is made.

    Raises:
        SeqclfError: what is there was made with other settings, or not by this.
    """
    note = out / "prepare.json"
    settings = json.loads(json.dumps(settings))  # as they will be read again
    there = [place for place in found.values() if place.exists()]
    if note.exists():
        before = read_json(note)
        other = [f"{k}={before.get(k)!r}, not {v!r}" for k, v in settings.items() if before.get(k) != v]
        if other:
            raise SeqclfError(f"{out}: was made with {'; '.join(other)}: give another --out, or delete this one")
    elif there:
        raise SeqclfError(f"{there[0]}: is there already, and was not made by this program (no {note})")
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SeqclfError(f"{out}: can't be made ({error})") from None
        write_json(note, settings)
    return {video: place for video, place in found.items() if not place.exists()}


@dataclass
class Encoder:
    """What makes features of frames.

    Attributes:
        encode: frames ``(n, *frame_shape)`` as their source has them, to features ``(n, D)``; by one thread at a time.
        fps, pattern: how videos are opened; see ``open_video``.
        settings: what it is, in plain values.
    """

    encode: Callable[[Tensor], Tensor]
    fps: float | None
    pattern: str | None
    settings: dict[str, Any]


def encoder_of_run(run: str, checkpoint: str, fps: float | None, device: torch.device) -> Encoder:
    """A run's preprocessing and encoder, on frames that are resized and cropped as in the run's evaluation.

    Raises:
        SeqclfError: as in ``load_run``; the run's model has no encoder.
    """
    read = RunReader.load(run, checkpoint, device)
    parts = [getattr(read.predictor.model, name, None) for name in ("preprocess", "encoder")]
    if not all(isinstance(part, nn.Module) for part in parts):
        raise SeqclfError(f"{run}: its model has no preprocess and encoder, as a FrameSequenceClassifier has")
    fps, pattern = fps or read.setting("video", "fps"), read.setting("folder", "pattern")

    def fit(frames: Tensor) -> Tensor:
        return read.fit(frames, read.predictor.frame_shape, "the video")[0]

    settings = {"run": str(Path(run).resolve()), "checkpoint": read.checkpoint.name, "fps": fps}
    return Encoder(_encode(nn.Sequential(*parts), fit, device), fps, pattern, settings)  # type: ignore[arg-type]


def encoder_of_backbone(
    name: str,
    weights: str | None,
    size: int | tuple[int, int],
    crop: int | tuple[int, int],
    fps: float | None,
    device: torch.device,
) -> Encoder:
    """A torchvision model without its classifier, on frames that are resized, cropped in the middle, and normalised as
    ImageNet's; arguments and errors as in ``Backbone``, ``resize`` and ``center_crop``."""
    from seqclf.models.backbone import Backbone

    torch.manual_seed(0)  # weights=None draws
    height, width = (crop, crop) if isinstance(crop, int) else crop
    backbone = Backbone((3, height, width), name, weights, "all")
    model = nn.Sequential(Normalize(IMAGENET_MEAN, IMAGENET_STD), backbone).to(device).eval()

    def fit(frames: Tensor) -> Tensor:
        return center_crop(resize(frames, None, size), None, crop)

    settings = {"backbone": name, "weights": weights, "resize": size, "crop": crop, "fps": fps}
    return Encoder(_encode(model, fit, device), fps, None, settings)


def _encode(model: nn.Module, fit: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    lock = Lock()  # videos are read side by side, and encoded one after the other

    def encode(frames: Tensor) -> Tensor:
        fitted = fit(frames)
        with lock, torch.inference_mode():
            return model(fitted.to(device))

    return encode


def write_part(
    videos: Sequence[Video],
    root: Path,
    part: str,
    classes: Sequence[str],
    background: str | None,
    fps: float | None,
    size: int,
    lanes: int,
    seed: int | None,
    workers: int,
) -> tuple[Done, list[Path]]:
    """Packs videos into the shards of a part, whole or not at all, and writes their index; see ``shard_index``.

    Args:
        videos: with a label, or labels of their frames, which are counted at ``fps``.
        root: the folder.
        size, lanes, seed: as in ``in_shards``.

    Returns:
        what came of the videos, and the shards.

    Raises:
        SeqclfError: the part is there already; no video can be read; a file can't be written.
    """
    shards = (root / part).parent
    if index_of(root, part).exists() or any(shards.glob(f"{glob.escape(Path(part).name)}-*.tar")):
        raise SeqclfError(
            f"{shards}: part {Path(part).name} is there already: delete it, or give another --out or --part"
        )

    def count(source: Source) -> Job:
        yield len(source)

    done = work_off({video.source.path: partial(count, video.source) for video in videos}, workers)
    videos = [video for video in videos if video.source.path not in done.failed]
    if not videos:
        raise SeqclfError(f"{shards}: nothing to pack, no video can be read")
    plan = in_shards(videos, size, lanes, seed)
    tars = [shards / f"{Path(part).name}-{number:06}.tar" for number in range(len(plan))]
    parts = [tar.with_name(f".{tar.name}.part") for tar in tars]
    try:
        shards.mkdir(parents=True, exist_ok=True)
        jobs = {
            str(tar): partial(write_shard, path, samples, classes, fps)
            for tar, path, samples in zip(tars, parts, plan, strict=True)
        }
        written = work_off(jobs, workers, "shard")
        if written.failed:
            raise SeqclfError(f"{shards}: no shard is left there, as one could not be written")
        for path, tar in zip(parts, tars, strict=True):
            path.replace(tar)
        write_index(root, part, tars, classes, background)
    except OSError as error:
        raise SeqclfError(f"{shards}: shards can't be written ({error})") from None
    finally:
        for path in parts:
            path.unlink(missing_ok=True)
    done.seconds += written.seconds
    return done, tars
