"""Temporal action segmentation: a label for each frame of long videos, from precomputed features.

    seqclf train --config features_lstm data.root=DIR data.split=1

Needs: a folder DIR with features/*.npy of shape (D, T), groundTruth/*.txt, mapping.txt, and
splits/{train,test}.split<n>.bundle. This is the usual layout of public data sets such as 50Salads.
"seqclf prepare features" writes it, too.

Settings: data.sample_rate=2 takes every second frame, as is usual for 50Salads. "data.background=['SIL']" leaves a
class out of the segment metrics.

Model: two LSTM layers. Training reads whole videos, padded to the longest of a batch, and backpropagates within windows
of 512 frames (truncate=512). The state is carried from window to window. The window bounds the memory on the device.

Scores: not trained on a public data set yet.
"""

from functools import partial

import torch

from seqclf import LSTM, Experiment, FrameSequenceClassifier, feature_set, sampling, schedules


def get_config() -> Experiment:
    return Experiment(
        data=partial(feature_set, root="data/features", split=1, sample_rate=1, sampling=sampling.whole, background=()),
        model=partial(
            FrameSequenceClassifier,
            temporal=partial(LSTM, hidden=256, layers=2, dropout=0.5, dropout_after=0.5, forget_bias=1.0),
        ),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        schedule=schedules.one_cycle,
        truncate=512,
        clip_norm=1.0,
        steps=2000,
        batch_size=4,
        eval_batch=1,
        eval_every=200,
        checkpoint_every=200,
        log_every=20,
        seed=0,
    )
