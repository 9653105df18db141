"""Classify files with a run as its evaluation does, or with several runs together.

examples:
  seqclf predict runs/demo video.mp4 more_videos/
  seqclf predict runs/demo videos/ --crops 10 --frames 16 --stride 8
  seqclf predict runs/rgb runs/flow --weights 1 2 video_folder/
  seqclf predict runs/demo videos/ --segments segments.csv
  seqclf predict runs/demo videos/ --segments segments.csv --html
  seqclf predict runs/demo --list clips.csv
  seqclf predict runs/demo digit.png more_digits/*.png

Files are videos, folders of frames, folders that contain either, or .npy files. A run that was trained on images reads
images. The run recorded the frame rate, sampling, transform and decision rule of its evaluation. Options override them.

Output: <name>.csv has a row per frame of a file, and <name>.png is its timeline, with the true segments if --segments
is given. predictions.json holds all files. With --html, a page plays the videos above their timelines and lists the
errors: index.html, or the file that you name. If a file can't be read, the exit code is 2.

With several runs, each run reads the same file. If the file is under the root of the first run (or the first of
--roots), the other runs read the file of the same name under their own roots, such as flow in place of RGB frames.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqclf.cli.parser import CHECKPOINT, EMBED, EMBED_HELP, THRESHOLD, Parser, make_parser, threshold
from seqclf.errors import SeqclfError

if TYPE_CHECKING:
    from seqclf.data.sampling import Sampling
    from seqclf.prediction.files.predict import Progress


def main(words: Sequence[str]) -> int:
    args = _parser().parse_intermixed_args(words)
    if args.html in words and not args.html.lower().endswith((".html", ".htm")):  # a path that follows the option
        args.paths, args.html = sorted([*args.paths, args.html], key=words.index), ""

    from seqclf.prediction import predict
    from seqclf.runs.folder import RunFolder
    from seqclf.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    folders, paths, weights = _split(args, RunFolder.is_run)
    progress, finish = _show()
    written: list[Path] = []
    progress.wrote = written.append
    out = Path(args.out) if args.out else RunFolder(folders[0]).predictions
    result = predict(
        folders,
        paths,
        weights=weights,
        roots=args.roots,
        checkpoint=args.checkpoint,
        device=args.device,
        decision=args.decision,
        sampling=_sampling(args),
        resize=_size(args.resize),
        crop=args.crop,
        crops=args.crops,
        fps=args.fps,
        video_stream=args.video_stream,
        segments=args.segments,
        unit=args.unit,
        out=out,
        timelines=not args.no_timelines,
        progress=progress,
        list_file=args.list,
        list_unit=args.list_unit,
        threshold=args.threshold,
        html=out / "index.html" if args.html == "" else args.html,
        embed=args.embed,
    )
    finish(result["decision"])
    if result["videos"]:
        print(f"all results{_written_besides(result, written)}: {out}")
    for page in (path for path in written if path.suffix == ".html"):
        print(f"page: {page}")
    return 2 if result["failed"] else 0


def _written_besides(result: dict[str, Any], written: Sequence[Path]) -> str:
    """What the folder has besides the results; images have neither frames nor timelines."""
    if any(path.suffix == ".png" for path in written):
        return ", frames and timelines"
    return " and frames" if any(video["frames"] > 1 for video in result["videos"]) else ""


def _parser() -> Parser:
    parser = make_parser("predict", __doc__)
    parser.usage = "seqclf predict [options] RUN... PATH..."
    add = parser.add_argument
    add("paths", nargs="+", metavar="RUN... PATH...", help="run folders, and files or folders of files")
    add(
        "--decision",
        choices=("last", "mean"),
        help="classify a clip by its last frame, or by the mean over its frames (default: as the run does)",
    )
    add("--threshold", type=threshold, metavar="P", help=THRESHOLD)
    add("--frames", type=int, help="classify windows of this many frames (default: the clips of the run's evaluation)")
    add("--stride", type=int, help="the number of frames between the starts of windows (default: half a window)")
    add("--whole", action="store_true", help="classify each file as one clip of all its frames")
    add("--resize", type=int, nargs="+", metavar="N", help="scale frames to H W, or their shorter side to N")
    add("--crop", action="store_true", help="crop the center of the frames to the size of the model's input")
    add("--crops", type=int, default=1, choices=(1, 10), help="10: corners and center, and their mirror images")
    add("--fps", type=float, help="resample videos to this rate; for folders and arrays: their frame rate")
    add("--video-stream", type=int, metavar="N", help="the video stream of files with several, from 0")
    add("--weights", nargs="+", metavar="N", help="the weight of each run, if there are several (default: equal)")
    add("--roots", nargs="+", metavar="DIR", help="the folder of the videos of each run, if there are several")
    add(
        "--list",
        metavar="FILE",
        help="a list of videos, or clips, under the run's root (or --roots); labels are ignored; "
        "of a list with a split column, the test rows",
    )
    add("--list-unit", choices=("auto", "frames", "seconds"), default="auto", help="the unit of times in the list")
    add("--segments", metavar="CSV", help="true segments for timelines, or a folder of <video>.txt, one class per line")
    add(
        "--unit",
        choices=("frames", "seconds"),
        help="the unit of times in a table with the usual columns (default: read it as the run read its own table)",
    )
    add("--out", help="folder for the output (default: predictions/ in the first run)")
    add("--no-timelines", action="store_true", help="draw no timelines")
    add(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="write a page that plays the videos above their timelines (default: index.html in --out)",
    )
    add("--embed", type=float, default=EMBED, metavar="MB", help=EMBED_HELP)
    add("--checkpoint", default="auto", help=CHECKPOINT)
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    return parser


def _split(args: argparse.Namespace, is_run: Callable[[str], bool]) -> tuple[list[str], list[str], list[float] | None]:
    """Split the arguments into run folders, other paths and weights. Paths may follow the values of an option."""
    weights = None
    if args.weights is not None:
        weights = [float(text) for text in takewhile(_is_number, args.weights)]
        args.paths += args.weights[len(weights) :]
        if not weights:
            raise SeqclfError(f"--weights {args.weights[0]}: expected a number for each run")
    folders = [path for path in args.paths if is_run(path)]
    if args.roots is not None:
        args.paths += args.roots[max(1, len(folders)) :]
        args.roots = args.roots[: max(1, len(folders))]
    others = [path for path in args.paths if path not in folders]
    if not folders:
        raise SeqclfError(f"{others[0]} is not a run folder: name a run first, such as runs/demo, and then the files")
    if not others and args.list is None:
        raise SeqclfError("no file to classify: name files or folders after the run, or a list by --list")
    return folders, others, weights


def _sampling(args: argparse.Namespace) -> Sampling | None:
    """The sampling selected by the options; None for the run's."""
    from seqclf.prediction.predictor import windows_of

    if args.whole and (args.frames is not None or args.stride is not None):
        raise SeqclfError("--whole can't be combined with --frames or --stride")
    if args.stride is not None and args.frames is None:
        raise SeqclfError("--stride needs --frames")
    return windows_of(args.frames, args.stride) if args.whole or args.frames is not None else None


