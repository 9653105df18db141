"""Exported files give the outputs of the model, streams in any pieces too, and a failed export leaves nothing."""

import json
import re
import subprocess
import sys
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from temporal_models import MODELS
from torch import nn

from seqclf import (
    LSTM,
    Chain,
    Clips,
    Data,
    Experiment,
    FrameSequenceClassifier,
    Identity,
    Normalize,
    SeqclfError,
    caffe,
    load,
)
from seqclf.caffe.conversion.run import write_run
from seqclf.data.labelling import every_frame
from seqclf.models import ChannelScale, LocalResponseNorm
from seqclf.prediction import load_run
from seqclf.training.loop import train

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from seqclf import exporting  # noqa: E402
from seqclf.exporting import check, export, files, graph, program  # noqa: E402
from seqclf.exporting.memory import CannotExport, Memory  # noqa: E402
from seqclf.exporting.parts import Parts, require_classifier, trace_step  # noqa: E402
from seqclf.exporting.sample import Sample  # noqa: E402

keeps_loops = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8), reason="its programs hold no loop over time"
)
check.SECONDS = 0.0  # times are measured, but not for long
ROOT = Path(__file__).resolve().parents[1]
D, K, H = 5, 4, 6
WRITTEN = (
    "gru, all options",
    "rnn, bidirectional, all options",
    "attention",
    "tcn",
    "pool, max",
    "stages that stream",
    "tcn, whole, then pools",
)
"""Models of ``MODELS`` that between them have everything that an export must write."""


