"""Classifies videos with a run, frame by frame, or with several runs together; or images with a run that reads rows.

seqclf predict runs/<run> video.mp4 more_videos/ --crops 10 --stride 8
seqclf predict runs/rgb runs/flow --weights 1 2 video_folder/
seqclf predict runs/<run> --stream camera.mp4
seqclf predict runs/<run> videos/ --segments segments.csv
seqclf predict runs/<run> digit.png more_digits/*.png

Videos are files, folders of frames, folders of either, or .npy files of features. They are seen in windows as the run
was trained on them, or whole where it was trained on whole ones. For each there is <name>.csv (a line per frame) and
<name>.png (the timeline, with the true segments beneath where --segments tells them); predictions.json has them all.
Exit code 2 where one could not be read.

Several runs read the same video; but where it is in the first one's data.root (or --roots), and of the same name in
another one's, such as frames and flow, each reads its own.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from seqclf import SeqclfError
from seqclf.cli.parser import make_parser

if TYPE_CHECKING:
    from seqclf.data.source import Source
    from seqclf.prediction import Prediction
    from seqclf.prediction.videos import VideoRun

SAY_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""


def main(words: Sequence[str]) -> int:
    parser = make_parser("predict", __doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="RUN... PATH...", help="run folders; and videos, or folders of them, or images")
    add(
        "--crops", type=int, default=1, choices=(1, 10), help="10: corners and middle, and mirrored (default 1: middle)"
    )
    add("--frames", type=int, help="frames of a window (default: as the run was trained)")
    add("--stride", type=int, help="frames from window to window (default: half a window)")
    add("--whole", action="store_true", help="each video as one window, as evaluation takes whole videos")
    add("--stream", action="store_true", help="frame by frame, memory carried; tells when the class changes")
    add("--weights", nargs="+", help="of several runs, a number each (default: all the same)")
    add("--roots", nargs="+", metavar="DIR", help="of several runs, the folder of its videos each (default: data.root)")
    add("--resize", type=int, nargs=2, metavar=("H", "W"), help="scale frames first (default: as the run's data says)")
    add("--fps", type=float, help="resample video files to this rate; of folders: the rate that they have")
    add(
        "--segments",
        metavar="CSV",
        help="the true segments, for the timeline; or a folder of <video>.txt, a class a line",
    )
    add("--unit", choices=("frames", "seconds"), default="frames", help="of the CSV's times (default: frames)")
    add("--out", help="the folder for what is written (default: predictions/ in the first run)")
    add("--checkpoint", default="newest", help="newest (default), best, or the number of a step")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    args = parser.parse_intermixed_args(words)

    from seqclf.prediction import shares
    from seqclf.prediction.videos import VideoRun
    from seqclf.runs.folder import RunFolder
    from seqclf.runtime.allocator import keep_freed_memory
    from seqclf.runtime.devices import pick_device

    keep_freed_memory()
    device = pick_device(args.device)
    if args.weights is not None:  # paths may follow the numbers
        given = args.weights
        args.weights = [float(text) for text in takewhile(_is_number, given)]
        args.paths += given[len(args.weights) :]
        if not args.weights:
            raise SeqclfError(f"--weights {given[0]}: expected a number for each run")
    folders = [path for path in args.paths if RunFolder.is_run(path)]
    if args.roots is not None:  # paths may follow the folders
        args.paths += args.roots[max(1, len(folders)) :]
        args.roots = args.roots[: max(1, len(folders))]
    others = [path for path in args.paths if path not in folders]
    if not folders:
        raise SeqclfError(f"{others[0]} is not a run folder, nor is any other argument: name one, such as runs/demo")
    runs = [VideoRun.load(folder, args.checkpoint, device) for folder in folders]
    if not others:
        raise SeqclfError("there is no video (and no image): name files or folders besides the run")
    if any(run.axis for run in runs):
        if len(runs) > 1:
            raise SeqclfError("only runs on videos are used together; one that reads images by rows is used alone")
        return _images(runs[0], others)
    runs = [_as_asked(run, args, k) for k, run in enumerate(runs)]
    for run in runs[1:]:
        if run.predictor.classes != runs[0].predictor.classes:
            raise SeqclfError(f"{run.folder} has other classes than {runs[0].folder}, or in another order")
    weights = shares(len(runs), args.weights)
    windowed = args.frames is not None or args.stride is not None
    if args.stream and (args.crops != 1 or windowed or args.whole):
        raise SeqclfError("--stream goes frame by frame: without --crops, --frames, --stride and --whole")
    if args.whole and windowed:
        raise SeqclfError("--whole goes without --frames and --stride")
    if args.stride is not None and any(run.frames is None for run in runs):
        raise SeqclfError("--stride needs --frames: the run was trained on whole videos")
    if args.roots is not None and len(args.roots) != len(runs):
        raise SeqclfError(f"there are {len(runs)} runs, but {len(args.roots)} --roots")
    return _videos(runs, weights, others, args)


def _as_asked(run: VideoRun, args: Namespace, number: int) -> VideoRun:
    """A run that reads videos as the options say."""
    if args.fps is not None and not 0 < args.fps < float("inf"):
        raise SeqclfError(f"--fps {args.fps}: expected a positive number")
    if args.frames is not None or args.whole:
        run = replace(run, frames=args.frames, step=1, spread=False)
    if args.resize is not None:
        run = replace(run, resize=tuple(args.resize), transform=None)
    if args.fps is not None:
        run = replace(run, fps=args.fps)
    if args.roots is not None and number < len(args.roots):
        run = replace(run, root=args.roots[number])
    return run


def _videos(runs: list[VideoRun], weights: list[float], paths: list[str], args: Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from seqclf.data import find_videos
    from seqclf.prediction.videos import Truth, as_plain, times_of, write_frames, write_timeline
    from seqclf.runtime.files import write_json
    from seqclf.runtime.progress import Display

    found: dict[Path, None] = {}
    failed: dict[str, str] = {}

    def fail(path: str | Path, error: SeqclfError) -> None:
        failed[str(path)] = str(error)
        print(f"error: {error}", file=sys.stderr, flush=True)

    classes, background = runs[0].predictor.classes, runs[0].background
    truth = None
    if args.segments is not None:
        truth = Truth(args.segments, classes, background[0] if background else None, args.unit)
    for given in paths:
        try:
            found.update(dict.fromkeys(find_videos([given])))
        except SeqclfError as error:
            fail(given, error)
    out = Path(args.out or Path(runs[0].folder, "predictions"))
    told, table = [], Table()
    for column in ("file", "frames", "mean of frames", "last frame", "next best"):
        table.add_column(column, overflow="fold", justify="right" if column == "frames" else "left")
    display, said = Display(len(found), "video"), time.perf_counter()
    display.begin(0)
    for done, (path, name) in enumerate(zip(found, _names(list(found)), strict=True), 1):
        try:
            places = _places(runs, path, args)
            sources = [run.open(place) for run, place in zip(runs, places, strict=True)]
            prediction = _stream(runs, weights, sources) if args.stream else _windows(runs, weights, sources, args)
        except SeqclfError as error:
            fail(path, error if str(path) in str(error) else SeqclfError(f"{path}: {error}"))
            continue
        known = None
        if truth is not None:
            try:
                known = truth.of(path, sources[0], runs[0].fps, runs[0].sample_rate)[: len(prediction.probabilities)]
            except SeqclfError as error:  # the prediction is good all the same
                fail(path, error)
        fps, times = times_of(sources[0], runs[0].fps)
        read = [source.path for source in sources]
        if not told and len({run.negate_x for run in runs}) > len(set(places)):
            print(f"note: runs on frames and on flow both read {path}: --roots says where flow is", file=sys.stderr)
        told.append({"name": name, "path": str(path), "read": read, **as_plain(prediction, fps, times)})
        write_frames(out / f"{name}.csv", prediction, times)
        write_timeline(out / f"{name}.png", prediction, fps, path.name, known, background)
        ranking = prediction.ranking("mean", 2)
        cells = [f"{label} {p:.1%}" for label, p in (ranking[0], prediction.label("last"), *ranking[1:])]
        table.add_row(str(path), str(len(prediction.probabilities)), *cells)
        display.step(done)
        if display.bar is not None or time.perf_counter() - said > SAY_EVERY:
            said = time.perf_counter()
            display.figures(f"{path.name}: {cells[0]}")
    display.close()
    if told:
        console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)
        console.print(table)
        used = {"runs": [run.folder for run in runs], "weights": weights, "classes": classes}
        write_json(out / "predictions.json", {**used, "videos": told, "failed": failed})
        print(f"all figures, frames and timelines: {out}")
    return 2 if failed else 0


def _places(runs: list[VideoRun], path: Path, args: Namespace) -> list[Path]:
    """Where each run finds a video: in its own root, where it is in the first one's, or else where it is."""
    first = None if runs[0].root is None else Path(runs[0].root).expanduser().resolve()
    if first is None or not path.resolve().is_relative_to(first):
        return [path] * len(runs)
    places = [path]
    for run in runs[1:]:
        place = path if run.root is None else Path(run.root).expanduser() / path.resolve().relative_to(first)
        places.append(place if place.exists() or args.roots is not None else path)
    return places


