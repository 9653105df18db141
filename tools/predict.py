"""Classifies videos with a run, frame by frame, or with several runs together; or images with a run that reads rows.

python tools/predict.py runs/<run> video.mp4 more_videos/ --crops 10 --stride 8
python tools/predict.py runs/rgb runs/flow --weights 1 2 video_folder/
python tools/predict.py runs/<run> --stream camera.mp4
python tools/predict.py runs/<run> digit.png more_digits/*.png

Videos are files, folders of frames, folders of either, or .npy files of features. They are seen in windows as the run
was trained on them, or whole where it was trained on whole ones. For each there is <name>.csv (a line per frame) and
<name>.png (the timeline); predictions.json has them all. Exit code 2 where one could not be read.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqclf import SeqclfError
from seqclf.tool import make_parser, run_tool

if TYPE_CHECKING:
    from seqclf.data.source import Source
    from seqclf.predict import Prediction, Predictor


def main() -> int:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="RUN... PATH...", help="run folders; and videos, or folders of them, or images")
    add(
        "--crops", type=int, default=1, choices=(1, 10), help="10: corners and middle, and mirrored (default 1: middle)"
    )
    add("--frames", type=int, help="frames of a window (default: as the run was trained)")
    add("--stride", type=int, help="frames from window to window (default: half a window)")
    add("--whole", action="store_true", help="each video as one window")
    add("--stream", action="store_true", help="frame by frame, memory carried; tells when the class changes")
    add("--weights", nargs="+", help="of several runs, a number each (default: all the same)")
    add("--resize", type=int, nargs=2, metavar=("H", "W"), help="scale frames first (default: as the run's data says)")
    add("--fps", type=float, help="resample video files to this rate; of folders: the rate that they have")
    add("--out", help="the folder for what is written (default: predictions/ in the first run)")
    add("--checkpoint", default="newest", help="newest (default), best, or the number of a step")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    args = parser.parse_intermixed_args()

    from seqclf.allocator import keep_freed_memory
    from seqclf.predict import is_run, shares
    from seqclf.train import pick_device

    keep_freed_memory()
    device = pick_device(args.device)
    if args.weights is not None:  # paths may follow the numbers
        given = args.weights
        args.weights = [float(text) for text in takewhile(_is_number, given)]
        args.paths += given[len(args.weights) :]
        if not args.weights:
            raise SeqclfError(f"--weights {given[0]}: expected a number for each run")
    folders = [path for path in args.paths if is_run(path)]
    others = [path for path in args.paths if path not in folders]
    if not folders:
        raise SeqclfError(f"{others[0]} is not a run folder, nor is any other argument: name one, such as runs/demo")
    runs = [_Run.load(folder, args, device) for folder in folders]
    if not others:
        raise SeqclfError("there is no video (and no image): name files or folders besides the run")
    if any(run.axis for run in runs):
        if len(runs) > 1:
            raise SeqclfError("only runs on videos are used together; one that reads images by rows is used alone")
        return _images(runs[0], others)
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
    if args.fps is not None and not 0 < args.fps < float("inf"):
        raise SeqclfError(f"--fps {args.fps}: expected a positive number")
    return _videos(runs, weights, others, args)


@dataclass
class _Run:
    """A run, and how its frames were read when it was trained."""

    folder: str
    predictor: Predictor
    axis: Any
    frames: int | None
    step: int
    resize: Any
    negate_x: bool
    fps: float | None
    sample_rate: int

    @staticmethod
    def load(folder: str, args: Namespace, device: Any) -> _Run:
        from seqclf.data.frames_augment import LRCN_FRAME, lrcn_crop, resize
        from seqclf.predict import Predictor, load_run
        from seqclf.settings import settings_of

        experiment, model, record, _ = load_run(folder, args.checkpoint)
        settings = {name: value for name, (_, value) in settings_of(experiment.data).items()}
        sampling = settings.get("sampling")
        window = {} if sampling is None else {name: value for name, (_, value) in settings_of(sampling).items()}
        transforms = [settings.get("test_transform") or settings.get("transform"), settings.get("transform")]
        steps = [list(_parts(transform)) for transform in transforms]
        size = next((step.keywords.get("size") for step in steps[0] if getattr(step, "func", None) is resize), None)
        if size is None and any(getattr(step, "func", step) is lrcn_crop for step in steps[0]):
            size = LRCN_FRAME
        return _Run(
            folder,
            Predictor(model, record["data"]["classes"], device),
            settings.get("axis"),
            frames=None if args.whole else window.get("frames") if args.frames is None else args.frames,
            step=1 if args.frames is not None or args.whole else window.get("step", 1),
            resize=tuple(args.resize) if args.resize else size,
            negate_x=any(getattr(step, "keywords", {}).get("negate_x", False) for step in steps[0] + steps[1]),
            fps=args.fps or settings.get("fps"),
            sample_rate=settings.get("sample_rate", 1),
        )

    def open(self, path: Path) -> Source:
        """A video as this run reads it."""
        from seqclf.data.features import FeatureFile
        from seqclf.data.lists import open_video

        if path.suffix.lower() == ".npy" and not path.is_dir():
            shape = self.predictor.frame_shape
            return FeatureFile(path, self.sample_rate, size=shape[0] if shape is not None and len(shape) == 1 else None)
        return open_video(path, self.fps)

    def predict(self, source: Source, args: Namespace) -> Prediction:
        return self.predictor.windows(
            source, self.frames, args.stride, args.crops, resize=self.resize, negate_x=self.negate_x, step=self.step
        )


def _parts(node: Any) -> Iterator[Any]:
    """The functions and partials that a setting is made of."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _parts(item)
    elif callable(node):
        yield node
        if isinstance(node, partial):
            yield from _parts([*node.args, *node.keywords.values()])


