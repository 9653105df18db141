"""Exports a run's model: ONNX and torch.export programs, whole clips and streams, and safetensors, with a model card.

seqclf export runs/<run>
seqclf export runs/<run> --out exported --format onnx --int8
seqclf export runs/<run> --checkpoint best data.root=DIR

Frames go in raw: scaling is inside. Every file is compared with the run's model, on test clips where they can be read,
before the folder gets its name; a difference above 1e-4 is an error. Needs the extra `export`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqclf.cli.parser import make_parser


def main(words: Sequence[str]) -> int:
    parser = make_parser("export", __doc__)
    add = parser.add_argument
    add("run", help="the run's folder")
    add("settings", nargs="*", metavar="key=value", help="changes of the run's config, such as data.root=DIR")
    add("--out", help="the folder to write (default: export/ in the run); an earlier export is replaced")
    add("--checkpoint", default="newest", help="newest (default), best, or the number of a step")
    add("--format", default="all", help="all (default), or some of program,onnx,safetensors")
    add("--opset", type=int, default=18, help="of ONNX, from 18 (default)")
    add("--int8", action="store_true", help="the stream with weights of 8 bits, too, and what that costs in accuracy")
    add("--clips", type=int, default=1000, help="on so many test clips, spread over all (default 1000)")
    add("--dtype", choices=("uint8", "float32"), help="of the frames (default: as the run's test clips)")
    args = parser.parse_intermixed_args(words)

    from seqclf.exporting import export
    from seqclf.exporting.run import FORMATS
    from seqclf.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    about = export(
        args.run,
        args.out,
        args.checkpoint,
        FORMATS if args.format == "all" else args.format.split(","),
        args.opset,
        args.int8,
        args.clips,
        args.dtype,
        args.settings,
    )
    show(about)
    print(f"written: {args.out or Path(args.run, 'export')}")
    return 0


def show(about: dict[str, Any]) -> None:
    """A line for each file, and what 8 bits cost."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    console.print(
        f"step {about['step']:,} of {about['run']}, checked on {about['checked_on']}; {about['threads']} thread(s)",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("file", "MB", "difference", "call of", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    latency = about["latency"]
    for name, file in about["files"].items():
        row(table, name, file, latency.get(file.get("form")))
    for form, measured in latency.items():
        row(table, "PyTorch", {"form": form}, measured)
    console.print(table)
    int8 = about.get("int8")
    if int8 and not int8["clips"]:
        console.print(f"int8: {int8['why']}", soft_wrap=True)
    elif int8:
        figures = [f"{name} {_cost(name, int8)}" for name, value in int8["float"].items() if value is not None]
        console.print(f"int8 on {int8['clips']:,} of {int8['of']:,} test clips: {', '.join(figures)}", soft_wrap=True)


def row(table: Any, name: str, file: dict[str, Any], measured: dict[str, Any] | None) -> None:
    """Adds a file, or the model itself, and the times that were ``measured`` in its form."""
    cells = [name, f"{file['bytes'] / 1e6:.2f}" if "bytes" in file else ""]
    cells.append(f"{file['difference']:.1e}" if "difference" in file else "")
    if measured is not None:
        of = "1 frame" if file["form"] == "stream" else f"{measured['frames']} frames"
        cells += [of, *(f"{measured[name][p]:.3f}" for p in ("p50_ms", "p99_ms"))]
    table.add_row(*cells)


def _cost(name: str, int8: dict[str, Any]) -> str:
    """A figure with floats, and with weights of 8 bits."""
    before, after = (int8[kind][name] for kind in ("float", "int8"))
    return f"{before:.4f} → {after:.4f}" if name == "loss" else f"{before:.2%} → {after:.2%}"
