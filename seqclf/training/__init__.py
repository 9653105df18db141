"""Training: the loop, its step and its state."""
