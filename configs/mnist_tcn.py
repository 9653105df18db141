"""MNIST, row by row, by a TCN that streams: causal convolutions over the rows, then the maximum over the rows so far.

    seqclf train --config mnist_tcn

Needs: MNIST, as mnist_lastframe.

Scores: docs/results.md, which also says how the recipe was chosen.
"""

from dataclasses import replace
from functools import partial

from mnist_lastframe import get_config as get_lstm_config

from seqclf import TCN, Experiment, Pool, TemporalChain


def get_config() -> Experiment:
    config = get_lstm_config()
    parts = {
        "tcn": partial(TCN, channels=(96, 96, 96, 96), kernel=3, norm="batch"),
        "pool": partial(Pool, kind="max"),
    }
    return replace(config, model=partial(config.model, temporal=partial(TemporalChain, parts=parts)))