def uint8(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make_model(temporal, shape=(D,), classes=K, **parts):
    torch.manual_seed(0)
    return FrameSequenceClassifier(temporal=temporal, frame_shape=shape, num_classes=classes, **parts).eval()


@cache
def frames_of(shape=(D,)):
    """The encoder, exported once: it is the same for all temporal models."""
    return graph.frame_graph(Parts(make_model(Identity, shape)), shape, torch.uint8, 18)


@cache
def exported(temporal, form, tmp):
    """A model, one of its forms in ONNX Runtime, and the file."""
    model, path = make_model(temporal), tmp / f"{form}.onnx"
    onnx.save(graph.onnx_form(Parts(model), frames_of(), (D,), form), path)
    return model, check.open_file(path), path


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_the_onnx_file_of_each_model_is_the_model(name, tmp):
    form = "stream" if Memory(make_model(MODELS[name])).names else "model"
    model, _, path = exported(MODELS[name], form, tmp)
    assert check.check(model, path, form, uint8(40, D)) < 1e-5


LAYERS = partial(LSTM, hidden=H, layers=2)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_stream_in_any_pieces_equals_the_model(data, tmp):
    model, run, _ = exported(LAYERS, "stream", tmp)
    B, T = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    cuts = sorted({0, T, *data.draw(st.lists(st.integers(1, T), max_size=3))})
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    frames, is_first = uint8(B, T, D, seed=B * T), torch.rand(B, T, generator=generator) < 0.3
    state = {n: torch.randn(x.shape, generator=generator) for n, x in Memory(model).zeros(B).items()}
    want = check.eager(model)({"frames": frames, "is_first": is_first, **state})
    pieces = []
    for start, end in pairwise(cuts):
        outputs = run({"frames": frames[:, start:end], "is_first": is_first[:, start:end], **state})
        pieces.append(outputs["probabilities"])
        state = {n: outputs[f"next_{n}"] for n in state}
    torch.testing.assert_close(torch.cat(pieces, 1), want["probabilities"], atol=1e-5, rtol=0)
    for n, value in state.items():
        torch.testing.assert_close(value, want[f"next_{n}"], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_whole_clips_equal_the_model(tmp):
    model, run, path = exported(LAYERS, "model", tmp)
    assert check.check(model, path, "model", uint8(40, D)) < 1e-5
    alone, padded = uint8(1, 4, D), torch.cat([uint8(1, 4, D), uint8(1, 3, D, seed=1)], 1)
    found = [run({"frames": frames})["logits"][:, :4] for frames in (alone, padded)]
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_mean_per_feature_is_exported(dtype, tmp):
    preprocess = partial(Normalize, mean=[0.1, 0.2, 0.3, 0.4, 0.5], std=[0.5, 0.4, 0.3, 0.2, 0.1])
    model = make_model(Identity, preprocess=preprocess)
    parts = Parts(model)
    written = graph.frame_graph(parts, (D,), dtype, 18)
    onnx.save(graph.onnx_form(parts, written, (D,), "model"), tmp / "features.onnx")
    assert check.check(model, tmp / "features.onnx", "model", uint8(40, D).to(dtype)) < 1e-4


@pytest.mark.slow
@keeps_loops
def test_a_program_is_the_model(tmp):  # LSTM's programs are checked where the tool is run
    preprocess = partial(Normalize, mean=[0.1, 0.2, 0.3, 0.4, 0.5], std=0.5)
    model, path = make_model(MODELS["gru, all options"], preprocess=preprocess), tmp / "stream.pt2"
    torch.export.save(program.export_program(model, (D,), torch.uint8, "stream"), path)
    assert check.check(model, path, "stream", uint8(40, D)) < 1e-5


@pytest.mark.slow
def test_encoders_of_all_parts_are_the_model(tmp):
    parts = {
        "conv1": partial(nn.Conv2d, 3, 8, 5, stride=2),
        "scale": partial(ChannelScale, 8),
        "norm": partial(nn.BatchNorm2d, 8),
        "relu": partial(nn.ReLU, inplace=True),
        "lrn": partial(LocalResponseNorm, 4, alpha=0.5),
        "pool": partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True),
        "conv2": partial(nn.Conv2d, 8, 8, 3, padding=1, groups=2),
        "drop": partial(nn.Dropout, 0.9),
        "global": partial(nn.AdaptiveMaxPool2d, 1),
        "flat": nn.Flatten,
    }
    shape = (3, 24, 26)
    preprocess = partial(Normalize, mean=[0.1, 0.2, 0.3], std=[0.3, 0.2, 0.1], bgr=True)
    model = make_model(Identity, shape, encoder=partial(Chain, parts=parts), preprocess=preprocess, chunk=2)
    with torch.no_grad():
        model.encoder.norm.running_mean.uniform_(-1, 1)
        model.encoder.norm.running_var.uniform_(0.5, 2)
    parts = Parts(model)
    written = graph.frame_graph(parts, shape, torch.uint8, 18)
    onnx.save(graph.onnx_form(parts, written, shape, "model"), tmp / "conv.onnx")
    assert check.check(model, tmp / "conv.onnx", "model", uint8(20, *shape)) < 1e-5
    assert {type(module) for module in model.modules()} & {nn.BatchNorm2d, LocalResponseNorm}, "the model is as it was"


# ---- runs


def noise():
    frames, labels = uint8(12, 8, D), torch.arange(12) % K
    clips = Clips(frames, labels, torch.tensor([8, 3, 5] * 4), labelling=every_frame)
    return Data(train=clips, test=clips, classes=["a", "b", "c", "d, e"], source="noise")


def features():
    clips = Clips(torch.randn(6, 5, D, generator=torch.Generator().manual_seed(0)), torch.arange(6) % K)
    return Data(train=clips, test=clips, classes=list("abcd"), source="made features")


def make_run(folder, data, temporal, **parts):
    model = partial(FrameSequenceClassifier, temporal=temporal, **parts)
    sgd = partial(torch.optim.SGD, lr=0.1)
    train(Experiment(data=data, model=model, optimizer=sgd, steps=3, batch_size=4, log_every=1), folder, "cpu")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", noise, partial(LSTM, hidden=H))


@keeps_loops
@pytest.mark.slow
def test_the_tool_writes_checked_files_and_a_card_that_runs(run, tmp_path, tool):
    out = tmp_path / "out"
    code, printed, _ = tool("export", run, "--out", out, "--int8", "--clips", 5)
    assert code == 0
    names = {"model.onnx", "stream.onnx", "stream.int8.onnx", "model.pt2", "stream.pt2", "model.safetensors"}
    assert {path.name for path in out.iterdir()} == names | {"README.md", "model.json"}
    assert all(name in printed for name in names) and "int8 on 5 of 12 test clips: clip_last" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    about = json.loads((out / "model.json").read_text())
    assert about["classes"] == ["a", "b", "c", "d, e"] and about["frames"] == "uint8" and about["step"] == 3
    assert about["figures"]["test"]["clips"] == 12 and about["checked_on"] == "test clips of noise"
    assert all(f["difference"] < 1e-4 for name, f in about["files"].items() if "int8" not in name)
    for name in ("model.onnx", "stream.onnx"):
        proto = onnx.load(out / name)
        form = about["forms"][name.removesuffix(".onnx")]
        assert [x.name for x in proto.graph.input] == list(form["inputs"])
        assert [x.name for x in proto.graph.output] == list(form["outputs"])
        assert json.loads({p.key: p.value for p in proto.metadata_props}["classes"]) == about["classes"]

    frames = uint8(9, D, seed=3)
    want = load(run)(frames).probabilities
    again = torch.export.load(out / "model.pt2").module()(frames=frames[None])["probabilities"][0]
    torch.testing.assert_close(again, want, atol=1e-5, rtol=0)
    rough = check.open_file(out / "stream.int8.onnx")
    blank = Memory(load_run(run)[1]).zeros(1)
    found = rough({"frames": frames[None], "is_first": torch.zeros(1, 9, dtype=torch.bool), **blank})
    torch.testing.assert_close(found["probabilities"][0], want, atol=0.05, rtol=0)
    from safetensors.torch import load_file

    weights = load_file(out / "model.safetensors")
    assert weights.keys() == load_run(run)[1].state_dict().keys()

    card = (out / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in about["classes"], done.stderr
    for text in ("for 3 steps", "stream.int8.onnx", "3 d, e", "def get_config()", f"torch {torch.__version__}"):
        assert text in card


@pytest.mark.slow
def test_a_run_of_features_without_memory(tmp_path):
    run = make_run(tmp_path / "run", features, Identity, preprocess=partial(Normalize, fit="channel"))
    about = export(run, formats=["onnx"], int8=True)
    out = run / "export"
    assert {p.name for p in out.iterdir()} == {"model.onnx", "model.int8.onnx", "model.json", "README.md"}
    assert about["forms"]["model"]["inputs"] == {"frames": ["float32", ["B", "T", D]]}
    assert about["int8"]["clips"] == about["int8"]["of"] == 6
    mean = json.loads((run / "run.json").read_text())["fitted"]["normalization"]["mean"]
    assert about["normalization"]["mean"] == mean
    assert f"mean {', '.join(f'{value:.6g}' for value in mean)}" in (out / "README.md").read_text()
    (out / "stale").touch()
    export(run, formats=["safetensors"])
    assert {p.name for p in out.iterdir()} == {"model.safetensors", "model.json", "README.md"}


@pytest.mark.slow
def test_a_run_converted_from_caffe_is_checked_on_random_frames(tmp_path):
    (tmp_path / "net.prototxt").write_text("""
        input: "data" input_shape { dim: 6 dim: 3 dim: 8 dim: 8 } input: "cont" input_shape { dim: 3 dim: 2 }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
                convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
        layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" }
        layer { name: "steps" type: "Reshape" bottom: "norm" top: "x"
                reshape_param { shape { dim: 3 dim: 2 dim: 144 } } }
        layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
                recurrent_param { num_output: 5 weight_filler { type: "uniform" min: -0.1 max: 0.1 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "h" top: "z"
                inner_product_param { num_output: 3 axis: 2 weight_filler { type: "xavier" } } }
    """)
    torch.manual_seed(0)
    write_run(caffe.load_net(tmp_path / "net.prototxt"), tmp_path / "run", mean=[104, 117, 123])
    about = export(tmp_path / "run", formats=["onnx"], int8=True)
    assert "random uint8 frames" in about["checked_on"] and "has no data" in about["checked_on"]
    assert about["figures"] == {} and "not measured" in about["int8"]["why"]
    assert max(file.get("difference", 0) for file in about["files"].values()) < 1e-4


# ---- refusals


@pytest.mark.slow
def test_a_file_that_differs_from_the_model_is_not_kept(run, tmp_path, monkeypatch, tool):
    other = Parts(make_model(Identity, preprocess=partial(Normalize, mean=0.5)))
    other = graph.frame_graph(other, (D,), torch.uint8, 18)
    monkeypatch.setattr(exporting.files, "frame_graph", lambda *_: other)
    (tmp_path / "out").mkdir()
    code, _, error = tool("export", run, "--format", "onnx", "--out", tmp_path / "out")
    assert code == 2
    assert re.fullmatch(r"error: model\.onnx: \w+ of 1 x 1 frames.*1e-04\n", error)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", ["program", "safetensors"])
def test_a_full_disk_is_reported_and_leaves_no_export(tmp_path, tool, file_limit, kind):
    run = make_run(tmp_path / "run", noise, Identity)
    with file_limit(200):
        code, _, error = tool("export", run, "--format", kind)
    assert code == 2 and "export: cannot be written" in error and error.count("\n") == 1
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ["tflite"]}, "tflite.*program, onnx, safetensors"),
        ({"formats": ["program"], "int8": True}, "int8.*onnx"),
        ({"opset": 17}, "opset 17.*18"),
        ({"opset": 999, "formats": ["onnx"]}, "opset 999"),
        ({"clips": 0}, "clips=0"),
        ({"dtype": "float32"}, "float32.*noise.*uint8"),
        ({"checkpoint": "77"}, "run has no checkpoint 77"),
    ],
)
def test_refusals(run, settings, message, tmp_path):
    with pytest.raises(SeqclfError, match=message):
        export(run, tmp_path / "out", **settings)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_not_an_export_is_not_replaced(run, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SeqclfError, match=str(tmp_path)):
        export(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


class Leaky(nn.Module):
    """A temporal model of a user: a loop over the frames, whose state is one tensor."""

    causal, carries_state = True, True

    def __init__(self, input_size):
        super().__init__()
        self.out_features = input_size

    def forward(self, x, is_first=None, state=None, lengths=None):
        h = x.new_zeros(1, len(x), x.shape[2]) if state is None else state
        outputs = []
        for t in range(x.shape[1]):
            if is_first is not None:
                h = h.masked_fill(is_first[:, t, None], 0)
            h = 0.5 * h + x[:, t]
            outputs.append(h[0])
        return torch.stack(outputs, 1), h


class Growing(nn.Module):
    """A model of a user whose state is all frames so far; each output is their mean."""

    causal, carries_state, equal_lengths = True, True, True

    def __init__(self, input_size):
        super().__init__()
        self.out_features = input_size

    def forward(self, x, is_first=None, state=None, lengths=None):
        x = x if state is None else torch.cat([state.transpose(0, 1), x], 1)
        new = x.shape[1] if state is None else x.shape[1] - len(state)
        return (x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None])[:, -new:], x.transpose(0, 1)


