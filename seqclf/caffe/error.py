"""The one error that reading Caffe's files, and building nets from them, raises."""

from __future__ import annotations

from seqclf.batch import SeqclfError


class CaffeFormatError(SeqclfError):
    """A Caffe file that can't be read, or a net that can't be built from it: the file, layer and field are named."""
