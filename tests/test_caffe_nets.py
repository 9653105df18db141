"""Well-known Caffe nets: sizes, outputs and gradients, files, rules, sharing, training."""

from __future__ import annotations

from functools import partial

import caffe_nets as zoo
import pytest
import torch
import torch.nn.functional as F
from caffe_nets import Prototxt, text
from torch import Tensor

from seqclf import caffe
from seqclf.caffe import CaffeFormatError

NARROW = {
    "alexnet": partial(zoo.alexnet, 16, 2, classes=10),
    "caffenet": partial(zoo.caffenet, 16, 2, classes=10),
    "vgg16": partial(zoo.vgg16, 16, 2, classes=10, size=64),
    "googlenet": partial(zoo.googlenet, 8, 2, classes=10),
    "resnet50": partial(zoo.resnet50, 16, 2, classes=10, size=64),
    "squeezenet": partial(zoo.squeezenet, 8, 2, classes=10, size=67),
    "nin": partial(zoo.nin, 16, 2, classes=10),
    "lenet": partial(zoo.lenet, 4, 2),
    "fcn8s": partial(zoo.fcn8s, 16, 1, classes=5, size=32),
    "siamese": partial(zoo.siamese, 4, 6),
    "autoencoder": partial(zoo.autoencoder, 8, 3),
    "lrcn_frame": partial(zoo.lrcn_frame, 16, 2, classes=7),
    "lrcn": partial(zoo.lrcn, 16, 3, 2, classes=7, size=99),
    "captioner": partial(zoo.captioner, 16, 5, 2, words=31, features=12),
}
"""The nets with few channels; all accept ``train``."""


@pytest.fixture
def load(tmp_path):
    """Loads a net from text, with parameters drawn after ``torch.manual_seed(0)``, and statistics too in TEST."""

    def load_text(prototxt, **state):
        torch.manual_seed(0)
        path = tmp_path / "net.prototxt"
        path.write_text(str(prototxt))
        net = caffe.load_net(path, **state)
        for _, layer in net.sequence if not net.training else ():
            if layer.statistics:
                for blob in layer.blobs:
                    blob.data.uniform_(0.5, 2)
        return net

    return load_text


def given(net, dtype=torch.float32):
    """Values for a net's inputs: words, markers, or normal values."""
    values = {}
    for name in net.inputs:
        shape = net.blob_shapes[name]
        if name == "input_sentence":
            values[name] = torch.randint(0, len(net.params["embedding"][0]), shape).to(dtype)
        elif name in ("cont_sentence", "clip_markers"):
            values[name] = (torch.rand(shape) < 0.7).to(dtype)
        else:
            values[name] = torch.randn(shape, dtype=dtype)
    return values


# ---- full size


COUNTS = {
    "alexnet": 60_965_224,
    "caffenet": 60_965_224,
    "vgg16": 138_357_544,
    "googlenet": 6_998_552,
    "resnet50": 25_557_032 + 64 + 53_173,  # PyTorch's, the first convolution's bias, three statistics of 53 layers
    "squeezenet": 1_235_496,
    "nin": 7_595_176,
    "lenet": 431_080,
    "fcn8s": 138_357_544 - 4_097_000 + 86_037 + 10_773 + 5_397 + 2 * 336 + 5_376,  # VGG-16 but fc8, scores, filters
    "siamese": 431_102,
    "autoencoder": 2_837_314,
    "lrcn_frame": 4_310_656 + 56_627_200 + 16_781_312 + 413_797,  # convolutions, fc6, fc7, fc8-ucf
    "lrcn": 4_310_656 + 56_627_200 + 4_457_472 + 25_957,  # convolutions, fc6, lstm1, fc8-final
    "captioner": 8_801_000 + 8_004_000 + 12_004_000 + 8_809_801,  # embedding, lstm1, lstm2, predict
}
TRAINED = {"googlenet": 13_378_280, "captioner": COUNTS["captioner"] + 60_965_224}
"""Parameters of train nets that have more: two side branches; CaffeNet."""
SHAPES = {
    "alexnet": {
        "conv1": (10, 96, 55, 55),
        "norm2": (10, 256, 27, 27),
        "pool2": (10, 256, 13, 13),
        "pool5": (10, 256, 6, 6),
    },
    "caffenet": {"pool1": (10, 96, 27, 27), "conv2": (10, 256, 27, 27), "pool5": (10, 256, 6, 6), "prob": (10, 1000)},
    "vgg16": {"pool1": (10, 64, 112, 112), "pool5": (10, 512, 7, 7), "fc6": (10, 4096)},
    "googlenet": {
        "conv1/7x7_s2": (10, 64, 112, 112),
        "pool2/3x3_s2": (10, 192, 28, 28),
        "inception_3a/output": (10, 256, 28, 28),
        "inception_3b/output": (10, 480, 28, 28),
        "inception_4a/output": (10, 512, 14, 14),
        "inception_4d/output": (10, 528, 14, 14),
        "inception_4e/output": (10, 832, 14, 14),
        "inception_5b/output": (10, 1024, 7, 7),
        "pool5/7x7_s1": (10, 1024, 1, 1),
    },
    "resnet50": {
        "pool1": (1, 64, 56, 56),
        "res2c": (1, 256, 56, 56),
        "res4f": (1, 1024, 14, 14),
        "res5c": (1, 2048, 7, 7),
    },
    "squeezenet": {"fire3/concat": (1, 128, 56, 56), "fire9/concat": (1, 512, 14, 14), "conv10": (1, 1000, 14, 14)},
    "nin": {"cccp2": (1, 96, 54, 54), "pool3": (1, 384, 6, 6), "cccp8": (1, 1000, 6, 6), "prob": (1, 1000, 1, 1)},
    "lenet": {"conv1": (64, 20, 24, 24), "pool2": (64, 50, 4, 4), "prob": (64, 10)},
    "fcn8s": {
        "conv1_1": (1, 64, 698, 698),
        "score_fr": (1, 21, 16, 16),
        "upscore8": (1, 21, 568, 568),
        "score": (1, 21, 500, 500),
    },
    "siamese": {"data_p": (64, 1, 28, 28), "feat": (64, 2), "feat_p": (64, 2)},
    "autoencoder": {"flatdata": (100, 784), "encode4": (100, 30), "decode1neuron": (100, 784)},
    "lrcn_frame": {
        "conv1": (1, 96, 111, 111),
        "pool1": (1, 96, 55, 55),
        "norm2": (1, 384, 13, 13),
        "pool5": (1, 384, 6, 6),
    },
    "lrcn": {"pool5": (160, 384, 6, 6), "fc6-reshape": (16, 10, 4096), "lstm1": (16, 10, 256), "probs": (16, 10, 101)},
    "captioner": {"embedded_input_sentence": (20, 100, 1000), "lstm2": (20, 100, 1000), "probs": (20, 100, 8801)},
}


