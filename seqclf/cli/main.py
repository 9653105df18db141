"""The ``seqclf`` program: finds the module of a command and runs it."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from seqclf import __version__
from seqclf.errors import PeerFailed, SeqclfError

COMMANDS = {
    "train": "train the experiment of a config",
    "crossval": "train and test a config once per fold: k folds, or one per group",
    "evaluate": "evaluate a run on its test, validation or training data",
    "predict": "classify videos, images or feature files with one run or several",
    "stream": "classify live video or a file frame by frame",
    "prepare": "check videos; extract frames, features or shards before training",
    "export": "write a run as ONNX, torch.export and safetensors files",
    "report": "write the HTML report of a run",
    "compare": "compare runs: settings, metrics and learning curves",
    "benchmark": "measure speed and memory",
    "caffe": "run, train, inspect, draw and convert Caffe nets",
}
"""Every command is a module of ``seqclf.cli`` with ``main(words)``. It is imported only when the command runs."""

PATIENCE = 30.0
"""Seconds that a process leaves to the one that reports the error: torchrun stops all processes when the first ends."""

HELP = f"""usage: seqclf COMMAND ...

Classify sequences of frames, per clip or per frame.

{chr(10).join(f"  {name:<11}{purpose}" for name, purpose in COMMANDS.items())}

examples:
  seqclf train --config mnist_lastframe
  seqclf evaluate runs/demo
  seqclf predict runs/demo video.mp4
  torchrun --nproc-per-node 2 -m seqclf train --config mnist_lastframe

`seqclf COMMAND --help` describes a command. `python -m seqclf` is the same program.
Exit codes: 0 success; 2 user error, with a one-line message; 128 + signal when stopped (130, 143).
"""


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        words: the command and its arguments; None for those of this process.

    Returns:
        the exit code.
    """
    words = sys.argv[1:] if words is None else list(words)
    if words[:1] in (["-h"], ["--help"], ["help"]):
        print(HELP, end="")
        return 0
    if words[:1] == ["--version"]:
        print(f"seqclf {__version__}")
        return 0
    if not words or words[0] not in COMMANDS:
        print(f"error: {_unknown(words)}", file=sys.stderr)
        return 2
    return run(import_module(f"seqclf.cli.{words[0]}").main, words[1:])


def run(command: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Runs one command, turns its exceptions into an exit code, and prints warnings on one line."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, *more: Any, **named: Any) -> None:
        if category is UserWarning:
            print(f"warning: {message}", file=sys.stderr, flush=True)
        else:
            usual(message, category, filename, *more, **named)

    warnings.showwarning = show
    try:
        return command(words)
    except PeerFailed:
        with suppress(KeyboardInterrupt):
            time.sleep(PATIENCE)
        return 2
    except SeqclfError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, such as `head`, is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        warnings.showwarning = usual


def _unknown(words: Sequence[str]) -> str:
    if not words:
        return f"no command given: expected one of {', '.join(COMMANDS)} (see seqclf --help)"
    near = get_close_matches(words[0], COMMANDS, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(COMMANDS)}"
    return f"unknown command {words[0]!r}: {hint} (see seqclf --help)"
