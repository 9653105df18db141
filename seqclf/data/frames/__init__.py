"""Sources of frames: their interface, and videos as folders of pictures, feature files and arrays.

- ``source``: the interface of a video's frames; ``times`` and ``numbers`` of the frames in their file
- ``folder`` of ``pictures``, ``feature_file``, ``array_file``
- ``span``: a clip inside a video
- ``arrays``: conversion of users' arrays to tensors
"""