@pytest.mark.parametrize("name", COUNTS)
def test_full_size_nets_have_the_expected_parameters_and_shapes(name, load):
    with torch.device("meta"):
        net = load(getattr(zoo, name)(train=False))
        train = load(getattr(zoo, name)(train=True, **({"streams": 2} if name == "captioner" else {})), phase="TRAIN")
    assert sum(blob.numel() for blob, _, _ in net.multipliers) == COUNTS[name]
    assert sum(blob.numel() for blob, _, _ in train.multipliers) == TRAINED.get(name, COUNTS[name])
    assert {blob: net.blob_shapes[blob] for blob in SHAPES[name]} == SHAPES[name]


def test_losses_and_their_weights(load):
    google = load(NARROW["googlenet"](train=True), phase="TRAIN")
    assert google.loss_weights == pytest.approx({"loss1/loss1": 0.3, "loss2/loss2": 0.3, "loss3/loss3": 1})
    assert google.outputs == ["loss1/loss1", "loss2/loss2", "loss3/loss3"]
    digits = load(NARROW["autoencoder"](train=True), phase="TRAIN")
    assert digits.loss_weights == {"cross_entropy_loss": 1} and digits.outputs == ["cross_entropy_loss", "l2_error"]
    blobs = digits()
    assert blobs["l2_error"] > 0 and digits.loss(blobs) == blobs["cross_entropy_loss"]


@pytest.mark.parametrize("name", NARROW)
def test_every_blob_has_the_shape_it_was_built_for(name, load):
    net = load(NARROW[name](train=False))
    with torch.no_grad():
        blobs = net(**given(net))
    assert {key: tuple(blob.shape) for key, blob in blobs.items()} == net.blob_shapes
    assert all(blob.isfinite().all() for blob in blobs.values())


# ---- parity with plain PyTorch


def windows(x: Tensor, kernel: int, stride: int, pad: int, value: float) -> tuple[Tensor, Tensor]:
    """The values in each window ``(N, C, h, w, kernel²)``, and its area ``(h, w)`` up to the end of the padding.

    Windows are added until the padded image is covered; a last one that begins behind the image and its first padding
    is dropped, where there is padding.
    """
    counts, sizes = [], []
    for n in x.shape[2:]:
        count = 1
        while (count - 1) * stride + kernel < n + 2 * pad:
            count += 1
        if pad and (count - 1) * stride >= n + pad:
            count -= 1
        counts.append(count)
        sizes.append(torch.tensor([min(i * stride + kernel, n + 2 * pad) - i * stride for i in range(count)]))
    ends = [(count - 1) * stride + kernel - n - pad for count, n in zip(counts, x.shape[2:], strict=True)]
    if min(ends) < 0:
        x = x[:, :, : x.shape[2] + min(0, ends[0]), : x.shape[3] + min(0, ends[1])]
    x = F.pad(x, (pad, max(0, ends[1]), pad, max(0, ends[0])), value=value)
    seen = x.unfold(2, kernel, stride).unfold(3, kernel, stride).flatten(4)
    return seen, sizes[0][:, None] * sizes[1]


