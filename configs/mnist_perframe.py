"""MNIST rows as frames, the clip's label at every frame: `mnist_lastframe` but for the labelling.

python tools/train.py --config configs/mnist_perframe.py
"""

from dataclasses import replace
from functools import partial

from mnist_lastframe import get_config as lastframe

from seqclf import Experiment, every_frame


def get_config() -> Experiment:
    experiment = lastframe()
    return replace(experiment, data=partial(experiment.data, labelling=every_frame))