def _videos(runs: list[_Run], weights: list[float], paths: list[str], args: Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from seqclf.data.lists import find_videos
    from seqclf.predict import fuse
    from seqclf.record import write_json

    found: list[Path] = []
    failed: dict[str, str] = {}

    def fail(path: str | Path, error: SeqclfError) -> None:
        failed[str(path)] = str(error)
        print(f"error: {error}", file=sys.stderr)

    for given in paths:
        try:
            found += [video for video in find_videos([given]) if video not in found]
        except SeqclfError as error:
            fail(given, error)
    out = Path(args.out or Path(runs[0].folder, "predictions"))
    told, table = [], Table()
    for column in ("file", "frames", "mean of frames", "last frame", "next best"):
        table.add_column(column, overflow="fold", justify="right" if column == "frames" else "left")
    for path, name in zip(found, _names(found), strict=True):
        try:
            sources = [run.open(path) for run in runs]
            if args.stream:
                prediction = _stream(runs, weights, sources, args.fps)
            else:
                each = [run.predict(source, args) for run, source in zip(runs, sources, strict=True)]
                prediction = fuse(each, weights) if len(each) > 1 else each[0]
        except SeqclfError as error:
            fail(path, error if str(path) in str(error) else SeqclfError(f"{path}: {error}"))
            continue
        fps, times = _times(sources[0], args.fps)
        told.append({"name": name, "path": str(path), **_as_plain(prediction, fps, times)})
        _write(out, name, path, prediction, fps, times)
        ranking = prediction.ranking("mean", 2)
        cells = [f"{label} {p:.1%}" for label, p in (ranking[0], prediction.label("last"), *ranking[1:])]
        table.add_row(str(path), str(len(prediction.probabilities)), *cells)
    if told:
        console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)
        console.print(table)
        used = {"runs": [run.folder for run in runs], "weights": weights, "classes": runs[0].predictor.classes}
        write_json(out / "predictions.json", {**used, "videos": told, "failed": failed})
        print(f"all figures, frames and timelines: {out}")
    return 2 if failed else 0