def max_pool(x: Tensor, kernel: int, stride: int, pad: int = 0) -> Tensor:
    """Max pooling in which the first of equal values gets the gradient."""
    seen = windows(x, kernel, stride, pad, -torch.inf)[0]
    first = (seen == seen.amax(-1, keepdim=True)).byte().argmax(-1, keepdim=True)
    return seen.gather(-1, first)[..., 0]


def mean_pool(x: Tensor, kernel: int, stride: int, pad: int = 0) -> Tensor:
    seen, area = windows(x, kernel, stride, pad, 0)
    return seen.sum(-1) / area


def lrn(x: Tensor) -> Tensor:
    padded = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    around = sum(padded[:, i : i + x.shape[1]] for i in range(5))
    return x / (1 + 1e-4 / 5 * around) ** 0.75


def lstm(x: Tensor, cont: Tensor, weights: list[Tensor], static: Tensor | None = None) -> Tensor:
    """An LSTM step by step; weights W_xc, b_c, [W_xc_static,] W_hc."""
    wide = weights[-1].shape[1]
    h = c = x.new_zeros(x.shape[1], wide)
    steps = []
    for x_t, cont_t in zip(x, cont, strict=True):
        h, c = h * cont_t[:, None], c * cont_t[:, None]
        gates = x_t @ weights[0].T + weights[1] + h @ weights[-1].T
        if static is not None:
            gates = gates + static @ weights[2].T
        i, f, o, g = (gates[:, k * wide : (k + 1) * wide] for k in range(4))
        c = i.sigmoid() * g.tanh() + f.sigmoid() * c
        h = o.sigmoid() * c.tanh()
        steps.append(h)
    return torch.stack(steps)


def cross_entropy(logits: Tensor, labels: Tensor, ignore: int | None = None) -> Tensor:
    """The mean loss of logits ``(..., classes)`` over labels that are not ignored."""
    labels = labels.long().flatten()
    kept = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
    logits = logits.flatten(0, -2)[kept]
    chosen = logits[torch.arange(len(logits)), labels[kept]]
    return (logits.logsumexp(1) - chosen).mean()


