"""One label per video: a frozen ResNet-18 from ImageNet, and an LSTM over its features.

    seqclf train --config resnet_lstm data.root=videos data.train=train.txt data.test=test.txt

Needs: the extra "video"; videos or folders of frames; lists with a path and a label per line. torchvision downloads the
weights (45 MB) on first use. Offline, set model.encoder.weights=resnet18.pth to read a file, or =none for random
weights.

Settings:
    data=annotated_set data.segments=segments.csv data.classes=classes.txt
        One label per frame. data.background=<class> is the class of frames outside all segments.
    model.encoder.frozen=layer3
        Freeze the layers up to layer3 and train the rest; =none trains all layers.

Memory does not grow with the length of a clip: the encoder takes 64 frames at a time, and layers that learn are
computed again in the backward pass.

Scores: not trained yet.
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
