"""``TimmEncoder``: features of a small timm model with random weights."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seqclf import FrameSequenceClassifier, SeqclfError, TimmEncoder, prepare_features, timm_normalize
from seqclf.prediction.run import _drawn


@pytest.fixture(autouse=True, scope="module")
def timm():
    return pytest.importorskip("timm")


NAME = "test_resnet.r160_in1k"
SHAPE = (3, 32, 32)


@pytest.mark.parametrize(("name", "shape"), [(NAME, SHAPE), ("test_vit", (1, 64, 32)), ("test_efficientnet", SHAPE)])
def test_features_are_those_of_the_model_before_its_classifier(name, shape):
    encoder = TimmEncoder(shape, name, frozen="all").eval()
    frames = torch.rand(2, *shape)
    features = encoder(frames)
    assert features.shape == (2, encoder.out_features)
    torch.testing.assert_close(
        features, encoder.net.forward_head(encoder.net.forward_features(frames), pre_logits=True)
    )
    assert not any(p.requires_grad for p in encoder.parameters()) and not encoder.train().net.training


def test_weights_of_a_file_load_without_the_classifier(timm, tmp_path):
    whole = timm.create_model(NAME, num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "net.pth")
    encoder = TimmEncoder(SHAPE, NAME, weights=str(tmp_path / "net.pth"))
    state = encoder.net.state_dict()
    assert state and all(torch.equal(value, whole.state_dict()[key]) for key, value in state.items())


def test_frames_are_normalised_as_the_weights_need_it():
    model = FrameSequenceClassifier(
        partial(timm_normalize, name=NAME), partial(TimmEncoder, name=NAME), frame_shape=SHAPE, num_classes=2
    )
    frames = torch.randint(0, 256, (1, *SHAPE), dtype=torch.uint8)
    torch.testing.assert_close(model.preprocess(frames), (frames / 255 - 0.5) / 0.5)
    assert isinstance(model.head, nn.Linear) and model.head.in_features == model.encoder.out_features


@pytest.mark.slow
def test_it_is_exported(tmp_path):
    pytest.importorskip("onnxscript")
    from onnx import save

    from seqclf.exporting import check, graph
    from seqclf.exporting.parts import Parts

    model = FrameSequenceClassifier(encoder=partial(TimmEncoder, name=NAME), frame_shape=SHAPE, num_classes=2).eval()
    parts = Parts(model)
    frames = graph.frame_graph(parts, SHAPE, torch.uint8, 18)
    save(graph.onnx_form(parts, frames, SHAPE, "model"), tmp_path / "model.onnx")
    pictures = torch.randint(0, 256, (15, *SHAPE), dtype=torch.uint8)
    assert check.check(model, tmp_path / "model.onnx", "model", pictures) < 1e-4


def test_features_of_a_folder_of_pictures_are_prepared(tmp_path):
    for k in range(2):
        Image.new("RGB", (32, 32), (50 * k, 100, 150)).save(tmp_path / f"{k}.png")
    summary = prepare_features(
        tmp_path, tmp_path / "out", backbone=f"timm:{NAME}", weights=None, resize=32, crop=32, device="cpu"
    )
    assert summary.made == 1
    (written,) = (tmp_path / "out/features").iterdir()
    assert np.load(written).shape == (96, 2)


def test_a_run_is_loaded_without_the_pretrained_weights():
    model = partial(FrameSequenceClassifier, encoder=partial(TimmEncoder, name=NAME, pretrained=True))
    assert _drawn(model).keywords["encoder"].keywords == {"name": NAME, "pretrained": False, "weights": None}


def test_without_a_network_the_model_and_the_setting_are_named(timm, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(SeqclfError, match=rf"{NAME}.*no network.*weights="):
        TimmEncoder(SHAPE, NAME, pretrained=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet0"}, "timm has no model 'resnet0'"),
        ({"name": "test_resnet.none"}, r"test_resnet\.none"),
        ({"frame_shape": (5,)}, r"\(C, H, W\).*\(5,\)"),
        ({"weights": "absent.pth"}, r"absent\.pth"),
        ({"weights": "absent.pth", "pretrained": True}, "pretrained.*weights"),
        ({"frozen": "layer9"}, "layer9.*layer1"),
    ],
)
def test_invalid_arguments_are_refused(settings, message):
    with pytest.raises(SeqclfError, match=message):
        TimmEncoder(**{"frame_shape": SHAPE, "name": NAME, **settings})


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SeqclfError, match=r"timm: pip install 'seqclf\[timm\]'"):
        TimmEncoder(SHAPE, NAME)