@pytest.mark.slow
def test_a_model_of_the_user_is_exported_frame_by_frame(tmp_path):
    about = export(make_run(tmp_path / "run", features, Leaky), formats=["onnx"])
    assert about["files"].keys() == {"model.onnx", "stream.onnx"} and about["not_written"] == {}
    assert about["forms"]["stream"]["inputs"]["state_0"] == ["float32", [1, "B", D]]


class BatchFirst(Leaky):
    """A model of a user whose state is ``(B, D)``."""

    def forward(self, x, is_first=None, state=None, lengths=None):
        outputs, h = super().forward(x, is_first, None if state is None else state[None], lengths)
        return outputs, h[0]


@pytest.mark.slow
def test_a_state_that_files_cannot_hold_leaves_out_the_stream(tmp_path):
    model = make_model(BatchFirst)
    about = {name: [] for name in files.METADATA} | {"frame_shape": (D,), "input": {"multi_label": False}}
    sample = Sample(uint8(9, D), "made frames")
    written, missing = files.write_files(tmp_path, model, sample, ["onnx", "safetensors"], 18, about)
    assert written.keys() == {"model.safetensors"}
    assert re.search(r"BatchFirst must be tensors \(n, B, \.\.\.\).*\(2, 5\)", missing["stream.onnx"])
    assert "cannot trace BatchFirst" in missing["model.onnx"]
    assert files.measure_latencies(tmp_path, model, "model", sample, written)["PyTorch"]


