"""Learning-rate schedules."""

from seqclf.experiment.schedules import constant, one_cycle, warmup_cosine, warmup_linear

__all__ = ["constant", "one_cycle", "warmup_cosine", "warmup_linear"]
