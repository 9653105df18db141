"""Videos of moving digits, one label per frame: which digit is visible, or background.

    seqclf train --config moving_digits_frames

Needs: the extra "video". The config first makes its 3,200 videos, in ~/.cache/seqclf/moving_digits.

A causal TCN classifies each frame, and two GRUs correct the classes one after the other (see refine in
FrameSequenceClassifier). All read earlier frames only, so the model streams.

Cost: 9.7 minutes of CPU time on one virtual EPYC core with AVX-512 (OMP_NUM_THREADS=1),
and 1 to 2 to make the videos.

Scores: docs/results.md, which also says how the recipe was chosen.
"""

from dataclasses import replace
from functools import partial

import torch
from moving_digits import get_config as get_clip_config
from torch import Tensor, nn

from seqclf import GRU, TCN, Chain, Experiment, losses, sampling, transforms


def get_config() -> Experiment:
    config = get_clip_config()
    return replace(
        config,
        data=partial(
            config.data,
            task="frames",
            videos=3000,
            sampling=sampling.whole,
            transform=transforms.warp,
        ),
        model=partial(
            config.model,
            encoder=partial(Chain, parts=encoder_parts()),
            temporal=partial(TCN, channels=(128,) * 5, block="dilated_residual", dropout=0.3),
            refine=[partial(GRU, hidden=64)] * 2,
            activation=probabilities,
            channels_last=True,
        ),
        loss=partial(losses.steady_cross_entropy, penalty=0.15),
        optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.05),
        steps=1500,
        batch_size=8,
        eval_every=750,
    )


def encoder_parts() -> dict[str, object]:
    """The encoder of moving_digits, except that a pooling replaces the stride of the second convolution."""
    parts: dict[str, object] = {}
    for i, (inputs, outputs, kernel, stride) in enumerate(((3, 32, 6, 4), (32, 64, 3, 1), (64, 128, 3, 1)), 1):
        parts[f"conv{i}"] = partial(nn.Conv2d, inputs, outputs, kernel, stride, kernel // 2, bias=False)
        parts[f"norm{i}"] = partial(nn.BatchNorm2d, outputs)
        parts[f"relu{i}"] = nn.ReLU
        if i == 2:
            parts["halve"] = partial(nn.MaxPool2d, 2)
    return parts | {"pool": partial(nn.AdaptiveMaxPool2d, 1), "flat": nn.Flatten}


def probabilities(logits: Tensor) -> Tensor:
    """What a refinement stage reads. It sends no gradient back, so the encoder learns from the first stage only."""
    return logits.detach().softmax(-1)