@pytest.mark.slow
def test_a_kind_of_file_that_cannot_be_written_is_named_and_the_others_are_written(tmp_path, tool):
    run = make_run(tmp_path / "run", features, Growing)
    code, printed, _ = tool("export", run, "--format", "onnx,safetensors")
    assert code == 0 and re.search(r"not written: stream\.onnx: .*Growing.*\(3, 2, 5\)", printed)
    assert {p.name for p in (run / "export").iterdir()} == {
        "model.onnx",
        "model.safetensors",
        "model.json",
        "README.md",
    }
    assert "`stream.onnx`: the state of Growing" in (run / "export/README.md").read_text()


def test_a_run_of_closures_is_exported_with_its_experiment(tmp_path):
    seen = []

    def own_features():
        seen.append(1)
        return features()

    run = make_run(tmp_path / "run", own_features, partial(LSTM, hidden=H))
    assert export(run, formats=["safetensors"])["checked_on"].startswith("random")
    experiment = Experiment(
        own_features, partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=H)), torch.optim.SGD, 1, 1
    )
    seen.clear()
    about = export(run, formats=["safetensors"], experiment=experiment)
    assert about["checked_on"] == "test clips of made features" and seen


def test_a_missing_package_is_named_with_its_extra(run, monkeypatch, tmp_path):
    honest = exporting.run.importlib.util.find_spec
    monkeypatch.setattr(
        exporting.run.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else honest(name)
    )
    with pytest.raises(SeqclfError, match=r"onnxscript: pip install 'seqclf\[export\]'"):
        export(run, tmp_path / "out")