def _size(values: list[int] | None) -> int | tuple[int, int] | None:
    if values is None:
        return None
    if len(values) > 2:
        raise SeqclfError("--resize: expected a height and a width, or one number for the shorter side")
    return values[0] if len(values) == 1 else (values[0], values[1])


def _show() -> tuple[Progress, Callable[[str], None]]:
    """Callbacks that show progress, and a function that prints the table at the end."""
    from rich.console import Console
    from rich.table import Table

    from seqclf.prediction.files.output import describe_rate
    from seqclf.prediction.files.predict import Progress
    from seqclf.runtime.progress import REPORT_SECONDS, Display
    from seqclf.runtime.text import UNBROKEN

    displays: list[Display] = []
    rows: list[list[str]] = []

    def begin(count: int) -> None:
        displays.append(Display(count, "video"))
        displays[0].begin(0)

    def done(found: Any, plain: dict[str, Any]) -> None:
        other = plain["mean_of_frames" if plain["decision"] == "last" else "last_frame"]
        predicted = _predicted(plain)
        best, rest = _in_words(predicted), _in_words([e for e in plain["top"] if e not in predicted][:1])
        notes = [describe_rate(plain), *plain.get("changes", []), plain.get("page", "")]
        note = "; ".join(filter(None, notes))
        cells = [best or "none", rest, _in_words(_predicted(other)) or "none"]
        rows.append([plain["path"], str(plain["frames"]), *cells, note])
        displays[0].step(len(rows))
        displays[0].figures(f"{Path(plain['path']).name}: {best}", REPORT_SECONDS)

    def failed(path: str, error: str) -> None:
        print(f"error: {error}", file=sys.stderr, flush=True)

    def note(text: str) -> None:
        print(f"note: {text}", file=sys.stderr, flush=True)

    def finish(decision: str) -> None:
        displays[0].close()
        if not rows:
            return
        names = {"last": "last frame", "mean": "mean of frames"}
        columns = ["file", "frames", f"label ({names[decision]})", "next best"]
        columns += [name for rule, name in names.items() if rule != decision]
        table = Table()
        has_notes = any(row[-1] for row in rows)
        for column in [*columns, "note"][: None if has_notes else -1]:
            table.add_column(column, overflow="fold", justify="right" if column == "frames" else "left")
        for row in rows:
            table.add_row(*(row if has_notes else row[:-1]))
        width = None if sys.stdout.isatty() else UNBROKEN
        Console(width=width, markup=False, emoji=False, highlight=False).print(table)

    return Progress(begin, done, failed, note), finish


def _predicted(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The predicted classes of an entry of ``predictions.json``: one, or any number if it is multi-label."""
    one = {"class": entry.get("label"), "probability": entry.get("probability")}
    found: list[dict[str, Any]] = entry.get("labels", [one])
    return found


def _in_words(classes: list[dict[str, Any]]) -> str:
    return ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in classes)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