def _windows(runs: list[VideoRun], weights: list[float], sources: list[Source], args: Namespace) -> Prediction:
    from seqclf.prediction import fuse

    each = [run.predict(source, args.stride, args.crops) for run, source in zip(runs, sources, strict=True)]
    if len(each) == 1:
        return each[0]
    frames = _common([len(prediction.probabilities) for prediction in each])
    return fuse([prediction.until(frames) for prediction in each], weights)


def _common(lengths: list[int]) -> int:
    """How many frames are predicted: the fewest. Flow, which is between two frames, has one less than its video."""
    if max(lengths) > min(lengths) + 1:
        raise SeqclfError(f"the runs read it as {' and '.join(map(str, lengths))} frames")
    return min(lengths)


def _stream(runs: list[VideoRun], weights: list[float], sources: list[Source]) -> Prediction:
    """A video frame by frame as from a camera; a line whenever the class changes."""
    import torch

    from seqclf.prediction import Prediction
    from seqclf.prediction.videos import times_of

    classes, name = runs[0].predictor.classes, sources[0].path
    frames, times = _common([len(source) for source in sources]), times_of(sources[0], runs[0].fps)[1]
    streams = [run.predictor.stream() for run in runs]
    said, shown, began = [], None, time.perf_counter()
    for n in range(frames):
        p = torch.zeros(len(classes))
        for run, weight, source, stream in zip(runs, weights, sources, streams, strict=True):
            p += weight * stream(run.fit(source.read([n]), source.path)[0])
        if not said:
            began = time.perf_counter()  # the first frame loads what all need
        said.append(p)
        best = int(p.argmax())
        if best != shown:
            at = f"frame {n}" if times is None else f"{times[n]:.2f} s, frame {n}"
            rate = f" ({n / (time.perf_counter() - began):.0f} frames/s)" if n else ""
            print(f"{name}: {at}: {classes[best]} {p[best]:.1%}{rate}", flush=True)
            shown = best
    if not said:
        raise SeqclfError(f"{name}: has no frames")
    rate = f" ({(len(said) - 1) / (time.perf_counter() - began):.0f} frames/s)" if len(said) > 1 else ""
    print(f"{name}: the end, after {len(said)} frames{rate}", flush=True)
    return Prediction(torch.stack(said), classes)


