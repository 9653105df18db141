"""Evaluate a checkpoint of a run on a part of its data.

examples:
  seqclf evaluate runs/demo
  seqclf evaluate runs/demo --checkpoint best --part validation
  seqclf evaluate runs/demo data.root=DIR
  seqclf evaluate runs/demo data.split=test02.txt
  seqclf evaluate runs/demo --predictions clips.csv
  torchrun --nproc-per-node 2 -m seqclf evaluate runs/demo
"""

from __future__ import annotations

from collections.abc import Sequence

from seqclf.cli.parser import CHECKPOINT, THRESHOLD, make_parser, threshold


def main(words: Sequence[str]) -> int:
    parser = make_parser("evaluate", __doc__)
    add = parser.add_argument
    add("run", help="the run folder")
    add("settings", nargs="*", default=[], metavar="key=value", help="changes of the run's config, as in training")
    add("--checkpoint", default="auto", help=CHECKPOINT)
    add("--part", default="test", choices=("test", "validation", "train"), help="default: test")
    add(
        "--decision",
        choices=("last", "mean"),
        help="classify a clip by its last frame, or by the mean over its frames (default: as the run does)",
    )
    add("--threshold", type=threshold, metavar="P", help=THRESHOLD)
    add("--predictions", metavar="CSV", help="write a row for each clip: true label, predicted label, probabilities")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:<n>")
    args = parser.parse_intermixed_args(words)

    from seqclf.prediction import evaluate
    from seqclf.reporting.metrics import RULES, print_results
    from seqclf.runs.folder import RunFolder
    from seqclf.runtime.allocator import keep_freed_memory
    from seqclf.runtime.distributed import joined
    from seqclf.runtime.progress import Display

    keep_freed_memory()
    with joined(args.device) as world:
        display = Display(1, quiet=not world.leads)
        results = evaluate(
            args.run,
            args.part,
            args.checkpoint,
            args.settings,
            device=args.device,
            decision=args.decision,
            predictions=args.predictions,
            threshold=args.threshold,
            say=display.say,
            world=world,
        )
        if world.leads:
            print_results(results)
            name = "map" if "map" in results else "accuracy"
            if results[name] is not None:
                title = "mean average precision" if name == "map" else name
                display.say(f"{title} of clips by their {RULES[results['decision']]}: {results[name]:.2%}")
            path = RunFolder(args.run).write_evaluation(args.part, results["step"], results)
            display.say(f"all metrics: {path}")
    return 0
