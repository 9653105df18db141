"""The one error that reading Caffe's files, and building nets from them, raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from seqclf.batch import SeqclfError

LONGEST = 2000
"""Characters of a message, more of which than these hide the file's name before them and the reason behind."""


class CaffeFormatError(SeqclfError):
    """A Caffe file that can't be read, or a net that can't be built from it: the file, layer and field are named.

    Names in a damaged file may be anything: what can't be printed is escaped, and the middle of a long text left out.
    """

    def __init__(self, told: str) -> None:
        if len(told) > LONGEST:
            told = f"{told[: LONGEST // 2]} ... {told[-LONGEST // 2 :]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in told))


@contextmanager
def within(name: str) -> Iterator[None]:
    """Puts a file's name before what is told by those who don't know it."""
    try:
        yield
    except CaffeFormatError as error:
        raise CaffeFormatError(f"{name}: {error}") from None
