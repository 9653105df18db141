"""Made videos of moving digits, a label per frame: which digit, or background, as it changes in time.

python tools/train.py --config configs/moving_digits_frames.py
"""

from dataclasses import replace
from functools import partial

from moving_digits import get_config as get_clip_config

from seqclf import Experiment, steady_cross_entropy


def get_config() -> Experiment:
    config = get_clip_config()
    return replace(
        config,
        data=partial(config.data, task="frames", videos=3000),
        loss=partial(steady_cross_entropy, weight=0.15),
        steps=2000,
        eval_every=1000,
    )
