"""How a command-line tool ends: 0, or 2 and one sentence on a user's mistake, never a traceback for one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from seqclf.batch import Elsewhere, SeqclfError


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a tool's docstring as it stands."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def run_tool(main: Callable[[], int]) -> None:
    """Runs a tool's ``main`` and exits with its code; with 2 on a ``SeqclfError``, which is printed, 130 on Ctrl-C."""
    try:
        code = main()
    except Elsewhere:
        code = 2
    except SeqclfError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
