"""Trains the experiment of a config file.

python tools/train.py --config configs/mnist_lastframe.py
python tools/train.py --config configs/mnist_perframe.py data.root=../shared/data steps=500
python tools/train.py --config configs/mnist_lastframe.py --show model.temporal.hidden=256
python tools/train.py --workdir runs/<run> --resume
python tools/train.py --config configs/mnist_lastframe.py --init runs/<another run>
"""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path

from seqclf import SeqclfError
from seqclf.config import load_experiment, render
from seqclf.tool import make_parser, run_tool


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--config", metavar="PATH", help="a config file: Python, with a function get_config()")
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder (default: runs/<config>_<time>)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --workdir")
    parser.add_argument("--init", metavar="RUN", help="a run's folder or a checkpoint to take initial weights from")
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:<n>")
    parser.add_argument("--show", action="store_true", help="print the resolved config, as Python, and stop")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="any setting of the config by its dotted name, such as steps=500 optimizer.lr=0.01 data.root=DIR",
    )
    args = parser.parse_intermixed_args()
    config = args.config
    if config is None and args.resume and args.workdir:
        config = str(Path(args.workdir) / "config.py")
    if config is None:
        raise SeqclfError("--config PATH is needed, such as --config configs/mnist_lastframe.py (see --help)")
    if args.resume and not args.workdir:
        raise SeqclfError("--resume needs --workdir DIR, the folder of the run to go on with")
    experiment = load_experiment(config, args.settings)
    if args.show:
        print(render(experiment), end="")
        return 0
    from seqclf.report import print_results, write_report
    from seqclf.train import Stopped, train

    workdir = Path(args.workdir or f"runs/{Path(config).stem}_{datetime.now():%Y%m%d-%H%M%S}")
    try:
        results = train(experiment, workdir, args.device, args.resume, args.init)
    except Stopped as stop:
        again = ["python", sys.argv[0], "--workdir", str(workdir), "--resume"]
        again += ["--device", args.device] if args.device != "auto" else []
        print(f"{stop}\nto resume: {shlex.join(again)}", flush=True)
        return 128 + stop.signum
    print_results(results)
    print(f"report: {write_report(workdir)}")
    return 0


if __name__ == "__main__":
    run_tool(main)
