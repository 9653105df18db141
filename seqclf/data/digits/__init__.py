"""Built-in data: MNIST's digits as sequences of rows, and videos of moving digits.

- ``mnist`` from the files of MNIST (``mnist_files``), or from ``optdigits`` without them
- ``moving``: the videos; ``pictures``: their pictures
"""
