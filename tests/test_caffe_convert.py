"""Conversion between LRCN-shaped Caffe nets and classifiers: equal logits, equal weights, usable run folders."""

from functools import partial
from pathlib import Path

import pytest
import torch
from caffe_golden import Case, close
from torch import nn

import seqclf
from seqclf import caffe
from seqclf.models import Chain, ChannelScale, LocalResponseNorm
from seqclf.runs.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def mini(tmp_path, monkeypatch):
    case = Case("mini_lrcn", tmp_path)
    monkeypatch.chdir(tmp_path)
    case.frames = torch.from_numpy(case.arrays["data_i16"]).float().view(4, 2, 3, 67, 67).transpose(0, 1)  # B = N = 2
    case.is_first = torch.from_numpy(case.arrays["cm"]).view(4, 2).t() == 0
    return case


@pytest.mark.parametrize("prototxt", ["deploy.prototxt", "deploy_input_layers.prototxt", "train_val_drop.prototxt"])
def test_a_converted_net_has_the_same_logits_batch_first(mini, prototxt):
    net = caffe.load_net(prototxt, "init.caffemodel")
    model = caffe.to_classifier(net)
    logits, _ = model(mini.frames, mini.is_first)
    close(logits.transpose(0, 1), mini.arrays["forward.fc8-final"], "logits")
    assert isinstance(model, seqclf.FrameSequenceClassifier) and not model.training
    if prototxt == "train_val_drop.prototxt":
        assert model.temporal.dropout_after == 0.5 and model.encoder.drop6.p == 0.5


def test_converting_to_a_classifier_and_back_gives_the_same_net(mini, tmp_path):
    net = caffe.load_net("deploy.prototxt", "init.caffemodel")
    again = caffe.from_classifier(caffe.to_classifier(net), 4, 2, name="again", lstm="lstm1", head="fc8-final")
    assert list(again.params) == list(net.params)
    for name, blobs in net.params.items():
        assert all(torch.equal(a, b) for a, b in zip(blobs, again.params[name], strict=True)), name
    data = torch.from_numpy(mini.arrays["data_i16"]).float()
    cm = torch.from_numpy(mini.arrays["cm"]).float()
    with torch.no_grad():
        blobs, theirs = again(data=data, cm=cm), net(data=data, cm=cm.view(8, 1, 1, 1))
    assert torch.equal(blobs["probs"], theirs["probs"])
    for name in ("conv1", "norm1", "pool5", "fc6", "lstm1", "fc8-final"):
        assert torch.equal(blobs[name], theirs[name]), name

    caffe.save_net(again, tmp_path / "again.prototxt")
    caffe.save_net(again, tmp_path / "again.caffemodel")
    read = caffe.load_net(tmp_path / "again.prototxt", tmp_path / "again.caffemodel")
    with torch.no_grad():
        assert torch.equal(read(data=data, cm=cm)["probs"], blobs["probs"])


def test_the_classifiers_state_equals_the_nets_state(mini):
    net = caffe.load_net("deploy.prototxt", "init.caffemodel")
    model = caffe.to_classifier(net)
    _, state = model(mini.frames, mini.is_first)
    logits, _ = model(mini.frames, None, state)
    close(logits.softmax(-1).transpose(0, 1), mini.arrays["forward_again_cm1.probs"], "second call")


def test_raw_frames_are_preprocessed_as_in_lrcn(mini):
    net = caffe.load_net("deploy.prototxt", "init.caffemodel")
    mean = [103.939, 116.779, 128.68]
    model = caffe.to_classifier(net, mean=mean)
    rgb = torch.randint(0, 256, (1, 4, 3, 67, 67), dtype=torch.uint8)
    plain = caffe.to_classifier(net)
    data = rgb.flip(2).float() - torch.tensor(mean).view(3, 1, 1)
    assert torch.allclose(model(rgb)[0], plain(data)[0], atol=1e-5)
    assert torch.allclose(model(rgb.float() / 255)[0], plain(data)[0], atol=1e-5)


