"""Made videos of moving digits, a label per frame: which digit, or background, as it changes in time.

seqclf train --config moving_digits_frames

Cost: 11.8 minutes of one core of a Xeon with AVX-512 (OMP_NUM_THREADS=1), 1.2 of them for making the 3,200 videos.
Scores on the 200 test videos, seed 0: 96.64 % of frames, edit score 96.0, F1@50 94.3 (F1@10 95.7, F1@25 95.4). The
recipe was chosen on digits held out of training. There an LSTM took 700 steps to where the GRU was after 400, and with
1,000 videos and plain cross-entropy F1@50 was 82.8 after 1,500 steps, where this had 89.1.
"""

from dataclasses import replace
from functools import partial

from moving_digits import get_config as get_clip_config

from seqclf import Experiment, losses


def get_config() -> Experiment:
    config = get_clip_config()
    return replace(
        config,
        data=partial(config.data, task="frames", videos=3000),
        loss=partial(losses.steady_cross_entropy, weight=0.15),
        steps=2000,
        eval_every=1000,
    )
