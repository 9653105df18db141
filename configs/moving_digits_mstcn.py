"""Videos of moving digits, one label per frame, by MS-TCN: convolutions over whole videos and refinement stages.

    seqclf train --config moving_digits_mstcn

Needs: the extra "video". The config first makes its 3,200 videos, in ~/.cache/seqclf/moving_digits.

The model is that of Farha and Gall 2019, with a wider first stage and an encoder. It reads frames on both sides, so it
does not stream.

Cost: TODO

Scores: docs/results.md, which also says how the recipe was chosen.
"""

from dataclasses import replace
from functools import partial

from moving_digits_frames import get_config as get_causal_config

from seqclf import TCN, Experiment, losses


def get_config() -> Experiment:
    config = get_causal_config()
    stage = partial(TCN, channels=(64,) * 5, block="dilated_residual", causal=False)
    temporal = partial(config.model.keywords["temporal"], causal=False)
    return replace(
        config,
        model=partial(config.model, temporal=temporal, refine=[stage] * 3),
        loss=partial(losses.steady_cross_entropy, penalty=0.15),
    )
