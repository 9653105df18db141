"""Public sets of time series, one label per series, by one recipe: random convolutions, as in ROCKET.

    seqclf train --config time_series data.name=GunPoint

Needs: the packages aeon and tslearn (extra "results"), which hold the series.

Scores: docs/results.md, which also says how the recipe was chosen.
"""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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


class RandomConvolutions(nn.Module):
    """Features of random convolutions over time, which are not trained, as in ROCKET (Dempster et al. 2020).

    Half of the convolutions read the series, half its differences from frame to frame, as in MultiRocket (Tan et al.
    2022). The means over time of four features stand for the four statistics of MultiRocket, which are the proportion,
    mean, mean index and longest stretch of positive values. With a value above its threshold by x, or x = 0 below it,

    - 1 if x > 0, and 0 otherwise: the proportion, as in ROCKET;
    - x;
    - the index of the frame in its sequence if x > 0, and 0 otherwise;
    - x times the number of frames since x was last 0, which is large in long stretches.

    Batch norm adapts the thresholds to the data, and standardises the features.

    Args:
        input_size: D, the features per frame.
        channels: the number of convolutions of each dilation, of the series and of its differences.
        kernel: the number of frames that a convolution reads.
        dilations: the distances between these frames.
    """

    def __init__(
        self, input_size: int, channels: int = 64, kernel: int = 9, dilations: Sequence[int] = (1, 2, 4, 8, 16, 32)
    ) -> None:
        super().__init__()
        self.of_series, self.of_differences = (
            nn.ModuleList(
                TCN(input_size, (channels,), kernel, (dilation,), block="conv", causal=False, norm="batch")
                for dilation in dilations
            )
            for _ in range(2)
        )
        for name, parameter in self.named_parameters():
            if name.endswith("norm.bias"):
                nn.init.uniform_(parameter, -1, 1)
            elif parameter.dim() == 3:  # the weights of each kernel sum to 0, so the level of the series has no effect
                nn.init.normal_(parameter)
                parameter.data -= parameter.data.mean(2, keepdim=True)
        self.requires_grad_(False)
        self.out_features = 8 * channels * len(dilations)
        self.last = Pool(1 + 2 * channels * len(dilations), kind="max")
        self.standardise = nn.BatchNorm1d(self.out_features, affine=False)

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Returns the features ``(B, T, H)``, zero at padding; other arguments as for ``TCN.forward``."""
        differences = features.diff(dim=1, prepend=features[:, :1])
        if is_first is not None:
            differences = differences.masked_fill(is_first[..., None], 0)
        above = torch.cat(
            [part(features, is_first, state, lengths)[0] for part in self.of_series]
            + [part(differences, is_first, state, lengths)[0] for part in self.of_differences],
            -1,
        )
        positive = above.sign()
        index, stretch = self._counts(positive, is_first, lengths)
        four = torch.cat([positive, above, positive * index, above * stretch], -1)
        if lengths is None:
            return self.standardise(four.flatten(0, 1)).view_as(four), None
        valid = torch.arange(four.shape[1], device=four.device) < lengths.to(four.device)[:, None]
        outputs = torch.zeros_like(four)
        outputs[valid] = self.standardise(four[valid])
        return outputs, None

    def _counts(self, positive: Tensor, is_first: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Counts frames in their sequence.

        Returns:
            The frames before each one ``(B, T, 1)``; the positive frames without a gap up to each one ``(B, T, K)``.
        """
        number = torch.arange(1, positive.shape[1] + 1, device=positive.device)[:, None].expand_as(positive[..., :1])
        first = number == 1 if is_first is None else is_first[..., None] | (number == 1)
        events = torch.cat([first, positive == 0], -1)
        last, _ = self.last(number.float() * events, lengths=lengths)  # the number of the frame of the last event, or 0
        start = last[..., :1]
        return number - start, number - torch.maximum(last[..., 1:], start - 1)


def zero_linear(features: int, classes: int) -> nn.Linear:
    """A linear head that starts at zero.

    Gradient descent then only adds training features to its weights, and so tends to the smallest weights that fit
    them, as the ridge regression of ROCKET does. The noise of random weights would remain.
    """
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def get_config() -> Experiment:
    return Experiment(
        data=partial(archive, name="GunPoint"),
        model=partial(
            FrameSequenceClassifier,
            preprocess=partial(Normalize, fit="channel"),
            temporal=partial(
                TemporalChain,
                parts={"convolutions": RandomConvolutions, "pool": partial(Pool, kind="mean")},
            ),
            head=zero_linear,
        ),
        optimizer=partial(torch.optim.SGD, lr=5e-2, momentum=0.9, nesterov=True),
        schedule=partial(schedules.one_cycle, warmup=0.3),
        loss=partial(losses.cross_entropy, smoothing=0.1),
        steps=150,
        batch_size=16,
        eval_batch=50,
        seed=0,
    )