def _names(paths: list[Path]) -> list[str]:
    """What the files of each video are called: its name without suffix, numbered where several have the same."""
    from seqclf.data.find import plain_name

    names: list[str] = []
    used: set[str] = set()
    for path in (Path(os.path.abspath(path)) for path in paths):
        plain = plain_name(path) or "video"
        name, number = plain, 2
        while name.lower() in used:  # some file systems do not tell a.csv from A.csv
            name, number = f"{plain}_{number}", number + 1
        used.add(name.lower())
        names.append(name)
    return names


def _images(run: VideoRun, images: list[str]) -> int:
    """Prints what a run that reads images by rows or columns says of image files."""
    from rich.console import Console
    from rich.table import Table

    from seqclf.data import read_image

    table = Table()
    for column in ("file", "last frame", "mean of frames", "next best", "note"):
        table.add_column(column, overflow="fold")
    for image in images:
        frames, done = read_image(image, run.axis)
        prediction = run.predictor(frames)
        (last, p_last), (mean, p_mean) = prediction.label("last"), prediction.label("mean")
        second = ", ".join(f"{name} {p:.1%}" for name, p in prediction.ranking("last", 2)[1:])
        cells = [f"{last} {p_last:.1%}", f"{mean} {p_mean:.1%}", second, ", ".join(done)]
        table.add_row(image, *cells)
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)
    return 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