class Plain:
    """A copy of a net's parameters, and the functions that use them."""

    def __init__(self, net: caffe.Net) -> None:
        self.blobs = {name: [b.detach().clone().requires_grad_() for b in blobs] for name, blobs in net.params.items()}

    def conv(self, name: str, x: Tensor, stride: int = 1, pad: int = 0, group: int = 1) -> Tensor:
        return F.conv2d(x, *self.blobs[name], stride=stride, padding=pad, groups=group)

    def unit(self, name: str, x: Tensor, stride: int = 1, pad: int = 0, group: int = 1) -> Tensor:
        return self.conv(name, x, stride, pad, group).clamp(min=0)

    def fc(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.blobs[name]
        return x.flatten(1) @ weight.T + bias

    def normed(self, name: str, x: Tensor, stride: int = 1, pad: int = 0) -> Tensor:
        """Convolution, the batch's own mean and variance, scale."""
        end = name.removeprefix("res") if name != "conv1" else "_conv1"
        x = self.conv(name, x, stride, pad)
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        many = x.numel() / x.shape[1]
        with torch.no_grad():
            self.blobs[f"bn{end}"] = [mean, variance * many / (many - 1), torch.ones(1)]
        gain, bias = self.blobs[f"scale{end}"]
        rate = gain / (variance + 1e-5).sqrt()
        return x * rate[:, None, None] + (bias - mean * rate)[:, None, None]


FLOAT_0_3 = float(torch.tensor(0.3))


def plain_googlenet(plain, blobs):
    x = max_pool(plain.unit("conv1/7x7_s2", blobs["data"], 2, 3), 3, 2)
    x = plain.unit("conv2/3x3", plain.unit("conv2/3x3_reduce", lrn(x)), 1, 1)
    x = max_pool(lrn(x), 3, 2)
    found, loss = {}, 0
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        unit = partial(lambda block, part, x, pad=0: plain.unit(f"inception_{block}/{part}", x, 1, pad), name)
        branches = [
            unit("1x1", x),
            unit("3x3", unit("3x3_reduce", x), 1),
            unit("5x5", unit("5x5_reduce", x), 2),
            unit("pool_proj", max_pool(x, 3, 1, 1)),
        ]
        x = torch.cat(branches, 1)
        found[f"inception_{name}/output"] = x
        if name in ("3b", "4e"):
            x = max_pool(x, 3, 2)
        if name in ("4a", "4d"):
            side = f"loss{1 + (name == '4d')}"
            y = plain.fc(f"{side}/fc", plain.unit(f"{side}/conv", mean_pool(x, 5, 3))).clamp(min=0)
            found[f"{side}/{side}"] = cross_entropy(plain.fc(f"{side}/classifier", y), blobs["label"])
            loss = loss + FLOAT_0_3 * found[f"{side}/{side}"]
    logits = plain.fc("loss3/classifier", mean_pool(x, 7, 1))
    top5 = logits.argsort(1, descending=True)[:, :5] == blobs["label"].long()[:, None]
    found |= {"loss3/loss3": cross_entropy(logits, blobs["label"]), "loss3/top-5": top5.any(1).double().mean()}
    return found, loss + found["loss3/loss3"]


def plain_resnet(plain, blobs):
    x = max_pool(plain.normed("conv1", blobs["data"], 2, 3).clamp(min=0), 3, 2)
    found = {}
    for stage, blocks in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")):
        for block in blocks:
            name, stride = f"res{stage}{block}", 2 if block == "a" and stage > 2 else 1
            short = plain.normed(f"{name}_branch1", x, stride) if block == "a" else x
            y = plain.normed(f"{name}_branch2a", x, stride).clamp(min=0)
            y = plain.normed(f"{name}_branch2b", y, 1, 1).clamp(min=0)
            x = (short + plain.normed(f"{name}_branch2c", y)).clamp(min=0)
            found[name] = x
    found["fc1000"] = plain.fc("fc1000", x.mean((2, 3)))
    return found, cross_entropy(found["fc1000"], blobs["label"])


def plain_squeezenet(plain, blobs):
    x = max_pool(plain.unit("conv1", blobs["data"], 2), 3, 2)
    found = {}
    for i in range(2, 10):
        x = plain.unit(f"fire{i}/squeeze1x1", x)
        x = torch.cat([plain.unit(f"fire{i}/expand1x1", x), plain.unit(f"fire{i}/expand3x3", x, 1, 1)], 1)
        found[f"fire{i}/concat"] = x
        if i in (3, 5):
            x = max_pool(x, 3, 2)
    found["pool10"] = plain.unit("conv10", x).mean((2, 3), keepdim=True)
    return found, cross_entropy(found["pool10"].flatten(1), blobs["label"])


def plain_fcn(plain, blobs):
    x, pools = blobs["data"], {}
    for i, layers in enumerate((2, 2, 3, 3, 3), 1):
        for j in range(1, layers + 1):
            x = plain.unit(f"conv{i}_{j}", x, 1, 100 if (i, j) == (1, 1) else 1)
        x = pools[i] = max_pool(x, 2, 2)
    x = plain.conv("score_fr", plain.unit("fc7", plain.unit("fc6", x)))
    found = {"score_fr": x}

    def up(name: str, x: Tensor, stride: int) -> Tensor:
        """Deconvolution: adds the kernel of every pixel in turn."""
        (weight,) = plain.blobs[name]
        size = weight.shape[-1]
        y = x.new_zeros(*x.shape[:2], *((n - 1) * stride + size for n in x.shape[2:]))
        for r in range(x.shape[2]):
            for c in range(x.shape[3]):
                patch = x[:, :, r, c, None, None] * weight[:, 0]
                where = (c * stride, y.shape[3] - size - c * stride, r * stride, y.shape[2] - size - r * stride)
                y = y + F.pad(patch, where)
        return y

    for i, name, offset in ((4, "upscore2", 5), (3, "upscore_pool4", 9)):
        x = up(name, x, 2)
        score = plain.conv(f"score_pool{i}", pools[i])
        x = x + score[:, :, offset : offset + x.shape[2], offset : offset + x.shape[3]]
        found[f"fuse_pool{i}"] = x
    height, width = blobs["data"].shape[2:]
    x = found["score"] = up("upscore8", x, 8)[:, :, 31 : 31 + height, 31 : 31 + width]
    return found, cross_entropy(x.movedim(1, -1), blobs["label"], 255) * height * width  # not normalised


def plain_siamese(plain, blobs):
    found = {}
    for i, p in enumerate(("", "_p")):
        x = blobs["pair_data"][:, i : i + 1]
        x = max_pool(plain.conv("conv2", max_pool(plain.conv("conv1", x), 2, 2)), 2, 2)
        found[f"feat{p}"] = plain.fc("feat", plain.fc("ip2", plain.fc("ip1", x).clamp(min=0)))
    squared = (found["feat"] - found["feat_p"]).square().sum(1)
    distance = squared.sqrt()
    short = (1 - distance).clamp(min=0)
    slope = -(short / (distance + 1e-4)).detach() * squared  # Caffe's, for the derivative -short / distance
    losses = torch.where(blobs["sim"] >= 1, squared, (short**2).detach() + slope - slope.detach())
    return found, losses.sum() / (2 * len(losses))


def plain_autoencoder(plain, blobs):
    x = target = blobs["data"].flatten(1)
    for name in ("encode1", "encode2", "encode3", "encode4", "decode4", "decode3", "decode2", "decode1"):
        x = plain.fc(name, x)
        if name not in ("encode4", "decode1"):
            x = 1 / (1 + (-x).exp())
    y = x.sigmoid()
    loss = -(target * y.log() + (1 - target) * (1 - y).log()).sum() / len(x)
    return {"decode1": x, "l2_error": (y - target).square().sum() / (2 * len(x))}, loss


def plain_caffenet(plain, x, lrcn=False):
    """Up to fc6, before dropout."""
    strides, pads = ((2, 2), (0, 0)) if lrcn else ((4, 1), (0, 2))
    x = lrn(max_pool(plain.unit("conv1", x, strides[0], pads[0]), 3, 2))
    x = lrn(max_pool(plain.unit("conv2", x, strides[1], pads[1], 2), 3, 2))
    x = plain.unit("conv4", plain.unit("conv3", x, 1, 1), 1, 1, 2)
    return plain.fc("fc6", max_pool(plain.unit("conv5", x, 1, 1, 2), 3, 2)).clamp(min=0)


def plain_lrcn(plain, blobs):
    steps, streams = 3, 2
    x = plain_caffenet(plain, blobs["data"], lrcn=True).view(steps, streams, -1)
    cont = (blobs["clip_markers"] > 0.5).view(steps, streams).double()
    h = lstm(x, cont, plain.blobs["lstm1"])
    logits = h @ plain.blobs["fc8-final"][0].T + plain.blobs["fc8-final"][1]
    right = logits.argmax(2).flatten() == blobs["label"].long()
    return {"lstm1": h, "fc8-final": logits, "accuracy": right.double().mean()}, cross_entropy(logits, blobs["label"])


def plain_captioner(plain, blobs):
    image = plain.fc("fc8", plain.fc("fc7", plain_caffenet(plain, blobs["data"])).clamp(min=0))
    cont = (blobs["cont_values"] > 0.5).double()
    input_words, target_words = (blobs[f"{which}_values"].argmax(2) for which in ("input", "target"))
    x = plain.blobs["embedding"][0][input_words]
    h = lstm(lstm(x, cont, plain.blobs["lstm1"]), cont, plain.blobs["lstm2"], image)
    logits = h @ plain.blobs["predict"][0].T + plain.blobs["predict"][1]
    labels = target_words - 1
    right = (logits.argmax(2) == labels)[labels != -1].double().mean()
    loss = cross_entropy(logits, labels, -1)
    return {"lstm2": h, "cross_entropy_loss": loss, "accuracy": right}, 20 * loss


PLAIN = {
    "googlenet": (plain_googlenet, "TEST"),
    "resnet50": (plain_resnet, "TRAIN"),
    "squeezenet": (plain_squeezenet, "TEST"),
    "fcn8s": (plain_fcn, "TEST"),
    "siamese": (plain_siamese, "TEST"),
    "autoencoder": (plain_autoencoder, "TEST"),
    "lrcn": (plain_lrcn, "TEST"),
    "captioner": (plain_captioner, "TEST"),
}
"""With dropout, in the TEST phase, which has the losses too."""


@pytest.mark.parametrize("name", PLAIN)
def test_outputs_and_gradients_equal_plain_pytorch(name, load):
    function, phase = PLAIN[name]
    net = load(NARROW[name](train=True), phase=phase).double()
    for blobs in net.params.values():
        for blob in blobs:
            if blob.requires_grad and blob.dim() == 1:  # so that biases and gains are not all equal
                blob.data.add_(torch.randn_like(blob), alpha=0.1)
    plain = Plain(net)
    blobs = net()
    loss = net.loss(blobs)
    loss.backward()
    found, expected = function(plain, {key: blob.detach() for key, blob in blobs.items()})
    expected.backward()
    close(loss, expected, "loss")
    for key, value in found.items():
        close(blobs[key], value, key)
    compared = set()
    largest = max(float(blob.grad.abs().max()) for blob in net.parameters() if blob.grad is not None)
    for layer, mine in net.params.items():
        for j, (blob, other) in enumerate(zip(mine, plain.blobs[layer], strict=True)):
            if not other.requires_grad:
                close(blob, other, f"{layer} {j}")  # what BatchNorm gathered
            elif blob.requires_grad and other.grad is not None:
                compared.add(id(blob))
                close(blob.grad, other.grad, f"gradient of {layer} {j}", 1e-4 * largest)
    assert compared == {id(blob) for blob, lr, _ in net.multipliers if lr}


def close(got: Tensor, want: Tensor, what: str, least: float = 1e-12) -> None:
    """Asserts equality to 1e-9 of the largest value, or of ``least`` for values that cancel."""
    assert got.shape == want.shape, f"{what}: {tuple(got.shape)}, expected {tuple(want.shape)}"
    got, want = got.detach(), want.detach()
    error = float((got - want).abs().max()) / max(float(want.abs().max()), least)
    assert error <= 1e-9, f"{what}: off by {error:.1e} of the largest value"


def test_a_deconvolution_with_the_bilinear_filler_interpolates(load):
    net = Prototxt("up")
    x = net.inputs(data=(1, 3, 5, 6))
    window = {"num_output": 3, "group": 3, "kernel_size": 4, "stride": 2, "pad": 1, "bias_term": False}
    param = {**window, "weight_filler": {"type": "bilinear"}}
    net.layer("Deconvolution", "up", x, convolution_param=param)
    x = torch.randn(1, 3, 5, 6)
    y = load(net)(data=x)["up"]
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(y[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-6)  # at the edges zeros are beyond


def test_batch_norm_in_deployment_divides_its_sums(load):
    net = load(NARROW["resnet50"](train=False))
    blobs = net(data=torch.randn(2, 3, 64, 64))
    mean, variance, weight = net.params["bn2a_branch2b"]
    gain, bias = net.params["scale2a_branch2b"]
    x = F.conv2d(blobs["res2a_branch2a"], *net.params["res2a_branch2b"], padding=1)
    x = F.batch_norm(x, mean / weight, variance / weight, gain, bias, eps=1e-5).clamp(min=0)
    assert torch.allclose(blobs["res2a_branch2b"], x, atol=1e-5)


def test_captions_word_by_word_are_the_captions_of_one_pass(load):
    net = load(NARROW["captioner"](train=False))
    values = given(net)
    values["cont_sentence"][0] = 0
    with torch.no_grad():
        whole = net(**values)["probs"]
        net.reset_state()
        steps = [
            net(
                cont_sentence=values["cont_sentence"][t : t + 1],
                input_sentence=values["input_sentence"][t : t + 1],
                image_features=values["image_features"],
            )["probs"]
            for t in range(len(whole))
        ]
    assert torch.allclose(torch.cat(steps), whole, atol=1e-6)


# ---- files


@pytest.mark.parametrize("name", NARROW)
def test_a_net_survives_saving_and_loading(name, load, tmp_path):
    net = load(NARROW[name](train=False))
    values = given(net)
    weights, definition, second = (tmp_path / end for end in ("a.caffemodel", "a.prototxt", "b.caffemodel"))
    caffe.save_net(net, weights)
    caffe.save_net(net, definition)
    again = caffe.load_net(definition, weights)
    alone = caffe.load_net(weights)
    caffe.save_net(again, second)
    assert second.read_bytes() == weights.read_bytes()
    caffe.save_net(alone, second)
    caffe.save_net(caffe.load_net(second), tmp_path / "c.caffemodel")
    assert (tmp_path / "c.caffemodel").read_bytes() == second.read_bytes()
    assert again.message == net.message and list(again.params) == list(net.params)
    assert [(lr, decay) for _, lr, decay in again.multipliers] == [(lr, decay) for _, lr, decay in net.multipliers]
    with torch.no_grad():
        blobs = net(**values)
        for other in (again, alone):
            theirs = other(**values)
            assert all(torch.equal(blobs[output], theirs[output]) for output in net.outputs)


@pytest.mark.parametrize("name", NARROW)
def test_a_saved_train_net_is_a_definition_too(name, load, tmp_path):
    net = load(NARROW[name](train=True))
    caffe.save_net(net, tmp_path / "a.caffemodel")
    torch.manual_seed(0)  # which the data are drawn by
    again = caffe.load_net(tmp_path / "a.caffemodel")
    with torch.no_grad():
        blobs, theirs = net(), again()
        assert net.loss(blobs) > 0 and torch.equal(net.loss(blobs), again.loss(theirs))
    assert all(torch.equal(blobs[output], theirs[output]) for output in net.outputs)
    mine, others = ([(tuple(b.shape), *rest) for b, *rest in n.multipliers] for n in (net, again))
    assert mine == others


@pytest.mark.parametrize("name", ["googlenet", "siamese", "resnet50"])
def test_a_net_survives_hdf5(name, load, tmp_path):
    pytest.importorskip("h5py")
    net = load(NARROW[name](train=False))
    caffe.save_net(net, tmp_path / "a.caffemodel.h5")
    torch.manual_seed(1)
    again = caffe.load_net(tmp_path / "net.prototxt", tmp_path / "a.caffemodel.h5")
    for layer, blobs in net.params.items():
        assert all(torch.equal(a, b) for a, b in zip(blobs, again.params[layer], strict=True)), layer


@pytest.mark.parametrize("flavour", ["bvlc", "lisa"])
@pytest.mark.parametrize(
    "net",
    [
        zoo.alexnet(),
        zoo.caffenet(train=True),
        zoo.caffenet_train_val(),
        zoo.googlenet(train=True),
        zoo.lenet(),
        zoo.siamese(),
        zoo.autoencoder(),
    ],
    ids=lambda net: net.name,
)
def test_a_v1_prototxt_gives_the_same_net(net, flavour, tmp_path):
    new, old = tmp_path / "new.prototxt", tmp_path / "old.prototxt"
    new.write_text(str(net))
    old.write_text(net.v1())
    assert "layers {" in old.read_text() and "param {" not in old.read_text().replace("_param {", "")
    assert caffe.read_net(old, flavour) == caffe.read_net(new, flavour)


def test_a_v1_net_has_the_same_outputs(load):
    net = NARROW["caffenet"](train=False)
    values = {"data": torch.randn(2, 3, 227, 227)}
    with torch.no_grad():
        probs = [load(text)(**values)["prob"] for text in (str(net), net.v1())]
    assert torch.equal(*probs)


# ---- rules of layers


@pytest.mark.parametrize(
    "rules, there",
    [
        ("", "all"),
        ("include { phase: TRAIN }", "train train-a train2"),
        ("include { phase: TEST }", "test test-ab test-2"),
        ("exclude { phase: TRAIN }", "test test-ab test-2"),
        ("include { min_level: 1 }", "train2"),
        ("include { max_level: 0 }", "train train-a test test-ab test-2"),
        ("include { min_level: -3 max_level: -1 }", "test-2"),
        ('include { stage: "a" }', "train-a test-ab"),
        ('include { stage: "a" stage: "b" }', "test-ab"),
        ('include { stage: "a" not_stage: "b" }', "train-a"),
        ('include { phase: TEST not_stage: "b" }', "test test-2"),
        ('include { phase: TRAIN } include { stage: "b" }', "train train-a train2 test-ab"),
        ('exclude { phase: TRAIN } exclude { stage: "b" }', "test test-2"),
        ('exclude { phase: TRAIN stage: "a" }', "train train2 test test-ab test-2"),
        ("exclude { }", ""),
    ],
)
def test_include_and_exclude_rules(rules, there, load):
    states = {
        "train": {"phase": "TRAIN"},
        "train-a": {"phase": "TRAIN", "stages": ["a"]},
        "train2": {"phase": "TRAIN", "level": 2},
        "test": {},
        "test-ab": {"stages": ["b", "a"]},
        "test-2": {"level": -2},
    }
    prototxt = (
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 } } }'
        f'layer {{ name: "power" type: "Power" bottom: "data" top: "power" {rules} }}'
    )
    found = [name for name, state in states.items() if "power" in load(prototxt, **state).blob_shapes]
    assert found == (list(states) if there == "all" else there.split())


