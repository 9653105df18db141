"""The process: distributed runs, devices, random state, signals, paths, files, progress."""
