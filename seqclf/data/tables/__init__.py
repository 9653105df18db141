"""Text tables, of which lists of videos, class names and annotations are read.

- ``table``: reads CSV, TSV and JSON (``json_tables``); ``columns``: their usual names
- ``label_cells``: cells with several labels; ``spans``: start and end
"""