def test_one_prototxt_for_training_testing_and_deployment(load):
    net = Prototxt("LeNet")
    deploy = {"stage": "deploy"}
    net.dummy("train", ("data", (4, 1, 28, 28), 0), ("label", (4,), 9.9), include=zoo.TRAIN)
    test = {**zoo.TEST, "not_stage": "deploy"}
    net.dummy("test", ("data", (3, 1, 28, 28), 0), ("label", (3,), 9.9), include=test)
    shape = {"shape": {"dim": [1, 1, 28, 28]}}
    net.layer("Input", "deploy", [], "data", input_param=shape, include=deploy)
    x = net.fc("ip", "data", 10)
    net.layer("SoftmaxWithLoss", "loss", [x, "label"], exclude=deploy)
    net.layer("Accuracy", "accuracy", [x, "label"], include=test)
    net.layer("Softmax", "prob", x, include=deploy)
    assert load(net, phase="TRAIN").outputs == ["loss"]
    assert load(net).outputs == ["accuracy", "loss"]
    assert load(net).blob_shapes["ip"] == (3, 10)
    assert load(net, stages=["deploy"]).outputs == ["prob"]
    assert load(text({"state": deploy}) + str(net)).outputs == ["prob"]


# ---- parameters by name


def two_products(net: Prototxt, second: dict, **spec: object) -> Prototxt:
    x = net.inputs(data=(3, 6))
    plain = {"num_output": 4, "bias_term": False, "weight_filler": {"type": "xavier"}}
    net.layer("InnerProduct", "one", x, param=[{"name": "w"}], inner_product_param=plain)
    param = {**plain, **second}
    net.layer("InnerProduct", "two", "one", param=[{"name": "w", **spec}], inner_product_param=param)
    return net


