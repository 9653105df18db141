"""The configs of real video: each loads, can be written and trains on small generated data; LRCN equals Caffe's net."""

import importlib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from test_law_predict import hold
from torch import nn

import seqclf
from seqclf import SeqclfError, caffe
from seqclf.data.transforms import center_crop, resize
from seqclf.experiment.config import build_model
from seqclf.experiment.loading import load_experiment
from seqclf.experiment.rendering import render, save_experiment
from seqclf.models.backbone import Backbone
from seqclf.runs.checkpoint import start_from
from seqclf.training.loop import train

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
LRCN = ("lrcn_single_frame", "lrcn_rgb", "lrcn_flow")
NAMES = (*LRCN, "resnet_lstm", "features_lstm")
CLASSES = ("Archery", "Biking", "Diving")
SHORT = ("steps=2", "batch_size=2", "eval_batch=4", "log_every=1", "seed=0")


def load(name, *overrides):
    return load_experiment(CONFIGS / f"{name}.py", overrides)


def narrow(experiment, fully=16, channels=(4, 8, 8, 8, 4)):
    """LRCN with few channels, built by the function of the config."""
    home = sys.modules.get("lrcn_single_frame") or sys.modules["_config_lrcn_single_frame"]
    parts = experiment.model.keywords["encoder"].keywords["parts"]
    layers = sum(name.startswith("fc") for name in parts)
    encoder = home.encoder([fully] * layers, parts["drop6"].args[0], channels)
    return replace(experiment, model=partial(experiment.model, encoder=encoder))


def write_frames(root, size, frames):
    """Two videos of each class to train on and one to test, and their lists in LRCN's form."""
    generator = np.random.default_rng(0)
    lists = {"train": [], "test": []}
    for label, name in enumerate(CLASSES):
        for group in (1, 2, 3):
            video = f"v_{name}_g{group:02d}_c01"
            (root / video).mkdir(parents=True)
            for i in range(1, frames + 1):
                picture = generator.integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(picture).save(root / video / f"{video}.{i:04d}.jpg")
            lists["train" if group < 3 else "test"].append(f"{name}/{video} {label}\n")
    for part, lines in lists.items():
        (root / f"{part}.txt").write_text("".join(lines))
    return (f"data.root={root}", "data.train=train.txt", "data.test=test.txt")


@pytest.fixture(scope="module")
def ucf(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("ucf"), (240, 320), 3)


