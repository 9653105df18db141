"""Prepares videos for training: frames as pictures, features of frames, or shards of many videos.

seqclf prepare frames video.mp4 more_videos/ --out DIR [--fps 10] [--size 240 320] [--form png]
seqclf prepare frames --list train.txt --root DIR --out DIR
seqclf prepare features runs/<run> video.mp4 more_videos/ --out DIR
seqclf prepare features --backbone resnet18 --weights DEFAULT more_videos/ --out DIR
seqclf prepare shards train.txt --root DIR --out DIR [--part train] [--size 256]

Every command has --help. Frames and features that are done are skipped, so repeat a stopped command to continue it.
Shards are written whole or not at all.
Exit code 2 where a video could not be read; it is reported, and the others are processed.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from inspect import cleandoc
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqclf import SeqclfError
from seqclf.cli.parser import make_parser

if TYPE_CHECKING:
    from seqclf.prediction.prepare import Done, Encoder


def frames(words: Sequence[str]) -> int:
    """Extracts the frames of videos: <out>/<video>/<video>.0000.jpg and so on.

    seqclf prepare frames video.mp4 more_videos/ --out DIR [--fps 10] [--size 240 320] [--form png]
    seqclf prepare frames --list train.txt --root DIR --out DIR

    Videos of a folder, or of a list, keep the folders that they lie in there: <out>/<class>/<video>/... Pictures of the
    form png are the frames bit for bit. A folder of pictures is there when all of them are; it is then passed over.
    """
    parser = parser_of("frames")
    add = parser.add_argument
    add("paths", nargs="*", metavar="VIDEO", help="video files, and folders of them at any depth")
    add("--list", help="a list of videos with their classes, in any of the known forms, in place of VIDEO")
    add("--root", help="the folder that the list's paths start from")
    add_list_form(parser)
    add("--form", default="jpg", choices=("jpg", "png"), help="of the pictures (default: jpg)")
    add("--quality", type=int, default=95, help="of jpg, 1 to 100 (default: 95)")
    add("--size", nargs="+", metavar="N", help="scale frames: height and width, or the shorter side alone")
    add_common(parser)
    args = parser.parse_intermixed_args(words)

    from seqclf.data.extract import write_frames
    from seqclf.data.lists import read_list
    from seqclf.data.video_file import VideoFile
    from seqclf.prediction.prepare import distinct, places, to_do, work_off

    check_common(args)
    if not 1 <= args.quality <= 100:
        raise SeqclfError(f"--quality {args.quality}: expected 1 to 100")
    size, out = size_of(args, "size"), Path(args.out)
    if args.list is not None:
        if args.paths or args.root is None:
            raise SeqclfError("--list goes with --root DIR, and without other videos")
        root = Path(args.root).expanduser()
        found = {entry.path: entry.path for entry in read_list(args.list, root, args.list_form).videos}
        found = distinct({path: out / path.relative_to(root).parent / path.stem for path in found})
    else:
        found = places(need(args.paths), out)
    settings = {"what": "frames", "fps": args.fps, "size": size, "form": args.form, "quality": args.quality}
    todo = to_do(found, out, settings)
    jobs = {
        str(video): partial(write_frames, VideoFile(video, args.fps), place, size, args.form, args.quality)
        for video, place in todo.items()
    }
    return print_summary(work_off(jobs, args.workers), len(found) - len(todo), out)


def features(words: Sequence[str]) -> int:
    """Makes features of videos' frames, by the encoder of a run or by a torchvision model: <out>/features/<video>.npy.

    seqclf prepare features runs/<run> video.mp4 more_videos/ --out DIR
    seqclf prepare features --backbone resnet18 --weights DEFAULT more_videos/ --out DIR
    seqclf prepare features runs/<run> --root DIR --train train.txt --test test.txt \\
        --segments segments.csv --classes classes.txt --background nothing --out DIR

    Files are (D, T) float32. Frames are resized and cropped as in the run's evaluation; for a torchvision model by
    --resize and --crop, then normalised as ImageNet's. With --train and --test (lists, a path a line) and the segments
    of their videos, DIR becomes all that configs/features_lstm.py needs: data.root=DIR.
    """
    parser = parser_of("features")
    add = parser.add_argument
    add("paths", nargs="*", metavar="[RUN] VIDEO", help="a run's folder; video files, folders of frames, or of either")
    add("--checkpoint", default="newest", help="of the run: newest (default), best, or the number of a step")
    add("--backbone", help="torchvision's name of a model, in place of a run")
    add("--weights", default="DEFAULT", help="a file, torchvision's name (default: DEFAULT), or none to draw them")
    add("--resize", nargs="+", metavar="N", help="for --backbone: the shorter side, or height and width (default: 256)")
    add("--crop", nargs="+", metavar="N", help="for --backbone: height and width, or one for both (default: 224)")
    add("--chunk", type=int, default=32, help="frames that go through the encoder at a time (default: 32)")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    add("--root", help="the folder that the paths of --train and --test start from")
    add("--train", help="a list of videos to train on, a path a line")
    add("--test", help="a list of videos to test on")
    add_segments(parser)
    add_common(parser)
    args = parser.parse_intermixed_args(words)

    from seqclf.data import open_video
    from seqclf.data.extract import write_annotations, write_features
    from seqclf.data.find import plain_name
    from seqclf.prediction.prepare import distinct, places, to_do, work_off

    resize, crop = size_of(args, "resize"), size_of(args, "crop")
    check_common(args)
    if args.chunk < 1:
        raise SeqclfError(f"--chunk {args.chunk}: expected at least 1")
    encoder, paths = encoder_of(args, resize, crop)
    out = Path(args.out)
    parts = {}
    lists = {"root": args.root, "train": args.train, "test": args.test, "segments": args.segments}
    if any(value is not None for value in (*lists.values(), args.classes)):
        missing = [f"--{name}" for name, value in {**lists, "classes": args.classes}.items() if value is None]
        if missing or paths:
            raise SeqclfError(f"with lists of annotated videos {missing[0] if missing else 'no other video'} is needed")
        data = annotated(args, args.train, args.test, encoder.fps, encoder.pattern)
        for part, clips in (("train", data.train), ("test", data.test)):
            parts[part] = [(plain_name(Path(video.source.path)), video) for video in clips.videos]
        sources = [Path(video.source.path) for videos in parts.values() for _, video in videos]
    else:
        sources = list(places(need(paths), out))
    found = distinct({video: out / "features" / f"{plain_name(video)}.npy" for video in sources})
    todo = to_do(found, out, {"what": "features", **encoder.settings})
    jobs = {
        str(video): partial(
            write_features, open_video(video, encoder.fps, encoder.pattern), place, encoder.encode, args.chunk
        )
        for video, place in todo.items()
    }
    done = work_off(jobs, args.workers)
    if parts and done.failed:
        print("not written: groundTruth, mapping.txt and splits, as features are missing", file=sys.stderr)
    elif parts:
        write_annotations(out, data.classes, parts)
    return print_summary(done, len(found) - len(todo), out)


def shards(words: Sequence[str]) -> int:
    """Packs the videos of a list into tar files of WebDataset's layout: <out>/<part>-000000.tar and so on.

    seqclf prepare shards train.txt --root DIR --out DIR
    seqclf prepare shards test.txt --root DIR --out DIR --part test
    seqclf prepare shards train.txt --root DIR --out DIR --segments segments.csv --classes classes.txt

    The list is of videos with their classes, in any of the known forms, or with --segments of paths, a line each; the
    labels of frames are then in the shards. Video files and pictures are packed as they are, in an order drawn by
    --seed: shards are read one after the other, and each should hold all classes. <out>/<part>.index.json is written
    last. Classes are numbered as in the parts that are in <out> already. A config reads them by shard_set(root=DIR).
    """
    parser = parser_of("shards")
    add = parser.add_argument
    add("list", help="the list of videos")
    add("--root", required=True, help="the folder that its paths start from")
    add_list_form(parser)
    add("--pattern", help="which pictures of a folder are frames, such as 'img_*' (default: all)")
    add("--part", default="train", help="what the shards are named by (default: train)")
    add("--size", type=float, default=256, metavar="MB", help="of a shard, at most about (default: 256)")
    add("--lanes", type=int, default=8, help="shards are a multiple of it, to be read so many at a time (default: 8)")
    add("--seed", type=int, default=0, help="of the order (default: 0)")
    add("--in-order", action="store_true", help="in the list's order")
    add_segments(parser)
    add_common(parser)
    args = parser.parse_args(words)

    from seqclf.data import Video, open_video
    from seqclf.data.lists import Selection, read_list
    from seqclf.data.shard_index import classes_of
    from seqclf.data.splits import NAMES
    from seqclf.prediction.prepare import write_part

    check_common(args)
    if args.lanes < 1:
        raise SeqclfError(f"--lanes {args.lanes}: expected at least 1")
    if "/" in args.part:
        raise SeqclfError(f"--part {args.part}: expected a name, not a path")
    if not 0 < args.size < float("inf"):
        raise SeqclfError(f"--size {args.size}: expected a number of megabytes above 0")
    root, out = Path(args.root).expanduser(), Path(args.out)
    before = classes_of(out)
    if args.segments is None:
        if args.fps is not None or args.background is not None:
            raise SeqclfError("--fps and --background are for labels of frames: they need --segments")
        known = before if args.classes is None else None
        select = Selection(args.part) if args.part in NAMES else None  # where a split column says what is for what
        found = read_list(args.list, root, args.list_form, known, args.classes, select=select)
        videos = [Video(e.name, open_video(e.path, pattern=args.pattern), e.label) for e in found.videos]
        classes = found.classes
    else:
        if args.classes is None:
            raise SeqclfError("--segments needs --classes FILE")
        data = annotated(args, args.list, args.list, args.fps, args.pattern)
        videos, classes = data.parts().get(args.part, data.train).videos, data.classes
    if before is not None and before != list(classes):
        raise SeqclfError(f"{out}: holds a part with other classes, or in another order: give another --out")
    seed = None if args.in_order else args.seed
    done, tars = write_part(
        videos, out, args.part, classes, args.background, args.fps, int(args.size * 1e6), args.lanes, seed, args.workers
    )
    print(f"{len(tars):,} shards, {sum(tar.stat().st_size for tar in tars) / 1e6:,.1f} MB, {len(classes)} classes")
    return print_summary(done, 0, out)


def encoder_of(args: Namespace, resize: Any, crop: Any) -> tuple[Encoder, list[str]]:
    """The encoder that the options ask for, and the paths that are videos."""
    from seqclf.prediction.prepare import encoder_of_backbone, encoder_of_run
    from seqclf.runs.folder import RunFolder
    from seqclf.runtime.allocator import keep_freed_memory
    from seqclf.runtime.devices import pick_device

    keep_freed_memory()
    device, runs = pick_device(args.device), [path for path in args.paths if RunFolder.is_run(path)]
    if (args.backbone is None) != (len(runs) == 1):
        raise SeqclfError("name one run, or a torchvision model by --backbone")
    if args.backbone is None:
        if resize is not None or crop is not None:
            raise SeqclfError("--resize and --crop are for --backbone: a run has its own")
        return encoder_of_run(runs[0], args.checkpoint, args.fps, device), [p for p in args.paths if p not in runs]
    weights = None if args.weights == "none" else args.weights
    return encoder_of_backbone(args.backbone, weights, resize or 256, crop or 224, args.fps, device), args.paths


def annotated(args: Namespace, train: str, test: str, fps: float | None, pattern: str | None) -> Any:
    """The annotated videos of two lists."""
    from seqclf.data import annotated_set

    labels = {"background": args.background, "unit": args.unit, "fps": fps, "pattern": pattern}
    return annotated_set(args.root, train, test, args.segments, args.classes, **labels)


def print_summary(done: Done, there: int, out: Path) -> int:
    """Prints the summary and returns the exit code."""
    rate = f" ({done.frames / done.seconds:,.0f} frames/s)" if done.made else ""
    print(
        f"{out}: {done.made:,} videos of {done.frames:,} frames made in {done.seconds:.1f} s{rate}, "
        f"{there:,} passed over as done, {len(done.failed):,} failed"
    )
    return 2 if done.failed else 0


def need(paths: list[str]) -> list[str]:
    if not paths:
        raise SeqclfError("there is no video: name files or folders")
    return paths


def size_of(args: Namespace, name: str) -> Any:
    """The numbers that follow an option; paths among them go to the paths."""
    given = getattr(args, name)
    if given is None:
        return None
    numbers = [int(text) for text in takewhile(str.isdecimal, given)]
    args.paths += given[len(numbers) :]
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise SeqclfError(f"--{name} {' '.join(given)}: expected one number of pixels, or height and width")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def parser_of(command: str) -> ArgumentParser:
    return make_parser(f"prepare {command}", cleandoc(COMMANDS[command].__doc__ or ""))


def add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--fps", type=float, help="resample video files to this rate (default: as they are)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="videos at a time (default: all cores)"
    )
    parser.add_argument("--out", required=True, help="the folder for what is made")


def add_list_form(parser: ArgumentParser) -> None:
    parser.add_argument("--list-form", default="auto", metavar="FORM", help="how the list is written (default: auto)")


def add_segments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--segments", help="a CSV of the annotated videos' segments: video,start,end,label")
    add("--unit", default="frames", choices=("frames", "seconds"), help="of start and end (default: frames)")
    add("--classes", help="a file of the classes' names, one a line")
    add("--background", help="the class of frames that are in no segment")


def check_common(args: Namespace) -> None:
    if args.workers < 1:
        raise SeqclfError(f"--workers {args.workers}: expected at least 1")
    if args.fps is not None and not 0 < args.fps <= 1000:
        raise SeqclfError(f"--fps {args.fps}: expected a number above 0, up to 1000")


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"frames": frames, "features": features, "shards": shards}


def main(words: Sequence[str]) -> int:
    if not words or words[0] not in COMMANDS:
        parser = make_parser("prepare", __doc__)
        parser.add_argument("command", choices=COMMANDS)
        parser.parse_args(words[:1])  # which tells what is wrong, or helps
        return 2
    return COMMANDS[words[0]](words[1:])
