"""Classifies a video frame by frame, as from a camera, and prints a line whenever the class changes.

seqclf stream runs/<run> camera.mp4
seqclf stream runs/<run> camera.mp4 --out streamed.csv

The state of the model is carried from one frame to the next. The model must be causal and able to continue from its
state; a bidirectional model, for example, can't stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqclf.cli.parser import CHECKPOINT, THRESHOLD, make_parser, threshold


def main(words: Sequence[str]) -> int:
    parser = make_parser("stream", __doc__)
    add = parser.add_argument
    add("run", help="the run folder")
    add("path", help="a video, a folder of frames, or an .npy file")
    add("--resize", type=int, nargs=2, metavar=("H", "W"), help="scale frames, in place of the run's transform")
    add("--crop", action="store_true", help="crop the center of the frames to the size of the model's input")
    add("--fps", type=float, help="resample the video to this rate; for folders and arrays: their frame rate")
    add("--threshold", type=threshold, metavar="P", help=THRESHOLD)
    add("--out", metavar="CSV", help="write a row per frame: number, time, class, and the probabilities of all classes")
    add("--checkpoint", default="auto", help=CHECKPOINT)
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    args = parser.parse_intermixed_args(words)

    from seqclf.prediction.file_frames import file_frames
    from seqclf.prediction.reader import RunReader
    from seqclf.prediction.streaming import stream_source, write_stream
    from seqclf.runtime.devices import pick_device

    run = RunReader.load(
        args.run,
        args.checkpoint,
        pick_device(args.device),
        resize=None if args.resize is None else tuple(args.resize),
        crop=args.crop,
        fps=args.fps,
        threshold=args.threshold,
    )
    source = run.open(args.path)
    frames = file_frames(source, run.fps)
    found = []
    for frame in stream_source(run, source):
        found.append(frame)
        if frame.changed:
            time = frames.time_of(frame.number)
            at = f"frame {frame.number}" if time is None else f"{time:.2f} s, frame {frame.number}"
            rate = "" if frame.rate is None else f" ({frame.rate:.0f} frames/s)"
            classes = ", ".join(f"{name} {p:.1%}" for name, p in frame.labels) or "none"
            print(f"{source.path}: {at}: {classes}{rate}", flush=True)
    rate = "" if found[-1].rate is None else f" ({found[-1].rate:.0f} frames/s)"
    print(f"{source.path}: end after {len(found)} frames{rate}", flush=True)
    if args.out is not None:
        write_stream(args.out, found, run, frames)
    return 0
