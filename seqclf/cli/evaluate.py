"""Evaluates a run's checkpoint on the clips that it is measured on.

seqclf evaluate runs/<run>
seqclf evaluate runs/<run> --checkpoint best --part validation
seqclf evaluate runs/<run> data.root=DIR
seqclf evaluate runs/<run> data.split=test02.txt
torchrun --nproc-per-node 2 tools/evaluate.py runs/<run>
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqclf import SeqclfError
from seqclf.cli.parser import make_parser

if TYPE_CHECKING:
    from seqclf.runtime.distributed import World


def main(words: Sequence[str]) -> int:
    parser = make_parser("evaluate", __doc__)
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="changes of the run's config, as in training")
    parser.add_argument("--checkpoint", default="newest", help="newest (default), best, or the number of a step")
    parser.add_argument("--part", default="test", choices=("test", "validation", "train"), help="default: test")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    args = parser.parse_intermixed_args(words)

    from seqclf.runtime.allocator import keep_freed_memory
    from seqclf.runtime.distributed import joined

    keep_freed_memory()
    with joined(args.device) as world:
        return run(args, world)


def run(args: argparse.Namespace, world: World) -> int:
    """Evaluates, by all processes, and tells what came of it, by one."""
    from seqclf.evaluation.evaluator import evaluate
    from seqclf.experiment.config import build
    from seqclf.prediction import load_run
    from seqclf.reporting.figures import print_results
    from seqclf.runs.checkpoint import step_of
    from seqclf.runs.folder import RunFolder
    from seqclf.runtime.devices import pick_device
    from seqclf.runtime.progress import Display

    device = pick_device(args.device, world)
    display = Display(1, quiet=not world.leads)
    experiment, model, _, checkpoint = world.everywhere(lambda: load_run(args.run, args.checkpoint, args.settings))
    data = world.everywhere(lambda: build("data", experiment.data))
    if data.warning:
        display.say(f"*** {data.warning} ***")
    clips = data.parts().get(args.part)
    if clips is None:
        raise SeqclfError(f"this run's data has no {args.part} part (data.validation= makes one)")
    display.say(f"{checkpoint} on {args.part}: {data.source}")
    figures = evaluate(
        model.to(device),
        clips.to(device),
        data.num_classes,
        experiment.eval_batch,
        experiment.precision,
        data.background,
        world,
    )
    skipped = {name: why for each in world.gather(data.skipped()) for name, why in each.items()}
    for name, sentence in skipped.items():
        display.say(f"left out: {name} ({sentence})")
    if world.leads:
        results = {
            "run": args.run,
            "checkpoint": str(checkpoint),
            "step": step_of(checkpoint),
            "parts": {args.part: figures},
            "data": data.identity(),
            "skipped": skipped,
        }
        print_results(results)
        path = RunFolder(args.run).write_evaluation(args.part, step_of(checkpoint), results)
        display.say(f"all figures: {path}")
    return 0
