"""Videos of moving digits, one label per frame, by MS-TCN: convolutions over time and refinement stages.

    seqclf train --config moving_digits_mstcn

Needs: the extra "video". The config first makes its 3,200 videos, in ~/.cache/seqclf/moving_digits.

The model is that of Farha and Gall 2019, with a wider first stage and an encoder. It reads frames on both sides, so it
does not stream.

Cost: 8.5 minutes of CPU time on one virtual EPYC core with AVX-512 (OMP_NUM_THREADS=1),
and 1 to 2 to make the videos.

Scores: docs/results.md, which also says how the recipe was chosen.
"""

from dataclasses import replace
from functools import partial

from moving_digits_frames import get_config as get_causal_config

from seqclf import TCN, Experiment, sampling


def get_config() -> Experiment:
    config = get_causal_config()
    stage = partial(TCN, channels=(64,) * 5, block="dilated_residual", causal=False)
    temporal = partial(config.model.keywords["temporal"], causal=False)
    return replace(
        config,
        data=partial(config.data, sampling=partial(sampling.window, frames=32)),
        model=partial(config.model, temporal=temporal, refine=[stage] * 3),
        batch_size=10,
    )
