"""Training: the loop and its step."""
