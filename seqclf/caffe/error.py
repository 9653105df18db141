"""The one error that reading Caffe's files, and building nets from them, raises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from seqclf.batch import SeqclfError

LONGEST = 2000
"""The length from which a message is shortened in the middle, so that the file's name and the reason stay readable."""
MOST = 30
"""The number of problems that one message lists."""


class CaffeFormatError(SeqclfError):
    """A Caffe file that can't be read, or a net that can't be built from it. The message names file, layer and field.

    Names in a damaged file may be anything, so what can't be printed is escaped and long text is shortened.

    Args:
        message: what is wrong, or with ``problems`` only where.
        problems: all problems found there. A single one is added to the message, several become a list below it.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
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
    """Puts a file's name in front of an error raised by code that does not know it."""
    try:
        yield
    except CaffeFormatError as error:
        error.args = (f"{name}: {error}",)
        raise
