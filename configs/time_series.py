"""Public sets of time series, one label per series, by one recipe: an FCN (Wang et al. 2017), which averages over time.

    seqclf train --config time_series data.name=GunPoint

Needs: the packages aeon and tslearn (extra "results"), which hold the series.

Scores: docs/results.md.
"""

from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch

from seqclf import (
    TCN,
    Clips,
    Data,
    Experiment,
    FrameSequenceClassifier,
    Normalize,
    Pool,
    SeqclfError,
    TemporalChain,
    losses,
    schedules,
)


def archive(name: str) -> Data:
    """A set of the UCR and UEA archives, with its own training and test part.

    Args:
        name: such as "GunPoint"; "Trace" comes with tslearn, the others with aeon.
    """
    try:
        (series, labels), (test_series, test_labels) = (_tslearn if name == "Trace" else _aeon)(name)
    except ImportError as error:
        raise SeqclfError(
            f"setting data.name={name}: {error}; install the extra: pip install 'seqclf[results]'"
        ) from None
    classes, indices = np.unique(labels, return_inverse=True)
    return Data(
        train=Clips(series, indices),
        test=Clips(test_series, np.searchsorted(classes, test_labels)),
        classes=[str(name) for name in classes],
        source=name,
    )


def _aeon(name: str) -> Any:
    load = import_module("aeon.datasets").load_classification
    parts = (load(name, split=part, load_equal_length=False) for part in ("train", "test"))
    return [([np.asarray(one, dtype="float32").T for one in series], labels) for series, labels in parts]


def _tslearn(name: str) -> Any:
    series, labels, test_series, test_labels = import_module("tslearn.datasets").CachedDatasets().load_dataset(name)
    return (series, labels), (test_series, test_labels)


def get_config() -> Experiment:
    return Experiment(
        data=partial(archive, name="GunPoint"),
        model=partial(
            FrameSequenceClassifier,
            preprocess=partial(Normalize, fit="channel"),
            temporal=partial(
                TemporalChain,
                parts={
                    "fcn": partial(
                        TCN, channels=(128, 256, 128), kernel=(8, 5, 3), block="conv", causal=False, norm="batch"
                    ),
                    "pool": partial(Pool, kind="mean"),
                },
            ),
        ),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-2),
        schedule=partial(schedules.one_cycle, warmup=0.3),
        loss=partial(losses.cross_entropy, smoothing=0.1),
        steps=600,
        batch_size=16,
        seed=0,
    )
