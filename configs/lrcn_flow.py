"""LRCN (Donahue et al. 2015) on optical flow, stored as pictures. It changes a few settings of lrcn_rgb.

    seqclf train --config lrcn_flow --init runs/<single-frame run on flow>

Needs: <root>/<video>/*.jpg, pictures of 240x320. Channel R is the flow to the right and channel G the flow downwards;
128 is no motion. The lists of LRCN. lrcn_single_frame describes them and has the command of the single-frame run.

Cost: as lrcn_rgb.

From the original files: gradients clipped at 15; learning rate 0.001, divided by 10 every 20,000 steps; 70,000
iterations (classify_video.py loads weights of 50,000); mean 128. A mirrored clip has its horizontal flow negated.

Scores: not trained on UCF101 yet.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lrcn_rgb import get_config as get_rgb_config
from lrcn_single_frame import flow_input

from seqclf import Experiment, caffe
from seqclf.data.transforms import lrcn_crop


def get_config() -> Experiment:
    config = get_rgb_config()
    return replace(
        config,
        data=partial(
            config.data,
            root="data/UCF101/flow_images",
            transform=partial(lrcn_crop, size=227, faithful=False, negate_x=True),
        ),
        model=partial(config.model, preprocess=flow_input),
        optimizer=partial(config.optimizer, clip_gradients=15.0),
        schedule=partial(caffe.policies.step, gamma=0.1, stepsize=20000),
        steps=70000,
    )