def test_a_model_that_is_no_classifier_is_named():
    with pytest.raises(SeqclfError, match="Linear"):
        require_classifier(nn.Linear(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcn", "attention", "pool, mean"])
def test_a_step_of_a_stream_is_traced_for_any_batch_size(name):
    batch = next(iter(trace_step(Parts(make_model(MODELS[name]))).range_constraints.values()))
    assert batch.lower <= 2 and batch.upper > 1000


def test_recurrent_models_name_the_version_of_pytorch_that_onnx_needs(monkeypatch):
    monkeypatch.delattr(torch.onnx, "ops", raising=False)  # absent before PyTorch 2.8
    with pytest.raises(CannotExport, match="GRU in ONNX needs PyTorch"):
        trace_step(Parts(make_model(MODELS["gru, 2 layers"])))


@pytest.mark.slow
def test_encoders_that_cannot_be_exported_are_refused():
    class Encoder(nn.Module):
        out_features = D

        def __init__(self, function):
            super().__init__()
            self.forward = function

    model = make_model(Identity, encoder=Encoder(torch.special.bessel_j0))
    with pytest.raises(CannotExport, match="ONNX"):
        graph.frame_graph(Parts(model), (D,), torch.uint8, 18)
    model = make_model(Identity, encoder=Encoder(lambda x: x if x.sum() > 0 else -x))
    with pytest.raises(CannotExport, match="Identity as a program"):
        program.export_program(model, (D,), torch.uint8, "model")