def test_siamese_branches_have_one_set_of_parameters(load):
    net = load(NARROW["siamese"](train=True, similar=2.5), phase="TRAIN")
    assert len(net.multipliers) == 10 and [lr for _, lr, _ in net.multipliers] == [1, 2] * 5
    assert all(a is b for a, b in zip(net.params["conv1"], net.params["conv1_p"], strict=True))
    with torch.no_grad():
        net.params["feat"][1].fill_(7)
    assert (net.params["feat_p"][1] == 7).all()


def test_permissive_sharing_reshapes_a_parameter(load, tmp_path):
    prototxt = two_products(Prototxt("turned"), {"num_output": 6}, share_mode="PERMISSIVE")
    net = load(prototxt)
    x = torch.randn(3, 6)
    weight = net.params["one"][0].detach().clone().requires_grad_()
    expected = x @ weight.T @ weight.view(6, 4).T
    y = net(data=x)["two"]
    y.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(y, expected, atol=1e-6)
    assert torch.allclose(net.params["one"][0].grad, weight.grad, rtol=1e-5, atol=1e-5)
    caffe.save_net(net, tmp_path / "a.caffemodel")
    again = caffe.load_net(tmp_path / "net.prototxt", tmp_path / "a.caffemodel")
    assert again.params["two"][0].shape == (6, 4) and torch.equal(again(data=x)["two"], y)
    with pytest.raises(CaffeFormatError, match=r'layer "two" .*"w".*\(4, 6\).*\(6, 4\)'):
        load(two_products(Prototxt("strict"), {"num_output": 6}))
    with pytest.raises(CaffeFormatError, match='layer "two"'):
        load(two_products(Prototxt("too many"), {"num_output": 5}, share_mode="PERMISSIVE"))


