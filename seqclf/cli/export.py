"""Export the model of a run: ONNX and torch.export programs for whole clips and streams, safetensors, a model card.

examples:
  seqclf export runs/demo
  seqclf export runs/demo --out exported --format onnx --int8
  seqclf export runs/demo --checkpoint best data.root=DIR

Raw frames go in: scaling is part of the files. Each file is compared with the model on test clips of the run, or on
random frames if they cannot be read. A difference above 1e-4 is an error. If PyTorch cannot write a file for this
model, the reason is printed and the other files are written. Needs the extra "export".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import seqclf
from seqclf.cli.parser import CHECKPOINT, make_parser


def main(words: Sequence[str]) -> int:
    parser = make_parser("export", __doc__)
    add = parser.add_argument
    add("run", help="the run folder")
    add("settings", nargs="*", default=[], metavar="key=value", help="changes of the config, such as data.root=DIR")
    add("--out", help="the folder to write (default: export/ in the run folder); an earlier export is replaced")
    add("--checkpoint", default="auto", help=CHECKPOINT)
    add("--format", default="program,onnx,safetensors", help="some of program,onnx,safetensors (default: all)")
    add("--opset", type=int, default=18, help="ONNX opset, 18 or more (default: 18)")
    add("--int8", action="store_true", help="also write the stream with 8-bit weights, and measure its accuracy")
    add("--clips", type=int, default=1000, help="the number of test clips for this accuracy (default: 1000)")
    add("--dtype", choices=("uint8", "float32"), help="dtype of the frames (default: that of the test clips)")
    args = parser.parse_intermixed_args(words)

    from seqclf.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    formats = args.format.split(",")
    about = seqclf.export(
        args.run, args.out, args.checkpoint, formats, args.opset, args.int8, args.clips, args.dtype, args.settings
    )
    print_export(about)
    print(f"written: {args.out or Path(args.run, 'export')}")
    return 0


def print_export(about: dict[str, Any]) -> None:
    """Prints a line for each file, and the accuracy with 8-bit weights."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from seqclf.runtime.text import counted

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    threads = counted(about["threads"], "thread")
    console.print(
        f"step {about['step']:,} of {about['run']}, checked on {about['checked_on']}; {threads}", soft_wrap=True
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("file", "MB", "difference", "call on", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    latency = about["latency"]
    for name, file in about["files"].items():
        table.add_row(*_cells(name, file, latency.get(file.get("form"))))
    for form, measured in latency.items():
        table.add_row(*_cells("PyTorch", {"form": form}, measured))
    console.print(table)
    for name, reason in about["not_written"].items():
        console.print(f"not written: {name}: {reason}", soft_wrap=True)
    int8 = about.get("int8")
    if int8 and not int8["clips"]:
        console.print(f"int8: {int8['why']}", soft_wrap=True)
    elif int8:
        metrics = [f"{name} {_change(name, int8)}" for name, value in int8["float"].items() if value is not None]
        console.print(f"int8 on {int8['clips']:,} of {int8['of']:,} test clips: {', '.join(metrics)}", soft_wrap=True)


def _cells(name: str, file: dict[str, Any], measured: dict[str, Any] | None) -> list[str]:
    """The cells of a file, or of the model itself, with the times of its form."""
    cells = [name, f"{file['bytes'] / 1e6:.2f}" if "bytes" in file else ""]
    cells.append(f"{file['difference']:.1e}" if "difference" in file else "")
    if measured is not None:
        unit = "1 frame" if file["form"] == "stream" else f"{measured['frames']} frames"
        cells += [unit, *(f"{measured[name][p]:.3f}" for p in ("p50_ms", "p99_ms"))]
    return cells


def _change(name: str, int8: dict[str, Any]) -> str:
    """A metric with floats and with 8-bit weights."""
    before, after = (int8[kind][name] for kind in ("float", "int8"))
    return f"{before:.4f} → {after:.4f}" if name == "loss" else f"{before:.2%} → {after:.2%}"
