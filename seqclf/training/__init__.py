"""Training: the loop, its step and its state.

- the run: ``loop`` (from top to bottom), ``step``, ``session`` (between steps), ``state``; ``cross_validation``
- before the first step: ``checks``, ``fitting``, ``step_check``
- parts: ``average`` of weights, ``capture`` (CUDA graphs), ``selection`` (best checkpoint), ``metrics``, ``most_wrong``
"""