def test_a_shared_matrix_may_be_transposed(load):
    net = load(two_products(Prototxt("tied"), {"num_output": 6, "transpose": True}))
    x, weight = torch.randn(3, 6), net.params["one"][0]
    assert torch.allclose(net(data=x)["two"], x @ weight.T @ weight, atol=1e-6)


def test_learning_rates_of_shared_parameters(load, tmp_path):
    prototxt = two_products(Prototxt("tied"), {"num_output": 6, "transpose": True}, lr_mult=3)
    net = load(prototxt)
    assert [(lr, decay) for _, lr, decay in net.multipliers] == [(3, 1)]
    prototxt.layers[1]["param"] = [{"name": "w", "lr_mult": 2}]
    with pytest.raises(CaffeFormatError, match=r'"w".*lr_mult 3.* 2'):
        load(prototxt)
    caffe.save_net(net, tmp_path / "a.prototxt")
    saved = caffe.read_net(tmp_path / "a.prototxt")
    assert not saved.layer[1].param[0].HasField("lr_mult") and saved.layer[2].param[0].lr_mult == 3


# ---- sizes that differ from the prototxt


@pytest.mark.parametrize(
    "name",
    ["alexnet", "vgg16", "googlenet", "resnet50", "squeezenet", "nin", "lenet", "fcn8s", "siamese", "lrcn_frame"],
)
def test_any_number_of_images(name, load):
    net = load(NARROW[name](train=False))
    (key,) = net.inputs
    images = torch.randn(3, *net.blob_shapes[key][1:])
    with torch.no_grad():
        together = net(**{key: images})
        one_by_one = [net(**{key: image[None]}) for image in images]
    for output in net.outputs:
        alone = torch.cat([blobs[output] for blobs in one_by_one])
        assert torch.allclose(together[output], alone, rtol=1e-4, atol=1e-5)