@pytest.mark.slow
def test_a_converted_run_can_be_evaluated_and_fine_tuned(tmp_path, monkeypatch, tool):
    case = Case("mnist_like_clip", tmp_path)
    monkeypatch.chdir(tmp_path)
    net = caffe.load_net("test.prototxt")
    with torch.no_grad():
        for key, value in case.part("end.").items():
            layer, _, j = key.rpartition(".")
            net.params[layer][int(j)].copy_(torch.from_numpy(value))
    experiment = seqclf.load_experiment(ROOT / "configs/mnist_lastframe.py", ["data.source=digits"])
    caffe.write_run(net, "run", experiment)
    predictor = seqclf.load("run")
    for image, want in zip(case.arrays["test_u8"][:16], case.arrays["test_prob_last_step"][:16], strict=True):
        close(predictor(image).probabilities[-1], want, "probabilities", 1e-4)
    settings = ["data.source=digits", "steps=2", "model.temporal.layers=1"]
    for command in (
        ["evaluate", "run"],
        ["train", "--config", "mnist_lastframe", "--init", "run", "--workdir", "tuned", *settings],
    ):
        code, _, error = tool(*command)
        assert code == 0, error
    assert "temporal.weight_ih_l0" in load_checkpoint(tmp_path / "tuned/checkpoints/step_2.pt")["model"]


@pytest.mark.slow
def test_a_converted_run_without_data_predicts_and_refuses_evaluation(mini, tool):
    net = caffe.load_net("deploy.prototxt", "init.caffemodel")
    caffe.write_run(net, "run", classes=["a", "b", "c", "d", "e"], mean=[103.939, 116.779, 128.68])
    prediction = seqclf.load("run")(torch.randint(0, 256, (5, 3, 67, 67), dtype=torch.uint8))
    assert prediction.probabilities.shape == (5, 5) and prediction.label()[0] in "abcde"
    code, _, error = tool("evaluate", "run")
    assert code == 2 and "deploy.prototxt" in error
    with pytest.raises(seqclf.SeqclfError, match="run"):
        caffe.write_run(net, "run")


@pytest.mark.parametrize("layers", [1, 2])
def test_every_supported_module_converts_both_ways(layers):
    torch.manual_seed(0)
    parts = {
        "conv": partial(nn.Conv2d, 3, 8, (5, 3), stride=(2, 1), padding=(2, 1), groups=1, bias=False),
        "bn": partial(nn.BatchNorm2d, 8, affine=False),
        "scale": partial(ChannelScale, 8),
        "relu": partial(nn.LeakyReLU, 0.1),
        "norm": partial(LocalResponseNorm, 3, 0.5, 0.75),
        "pool": partial(nn.AvgPool2d, 3, stride=2, padding=1, ceil_mode=True),
        "conv2": partial(nn.Conv2d, 8, 6, 3, dilation=2, groups=2),
        "pool2": partial(nn.MaxPool2d, 2, stride=2),
        "flat": nn.Flatten,
        "fc": partial(nn.Linear, 6 * 2 * 6, 10),
        "tanh": nn.Tanh,
    }
    model = seqclf.FrameSequenceClassifier(
        encoder=partial(Chain, parts=parts),
        temporal=partial(seqclf.LSTM, hidden=7, layers=layers, dropout=0.25, dropout_after=0.5),
        frame_shape=(3, 30, 31),
        num_classes=4,
    )
    with torch.no_grad():
        model.encoder.bn.running_mean.normal_()
        model.encoder.bn.running_var.uniform_(0.5, 2)
    model.eval()
    net = caffe.from_classifier(model, frames=5, streams=2)
    frames = torch.randn(2, 5, 3, 30, 31)
    is_first = torch.zeros(2, 5, dtype=torch.bool)
    is_first[:, 0] = is_first[1, 3] = True
    with torch.no_grad():
        logits, _ = model(frames, is_first)
        blobs = net(data=frames.transpose(0, 1).flatten(0, 1), cm=(~is_first).t().flatten().float())
        assert torch.allclose(blobs["fc-final"].transpose(0, 1), logits, atol=1e-5)
        assert torch.allclose(blobs["probs"].transpose(0, 1), logits.softmax(-1), atol=1e-5)
        back = caffe.to_classifier(net)
        assert torch.allclose(back(frames, is_first)[0], logits, atol=1e-5)
    assert back.temporal.num_layers == layers and back.temporal.dropout_after == 0.5


