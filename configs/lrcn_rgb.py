"""LRCN (Donahue et al. 2015) on the frames of UCF101: an LSTM over the single-frame net's fc6, labelled at every frame.

seqclf train --config lrcn_rgb --init runs/<a run of lrcn_single_frame> data.root=data/UCF101/frames

Cost: for one clip of 16 frames (batch_size=1) a step takes 1.25 s on two cores of a Xeon with AVX-512, and the process
2.9 GB with its evaluation and checkpoint. The batch of 24 takes a process of 13.5 GB; ``accumulate=24`` runs
it one clip after the other, with the same gradient, in 2.5 GB.

Needs on the disk what configs/lrcn_single_frame.py says, where the quirks of the original, and ``faithful``, are told
too. ``--init`` takes the convolutions and fc6 of a single-frame run; the LSTM and the last layer's weights are drawn
anew (its bias, of the same shape, comes along). Not trained here: there is no UCF101 on this machine.

From the original's files: the net, its initial weights, 24 clips of 16 frames a step, rate 0.001 in steps of 10,000,
gradients clipped at 5, weight decay 0.005, and the multipliers of rates; 30,000 iterations are in the name of its
weights. Chosen here: evaluation on windows of 16 frames every 8, in the middle of the frame.
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
