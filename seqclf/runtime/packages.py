"""Packages that are installed by an extra, such as ``pip install 'seqclf[video]'``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from seqclf.batch import SeqclfError


@contextmanager
def optional_import(extra: str, need: str) -> Iterator[None]:
    """Surrounds the import of an optional package.

    Args:
        extra: the extra that installs it.
        need: what needs it, for the error: "reading video files needs PyAV".

    Raises:
        SeqclfError: the package is not installed, or can't be imported. The message names the extra.
    """
    try:
        yield
    except ImportError as error:
        raise SeqclfError(f"{need}: pip install 'seqclf[{extra}]' ({error})") from None
