"""MNIST rows as frames: 28 frames of 28 pixels, labelled at the last frame.

python tools/train.py --config configs/mnist_lastframe.py
"""

from functools import partial

import torch

from seqclf import (
    LSTM,
    Experiment,
    FrameSequenceClassifier,
    Normalize,
    last_frame,
    mnist,
    one_cycle,
    orthogonal,
    shift,
)


def get_config() -> Experiment:
    return Experiment(
        data=partial(mnist, axis="rows", labelling=last_frame),
        model=partial(
            FrameSequenceClassifier,
            preprocess=partial(Normalize, mean=0.1307, std=0.3081),
            temporal=partial(LSTM, hidden=100, layers=3, forget_bias=1.0, init=orthogonal),
        ),
        optimizer=partial(torch.optim.AdamW, lr=4e-3, weight_decay=0.1),
        schedule=partial(one_cycle, warmup=0.3),
        augment=partial(shift, pixels=1),
        steps=3000,
        batch_size=64,
        seed=0,
    )
