"""TCN: parity with the networks of its papers in plain torch.nn, padding in batch norm, the state, refusals."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from temporal_models import close
from torch import Tensor, nn

from seqclf import TCN, SeqclfError

D, T = 5, 20


class Stage(nn.Module):
    """A stage of MS-TCN as in Farha and Gall 2019, without its classifier."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(D, channels, 1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=2**i, dilation=2**i) for i in range(layers)
        )
        self.pointwise = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for dilated, pointwise in zip(self.dilated, self.pointwise, strict=True):
            x = x + pointwise(F.relu(dilated(x)))
        return x


class CausalBlocks(nn.Module):
    """Residual blocks of Bai et al. 2018, with layer norm in place of weight norm."""

    def __init__(self, channels: int, blocks: int, kernel: int) -> None:
        super().__init__()
        sizes = [D if i == 0 else channels for i in range(2 * blocks)]
        self.convs = nn.ModuleList(
            nn.Conv1d(size, channels, kernel, padding=(kernel - 1) * 2 ** (i // 2), dilation=2 ** (i // 2))
            for i, size in enumerate(sizes)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in sizes)
        self.downsample = nn.Conv1d(D, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(0, len(self.convs), 2):
            y = x
            for conv, norm in zip(self.convs[i : i + 2], self.norms[i : i + 2], strict=True):
                y = F.relu(norm(conv(y)[..., : x.shape[-1]].mT).mT)
            x = F.relu(y + (self.downsample(x) if i == 0 else x))
        return x


def fcn() -> nn.Sequential:
    """The three blocks of Wang et al. 2017, padded like Keras."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel in ((D, 12, 8), (12, 24, 5), (24, 12, 3)):
        pad = nn.ConstantPad1d(((kernel - 1) // 2, kernel // 2), 0.0)
        layers += [pad, nn.Conv1d(inputs, outputs, kernel), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


PAIRS = {
    "MS-TCN": (lambda: Stage(8, 4), lambda: TCN(D, (8,) * 4, block="dilated_residual", causal=False)),
    "TCN": (lambda: CausalBlocks(8, 3, 4), lambda: TCN(D, (8,) * 3, kernel=4, norm="layer")),
    "FCN": (fcn, lambda: TCN(D, (12, 24, 12), (8, 5, 3), block="conv", causal=False, norm="batch")),
}


LAYERS = (nn.Conv1d, nn.LayerNorm, nn.BatchNorm1d)


def twins(theirs: nn.Module, ours: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """The layers of two networks that correspond: those of equal shape, in order. Ours get the weights of theirs."""
    rest, pairs = [m for m in ours.modules() if isinstance(m, LAYERS)], []
    for layer in theirs.modules():
        if isinstance(layer, LAYERS):
            twin = next(m for m in rest if m.weight.shape == layer.weight.shape)
            twin.load_state_dict(layer.state_dict())
            rest.remove(twin)
            pairs.append((layer, twin))
    assert not rest
    return pairs


@pytest.mark.parametrize("name", PAIRS)
def test_the_networks_of_the_papers_are_configs_of_one_class(name):
    """Outputs, gradients and statistics are those of plain ``torch.nn``, in training mode."""
    torch.manual_seed(0)
    theirs, ours = (build().double() for build in PAIRS[name])
    pairs = twins(theirs, ours)
    x, weight = torch.randn(3, T, D, dtype=torch.float64), torch.randn(3, T, ours.out_features, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [theirs(inputs[0].mT).mT, ours(inputs[1])[0]]
    for y in outputs:
        (y * weight).sum().backward()
    equal = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    equal(*outputs)
    equal(inputs[0].grad, inputs[1].grad)
    for layer, twin in pairs:
        for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
            equal(a.grad, b.grad)
        for a, b in zip(layer.buffers(), twin.buffers(), strict=True):
            equal(a, b)


def test_batch_norm_of_a_single_frame_is_refused_in_training():
    net, x = TCN(D, (6,), norm="batch"), torch.randn(1, 2, D)
    for frames, lengths in ((x[:, :1], None), (x, torch.tensor([1]))):
        with pytest.raises(SeqclfError, match=r"two valid frames.*batch_size"):
            net.train()(frames, lengths=lengths)
        net.eval()(frames, lengths=lengths)


@pytest.mark.parametrize("block", ["residual", "dilated_residual", "conv"])
def test_batch_norm_in_training_takes_its_statistics_from_the_valid_frames(block):
    """Padding changes no output, gradient or running statistic."""
    torch.manual_seed(0)
    net, x = TCN(D, (6, 6), block=block, causal=False, norm="batch"), torch.randn(3, T, D)
    lengths = torch.tensor([7, 12, 3])
    found = []
    for frames in (12, T):
        twin = copy.deepcopy(net)
        features = x[:, :frames].clone().requires_grad_()
        y, _ = twin(features, lengths=lengths)
        valid = torch.arange(frames) < lengths[:, None]
        (y[valid] ** 2).sum().backward()
        found.append([y[:, :12], features.grad[:, :12], *(p.grad for p in twin.parameters()), *twin.buffers()])
    for a, b in zip(*found, strict=True):
        close(a, b)

    norm = TCN(D, (6,), kernel=1, block="conv", norm="batch")
    y, _ = norm(x, lengths=torch.tensor([1, 1, 1]))
    layer = norm.blocks[0]
    z = F.linear(x[:, 0], layer.conv.weight[..., 0], layer.conv.bias)
    close(y[:, 0], F.relu(F.batch_norm(z, None, None, training=True)))
    assert y[:, 1:].abs().max() == 0


def test_the_state_has_the_same_size_after_any_number_of_frames():
    net = TCN(D, (6, 4), kernel=(3, 2)).eval()
    shapes = [(2, 2, 5), (2, 2, 6), (2, 2, 6), (2, 2, 4)]
    for frames in (1, 2, 30):
        _, state = net(torch.randn(2, frames, D))
        assert [tuple(part.shape) for part in state] == shapes


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("block", {"block": "dense"}),
        ("norm", {"norm": "group"}),
        ("dropout", {"dropout": 1.0}),
        ("channels", {"channels": ()}),
        ("channels", {"channels": 64}),
        ("channels", {"channels": (4, 5), "block": "dilated_residual"}),
        ("kernel", {"channels": (4, 4), "kernel": (3, 3, 3)}),
        ("kernel", {"kernel": 0}),
        ("kernel", {"kernel": 2.5}),
        ("dilations", {"channels": (4, 4), "dilations": (1, 0)}),
    ],
)
def test_a_wrong_argument_is_refused(name, arguments):
    with pytest.raises(SeqclfError, match=rf"^TCN: .*{name}"):
        TCN(D, **arguments)


def test_wrong_features_and_states_are_refused():
    x = torch.zeros(2, T, D)
    causal, whole = TCN(D, (4,)), TCN(D, (4,), causal=False)
    for net, args, named in (
        (causal, (x[..., 1:],), "features"),
        (causal, (x[:, :0],), "features"),
        (causal, (x, None, causal(x[:1])[1]), "state"),
        (causal, (x, None, torch.zeros(2, 2, D)), "state"),
        (whole, (x, None, causal(x)[1]), "causal=False"),
    ):
        with pytest.raises(SeqclfError, match=rf"^TCN.*{named}"):
            net(*args)
