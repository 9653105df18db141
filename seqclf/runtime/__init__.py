"""The process: distributed runs, devices, random state, signals, paths, files, progress.

- processes and devices: ``distributed``, ``devices``, ``signals``, ``allocator``, ``profiling``
- reproducibility: ``random``, ``determinism``
- files: ``files`` (atomic writing), ``paths``; packages: ``packages``, ``names``, ``optimizers``
- output: ``progress``, ``text``
"""
