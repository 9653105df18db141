"""Functions that read data sets from disk.

- ``video_sets``: videos with a label each, or annotated; ``parts``: how their parts become clips
- ``segmentation``: feature sequences with a label per frame; ``ground_truth``: their labels and splits
"""
