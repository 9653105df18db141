"""Train and test the experiment of a config once per fold.

examples:
  seqclf crossval --config my_config.py --folds 5 validation=0.2
  seqclf crossval --config my_config.py --leave-one-group-out --pool --workdir runs/subjects

Each fold has a run folder in --workdir. The mean and standard deviation of the test metrics are printed, and written
to cross_validation.json and cross_validation.csv. To resume, repeat the command: finished folds are not run again.
Groups (a column "group" of the list, or groups= of Clips and Videos) are never divided. With validation=, a share of
the training clips of a fold is held out to choose its checkpoint.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import seqclf
from seqclf.cli.parser import make_parser, spelling


def main(words: Sequence[str]) -> int:
    parser = make_parser("crossval", __doc__)
    add = parser.add_argument
    add("--config", required=True, metavar="PATH", help="a config file, or the name of a reference config")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--folds", type=int, metavar="N", help="the number of folds")
    how.add_argument("--leave-one-group-out", action="store_true", help="one fold per group")
    add("--pool", action="store_true", help="make the folds from all clips, not only from the training part")
    add("--workdir", metavar="DIR", help="the folder of the runs (default: runs/<config>_folds)")
    add("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:<n>")
    add("settings", nargs="*", default=[], metavar="key=value", help="settings of the config, as in seqclf train")
    args = parser.parse_intermixed_args(words)

    from seqclf.reporting.cross_validation import print_summary
    from seqclf.runtime.allocator import keep_freed_memory
    from seqclf.runtime.distributed import joined
    from seqclf.runtime.optimizers import leave_out_dynamo
    from seqclf.training.loop import Stopped

    keep_freed_memory()
    leave_out_dynamo()
    with joined(args.device) as world:
        experiment = world.everywhere(lambda: seqclf.load_experiment(args.config, args.settings))
        workdir = Path(args.workdir or f"runs/{Path(args.config).stem}_folds")
        try:
            summary = seqclf.cross_validate(experiment, workdir, args.folds, pool=args.pool, device=args.device)
        except Stopped as stop:
            if world.leads:
                print(f"{stop}\nto resume: {shlex.join([*spelling('crossval', world.size), *words])}", flush=True)
            return 128 + stop.signum
        if world.leads:
            print_summary(summary)
            print(f"summary: {workdir / 'cross_validation.csv'}")
    return 0
