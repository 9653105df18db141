"""Videos of moving digits, one label per frame, by MS-TCN: convolutions over whole videos and refinement stages.

    seqclf train --config moving_digits_mstcn

Needs: the extra "video". The config first makes its 3,200 videos, in ~/.cache/seqclf/moving_digits.

The model reads frames on both sides, so it does not stream. To stream, set model.temporal.causal=True, and
model.refine.<i>.causal=True for each stage.

Scores: not trained in full yet.
"""

from dataclasses import replace
from functools import partial

from moving_digits_frames import get_config as get_frames_config

from seqclf import TCN, Experiment, sampling


def get_config() -> Experiment:
    config = get_frames_config()
    stage = partial(TCN, channels=(64,) * 5, block="dilated_residual", causal=False)
    return replace(
        config,
        data=partial(config.data, sampling=sampling.whole),
        model=partial(config.model, temporal=stage, refine=[stage] * 3),
        batch_size=8,
    )
