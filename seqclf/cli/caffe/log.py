"""Log lines in the format of Caffe's logger, glog, so that programs that parse Caffe's logs work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime


def log(line: str, place: str = "caffe.cpp:251", write: Callable[[str], None] | None = None) -> None:
    """Writes a line with glog's prefix.

    Args:
        place: the file and line of Caffe's source that the prefix names.
        write: called with the line. None: print it to stderr.
    """
    line = f"I{datetime.now():%m%d %H:%M:%S.%f} {os.getpid():5} {place}] {line}"
    if write is None:
        print(line, file=sys.stderr, flush=True)
    else:
        write(line)


def log_solver(line: str, write: Callable[[str], None] | None = None) -> None:
    """Writes a line of a solver. Parsers look for the file name that Caffe prints with it."""
    log(line, "sgd_solver.cpp:106" if "lr = " in line or "solver st" in line else "solver.cpp:228", write)
