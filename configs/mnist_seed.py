"""The tutorial's own recipe: the same network as `mnist_lastframe`, PyTorch's initialisation, plain SGD, no schedule.

seqclf train --config mnist_seed

Cost: about 95 s on one core of a Xeon with AVX-512 (OMP_NUM_THREADS=1).
Scores: 87.36 % of the 10,000 MNIST test images (seed 0), at chance until about step 1,500: no recipe to use.
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
