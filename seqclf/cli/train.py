"""Trains the experiment of a config file.

python tools/train.py --config configs/mnist_lastframe.py
python tools/train.py --config configs/mnist_perframe.py data.root=DIR steps=500
python tools/train.py --config configs/mnist_lastframe.py --show model.temporal.hidden=256
python tools/train.py --workdir runs/<run> --resume
python tools/train.py --config configs/mnist_lastframe.py --init runs/<another run>
torchrun --nproc-per-node 2 tools/train.py --config configs/mnist_lastframe.py
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from seqclf import Experiment, SeqclfError
from seqclf.cli.tool import make_parser, run_tool
from seqclf.experiment.config import load_experiment, render

if TYPE_CHECKING:
    from seqclf.runtime.distributed import World


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--config", metavar="PATH", help="a config file: Python, with a function get_config()")
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder (default: runs/<config>_<time>)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --workdir")
    parser.add_argument("--init", metavar="RUN", help="a run's folder or a checkpoint to take initial weights from")
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:<n>")
    parser.add_argument("--profile", action="store_true", help="trace a few steps and tell where their time goes")
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
    if args.show:
        print(render(load_experiment(config, args.settings)), end="")
        return 0
    from seqclf.runtime.distributed import joined

    with joined(args.device) as world:
        experiment = world.everywhere(lambda: load_experiment(config, args.settings))
        workdir = world.lead(lambda: Path(args.workdir or named_by_time(config)))
        return run(experiment, workdir, args, world)


def named_by_time(config: str) -> str:
    """The folder of a run that was given none."""
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0:
        raise SeqclfError("torchrun --max-restarts needs --workdir DIR, where a restarted process finds its run")
    return f"runs/{Path(config).stem}_{datetime.now():%Y%m%d-%H%M%S}"


def run(experiment: Experiment, workdir: Path, args: argparse.Namespace, world: World) -> int:
    """Trains, and tells what came of it."""
    from seqclf.reporting.html import print_results, write_report
    from seqclf.training.loop import Stopped, train

    try:
        results = train(experiment, workdir, args.device, args.resume, args.init, args.profile)
    except Stopped as stop:
        if world.leads:
            program = ["python"] if world.size == 1 else ["torchrun", "--nproc-per-node", f"{world.size}"]
            again = [*program, sys.argv[0], "--workdir", str(workdir), "--resume"]
            again += ["--device", args.device] if args.device != "auto" else []
            print(f"{stop}\nto resume: {shlex.join(again)}", flush=True)
        return 128 + stop.signum
    if world.leads:
        print_results(results)
        print(f"report: {write_report(workdir)}")
    return 0


if __name__ == "__main__":
    run_tool(main)
