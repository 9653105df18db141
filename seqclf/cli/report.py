"""Write the HTML report of a run: learning curves, metrics, confusion matrix, the test clips with the highest loss.

examples:
  seqclf report runs/demo

Training writes the report at its end. Use this command after you have copied a run or updated seqclf.
"""

from __future__ import annotations

from collections.abc import Sequence

import seqclf
from seqclf.cli.parser import make_parser


def main(words: Sequence[str]) -> int:
    parser = make_parser("report", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
    args = parser.parse_args(words)
    for run in args.runs:
        print(seqclf.report(run))
    return 0
