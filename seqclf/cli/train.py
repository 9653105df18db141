"""Train the experiment of a config.

examples:
  seqclf train --config mnist_lastframe
  seqclf train --config mnist_perframe data.root=DIR steps=500
  seqclf train --config my_config.py --show model.temporal.hidden=256
  seqclf train --workdir runs/demo --resume
  seqclf train --workdir runs/demo --resume --allow optimizer.lr optimizer.lr=1e-4
  seqclf train --config mnist_lastframe --init runs/demo
  torchrun --nproc-per-node 2 -m seqclf train --config mnist_lastframe

A config is a Python file with a function get_config() that returns a seqclf.Experiment, or the name of a reference
config. Ctrl-C and SIGTERM finish the current step and save a checkpoint.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import seqclf
from seqclf import SeqclfError
from seqclf.cli.parser import make_parser, spelling

if TYPE_CHECKING:
    from seqclf.runtime.distributed import World


def main(words: Sequence[str]) -> int:
    parser = make_parser("train", __doc__)
    parser.add_argument("--config", metavar="PATH", help="a config file, or the name of a reference config")
    parser.add_argument("--workdir", metavar="DIR", help="the run folder (default: runs/<config>_<time>)")
    parser.add_argument("--resume", action="store_true", help="resume from the newest checkpoint in --workdir")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="with --resume, a setting that may change, such as optimizer.lr, schedule or augment; may be repeated",
    )
    parser.add_argument("--init", metavar="RUN", help="a run folder or checkpoint to take initial weights from")
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:<n>")
    parser.add_argument("--profile", action="store_true", help="trace a few steps and print where the time goes")
    parser.add_argument("--show", action="store_true", help="print the resolved config as Python, and exit")
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings of the config by dotted name, such as steps=500 optimizer.lr=0.01 data.root=DIR",
    )
    args = parser.parse_intermixed_args(words)
    config = args.config
    if config is None and args.resume and args.workdir:
        from seqclf.runs.folder import RunFolder

        config = str(RunFolder(args.workdir).config)
        if not Path(config).is_file():
            raise SeqclfError(f"--workdir {args.workdir} holds no run to resume: start one with --config")
    if config is None:
        raise SeqclfError("no config given: add --config PATH, such as --config mnist_lastframe (see --help)")
    if args.resume and not args.workdir:
        raise SeqclfError("--resume needs --workdir DIR, the folder of the run to resume")
    if args.allow and not args.resume:
        raise SeqclfError("--allow needs --resume: it names settings that may change when a run is resumed")
    if args.show:
        from seqclf.experiment.rendering import render

        print(render(seqclf.load_experiment(config, args.settings)), end="")
        return 0
    from seqclf.runtime.allocator import keep_freed_memory
    from seqclf.runtime.distributed import joined
    from seqclf.runtime.optimizers import leave_out_dynamo

    keep_freed_memory()
    leave_out_dynamo()
    with joined(args.device) as world:
        return run(config, args, world)


def run(config: str, args: argparse.Namespace, world: World) -> int:
    """Trains; the leading process prints the results."""
    from seqclf.reporting.metrics import print_results
    from seqclf.runs.folder import RunFolder
    from seqclf.runs.start import default_workdir
    from seqclf.training.loop import Stopped

    experiment = world.everywhere(lambda: seqclf.load_experiment(config, args.settings))
    workdir = world.lead(lambda: Path(args.workdir or default_workdir(experiment, name=Path(config).stem)))
    try:
        seqclf.train(
            experiment, workdir, args.device, args.resume, args.init, args.profile, args.allow, on_results=print_results
        )
    except Stopped as stop:
        if world.leads:
            again = [*spelling("train", world.size), "--workdir", str(workdir), "--resume"]
            again += ["--device", args.device] if args.device != "auto" else []
            print(f"{stop}\nto resume: {shlex.join(again)}", flush=True)
        return 128 + stop.signum
    if world.leads:
        print(f"report: {RunFolder(workdir).report / 'index.html'}")
    return 0
