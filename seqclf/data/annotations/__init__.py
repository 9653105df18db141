"""Labels of frames from tables of segments.

- ``segments``: reads the tables; ``rows``: their rows, and tables with a file per video
- ``frame_labels``: labels of the frames of one video; ``videos``: all videos of lists
- ``numbering``: how a table counts the frames of videos
"""
