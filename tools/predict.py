"""Classifies image files with a run that reads images row by row, or column by column.

python tools/predict.py runs/<run> digit.png more_digits/*.png
"""

from __future__ import annotations

import sys

from seqclf import SeqclfError
from seqclf.tool import make_parser, run_tool


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("images", nargs="+", help="image files, of any size")
    parser.add_argument("--checkpoint", default="newest", help="newest (default), best, or the number of a step")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    args = parser.parse_args()

    from rich.console import Console
    from rich.table import Table

    from seqclf.data import read_image
    from seqclf.predict import Predictor, load_run
    from seqclf.settings import settings_of
    from seqclf.train import pick_device

    device = pick_device(args.device)
    experiment, model, record, _ = load_run(args.run, args.checkpoint)
    predictor = Predictor(model, record["data"]["classes"], device)
    axis = settings_of(experiment.data).get("axis")
    if axis is None:
        raise SeqclfError(f"{args.run} does not read images by rows or columns (its data has no axis)")

    table = Table()
    for column in ("file", "last frame", "mean of frames", "next best", "note"):
        table.add_column(column, overflow="fold")
    for image in args.images:
        frames, done = read_image(image, axis[1])
        prediction = predictor(frames)
        (last, p_last), (mean, p_mean) = prediction.label("last"), prediction.label("mean")
        second = int(prediction.probabilities[-1].topk(2).indices[1])
        next_best = f"{prediction.classes[second]} {prediction.probabilities[-1, second]:.1%}"
        table.add_row(image, f"{last} {p_last:.1%}", f"{mean} {p_mean:.1%}", next_best, ", ".join(done))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


if __name__ == "__main__":
    run_tool(main)