@pytest.fixture(scope="module")
def small_videos(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("small"), (64, 64), 5)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    for folder in ("features", "groundTruth", "splits"):
        (root / folder).mkdir()
    (root / "mapping.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(CLASSES)))
    for i, frames in enumerate((30, 45, 37)):
        np.save(root / f"features/v{i}.npy", np.random.default_rng(i).normal(size=(6, frames)).astype(np.float32))
        labels = "".join(f"{CLASSES[t * 3 // frames]}\n" for t in range(frames))
        (root / f"groundTruth/v{i}.txt").write_text(labels)
    (root / "splits/train.split1.bundle").write_text("v0.txt\nv1.txt\n")
    (root / "splits/test.split1.bundle").write_text("v2.txt\n")
    return (f"data.root={root}",)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_written_config_gives_the_same_experiment(name, tmp_path):
    experiment = load(name)
    save_experiment(experiment, tmp_path)
    assert render(load_experiment(tmp_path / "config.py")) == render(experiment)


@pytest.mark.slow
@pytest.mark.parametrize("name", LRCN)
def test_lrcn_trains(name, ucf, tmp_path):
    experiment = narrow(load(name, *SHORT, *ucf))
    results = train(experiment, tmp_path / "run", "cpu")
    assert results["step"] == 2 and results["parts"]["test"]["clips"] == (6 if "single" in name else 3)


@pytest.mark.slow
def test_resnet_trains_except_its_frozen_layers(small_videos, tmp_path):
    overrides = (*SHORT, *small_videos, "data.transform=none", "data.test_transform=none", "data.sampling.frames=3")
    overrides += (
        "model.encoder.weights=none",
        "model.encoder.frozen=layer3",
        "model.chunk=4",
        "model.temporal.hidden=8",
    )
    experiment = load("resnet_lstm", *overrides)
    train(experiment, tmp_path / "run", "cpu")
    (path,) = (tmp_path / "run/checkpoints").glob("*2.pt")
    after = torch.load(path, weights_only=True)["model"]
    before = build_model(experiment, experiment.data()).state_dict()
    still = {key for key, value in before.items() if torch.equal(value, after[key])}
    assert {key for key in before if key.startswith("encoder.net.") and ".layer4." not in key} <= still
    assert not [key for key in still if key.startswith(("encoder.net.layer4", "temporal.w", "head"))]


def test_a_run_loads_without_its_initial_weights(small_videos, tmp_path):
    torch.save(Backbone((3, 64, 64), "shufflenet_v2_x0_5").net.state_dict(), tmp_path / "net.pth")
    overrides = (*SHORT, "steps=1", *small_videos, "data.transform=none", "data.test_transform=none")
    overrides += ("model.encoder.name=shufflenet_v2_x0_5", f"model.encoder.weights={tmp_path / 'net.pth'}")
    train(load("resnet_lstm", *overrides), tmp_path / "run", "cpu")
    (tmp_path / "net.pth").unlink()
    predictor = seqclf.load(tmp_path / "run")
    trained = torch.load(tmp_path / "run/checkpoints/step_1.pt")["model"]
    assert torch.equal(predictor.model.encoder.net.conv5[0].weight, trained["encoder.net.conv5.0.weight"])


def test_features_train_in_windows(features, tmp_path):
    experiment = load("features_lstm", *SHORT, *features, "truncate=16", "model.temporal.hidden=8")
    results = train(experiment, tmp_path / "run", "cpu")
    assert results["parts"]["test"]["frames"] == 37


def test_the_rates_of_layers_reach_the_optimizer():
    experiment = narrow(load("lrcn_rgb"))
    model = experiment.model(frame_shape=(3, 227, 227), num_classes=101)
    optimizer = experiment.optimizer(experiment.groups(model))
    name_of = {id(p): name for name, p in model.named_parameters()}
    found = {
        name_of[id(p)]: (group["lr_mult"], group["decay_mult"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert type(optimizer) is caffe.SGD
    assert found.pop("head.weight") == (10, 1) and found.pop("head.bias") == (20, 0)
    for name, multipliers in found.items():  # the LSTM's one bias has the rate of its weights
        assert multipliers == ((2, 0) if name.startswith("encoder") and name.endswith("bias") else (1, 1)), name
    assert set(name_of.values()) - {*found, "head.weight", "head.bias"} == {"temporal.bias_hh_l0"}
    settings = optimizer.param_groups[0]
    assert (settings["lr"], settings["momentum"], settings["weight_decay"]) == (0.001, 0.9, 0.005)
    assert settings["clip_gradients"] == 5
    assert load("lrcn_flow").optimizer.keywords["clip_gradients"] == 15
    assert [experiment.schedule(step, 30000) for step in (0, 9999, 10000)] == pytest.approx([1, 1, 0.1])


def test_initial_weights_are_those_of_caffes_fillers():
    torch.manual_seed(0)
    model = narrow(load("lrcn_rgb")).model(frame_shape=(3, 227, 227), num_classes=101)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    for name in ("encoder.fc6.weight", "encoder.conv3.weight", "head.weight"):
        assert float(weights[name].std()) == pytest.approx(0.01, rel=0.1), name
        assert abs(float(weights[name].mean())) < 1e-3, name
    assert all(
        bool((w == 0.1).all()) for name, w in weights.items() if name.startswith("enc") and name.endswith("bias")
    )
    assert 0.0099 < float(weights["temporal.weight_ih_l0"].abs().max()) <= 0.01
    assert not any(weights[name].any() for name in ("temporal.bias_ih_l0", "temporal.bias_hh_l0", "head.bias"))


def test_an_lstm_run_starts_from_a_single_frame_run(ucf, tmp_path):
    train(narrow(load("lrcn_single_frame", *SHORT, *ucf, "steps=1")), tmp_path / "single", "cpu")
    experiment = narrow(load("lrcn_rgb", *ucf))
    model = build_model(experiment, experiment.data())
    taken, drawn = start_from(model, tmp_path / "single")
    names = [name for name, _ in model.named_parameters()]
    assert {name for name in names if name.startswith("encoder.")} <= set(taken)
    assert {name for name in names if name.startswith("temporal.")} | {"head.weight"} <= set(drawn)


def test_faithful_repeats_lrcns_behaviour():
    clip = torch.randint(256, (2, 3, 240, 320), dtype=torch.uint8)
    squeezed = resize(clip, None, (227, 227), antialias=False)
    for faithful in (False, True):
        overrides = (f"data.transform.faithful={faithful}", f"model.preprocess.faithful={faithful}")
        experiment = load("lrcn_rgb", *overrides)
        transform = experiment.data.keywords["transform"]
        drawn = [transform(clip, torch.Generator().manual_seed(seed)) for seed in range(6)]
        assert any(torch.equal(d, squeezed) for d in drawn) == faithful
        assert torch.equal(transform(clip, None), center_crop(clip, None, 227))
        mean = experiment.model.keywords["preprocess"]().mean.flatten() * 255
        assert mean.tolist() == pytest.approx([103.939, 116.779, 128.68 if faithful else 123.68])


def test_flow_is_negated_in_a_mirror_and_has_its_own_mean():
    clip = torch.full((1, 3, 240, 320), 100, dtype=torch.uint8)
    single = load("lrcn_single_frame", "data.transform.negate_x=true", "model.preprocess=flow_input")
    for experiment in (load("lrcn_flow"), single):
        transform = experiment.data.keywords["transform"]
        seen = {int(transform(clip, torch.Generator().manual_seed(seed))[0, 0, 0, 0]) for seed in range(6)}
        assert seen == {100, 155}
        still = experiment.model.keywords["preprocess"]()(torch.full((1, 3, 2, 2), 128, dtype=torch.uint8))
        assert torch.allclose(still, torch.zeros(()), atol=1e-4)


@pytest.mark.slow
def test_lrcn_equals_caffes_net(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    caffe_lrcn = importlib.import_module("seqclf.benchmark.caffe_nets").caffe_lrcn
    with torch.device("meta"):
        whole = load("lrcn_rgb").model(frame_shape=(3, 227, 227), num_classes=101)
    (tmp_path / "net.prototxt").write_text(caffe_lrcn(2).replace("4096", "64"))  # a narrow fc6 is faster
    torch.manual_seed(0)
    theirs = caffe.to_classifier(caffe.load_net(tmp_path / "net.prototxt", phase="TRAIN"))
    state = {name.replace("fc6.1", "fc6"): p for name, p in theirs.named_parameters()}
    shapes = {name: [4096 if n == 64 else n for n in p.shape] for name, p in state.items()}
    assert {name: list(p.shape) for name, p in whole.named_parameters()} == shapes
    assert whole.encoder.drop6.p == 0.9 and whole.temporal.dropout_after == theirs.temporal.dropout_after == 0.5

    experiment = narrow(load("lrcn_rgb"), fully=64, channels=(96, 384, 512, 512, 384))
    model = experiment.model(frame_shape=(3, 227, 227), num_classes=101)
    model.load_state_dict(state, strict=False)
    model.preprocess = nn.Identity()
    frames = 100 * torch.randn(1, 2, 3, 227, 227)
    with torch.no_grad():
        ours, _ = model.eval()(frames)
        want, _ = theirs(frames)
    assert torch.allclose(ours, want, rtol=1e-4, atol=1e-7) and ours.abs().max() > 1e-5


# ---- the backbone


def frozen_parts(net):
    return {name for name, part in net.net.named_children() if not any(p.requires_grad for p in part.parameters())}


def test_a_backbone_freezes_the_layers_before():
    frames = torch.rand(2, 3, 64, 64)
    assert frozen_parts(Backbone((3, 64, 64))) == {"relu", "maxpool", "avgpool", "fc"}  # these have no parameters
    net = Backbone((3, 64, 64), frozen="layer2")
    assert frozen_parts(net) >= {"conv1", "bn1", "layer1", "layer2"} and not frozen_parts(net) & {"layer3", "layer4"}
    net.eval().train()
    assert net.training and net.net.layer3.training and not net.net.bn1.training and not net.net.layer2[0].bn1.training
    statistics = {name: value.clone() for name, value in net.net.named_buffers()}
    features = net(frames)
    assert features.shape == (2, net.out_features) == (2, 512)
    moved = {name.split(".")[0] for name, value in net.net.named_buffers() if not torch.equal(value, statistics[name])}
    assert moved == {"layer3", "layer4"}
    whole = Backbone((3, 64, 64), frozen="all")
    assert not [p for p in whole.parameters() if p.requires_grad] and not whole.train().net.training
    inner = Backbone((3, 64, 64), frozen="layer1.0")
    assert not inner.net.layer1[0].conv2.weight.requires_grad and inner.net.layer1[1].conv1.weight.requires_grad


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_other_backbones(name):
    net = Backbone((3, 32, 32), name=name).eval()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, net.out_features)


def test_weights_of_a_file_load_without_its_classifier(tmp_path):
    trained = Backbone((3, 64, 64), "shufflenet_v2_x0_5")
    state = {**trained.net.state_dict(), "fc.weight": torch.zeros(7, 1024), "fc.bias": torch.zeros(7)}
    torch.save(state, tmp_path / "net.pth")
    net = Backbone((3, 64, 64), "shufflenet_v2_x0_5", weights=str(tmp_path / "net.pth"))
    assert torch.equal(net.net.conv5[0].weight, trained.net.conv5[0].weight)

    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    (tmp_path / "no.pth").write_text("no weights")
    for file, message in (
        ("other.pth", "shufflenet_v2_x0_5"),
        ("list.pth", "expected a state dict"),
        ("no.pth", r"no\.pth.*state dict"),
        ("absent.pth", r"absent\.pth.*IMAGENET1K_V1"),
    ):
        with pytest.raises(SeqclfError, match=message) as error:
            Backbone((3, 64, 64), "shufflenet_v2_x0_5", weights=str(tmp_path / file))
        assert file in str(error.value)


def test_without_a_network_the_weights_address_and_the_setting_are_named(monkeypatch, tmp_path):
    def offline(*args, **keywords):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(SeqclfError, match=r"https://download\S*resnet18\S*\.pth.*weights="):
        Backbone((3, 64, 64), weights="DEFAULT")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_shape": (1, 28, 28)}, r"\(3, H, W\), not \(1, 28, 28\)"),
        ({"name": "resnet19"}, "no classification model 'resnet19'"),
        ({"name": "squeezenet1_0"}, "squeezenet1_0"),
        ({"frozen": "layer9"}, 'layer9.* "none", "all" or one of conv1, bn1'),
    ],
)
def test_invalid_arguments_of_a_backbone_are_refused(settings, message):
    with pytest.raises(SeqclfError, match=message):
        Backbone(**{"frame_shape": (3, 64, 64), **settings})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*LRCN, "resnet_lstm", "features_lstm", "moving_digits", "moving_digits_frames", "moving_digits_mstcn"]
)
def test_prediction_on_the_test_files_equals_evaluation(name, ucf, small_videos, features, tmp_path):
    short = ("steps=1", "batch_size=2", "log_every=1")
    if name in LRCN:
        experiment, root = narrow(load(name, *short, *ucf)), ucf[0]
    elif name == "resnet_lstm":
        fit = ("data.transform.steps.0.size=72", "data.transform.steps.1.size=64")
        fit += ("data.test_transform.steps.0.size=72", "data.test_transform.steps.1.size=64")
        fit += ("model.encoder.weights=none", "model.temporal.hidden=8")
        experiment, root = load(name, *short, *small_videos, *fit), small_videos[0]
    elif name == "features_lstm":
        experiment, root = load(name, *short, *features, "model.temporal.hidden=8"), features[0]
    else:
        made = (f"data.root={tmp_path}", "data.videos=4", "data.test_videos=3")
        experiment, root = load(name, *short, *made), None
    train(experiment, tmp_path / "run", "cpu")
    test = experiment.data().test
    files = list(dict.fromkeys(video.source.path for video in test.videos))
    assert root is None or all(file.startswith(root.removeprefix("data.root=")) for file in files)
    hold(tmp_path / "run", files)
