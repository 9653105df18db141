"""Data sets in shards: tar files of many videos.

- ``data_set``: reads them sequentially; ``frames``: the frames of a sample as a source
- ``index``: the layout and content of shards; ``writer``: writes them
"""
