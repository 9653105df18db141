"""A clip's class by a ResNet of ImageNet, frozen, and an LSTM over its features: the modern twin of LRCN.

seqclf train --config resnet_lstm data.root=videos data.train=train.txt data.test=test.txt

Needs on the disk videos, or folders of frames, and lists of them (a path and a label a line); and once the network,
for torchvision's weights (45 MB). Without it: model.encoder.weights=resnet18.pth, a file of them, or =none to draw
them. For a label at each frame: data=annotated_set data.segments=segments.csv data.classes=classes.txt, and where some
frames are of no segment data.background=<class>.

model.encoder.frozen=layer3 lets the last part learn too, =none all of it. Memory stays bounded, however long clips
are: frames are encoded 64 at a time, and where they learn each chunk is computed anew on the way back. Not trained
here: there are no such weights on this machine.
"""

from functools import partial

import torch

from seqclf import LSTM, Experiment, FrameSequenceClassifier, Normalize, sampling, schedules, video_set
from seqclf.data.transforms import center_crop, flip, in_turn, random_crop, resize
from seqclf.models.backbone import Backbone


def get_config() -> Experiment:
    return Experiment(
        data=partial(
            video_set,
            root="data/videos",
            train="train.txt",
            test="test.txt",
            sampling=partial(sampling.window, frames=16, step=2),
            test_sampling=partial(sampling.dense, frames=16, stride=16, step=2),
            transform=partial(in_turn, steps=(partial(resize, size=256), partial(random_crop, size=224), flip)),
            test_transform=partial(in_turn, steps=(partial(resize, size=256), partial(center_crop, size=224))),
        ),
        model=partial(
            FrameSequenceClassifier,
            preprocess=partial(Normalize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            encoder=partial(Backbone, name="resnet18", weights="DEFAULT", frozen="all"),
            temporal=partial(LSTM, hidden=256, dropout_after=0.5, forget_bias=1.0),
            chunk=64,
            channels_last=True,
        ),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        schedule=schedules.one_cycle,
        clip_norm=1.0,
        steps=2000,
        batch_size=16,
        eval_batch=16,
        seed=0,
    )
