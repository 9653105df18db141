"""Prepare videos for training: check them, extract frames, compute features, or pack shards.

examples:
  seqclf prepare check train.csv test.csv --root DIR [--segments segments.csv] [--out DIR]
  seqclf prepare frames video.mp4 more_videos/ --out DIR [--fps 10] [--size 240 320] [--form png]
  seqclf prepare frames --list train.txt --root DIR --out DIR
  seqclf prepare features runs/demo video.mp4 more_videos/ --out DIR
  seqclf prepare features --backbone resnet18 --weights DEFAULT more_videos/ --out DIR
  seqclf prepare shards --root DIR --train train.csv --test test.csv --out DIR [--size 256]

Every command has --help. To continue a stopped command, run it again: finished frames and features are skipped.
Shards are written completely or not at all. If a video can't be read, it is reported, the others are processed, and the
exit code is 2.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from inspect import cleandoc
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from seqclf.cli.list_options import add_list_options, list_settings
from seqclf.cli.parser import CHECKPOINT, make_parser
from seqclf.errors import SeqclfError
from seqclf.runtime.text import counted

if TYPE_CHECKING:
    from seqclf.preparing import Summary


def check(words: Sequence[str]) -> int:
    """Open every video of lists, and report what would stop training and what may be a mistake.

    examples:
      seqclf prepare check videos.csv --root DIR
      seqclf prepare check train.csv test.csv --root DIR --out report
      seqclf prepare check train.txt test.txt --root DIR --segments segments.csv --classes classes.txt

    Lists and tables are read as in training. The report has the number, duration, size and rate of the videos, the
    balance of the classes, files that can't be read, annotations past the end of their video, and videos or groups
    that are in two parts. --out writes check.html with thumbnails, and check.json. If training can start, the exit
    code is 0, else 2.
    """
    parser = _parser("check")
    add = parser.add_argument
    add("lists", nargs="+", metavar="LIST", help="lists of videos; a split column gives the parts")
    add("--root", required=True, help="the folder that the paths in the lists start from")
    add_list_options(parser, leave_out=("--on-error",))
    add("--full", action="store_true", help="decode every frame (default: the first, the middle and the last)")
    add("--fps", type=float, help="the frame rate of folders of pictures")
    add("--workers", type=int, help="the number of videos that are read at a time (default: one per core)")
    add("--out", help="the folder for check.html and check.json (default: none)")
    args = parser.parse_args(words)

    from pathlib import Path

    from seqclf.preparing import check_report, check_videos
    from seqclf.runtime.files import make_folder, write_atomic, write_json

    if args.out is not None:
        make_folder(args.out)
    found = check_videos(
        args.lists, args.root, full=args.full, fps=args.fps, workers=args.workers, **list_settings(args)
    )
    print(check_report.text(found))
    if args.out is not None:
        out = Path(args.out)
        write_json(out / "check.json", check_report.plain_values(found))
        print(write_atomic(out / "check.html", check_report.page(found, ", ".join(map(str, args.lists)))))
    return 2 if found.problems else 0


def frames(words: Sequence[str]) -> int:
    """Extract the frames of videos: <out>/<video>/<video>.0000.jpg and so on.

    examples:
      seqclf prepare frames video.mp4 more_videos/ --out DIR [--fps 10] [--size 240 320] [--form png]
      seqclf prepare frames --list train.txt --root DIR --out DIR

    The number in a name is the number of the frame in the video file, from 0, at any --fps. Segments of the video files
    therefore also fit the folders. Videos in a folder or a list keep their relative path: <out>/<class>/<video>/...
    PNG pictures are lossless. Finished folders are skipped.
    """
    parser = _parser("frames")
    add = parser.add_argument
    add("paths", nargs="*", metavar="VIDEO", help="video files, and folders that hold some at any depth")
    add("--list", help="a list of videos with their classes, in place of VIDEO")
    add("--root", help="the folder that the paths in the list start from")
    add("--list-form", default="auto", metavar="FORM", help="how the list is written (default: detected)")
    add("--form", default="jpg", choices=("jpg", "png"), help="the form of the pictures (default: jpg)")
    add("--quality", type=int, default=95, help="the quality of jpg, 1 to 100 (default: 95)")
    add("--size", nargs="+", metavar="N", help="scale frames to height and width, or their shorter side")
    add("--video-stream", type=int, metavar="N", help="the video stream of files with several, from 0")
    _add_common(parser)
    others = ("--list-form", "--video-stream", "--layout", "--on-error")
    add_list_options(parser, others)
    args = parser.parse_intermixed_args(words)
    size = _size(args, "size")

    from seqclf.preparing import prepare_frames

    names = ("root", "list_form", "form", "quality", "fps", "video_stream", "workers")
    given = {name: getattr(args, name) for name in names} | list_settings(args, others)
    return _print(prepare_frames(args.paths, args.out, list_file=args.list, size=size, **given))


def features(words: Sequence[str]) -> int:
    """Compute features of the frames of videos: <out>/features/<video>.npy.

    examples:
      seqclf prepare features runs/demo video.mp4 more_videos/ --out DIR
      seqclf prepare features --backbone resnet18 --weights DEFAULT more_videos/ --out DIR
      seqclf prepare features runs/demo --root DIR --train train.csv --test test.csv --out DIR
      seqclf prepare features runs/demo --root DIR --train train.txt --test test.txt \\
          --segments segments.csv --background nothing --out DIR

    The encoder is that of a run, or a model of torchvision or timm. Files are (D, T) float32. Frames are transformed as
    in the run's evaluation, or resized, cropped and normalised as for ImageNet. With lists of videos, DIR also gets
    their labels and groups, and feature_set(root=DIR) reads it, such as in configs/features_lstm.py (data.root=DIR).
    """
    parser = _parser("features")
    add = parser.add_argument
    add("paths", nargs="*", metavar="[RUN] VIDEO", help="a run folder; video files, folders of frames, or of either")
    add("--checkpoint", default="auto", help=CHECKPOINT)
    add("--backbone", help="the torchvision name of a model, or timm:NAME, in place of a run")
    add("--weights", default="DEFAULT", help="a file, a torchvision name (default: DEFAULT), or none for random ones")
    add("--resize", nargs="+", metavar="N", help="for --backbone: shorter side, or height and width (default: 256)")
    add("--crop", nargs="+", metavar="N", help="for --backbone: height and width, or one for both (default: 224)")
    add("--chunk", type=int, default=32, help="the number of frames that are encoded together (default: 32)")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    _add_lists(parser, required=False)
    add_list_options(parser, leave_out=("--layout",))
    _add_common(parser)
    args = parser.parse_intermixed_args(words)
    resize, crop = _size(args, "resize"), _size(args, "crop")

    from seqclf.preparing import prepare_features
    from seqclf.runs.folder import RunFolder
    from seqclf.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    runs = [path for path in args.paths if RunFolder.is_run(path)]
    if len(runs) > 1:
        raise SeqclfError(f"{' and '.join(runs)} are runs; name one")
    names = ("root", "train", "test", "validation", "fps", "workers")
    return _print(
        prepare_features(
            [path for path in args.paths if path not in runs],
            args.out,
            run=runs[0] if runs else None,
            checkpoint=args.checkpoint,
            backbone=args.backbone,
            weights=None if args.weights == "none" else args.weights,
            resize=resize,
            crop=crop,
            chunk=args.chunk,
            device=args.device,
            **{name: getattr(args, name) for name in names},
            **list_settings(args),
        )
    )


def shards(words: Sequence[str]) -> int:
    """Pack the videos of a list into tar files in WebDataset's layout: <out>/<part>-000000.tar and so on.

    examples:
      seqclf prepare shards --root DIR --train train.csv --test test.csv --out DIR
      seqclf prepare shards --root DIR --train train.txt --test test.txt --segments segments.csv --out DIR

    The lists name videos and their classes. With --segments, they name only videos, and labels are per frame. Video
    files and pictures are packed unchanged, in random order (--seed), so that each shard holds all classes.
    <out>/<part>.index.json is written last. A config reads the shards with shard_set(root=DIR).
    """
    parser = _parser("shards")
    add = parser.add_argument
    _add_lists(parser, required=True)
    add("--parts", nargs="+", metavar="PART", help="which of train, test and validation to pack (default: all)")
    add("--size", type=float, default=256, metavar="MB", help="the approximate size of a shard (default: 256)")
    add("--lanes", type=int, default=8, help="the number of shards is a multiple of this (default: 8)")
    add("--seed", type=int, default=0, help="the seed of the order (default: 0)")
    add("--in-order", action="store_true", help="keep the order of the list")
    add_list_options(parser, leave_out=("--layout",))
    _add_common(parser)
    args = parser.parse_args(words)

    from seqclf.preparing import prepare_shards

    names = ("root", "train", "test", "validation", "parts", "lanes", "fps", "workers")
    summary = prepare_shards(
        args.out,
        megabytes=args.size,
        seed=None if args.in_order else args.seed,
        **{name: getattr(args, name) for name in names},
        **list_settings(args),
    )
    size = sum(tar.stat().st_size for tar in summary.files) / 1e6
    print(f"{counted(len(summary.files), 'shard')}, {size:,.1f} MB")
    return _print(summary)


def _print(summary: Summary) -> int:
    """Prints the summary and returns the exit code."""
    rate = f" ({summary.frames / summary.seconds:,.0f} frames/s)" if summary.made else ""
    print(
        f"{summary.out}: {counted(summary.made, 'video')} of {counted(summary.frames, 'frame')} done in "
        f"{summary.seconds:.1f} s{rate}, {summary.skipped:,} skipped (done before), {len(summary.failed):,} failed"
    )
    return 2 if summary.failed else 0


def _size(args: Namespace, name: str) -> Any:
    """The numbers that follow an option; paths among them are added to the paths."""
    given = getattr(args, name)
    if given is None:
        return None
    numbers = [int(text) for text in takewhile(str.isdecimal, given)]
    args.paths += given[len(numbers) :]
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise SeqclfError(f"--{name} {' '.join(given)}: expected one number of pixels, or height and width")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _parser(command: str) -> ArgumentParser:
    return make_parser(f"prepare {command}", cleandoc(COMMANDS[command].__doc__ or ""))


def _add_common(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--fps", type=float, help="resample video files to this rate (default: their own)")
    add("--workers", type=int, help="the number of videos that are processed at a time (default: one per core)")
    add("--out", required=True, help="the folder for the results")


def _add_lists(parser: ArgumentParser, required: bool) -> None:
    add = parser.add_argument
    add("--root", required=required, help="the folder that the paths in the lists start from")
    add("--train", required=required, metavar="LIST", help="the videos to train on")
    add(
        "--test",
        required=required,
        metavar="LIST",
        help="the videos to test on; may be the same list, with a split column",
    )
    add("--validation", metavar="LIST", help="the videos that choose the best checkpoint")


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "check": check,
    "frames": frames,
    "features": features,
    "shards": shards,
}


def main(words: Sequence[str]) -> int:
    if not words or words[0] not in COMMANDS:
        parser = make_parser("prepare", __doc__)
        parser.add_argument("command", choices=COMMANDS)
        parser.parse_args(words[:1])  # prints help, or an error
        return 2
    return COMMANDS[words[0]](words[1:])
