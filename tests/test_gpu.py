"""What holds on the CPU holds on a GPU, if there is one."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from temporal_models import MODELS

from seqclf import LSTM, FrameSequenceClassifier, SeqclfError
from seqclf.data.labelling import every_frame
from seqclf.experiment.loading import load_experiment
from seqclf.experiment.losses import cross_entropy
from seqclf.models.contract import parts_of
from seqclf.training.capture import WARMUP, Captured
from seqclf.training.loop import train

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "mnist_perframe.py"

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", ["plain", "resets", "all first", "ragged", "ragged with resets"])
def test_outputs_state_and_gradients_equal_the_cpus(name, case, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # 10 bits of mantissa are too few to compare
    torch.manual_seed(0)
    net, x = MODELS[name](5).eval(), torch.randn(6, 11, 5, requires_grad=True)
    often = {"resets": 0.3, "ragged with resets": 0.3, "all first": 1}
    is_first = torch.rand(6, 11) < often[case] if case in often else None
    lengths = torch.tensor([11, 3, 1, 7, 11, 5]) if "ragged" in case else None
    found = {}
    for device in ("cpu", "cuda"):
        net = net.to(device)
        net.zero_grad()
        x.grad = None
        to = [None if t is None else t.to(device) for t in (is_first, lengths)]
        outputs, state = net(x.to(device), to[0], None, to[1])
        outputs.square().sum().backward()
        gradients = [x.grad, *(p.grad for p in net.parameters())]
        found[device] = [t.detach().cpu().clone() for t in (outputs, *parts_of(state), *gradients)]
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=1e-3, atol=1e-4)


def test_dropout_is_a_function_of_the_seed():
    model = FrameSequenceClassifier(
        temporal=partial(LSTM, hidden=16, layers=3, dropout=0.5, dropout_after=0.5), frame_shape=(4,), num_classes=3
    ).cuda()
    x, labels = torch.rand(8, 6, 4, device="cuda"), every_frame(torch.arange(8, device="cuda") % 3, None, 6)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return cross_entropy(model(x)[0], labels).item()

    assert loss(1) == loss(1) != loss(2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_trains_and_resumes(tmp_path, precision):
    settings = ["data.source=digits", "batch_size=32", f"precision={precision}", "log_every=5"]
    first = train(load_experiment(CONFIG, [*settings, "steps=20"]), tmp_path / "run", "cuda")
    more = train(load_experiment(CONFIG, [*settings, "steps=40"]), tmp_path / "run", "cuda", True)
    assert more["step"] == 40
    assert more["parts"]["test"]["loss"] < first["parts"]["test"]["loss"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_step_equals_the_eager_step(tmp_path, precision):
    settings = ["data.source=digits", "steps=40", "batch_size=32", f"precision={precision}", "clip_norm=1.0"]
    weights = {}
    for graph in (False, True):
        train(load_experiment(CONFIG, [*settings, f"cuda_graph={graph}"]), tmp_path / str(graph), "cuda")
        weights[graph] = torch.load(tmp_path / str(graph) / "checkpoints" / "step_40.pt", map_location="cpu")["model"]
    torch.testing.assert_close(weights[True], weights[False], rtol=1e-2, atol=1e-3)


def test_a_recorded_run_resumes_where_it_was(tmp_path):
    settings = ["data.source=digits", "batch_size=32", "cuda_graph=True", "schedule=constant", "checkpoint_every=10"]
    train(load_experiment(CONFIG, [*settings, "steps=40"]), tmp_path / "whole", "cuda")
    train(load_experiment(CONFIG, [*settings, "steps=20"]), tmp_path / "parts", "cuda")
    train(load_experiment(CONFIG, [*settings, "steps=40"]), tmp_path / "parts", "cuda", True)
    whole, parts = (torch.load(tmp_path / name / "checkpoints" / "step_40.pt")["model"] for name in ("whole", "parts"))
    torch.testing.assert_close(parts, whole, rtol=1e-2, atol=1e-3)


def test_steps_that_cannot_be_recorded_are_refused():
    waits = Captured(lambda x: (x * x.sum().item(),), torch.device("cuda"))
    x = torch.ones(3)
    for _ in range(WARMUP):
        assert waits(x)[0].tolist() == [3, 3, 3]
    with pytest.raises(SeqclfError, match="cuda_graph=True"):
        waits(x)
    assert len(torch.rand(3, device="cuda")) == 3  # random numbers can be drawn afterwards


def test_a_recording_draws_new_numbers_for_each_seed():
    draws = Captured(lambda x: (x + torch.rand(3, device="cuda"),), torch.device("cuda"))
    seen = []
    for seed in (0, 0, 0, 0, 1, 0):
        torch.manual_seed(seed)
        seen.append(draws(torch.zeros(3))[0].tolist())
    assert seen[0] == seen[1] == seen[3] == seen[5] != seen[4]


def test_deterministic_runs_are_the_same_bit_for_bit(tmp_path):
    settings = ["data.source=digits", "steps=40", "batch_size=32", "deterministic=True"]
    for name in ("one", "two"):
        train(load_experiment(CONFIG, settings), tmp_path / name, "cuda")
    one, two = (torch.load(tmp_path / name / "checkpoints" / "step_40.pt")["model"] for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_profile_prints_the_idle_time_of_the_gpu(tmp_path, capsys):
    train(load_experiment(CONFIG, ["data.source=digits", "steps=20"]), tmp_path / "run", "cuda", profile=True)
    assert "the GPU is idle for" in capsys.readouterr().out
    assert (tmp_path / "run" / "trace.json").stat().st_size > 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_equal_one(tmp_path):
    settings = ["data.source=digits", "steps=10", "optimizer.lr=0.0001", f"--workdir={tmp_path / 'two'}"]
    tool = [str(CONFIG.parents[1] / "tools" / "train.py"), "--config", str(CONFIG), *settings]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, *tool], check=True)
    train(load_experiment(CONFIG, settings[:-1]), tmp_path / "one", "cuda")
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "step_10.pt", map_location="cpu")["model"]
        for name in ("one", "two")
    )
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["lstm_resets", "lstm_fractional_cont", "rnn_static", "layer_conv_group", "v1_upgrade"]
)
def test_caffe_nets_equal_caffe_on_the_gpu(name, tmp_path, monkeypatch):
    from caffe_golden import Case, close

    from seqclf import caffe

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    case = Case(name, tmp_path)
    prototxt = "net_v1.prototxt" if name == "v1_upgrade" else "net.prototxt"
    net = caffe.load_net(prototxt, "net_v1.caffemodel" if name == "v1_upgrade" else None)
    if name != "v1_upgrade":
        with torch.no_grad():
            for key, value in case.part("param.").items():
                layer, _, j = key.rpartition(".")
                net.params[layer][int(j)].copy_(torch.from_numpy(value))
    net.to("cuda")
    blobs = net(**{key: value for key, value in case.part("in.").items() if key in net.inputs})
    for key, value in case.part("out.").items():
        assert blobs[key].device.type == "cuda"
        close(blobs[key], value, key, 1e-4)


def test_a_caffe_solver_learns_on_the_gpu(tmp_path, monkeypatch):
    from caffe_golden import Case, close

    from seqclf import caffe

    monkeypatch.chdir(tmp_path)
    case = Case("solver_sgd_step", tmp_path)
    solver = caffe.load_solver("solver.prototxt", device="cuda")
    solver.feed = lambda k: {"data": case.arrays["data"][k], "label": case.arrays["label"][k]}
    with torch.no_grad():
        for key, value in case.part("init.").items():
            layer, _, j = key.rpartition(".")
            solver.net.params[layer][int(j)].copy_(torch.from_numpy(value))
    solver.step(30)
    for key, value in case.part("iter30.").items():
        layer, _, j = key.rpartition(".")
        close(solver.net.params[layer][int(j)], value, key, 1e-4)
