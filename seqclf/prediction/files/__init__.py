"""Prediction of files: ``predict``, and what it writes.

- ``predict``: one call for all files; ``fused_runs``: the runs that classify them
- ``frames``: predictions at the frames of a file; ``truth``: its true labels
- ``output``: JSON, CSV and timelines; ``page``: the HTML page
"""
