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
        super().__init__(_short("".join(c if c.isprintable() else _escaped(c) for c in _short(told))))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


@contextmanager
def within(name: str) -> Iterator[None]:
    """Puts a file's name before what is told by those who don't know it."""
    try:
        yield
    except CaffeFormatError as error:
        raise CaffeFormatError(f"{name}: {error}") from None
