"""The error raised for Caffe's files, and for nets that cannot be built from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from seqclf.batch import SeqclfError

LONGEST = 2000
"""Longer messages are shortened in the middle, which keeps the file's name and the reason."""
MOST = 30
"""The number of problems that one message lists."""


class CaffeFormatError(SeqclfError):
    """A Caffe file cannot be read, or a net cannot be built from it. The message names the file, layer and field.

    Characters that cannot be printed are escaped, and long names are shortened, because a damaged file may contain any.

    Args:
        message: the file and the problem, or only the file if ``problems`` are given.
        problems: all problems of the file. One is added to the message, several are listed below it.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        if not problems:
            super().__init__(_clean(message))
        elif len(problems) == 1:
            between = ", " if problems[0].startswith("line ") else ": "
            super().__init__(_clean(f"{message}{between}{problems[0]}"))
        else:
            lines = [f"{message}: {len(problems)} problems", *problems[:MOST]]
            lines += [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
            super().__init__("\n  ".join(map(_clean, lines)))


def _clean(text: str) -> str:
    return _short("".join(c if c.isprintable() else _escaped(c) for c in _short(text)))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


@contextmanager
def within(name: str) -> Iterator[None]:
    """Prefixes errors raised inside the ``with`` block with a file's name."""
    try:
        yield
    except CaffeFormatError as error:
        error.args = (f"{name}: {error}",)
        raise
