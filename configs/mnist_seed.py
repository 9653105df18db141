"""MNIST, row by row, with plain SGD: the recipe of a common tutorial, as a baseline.

    seqclf train --config mnist_seed

The network is that of mnist_lastframe, with PyTorch's initial weights and no schedule. The accuracy stays at chance
until about step 1,500. Use mnist_lastframe for your own work.

Needs: MNIST, downloaded to ~/.cache/seqclf or read from data.root=DIR. Without a network, the config trains on the
built-in digits and prints a warning.

Cost: about 95 s on one core of a Xeon with AVX-512 (OMP_NUM_THREADS=1).

Score on the 10,000 MNIST test images by the last frame: 87.36 % (seed 0).
"""

from functools import partial

import torch

from seqclf import LSTM, Experiment, FrameSequenceClassifier, labelling, mnist


def get_config() -> Experiment:
    return Experiment(
        data=partial(mnist, axis="rows", labelling=labelling.last_frame),
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=100, layers=3)),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=3000,
        batch_size=64,
        seed=0,
        eval_every=500,
    )