def test_any_number_of_steps_and_streams(load):
    net = load(NARROW["captioner"](train=False))
    blobs = net(cont_sentence=torch.ones(7, 3), input_sentence=torch.ones(7, 3), image_features=torch.randn(3, 12))
    assert blobs["probs"].shape == (7, 3, 31)
    clips = NARROW["lrcn"](train=False)
    frames = {"data": torch.randn(15, 3, 99, 99), "clip_markers": torch.ones(15, 1, 1, 1)}
    with pytest.raises(CaffeFormatError, match=r'layer "fc6-reshape" \(Reshape\): shape \[3, 2, 256\]'):
        load(clips)(**frames)
    for layer in clips.layers:
        if layer["type"] == "Reshape":
            layer["reshape_param"]["shape"]["dim"][1] = -1  # as many streams as there are
    assert load(clips)(**frames)["probs"].shape == (3, 5, 7)


def test_images_of_another_size(load):
    net = load(NARROW["fcn8s"](train=False))
    assert net(data=torch.randn(1, 3, 40, 51))["score"].shape == (1, 5, 40, 51)
    net = load(NARROW["squeezenet"](train=False))
    assert net(data=torch.randn(1, 3, 99, 75))["prob"].shape == (1, 10, 1, 1)
    net = load(NARROW["vgg16"](train=False))
    with pytest.raises(CaffeFormatError, match=r'layer "fc6" .* 128 '):
        net(data=torch.randn(1, 3, 96, 96))


# ---- training


@pytest.mark.parametrize("name", NARROW)
def test_a_solvers_step_reaches_every_parameter(name, tmp_path):
    (tmp_path / "net.prototxt").write_text(str(NARROW[name](train=True)))
    solver = tmp_path / "solver.prototxt"
    tested = {"test_iter": 1, "test_interval": 1}
    schedule = {"lr_policy": "fixed", "base_lr": 0.1, "momentum": 0.9, "random_seed": 3, **tested}
    solver.write_text(text({"net": "net.prototxt", **schedule}))
    lines: list[str] = []
    trainer = caffe.load_solver(solver, log=lines.append)
    before = [(blob, lr, blob.detach().clone()) for blob, lr, _ in trainer.net.multipliers]
    names = {id(blob): f"{layer} {j}" for layer, blobs in trainer.net.params.items() for j, blob in enumerate(blobs)}
    trainer.step(1)
    norms = [layer.blobs for _, layer in trainer.net.sequence if layer.statistics]
    gathered = {id(blob) for blobs in norms for blob in blobs}
    for blob, lr, was in before:
        assert blob.isfinite().all(), names[id(blob)]
        if name == "siamese" and names[id(blob)] in ("ip2_p 1", "feat_p 1"):
            continue  # these biases cancel in the difference between the branches
        assert torch.equal(blob, was) == (lr == 0 and id(blob) not in gathered), names[id(blob)]
    assert any("Testing net (#0)" in line for line in lines)
    (test,) = trainer.test_nets
    for layer, blobs in trainer.net.params.items():
        assert all(a.data_ptr() == b.data_ptr() for a, b in zip(blobs, test.params[layer], strict=True)), layer
