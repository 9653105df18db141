"""Nets: PyTorch modules, built from Caffe's definitions and weights.

- ``net``: the module; ``graph``: its layers; ``sharing``: its parameters; ``threads``: fewer for small nets
- ``load`` and ``save``: nets from files and to files
- ``weights``: reads and copies weights; ``weight_check``: compares a weights file with a net
"""
