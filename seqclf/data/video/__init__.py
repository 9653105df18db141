"""Video files as sources of frames.

- ``file``: the source; ``decoder`` decodes frames by number; ``pixels`` and ``conversion`` convert them to RGB
- ``container`` opens files with PyAV, ``codec`` keeps decoders for the next file
- ``index``: which frames a file holds, found by ``table`` (MP4) or ``scan``, with ``matroska`` and ``references``
"""
