"""Pool: at every frame what the formula gives for the frames so far."""

from __future__ import annotations

import pytest
import torch
from temporal_models import close

from seqclf.batch import SeqclfError
from seqclf.models import Pool

KINDS = ["mean", "max", "attention"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def pool(kind, D=4, scale=1.0):
    torch.manual_seed(0)
    net = Pool(D, kind)
    if net.score is not None:
        net.score.weight.data.mul_(scale)
    return net


def formula(net, x):
    """Of frames ``(n, D)``, in float64."""
    x = x.double()
    if net.kind == "attention":
        return (x @ net.score.weight.double()[0]).softmax(0) @ x
    return x.mean(0) if net.kind == "mean" else x.amax(0)


@every_kind
@pytest.mark.parametrize("scale", [1, 300])
def test_each_output_pools_the_frames_so_far(kind, scale):
    """Also where scores of the attention lie so far apart that their exponentials overflow."""
    net, x = pool(kind, scale=scale), torch.randn(2, 37, 4)
    y, _ = net(x)
    for b in range(2):
        for t in range(37):
            close(y[b, t].double(), formula(net, x[b, : t + 1]))


@every_kind
def test_the_rounding_errors_of_a_sequence_do_not_reach_the_next(kind):
    net, x = pool(kind), torch.randn(1, 3000, 4)
    x[:, :2000] *= 1e6
    is_first = torch.arange(3000)[None] == 2000
    assert torch.allclose(net(x, is_first)[0][0, -1].double(), formula(net, x[0, 2000:]), rtol=1e-5, atol=1e-6)


@every_kind
def test_nan_of_one_sequence_does_not_reach_the_next(kind):
    net, x = pool(kind), torch.randn(1, 9, 4)
    x[:, :4] = float("nan")
    is_first = torch.arange(9)[None] == 4
    close(net(x, is_first)[0][:, 4:], net(x[:, 4:])[0])


def test_pooling_of_bfloat16_keeps_the_digits_of_float32():
    x = torch.randn(1, 1000, 4).bfloat16() + 10
    y, (total, count) = pool("mean")(x)
    assert y.dtype == torch.bfloat16 and total.dtype == count.dtype == torch.float32
    torch.testing.assert_close(total[0] / 1000, x.float().mean(1), rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_refused():
    with pytest.raises(SeqclfError, match="'mean', 'max', 'attention', not 'last'"):
        Pool(4, "last")
    with pytest.raises(SeqclfError, match=r"\(B, T, 4\).*\(1, 2, 3\)"):
        Pool(4)(torch.zeros(1, 2, 3))
    for state in (torch.zeros(1, 1, 4), (torch.zeros(1, 1, 4),), (torch.zeros(1, 2, 4), torch.zeros(1, 1, 1))):
        with pytest.raises(SeqclfError, match=r"Pool.*state .*\(1, 1, 4\), \(1, 1, 1\)"):
            Pool(4)(torch.zeros(1, 2, 4), state=state)
