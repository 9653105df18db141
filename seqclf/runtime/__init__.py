"""The process: distributed runs, devices, random state, signals, files, progress."""
