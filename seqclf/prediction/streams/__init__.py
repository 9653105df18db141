"""Prediction of streams: ``stream``, for cameras, network addresses and files read as from a camera.

- ``stream``: one call; ``frames``: the frames that are read; ``classified``: the classified frames, one by one
- ``output``: the table, the video and the window; ``summary``: counts and times
"""
