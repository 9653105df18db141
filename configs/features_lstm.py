"""Temporal action segmentation: a label for each frame of long videos, by two layers of LSTM over features of frames.

seqclf train --config features_lstm data.root=<folder> data.split=1

Needs on the disk the layout of the field under the root: features/*.npy as (D, T), groundTruth/*.txt, mapping.txt and
splits/{train,test}.split<n>.bundle. data.sample_rate=2 takes every second frame, as is usual for 50Salads, and
"data.background=['SIL']" leaves a class out of the segment metrics.

Whole videos are read, padded to the longest of a batch, and learnt from in windows of 512 frames with the memory
carried on: memory on the device stays bounded by the window. Not trained here: there are no such features on this
machine.
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