@pytest.mark.parametrize("option", ["bidirectional", "residual", "layer_norm", "projection"])
def test_an_lstm_with_an_option_that_caffe_lacks_is_refused(option):
    temporal = partial(seqclf.LSTM, hidden=4, layers=2, **{option: True})
    model = seqclf.FrameSequenceClassifier(temporal=temporal, frame_shape=(3,), num_classes=2)
    with pytest.raises(caffe.CaffeFormatError, match=f"{option}=True"):
        caffe.from_classifier(model, frames=3, streams=2)


def test_a_classifier_without_lstm_converts_to_a_net_without_markers():
    model = seqclf.FrameSequenceClassifier(
        encoder=partial(Chain, parts={"conv": partial(nn.Conv2d, 1, 4, 3), "relu": nn.ReLU, "flat": nn.Flatten}),
        frame_shape=(1, 8, 8),
        num_classes=3,
    ).eval()
    net = caffe.from_classifier(model, frames=3, streams=2)
    assert net.inputs == ["data"]
    frames = torch.randn(2, 3, 1, 8, 8)
    with torch.no_grad():
        got = net(data=frames.transpose(0, 1).flatten(0, 1))["fc-final"].transpose(0, 1)
        assert torch.allclose(got, model(frames)[0], atol=1e-6)


def test_nets_saved_for_lisa_caffe_have_no_fields_that_it_lacks(tmp_path):
    model = seqclf.FrameSequenceClassifier(
        encoder=partial(Chain, parts={"conv": partial(nn.Conv2d, 1, 4, (3, 2)), "flat": nn.Flatten}),
        temporal=partial(seqclf.LSTM, hidden=3),
        frame_shape=(1, 8, 8),
        num_classes=3,
    )
    net = caffe.from_classifier(model, frames=3, streams=2, flavour="lisa")
    caffe.save_net(net, tmp_path / "net.prototxt")
    text = (tmp_path / "net.prototxt").read_text()
    assert "Input" not in text and 'input: "data"' in text and "input_shape" in text
    assert "dilation" not in text and "kernel_h: 3" in text
    again = caffe.load_net(tmp_path / "net.prototxt", flavour="lisa")
    assert again.message == net.message and again.blob_shapes == net.blob_shapes


def test_a_log_layer_is_an_error_in_lisa_caffe(tmp_path):
    text = 'input: "x" input_shape { dim: 2 } layer { name: "l" type: "Log" bottom: "x" top: "y" }'
    (tmp_path / "net.prototxt").write_text(text)
    assert caffe.load_net(tmp_path / "net.prototxt").blob_shapes["y"] == (2,)
    with pytest.raises(caffe.CaffeFormatError, match="lisa"):
        caffe.load_net(tmp_path / "net.prototxt", flavour="lisa")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("recurrent_param { num_output: 12", "recurrent_param { expose_hidden: true num_output: 12", '"lstm1"'),
        ('type: "Softmax"', 'type: "Sigmoid"', None),
        ("pool: MAX", "pool: STOCHASTIC", '"pool1"'),
        ("local_size: 5", "norm_region: WITHIN_CHANNEL local_size: 5", '"norm1"'),
        ('type: "LSTM"', 'type: "RNN"', '"lstm1"'),
        ('type: "ReLU"', 'type: "AbsVal"', '"relu1" .AbsVal.'),
    ],
)
def test_nets_of_another_shape_are_refused_by_layer(mini, old, new, part):
    text = (mini.folder / "deploy.prototxt").read_text()
    assert old in text
    (mini.folder / "other.prototxt").write_text(text.replace(old, new))
    if part is None:
        assert caffe.to_classifier(caffe.load_net("other.prototxt")).head.out_features == 5
        return
    with pytest.raises(caffe.CaffeFormatError, match=part):
        caffe.to_classifier(caffe.load_net("other.prototxt"))


@pytest.mark.parametrize(
    ("parts", "part"),
    [
        ({"temporal": partial(seqclf.GRU, hidden=3)}, "temporal: a GRU"),
        ({"head": lambda h, k: nn.Sequential(nn.Linear(h, k))}, "head: a Sequential"),
        ({"encoder": partial(Chain, parts={"gelu": nn.GELU, "flat": nn.Flatten})}, "encoder.gelu: a GELU"),
    ],
)
def test_unsupported_classifiers_are_refused_by_part(parts, part):
    model = seqclf.FrameSequenceClassifier(**parts, frame_shape=(3, 4, 4), num_classes=2)
    with pytest.raises(caffe.CaffeFormatError, match=part):
        caffe.from_classifier(model)
