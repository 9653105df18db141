"""The argument parser of every command, and how the running command is spelled."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

CHECKPOINT = "best, newest, or a step (default: best, or newest if the run has no validation part)"
"""The help of ``--checkpoint``."""
THRESHOLD = "multi-label runs: predict classes with at least this probability; one number or P,P,... (default: 0.5)"
"""The help of ``--threshold``."""
EMBED = 4.0
EMBED_HELP = "megabytes of a video that the page embeds; larger ones are linked, or copied beside it (default: 4)"
"""The default and the help of ``--embed``."""


def threshold(text: str) -> float | list[float]:
    """The value of ``--threshold``: a number, or one for each class, separated by commas."""
    values = [float(part) for part in text.split(",")]
    return values[0] if len(values) == 1 else values


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that reports an error on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def make_parser(command: str, doc: str | None) -> Parser:
    """The parser of a command such as ``"train"`` or ``"caffe draw"``; ``doc`` is the text of its ``--help``."""
    return Parser(
        prog=f"seqclf {command}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def spelling(command: str, processes: int = 1) -> list[str]:
    """The words that start ``command`` as this process was started: as ``seqclf``, a module or a script."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        words = ["-m", "seqclf", command]
    elif started.suffix == ".py":
        words = [sys.argv[0]]
    else:
        words = ["seqclf", command]
    if processes > 1:
        program = words if words[0] != "seqclf" else ["-m", *words]
        return ["torchrun", "--nproc-per-node", str(processes), *program]
    return words if words[0] == "seqclf" else ["python", *words]
