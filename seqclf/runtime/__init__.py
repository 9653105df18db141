"""What a process needs to run: distributed processes, signals, memory, determinism, progress."""
