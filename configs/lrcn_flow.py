"""LRCN (Donahue et al. 2015) on optical flow as pictures: configs/lrcn_rgb.py, and what differs.

seqclf train --config lrcn_flow --init runs/<a run of lrcn_single_frame on flow>

Needs on the disk ``<root>/<video>/*.jpg``, pictures of 240x320 whose channels R and G are the flow to the right and
downwards, 128 for none, and LRCN's lists (see configs/lrcn_single_frame.py, which also has the command of the
single-frame run on flow). A mirrored clip's flow to the right is negated. Not trained here: there is no UCF101 on
this machine. Cost: as of lrcn_rgb.

From the original's files: gradients clipped at 15, rate 0.001 in steps of 20,000, 70,000 iterations (the weights that
its ``classify_video.py`` loads are of 50,000), the mean 128.
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
