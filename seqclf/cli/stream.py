"""Classify live video or a file frame by frame, and print a JSON line whenever the label changes.

examples:
  seqclf stream runs/demo 0                                 the first camera; also /dev/video0
  seqclf stream runs/demo rtsp://camera.local/live --record seen.mp4
  seqclf stream runs/demo udp://0.0.0.0:1234 --every-frame > labels.jsonl
  ffmpeg -i … -c copy -f mpegts - | seqclf stream runs/demo -
  seqclf stream runs/demo recording.ts --follow             a file that is still being written
  seqclf stream runs/demo video.mp4 --out streamed.csv

A line has the frame number, the time in the source, the clock time (UTC), the label with its probability, and the
number of dropped frames and of reconnects so far. The model must be causal, because its state is carried from frame to
frame. Notes and a summary go to stderr. Ctrl-C ends the stream cleanly.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from seqclf.cli.parser import CHECKPOINT, THRESHOLD, Parser, make_parser, threshold

if TYPE_CHECKING:
    from seqclf.prediction.streams.classified import StreamedFrame


def main(words: Sequence[str]) -> int:
    args = _parser().parse_intermixed_args(words)

    from seqclf.batch import SeqclfError
    from seqclf.prediction.streams.stream import stream
    from seqclf.runtime.signals import stop_signals

    failure = None
    with stop_signals() as signals:
        frames = stream(
            args.run,
            args.source,
            checkpoint=args.checkpoint,
            device=args.device,
            resize=None if args.resize is None else tuple(args.resize),
            crop=args.crop,
            fps=args.fps,
            threshold=args.threshold,
            follow=args.follow,
            video_stream=args.video_stream,
            timeout=args.timeout,
            retries=args.retries,
            drop=args.drop,
            queue=args.queue,
            options=dict(args.option),
            out=args.out,
            record=args.record,
            display=args.display,
            stopped=lambda: bool(signals),
            note=lambda text: print(text, file=sys.stderr, flush=True),
        )
        with frames:
            try:
                for frame in frames:
                    if frame.changed or args.every_frame:
                        print(json.dumps(_line(frame, frames.multi_label), ensure_ascii=False), flush=True)
            except SeqclfError as error:
                failure = error
    if frames.summary.frames or failure is None:
        print(f"{frames.name}: {frames.summary}", file=sys.stderr, flush=True)
    if failure is not None:
        raise failure
    return 128 + signals[0] if signals else 0


def _parser() -> Parser:
    parser = make_parser("stream", __doc__)
    add = parser.add_argument
    add("run", help="the run folder")
    add("source", help="a camera's number, a device, an address, a named pipe, - (standard input), a file or a folder")
    add("--every-frame", action="store_true", help="print a line for every frame")
    add("--follow", action="store_true", help="the file is still being written")
    add("--record", metavar="MP4", help="write a video with the label and its probability drawn on each frame")
    add("--display", action="store_true", help="show the same in a window (needs OpenCV); q closes it")
    add("--out", metavar="CSV", help="for files: write a row per frame, with the probabilities of all classes")
    add(
        "--fps", type=float, help="resample video to this rate (default: the run's); for folders and arrays: their rate"
    )
    add("--resize", type=int, nargs=2, metavar=("H", "W"), help="scale frames, in place of the run's transform")
    add("--crop", action="store_true", help="crop the center of the frames to the size of the model's input")
    add("--threshold", type=threshold, metavar="P", help=THRESHOLD)
    add("--checkpoint", default="auto", help=CHECKPOINT)
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    live = parser.add_argument_group("live video")
    add = live.add_argument
    add("--timeout", type=float, metavar="S", help="seconds to wait for video (default: 10; pipes: without limit)")
    retries = "give up after this many failed attempts to reconnect in a row, or forever to never give up (default: 10)"
    add("--retries", type=_retries, default=10, metavar="N", help=retries)
    drop = "drop the oldest frames if the model is slower than the source (default: for network streams and cameras)"
    add("--drop", action=argparse.BooleanOptionalAction, help=drop)
    add("--queue", type=int, default=4, metavar="N", help="the largest number of frames that wait (default: 4)")
    add("--video-stream", type=int, metavar="N", help="the video stream, from 0 (default: FFmpeg's choice)")
    option = "an option of FFmpeg's input, such as video_size=640x480; may be repeated"
    add("--option", type=_option, action="append", default=[], metavar="KEY=VALUE", help=option)
    return parser


def _retries(text: str) -> int | None:
    if text == "forever":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number or forever") from None


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE")
    return key, value


def _line(frame: StreamedFrame, multi_label: bool) -> dict[str, Any]:
    from seqclf.prediction.files.output import labelled

    return {
        "frame": frame.number,
        "time": None if frame.seconds is None else round(frame.seconds, 4),
        "clock": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        **labelled(frame.labels, multi_label),
        "dropped": frame.dropped,
        "reconnects": frame.reconnects,
    }
