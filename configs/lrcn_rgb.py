"""LRCN (Donahue et al. 2015) on UCF101: an LSTM over fc6 of the single-frame network, labelled at every frame.

    seqclf train --config lrcn_rgb --init runs/<single-frame run> data.root=data/UCF101/frames

Needs: the data of lrcn_single_frame, which also describes the settings "faithful". --init takes the convolutions, fc6
and the bias of the last layer from a run of lrcn_single_frame. The LSTM and the weights of the last layer start at
random.

Cost: 1.25 s a step on two cores of a Xeon with AVX-512 for one clip of 16 frames (batch_size=1), in a process of 2.9 GB
with evaluation and checkpoint. The batch of 24 clips needs 13.5 GB. With accumulate=24 it runs clip by clip, with the
same gradient, in 2.5 GB.

From the original files: the network, its initial weights and the factors of the learning rates; 24 clips of 16 frames a
step; learning rate 0.001, divided by 10 every 10,000 steps; gradients clipped at 5; weight decay 0.005. The 30,000
iterations are those in the name of its published weights.

Different from the original: evaluation takes windows of 16 frames, one every 8 frames, and the center of each frame.

Scores: not trained on UCF101 yet.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from lrcn_single_frame import encoder
from lrcn_single_frame import get_config as get_single_frame_config
from torch import nn

from seqclf import LSTM, Experiment, caffe, sampling


def like_caffe(net: nn.RNNBase) -> None:
    """Caffe's LSTM as LRCN filled it: small uniform weights, and one bias, zero; PyTorch's second one stays zero."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("weight"):
                parameter.uniform_(-0.01, 0.01)
            else:
                parameter.zero_()
                parameter.requires_grad_(name.startswith("bias_ih"))


def get_config() -> Experiment:
    config = get_single_frame_config()
    return replace(
        config,
        data=partial(
            config.data,
            sampling=partial(sampling.window, frames=16),
            test_sampling=partial(sampling.dense, frames=16, stride=8),
        ),
        model=partial(
            config.model,
            encoder=encoder(fully=(4096,), dropout=0.9),
            temporal=partial(LSTM, hidden=256, dropout_after=0.5, init=like_caffe),
        ),
        optimizer=partial(config.optimizer, clip_gradients=5.0),
        schedule=partial(caffe.policies.step, gamma=0.1, stepsize=10000),
        steps=30000,
        batch_size=24,
        eval_batch=24,
        eval_every=5000,
        checkpoint_every=1000,
    )
