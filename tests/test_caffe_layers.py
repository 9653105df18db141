"""Caffe's layers without recorded values: equal to plain implementations of their C++ code."""

from itertools import product
from math import ceil

import numpy as np
import pytest
import torch

from seqclf import caffe
from seqclf.caffe.formats.schema import schema


@pytest.fixture
def net_of(tmp_path):
    """Builds a net of one layer from the text of the layer and the shapes of its bottoms."""

    def build(layer, flavour="bvlc", **shapes):
        inputs = ""
        for name, shape in shapes.items():
            inputs += f'input: "{name}" input_shape {{ {" ".join(f"dim: {size}" for size in shape)} }}\n'
        (tmp_path / "net.prototxt").write_text(f"{inputs}layer {{ {layer} }}")
        return caffe.load_net(tmp_path / "net.prototxt", flavour=flavour)

    return build


def pyramid(x, levels, mean):
    """spp_layer.cpp: the windows of level i are as large as 2^i of them need; half of the excess is padding before."""
    N, C, *sizes = x.shape
    tops = []
    for bins in (2**level for level in range(levels)):
        kernel = [ceil(size / bins) for size in sizes]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, sizes, strict=True)]
        top = np.empty((N, C, bins, bins), np.float32)
        for place in product(range(bins), repeat=2):
            first = [i * k - p for i, k, p in zip(place, kernel, pad, strict=True)]
            last = [min(a + k, size + p) for a, k, size, p in zip(first, kernel, sizes, pad, strict=True)]
            window = x[:, :, max(first[0], 0) : last[0], max(first[1], 0) : last[1]]
            area = (last[0] - first[0]) * (last[1] - first[1])
            top[:, :, place[0], place[1]] = window.sum((2, 3)) / area if mean else window.max((2, 3))
        tops.append(top.reshape(N, -1))
    return np.concatenate(tops, 1) if levels > 1 else tops[0].reshape(N, C, 1, 1)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (13, 6)])
@pytest.mark.parametrize(("levels", "method"), [(1, "MAX"), (3, "MAX"), (3, "AVE")])
def test_spatial_pyramid_pooling(net_of, size, levels, method):
    layer = f'type: "SPP" name: "y" bottom: "x" top: "y" spp_param {{ pyramid_height: {levels} pool: {method} }}'
    x = torch.randn(2, 3, *size)
    net = net_of(layer, x=x.shape)
    found = net(x=x)["y"]
    expected = pyramid(x.numpy(), levels, method == "AVE")
    assert net.blob_shapes["y"] == found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_im2col_puts_the_values_of_each_window_behind_each_other(net_of):
    param = "convolution_param { kernel_h: 3 kernel_w: 2 pad_h: 1 pad_w: 2 stride_h: 2 stride_w: 1 dilation: 2 }"
    x = torch.randn(2, 3, 8, 7)
    net = net_of(f'type: "Im2col" name: "y" bottom: "x" top: "y" {param}', x=x.shape)
    found = net(x=x)["y"]
    expected = torch.nn.functional.unfold(x, (3, 2), 2, (1, 2), (2, 1))
    assert net.blob_shapes["y"] == found.shape
    assert torch.equal(found.flatten(2), expected)


def test_items_are_chosen_by_index_and_by_selector(net_of):
    x, rows = torch.randn(4, 3, requires_grad=True), torch.tensor([2.0, 0, 2, 3, 1])
    net = net_of('type: "BatchReindex" name: "y" bottom: "x" bottom: "rows" top: "y"', x=(4, 3), rows=(5,))
    y = net(x=x, rows=rows)["y"]
    assert net.blob_shapes["y"] == y.shape and torch.equal(y, x[[2, 0, 2, 3, 1]])
    assert torch.autograd.grad(y.sum(), x)[0][:, 0].tolist() == [1, 1, 2, 1]
    for wrong in (-1.0, 4.0):
        with pytest.raises(caffe.CaffeFormatError, match=r"y.*expected 0 to 3"):
            net(x=x, rows=torch.tensor([0, 1, 2, 3, wrong]))
    layer = 'type: "Filter" name: "f" bottom: "x" bottom: "z" bottom: "keep" top: "a" top: "b"'
    found = net_of(layer, x=(4, 3), z=(4, 2, 1), keep=(4, 1))(
        x=x, z=torch.arange(8.0).view(4, 2, 1), keep=torch.tensor([[0.0], [-1], [0.5], [0]])
    )
    assert torch.equal(found["a"], x[1:3]) and found["b"].flatten().tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("flavour", ["bvlc", "lisa"])
@pytest.mark.parametrize("of_file", [False, True])
def test_infogain_loss(net_of, tmp_path, flavour, of_file):
    H, labels = torch.rand(3, 3), torch.tensor([2.0, 0, 1, 1, 2])
    if of_file:
        (tmp_path / "H.binaryproto").write_bytes(
            schema(flavour)
            .BlobProto(data=H.flatten().tolist(), channels=1, num=1, height=3, width=3)
            .SerializeToString()
        )
    x = torch.rand(5, 3).add_(0.1).requires_grad_()
    given = {"x": x, "labels": labels} | ({} if of_file else {"H": H})
    bottoms = " ".join(f'bottom: "{name}"' for name in given)
    more = 'infogain_loss_param { source: "H.binaryproto" }' * of_file
    ignoring = "loss_param { ignore_label: 1 }" * (flavour == "bvlc")
    shapes = {name: tuple(value.shape) for name, value in given.items()}
    net = net_of(f'type: "InfogainLoss" name: "l" {bottoms} top: "l" {more} {ignoring}', flavour, **shapes)
    loss = net(**given)["l"]
    log_p = x.log_softmax(1) if flavour == "bvlc" else x.log()
    each = -(H[labels.long()] * log_p).sum(1)
    expected = each[labels != 1].mean() if flavour == "bvlc" else each.mean()
    torch.testing.assert_close(loss.squeeze(), expected)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), x)[0] for value in (loss, expected)))
