"""Live video: cameras, network addresses, pipes and files that are still being written.

- ``input``: where it comes from; ``frames``: decodes and resamples it
- ``reader``: a thread that drops frames and reconnects; ``frame_queue`` connects it with the model
"""
