"""Write the HTML report of a run, or a page that plays videos above their predictions.

examples:
  seqclf report runs/demo
  seqclf report runs/demo --videos
  seqclf report runs/demo --videos --part validation --most 50
  seqclf report runs/demo --videos new/ --segments segments.csv

The report has learning curves, metrics, the confusion matrix and the test clips with the highest loss. Training writes
it at its end. Use this command after you have copied a run or updated seqclf.

With --videos, the page report/videos.html plays videos: those of the run's data with their true labels, or the files
that you name. A video that browsers play is embedded up to --embed megabytes, and linked above. Of other videos, such
as MPEG-4 in .avi and folders of frames, the page shows small copies. The command prints what it did for each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from seqclf.cli.parser import CHECKPOINT, EMBED, EMBED_HELP, Parser, make_parser
from seqclf.errors import SeqclfError


def main(words: Sequence[str]) -> int:
    import seqclf

    args = _parser().parse_args(words)
    if args.videos is None:
        for run in args.runs:
            print(seqclf.report(run))
        return 0
    if len(args.runs) > 1:
        raise SeqclfError(f"--videos is for one run, but there are {len(args.runs)}: name files after --videos")
    if args.videos:
        return _page_of_files(args)
    if args.segments is not None:
        raise SeqclfError("--segments is for files named after --videos; the run's data have labels of their own")
    page = seqclf.report_videos(
        args.runs[0],
        args.part,
        args.checkpoint,
        html=args.html,
        embed=args.embed,
        most=args.most,
        device=args.device,
        say=print,
    )
    print(f"page: {page}")
    return 0


def _parser() -> Parser:
    parser = make_parser("report", __doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run folder")
    add("--videos", nargs="*", metavar="PATH", help="write the page of these videos; without paths, of the run's data")
    add("--part", default="test", choices=("test", "validation", "train"), help="the part of the run's data")
    add("--most", type=int, default=200, metavar="N", help="the first N videos of the part (default: 200)")
    add("--segments", metavar="CSV", help="true segments of the files, as in predict")
    add("--unit", choices=("frames", "seconds"), help="the unit of times in --segments, as in predict")
    add("--embed", type=float, default=EMBED, metavar="MB", help=EMBED_HELP)
    add("--html", metavar="FILE", help="the page (default: report/videos.html in the run)")
    add("--checkpoint", default="auto", help=CHECKPOINT)
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    return parser


def _page_of_files(args: argparse.Namespace) -> int:
    """Writes the page of files; the exit code."""
    from seqclf.prediction import predict
    from seqclf.prediction.files.predict import Progress
    from seqclf.runs.folder import RunFolder

    page = args.html or RunFolder(args.runs[0]).report / "videos.html"
    progress = Progress(
        done=lambda found, plain: print(f"{plain['path']}: {plain.get('page', 'not shown')}", flush=True),
        failed=lambda path, error: print(f"error: {error}", file=sys.stderr, flush=True),
        note=lambda text: print(f"note: {text}", file=sys.stderr, flush=True),
    )
    result = predict(
        args.runs[0],
        args.videos,
        checkpoint=args.checkpoint,
        device=args.device,
        segments=args.segments,
        unit=args.unit,
        html=page,
        embed=args.embed,
        progress=progress,
    )
    if any("page" in video for video in result["videos"]):
        print(f"page: {page}")
    return 2 if result["failed"] else 0
