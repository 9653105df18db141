"""Video files as sources of frames.

- ``file``: the source; ``decoder`` decodes frames by number, and ``pixels`` converts them
- ``container`` opens files with PyAV, ``codec`` keeps decoders for the next file
- ``index``: which frames a file holds, found by ``table`` (MP4) or ``scan``, with ``matroska`` and ``references``
"""
