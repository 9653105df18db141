"""The run folder: what is on disk, checkpoints and metrics."""
