"""LRCN's single-frame network (Donahue et al. 2015) on UCF101: classifies each frame on its own.

    seqclf train --config lrcn_single_frame data.root=data/UCF101/frames

The LSTM runs start from its weights. lrcn_rgb starts from the run above, lrcn_flow from a run on optical flow:

    seqclf train --config lrcn_single_frame data.root=data/UCF101/flow_images \
        data.transform.negate_x=true model.preprocess=flow_input steps=50000

Needs: the frames of UCF101 as 240x320 pictures, <root>/<video>/*.jpg. The lists of split 1 of LRCN,
ucf101_split1_trainVideos.txt and ucf101_split1_testVideos.txt, in the current folder or under the root.

From the original files: the network (with fc7, which the LSTM networks leave out) and its initial weights; batches of
128; learning rate 0.001, divided by 10 every 3,000 steps; weight decay 0.005; rates x10 and x20 for weight and bias of
the last layer; rate x2 and no decay for other biases; 5,000 iterations (50,000 for flow).

Different from the original:
    Initial weights are random, or taken from --init. The original started from ImageNet weights.
    A step takes one random frame from each of 128 videos. The original read a list of frames in order.
    Evaluation takes every eighth frame.

Two quirks of the original are off by default:
    model.preprocess.faithful=true   The mean of red is 128.68, as in the data layer of the LSTM networks, not
                                     ImageNet's 123.68.
    data.transform.faithful=true     A frame is cropped only if it is mirrored, and else squeezed to 227x227. See
                                     transforms.lrcn_crop. The single-frame network of the original used Caffe's crop.

Scores: not trained on UCF101 yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from seqclf import Chain, Experiment, FrameSequenceClassifier, Normalize, caffe, param_groups, sampling, video_set
from seqclf.data.transforms import lrcn_crop
from seqclf.models import LocalResponseNorm

CHANNELS = (96, 384, 512, 512, 384)
LIKE_CAFFE = {
    "head.weight": {"lr_mult": 10},
    "head.bias": {"lr_mult": 20, "decay_mult": 0},
    "encoder.*.bias": {"lr_mult": 2, "decay_mult": 0},
}


def filled(*sizes: int, layer: Callable[..., nn.Module] = nn.Linear, std: float = 0.01, bias: float = 0.0) -> nn.Module:
    """A layer with Caffe's fillers: gaussian weights and a constant bias."""
    module = layer(*sizes)
    with torch.no_grad():
        module.get_parameter("weight").normal_(0, std)
        module.get_parameter("bias").fill_(bias)
    return module


def rgb_input(faithful: bool = False) -> Normalize:
    """RGB frames as the net takes them: BGR, from 0 to 255, less the mean of each channel."""
    mean = (103.939, 116.779, 128.68 if faithful else 123.68)
    return Normalize(bgr=True, mean=[value / 255 for value in mean], std=1 / 255)


def flow_input() -> Normalize:
    """Flow pictures as the net takes them: BGR, from 0 to 255, less 128, which is no motion."""
    return Normalize(bgr=True, mean=128 / 255, std=1 / 255)


def encoder(fully: Sequence[int], dropout: float, channels: Sequence[int] = CHANNELS) -> partial[Chain]:
    """The net up to the last layer: five convolutions, and from fc6 on as many layers as ``fully`` has widths."""
    pool = partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)
    relu = partial(nn.ReLU, inplace=True)
    parts: dict[str, Callable[[], nn.Module]] = {}
    shapes = ((7, 2, 0, 1), (5, 2, 0, 2), (3, 1, 1, 1), (3, 1, 1, 2), (3, 1, 1, 2))
    width = 3
    for i, (after, (kernel, stride, padding, groups)) in enumerate(zip(channels, shapes, strict=True), 1):
        conv = partial(nn.Conv2d, width, after, kernel, stride=stride, padding=padding, groups=groups)
        parts |= {f"conv{i}": partial(filled, layer=conv, bias=0.1), f"relu{i}": relu}
        if i in (1, 2, 5):
            parts[f"pool{i}"] = pool
        if i in (1, 2):
            parts[f"norm{i}"] = partial(LocalResponseNorm, 5, alpha=1e-4, beta=0.75)
        width = after
    parts["flat"] = nn.Flatten
    width *= 6 * 6  # of a frame of 227x227
    for i, after in enumerate(fully, 6):
        parts |= {f"fc{i}": partial(filled, width, after, bias=0.1), f"relu{i}": relu}
        parts[f"drop{i}"] = partial(nn.Dropout, dropout)
        width = after
    return partial(Chain, parts=parts)


def get_config() -> Experiment:
    return Experiment(
        data=partial(
            video_set,
            root="data/UCF101/frames",
            train="ucf101_split1_trainVideos.txt",
            test="ucf101_split1_testVideos.txt",
            form="lrcn",
            sampling=partial(sampling.window, frames=1),
            test_sampling=partial(sampling.dense, frames=1, stride=8),
            transform=partial(lrcn_crop, size=227, faithful=False, negate_x=False),
        ),
        model=partial(
            FrameSequenceClassifier,
            preprocess=partial(rgb_input, faithful=False),
            encoder=encoder(fully=(4096, 4096), dropout=0.5),
            head=partial(filled, layer=nn.Linear, std=0.01, bias=0.0),
            channels_last=True,
        ),
        optimizer=partial(caffe.SGD, lr=0.001, momentum=0.9, weight_decay=0.005),
        groups=partial(param_groups, rules=LIKE_CAFFE),
        schedule=partial(caffe.policies.step, gamma=0.1, stepsize=3000),
        steps=5000,
        batch_size=128,
        eval_batch=128,
        eval_every=5000,
        checkpoint_every=1000,
        log_every=20,
        seed=1701,
    )
