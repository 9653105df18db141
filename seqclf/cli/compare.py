"""Compare runs: the settings that differ, their metrics, mean and standard deviation over seeds, learning curves.

examples:
  seqclf compare runs/*
  seqclf compare runs/small runs/large --out comparison

Prints a table and writes comparison.csv, curves.png and index.html into --out. Folders that are no runs, and
runs that have not been evaluated yet, are skipped. The metrics shown are those of a run's best checkpoint, if it has
one; comparison.csv has those of the last step, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import seqclf
from seqclf.cli.parser import make_parser
from seqclf.errors import SeqclfError


def main(words: Sequence[str]) -> int:
    parser = make_parser("compare", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--out", default="comparison", metavar="DIR", help="the folder to write (default: comparison)")
    args = parser.parse_args(words)

    from seqclf.reporting.comparison import has_figures
    from seqclf.reporting.comparison_table import print_comparison
    from seqclf.runtime.text import counted

    for run in args.runs:
        if not Path(run).exists():
            raise SeqclfError(f"{run} is not a run folder (there is no such folder)")
    runs = [run for run in args.runs if has_figures(run)]
    for other in args.runs:
        if other not in runs:
            inside = Path(other).is_dir() and any(map(has_figures, Path(other).iterdir()))
            way = f"; to compare the runs in it, write {other.rstrip('/')}/*" if inside else ""
            print(f"skipped: {other} is not a run with metrics{way}", file=sys.stderr)
    print_comparison(rows := seqclf.compare(runs, args.out))
    print(f"{counted(len(rows), 'row')}: {Path(args.out, 'index.html')}")
    return 0