def _stream(runs: list[_Run], weights: list[float], sources: list[Source], fps: float | None) -> Prediction:
    """A video frame by frame as from a camera; a line whenever the class changes."""
    import torch

    from seqclf.predict import Prediction

    classes = runs[0].predictor.classes
    lengths = {len(source) for source in sources}
    if len(lengths) > 1:
        raise SeqclfError(f"{sources[0].path}: the runs read it as {' and '.join(map(str, sorted(lengths)))} frames")
    times = _times(sources[0], fps)[1]
    streams = [run.predictor.stream() for run in runs]
    said, shown, began = [], None, time.perf_counter()
    for n in range(lengths.pop()):
        p = torch.zeros(len(classes))
        for run, weight, source, stream in zip(runs, weights, sources, streams, strict=True):
            frame = run.predictor.fit(source.read([n]), resize=run.resize, name=source.path)
            p += weight * stream(frame[0, 0])
        said.append(p)
        best = int(p.argmax())
        if best != shown:
            at = f"frame {n}" if times is None else f"{times[n]:.2f} s, frame {n}"
            rate = (n + 1) / (time.perf_counter() - began)
            print(f"{sources[0].path}: {at}: {classes[best]} {p[best]:.1%} ({rate:.0f} frames/s)", flush=True)
            shown = best
    if not said:
        raise SeqclfError(f"{sources[0].path}: has no frames")
    rate = len(said) / (time.perf_counter() - began)
    print(f"{sources[0].path}: the end, after {len(said)} frames ({rate:.0f} frames/s)", flush=True)
    return Prediction(torch.stack(said), classes)


def _times(source: Source, fps: float | None) -> tuple[float | None, list[float] | None]:
    """Frames per second, and when each frame begins and the last one ends; None where neither is known."""
    seconds = getattr(source, "seconds", None)  # of video files, whose rate may vary
    if seconds is None or not seconds[-1] > seconds[0]:
        rate = fps or getattr(source, "fps", None)
        return rate, None if rate is None else [n / rate for n in range(len(source) + 1)]
    rate = getattr(source, "fps", None) or (len(seconds) - 1) / float(seconds[-1] - seconds[0])
    return round(rate, 3), [*seconds.tolist(), float(seconds[-1]) + 1 / rate]


def _as_plain(prediction: Prediction, fps: float | None, times: list[float] | None) -> dict[str, Any]:
    """What ``predictions.json`` says of a video."""
    ranking = prediction.ranking("mean", 5)
    last, p_last = prediction.label("last")
    segments: list[dict[str, Any]] = []
    for name, start, end in prediction.segments():
        segments.append({"class": name, "start": start, "end": end})
        if times is not None:
            segments[-1] |= {"start_seconds": round(times[start], 4), "end_seconds": round(times[end], 4)}
    return {
        "frames": len(prediction.probabilities),
        "fps": fps,
        "label": ranking[0][0],
        "probability": round(ranking[0][1], 6),
        "last_frame": {"label": last, "probability": round(p_last, 6)},
        "top": [{"class": name, "probability": round(p, 6)} for name, p in ranking],
        "segments": segments,
    }


def _write(
    out: Path, name: str, path: Path, prediction: Prediction, fps: float | None, times: list[float] | None
) -> None:
    """A video's frames as CSV, and its timeline."""
    from seqclf.timeline import timeline

    classes, table = prediction.classes, out / f"{name}.csv"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="", encoding="utf-8") as stream:
            lines = csv.writer(stream)
            lines.writerow(["frame", "time", "class", "probability", *classes])
            for n, p in enumerate(prediction.probabilities.tolist()):
                best = max(range(len(p)), key=p.__getitem__)
                at = "" if times is None else f"{times[n]:.4f}"
                lines.writerow([n, at, classes[best], f"{p[best]:.6f}", *(f"{x:.6f}" for x in p)])
    except OSError as error:
        raise SeqclfError(f"{table}: can't be written ({error.strerror or error})") from None
    timeline(prediction.probabilities, classes, out / f"{name}.png", fps=fps, title=path.name)


def _names(paths: list[Path]) -> list[str]:
    """What the files of each video are called: its name without suffix, numbered where several have the same."""
    names: list[str] = []
    used: set[str] = set()
    for path in (Path(os.path.abspath(path)) for path in paths):
        plain = (path.name if path.is_dir() else path.stem) or "video"
        name, number = plain, 2
        while name.lower() in used:  # some file systems do not tell a.csv from A.csv
            name, number = f"{plain}_{number}", number + 1
        used.add(name.lower())
        names.append(name)
    return names


def _images(run: _Run, images: list[str]) -> int:
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
        second, p_second = prediction.ranking("last", 2)[1]
        cells = [f"{last} {p_last:.1%}", f"{mean} {p_mean:.1%}", f"{second} {p_second:.1%}", ", ".join(done)]
        table.add_row(image, *cells)
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)
    return 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    run_tool(main)
