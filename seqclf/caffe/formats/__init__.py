"""Caffe's files: protobuf in its text and binary forms, and HDF5.

- ``files``: reads and writes bytes; ``schema``: Caffe's messages, from ``caffe.proto``
- ``text`` and ``binary``: messages in prototxts and in binary files; ``hdf5``: weights and snapshots
- ``upgrade``: messages of older forms; ``upgrade_v0``: those of the oldest form
"""
