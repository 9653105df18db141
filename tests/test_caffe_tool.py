"""tools/caffe.py: Caffe's command lines run, logs are what its parsers read, tables and pictures are right."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as xml
from itertools import pairwise
from math import prod
from pathlib import Path

import caffe_nets
import pytest
import torch
from caffe_golden import Case

from seqclf import SeqclfError, caffe
from seqclf.caffe import draw, inspect, timing
from seqclf.caffe.graph import filter_layers
from seqclf.caffe.layers import LAYERS
from seqclf.caffe.net import read_net_structure
from seqclf.prediction import load_run

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "caffe.py"
spec = importlib.util.spec_from_file_location("caffe_tool", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

NET = """
name: "small"
layer { name: "train-data" type: "HDF5Data" top: "x" top: "label" include { phase: TRAIN }
        hdf5_data_param { source: "list.txt" batch_size: 12 } }
layer { name: "test-data" type: "HDF5Data" top: "x" top: "label" include { phase: TEST }
        hdf5_data_param { source: "list.txt" batch_size: 4 } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "h"
        inner_product_param { num_output: 10 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "z"
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "accuracy" type: "Accuracy" bottom: "z" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" test_iter: 3 test_interval: 4 base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 4 momentum: 0.9
display: 2 max_iter: 8 snapshot: 4 snapshot_prefix: "snap" random_seed: 7 solver_mode: CPU
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    with h5py.File("data.h5", "w") as file:
        file["x"] = torch.randn(12, 5, generator=generator).numpy()
        file["label"] = torch.randint(3, (12,), generator=generator).numpy()
    Path("list.txt").write_text("data.h5\n")
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    return tmp_path


@pytest.fixture
def mini(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Case("mini_lrcn", tmp_path)


def refusal(*words):
    """The sentence, of one line, with which a command line is refused."""
    with pytest.raises(SeqclfError) as caught:
        tool.main(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- train: the log, as Caffe's tools/extra/parse_log.py and parse_log.sh take it apart


def parse_log(text):
    """Rows (iteration, rate, outputs) of the train and test nets, and the seconds of each."""
    rows = {"Train": [], "Test": []}
    lines = text.splitlines()
    start = clock(next(line for line in lines if "Solving" in line))
    iteration, rate, seconds = -1, float("nan"), []
    for line in lines:
        if found := re.search(r"Iteration (\d+)", line):
            iteration = int(found[1])
        if iteration == -1:
            continue
        seconds.append(clock(line) - start)
        if found := re.search(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)", line):
            rate = float(found[1])
        for kind, table in rows.items():
            if found := re.search(kind + r" net output #(\d+): (\S+) = ([\.\deE+-]+)", line):
                if not table or table[-1][0] != iteration:
                    table.append((iteration, rate, {}))
                table[-1][2][found[2]] = float(found[3])
    return rows["Train"], rows["Test"], seconds


def clock(line):
    """Seconds of the day; the way parse_log.py finds them, which raises on a line of another form."""
    words = line.strip().split()
    assert 1 <= int(words[0][1:3]) <= 12 and 1 <= int(words[0][3:]) <= 31
    hours, minutes, rest = words[1].split(":")
    return 3600 * int(hours) + 60 * int(minutes) + int(rest.split(".")[0]) + int(rest.split(".")[1]) / 1e6


def test_what_is_logged_is_what_caffes_parsers_read(folder, capsys):
    assert tool.main(["train", "-solver", "solver.prototxt", "--gpu="]) == 0
    out, log = capsys.readouterr()
    assert out == ""
    assert all(re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \w+\.cpp:\d+\] ", line) for line in log.splitlines())
    train, tests, seconds = parse_log(log)
    assert [row[0] for row in train] == [0, 2, 4, 6]
    assert [row[0] for row in tests] == [0, 4, 8]
    assert all(set(row[2]) == {"accuracy", "loss"} for row in tests) and set(train[0][2]) == {"loss"}
    assert seconds == sorted(seconds)
    # parse_log.sh cuts by words: the loss and the rate are the ninth, a test output's value the eleventh
    words = [line.split() for line in log.splitlines()]
    losses = [float(w[8]) for line, w in zip(log.splitlines(), words, strict=True) if ", loss = " in line]
    rates = [float(w[8]) for line, w in zip(log.splitlines(), words, strict=True) if ", lr = " in line]
    first = [float(w[10]) for line, w in zip(log.splitlines(), words, strict=True) if "Test net output #0" in line]
    assert len(losses) == 5 and losses[-1] < losses[0]
    assert rates == [0.1, 0.1, 0.05, 0.05]
    assert first == [row[2]["accuracy"] for row in tests]
    assert any("] Solving small" in line for line in log.splitlines())
    assert log.splitlines()[-1].endswith("Optimization Done.")
    for n in (4, 8):
        assert Path(f"snap_iter_{n}.caffemodel").exists() and Path(f"snap_iter_{n}.solverstate").exists()


def test_it_trains_as_the_solver_in_python_and_from_weights_and_snapshots(folder, capsys):
    assert tool.main(["train", "--solver=solver.prototxt"]) == 0
    trained = Path("snap_iter_8.caffemodel").read_bytes()
    caffe.load_solver("solver.prototxt").solve()
    assert Path("snap_iter_8.caffemodel").read_bytes() == trained
    Path("snap_iter_8.caffemodel").unlink()
    # both spellings, and the command behind its flags, as gflags takes them
    assert tool.main(["-solver=solver.prototxt", "train", "--snapshot", "snap_iter_4.solverstate"]) == 0
    assert Path("snap_iter_8.caffemodel").read_bytes() == trained

    log = capsys.readouterr().err
    assert "Restoring previous solver status from snap_iter_4.solverstate" in log
    assert (
        tool.main(["train", "-solver", "solver.prototxt", "-weights", "snap_iter_4.caffemodel,snap_iter_8.caffemodel"])
        == 0
    )
    log = capsys.readouterr().err
    assert "Finetuning from snap_iter_4.caffemodel" in log and "Finetuning from snap_iter_8.caffemodel" in log


def test_a_prototxt_that_wants_a_gpu_trains_without_one_and_says_so(folder, capsys, monkeypatch):
    Path("solver.prototxt").write_text(SOLVER.replace("solver_mode: CPU", "").replace("max_iter: 8", "max_iter: 0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tool.main(["train", "--solver", "solver.prototxt"]) == 0
    assert "NO GPU" in capsys.readouterr().err


def test_stages_and_levels_reach_the_train_net(folder, capsys):
    extra = 'layer { name: "more" type: "InnerProduct" bottom: "h" top: "more" include { stage: "a" min_level: 2 } '
    Path("net.prototxt").write_text(NET + extra + "inner_product_param { num_output: 1 } }")
    for words, there in (([], False), (["--stage", "a,b", "--level", "2"], True), (["-stage", "a"], False)):
        tool.main(["train", "--solver", "solver.prototxt", *words])
        assert ("more" in caffe.read_net("snap_iter_8.caffemodel").SerializeToString().decode("latin1")) == there


def test_a_net_without_data_is_not_trained(mini):
    assert "come from no data layer" in refusal("train", "--solver", "solver.prototxt")
    assert "come from no data layer" in refusal("test", "--model", "deploy.prototxt", "--weights", "init.caffemodel")


def test_python_layers_are_stood_in_for(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("batches.py").write_text(
        "import numpy\n\n\ndef make(param_str):\n    return [(numpy.ones((int(param_str), 5)), numpy.zeros(6))]\n"
    )
    layer = 'type: "Python" python_param { module: "m" layer: "reader" param_str: "6" }'
    text = re.sub(r'type: "HDF5Data"(.*?)hdf5_data_param \{.*?\}', rf"{layer}\1", NET, flags=re.DOTALL)
    Path("net.prototxt").write_text(text)
    assert "reader" in refusal("train", "--solver", "solver.prototxt")
    assert tool.main(["train", "--solver", "solver.prototxt", "--python", "reader=batches:make"]) == 0
    assert "NAME=module:function" in refusal("train", "--solver", "solver.prototxt", "--python", "reader")
    assert "nothing" in refusal("train", "--solver", "solver.prototxt", "--python", "reader=batches:nothing")
    assert tool.main(["inspect", "net.prototxt", "--shape", "x=2,5", "--shape", "label=2"]) == 0


def test_ctrl_c_stops_and_resuming_equals_the_uninterrupted_run(folder):
    Path("solver.prototxt").write_text(SOLVER.replace("max_iter: 8", "max_iter: 1000000").replace("snapshot: 4", ""))
    command = [sys.executable, str(TOOL), "train", "--solver", "solver.prototxt"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        if "Iteration 6, lr" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read().splitlines()
    process.stderr.close()
    assert process.wait() == 130
    assert rest[-2].endswith("Optimization stopped early.") and "--snapshot snap_iter_" in rest[-1]
    assert all(clock(line) for line in rest)
    (state,) = Path().glob("snap_iter_*.solverstate")
    end = int(re.search(r"\d+", state.stem)[0]) + 6
    Path("solver.prototxt").write_text(SOLVER.replace("max_iter: 8", f"max_iter: {end}").replace("snapshot: 4", ""))
    results = []
    for words in (["--snapshot", str(state)], []):
        assert tool.main(["train", "--solver", "solver.prototxt", *words]) == 0
        results.append(Path(f"snap_iter_{end}.caffemodel").read_bytes())
    assert results[0] == results[1]


def test_signals_do_what_their_flags_say():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)
    with tool.signals("snapshot", "none") as (request, stopped):
        assert request() is None
        for signum in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), signum)
        assert request() == "snapshot" and request() is None and not stopped
    with tool.signals("none", "stop") as (request, stopped):
        for signum in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), signum)
        assert request() == "stop" and stopped == [signal.SIGHUP]
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP))


# ---- test, time


def test_scores_are_every_batchs_and_their_means(folder, capsys):
    tool.main(["train", "--solver", "solver.prototxt"])
    capsys.readouterr()
    assert tool.main(["test", "-model", "net.prototxt", "-weights", "snap_iter_8.caffemodel", "-iterations", "3"]) == 0
    lines = [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    net = caffe.load_net("net.prototxt", "snap_iter_8.caffemodel")
    said = {
        name: [float(line.split()[4]) for line in lines if re.match(rf"Batch \d, {name} = ", line)] for name in OUTPUTS
    }
    with torch.no_grad():
        batches = [net() for _ in range(3)]
    for name in OUTPUTS:
        assert said[name] == pytest.approx([float(batch[name]) for batch in batches], rel=1e-5)
    accuracy, loss = (sum(said[name]) / 3 for name in OUTPUTS)
    assert lines[-3:-1] == [f"Loss: {loss:.6g}", f"accuracy = {accuracy:.6g}"]
    assert re.fullmatch(r"loss = (\S+) \(\* 1 = \1 loss\)", lines[-1])


OUTPUTS = ("accuracy", "loss")


def test_time_tells_every_layer_and_the_whole(mini, capsys):
    assert tool.main(["time", "-model", "train_val.prototxt", "-iterations", "2"]) == 0
    log = capsys.readouterr().err
    layers = dict(re.findall(r"\] +(\S+)\tforward: ([\d.e-]+) ms\.", log))
    assert list(layers) == [layer.name for layer in caffe.read_net("train_val.prototxt").layer]
    backward = dict(re.findall(r"\] +(\S+)\tbackward: ([\d.e-]+) ms\.", log))
    assert float(backward["conv2"]) > float(backward["reshape-label"])
    figures = {name: float(re.search(rf"{name}: ([\d.e+-]+) ms\.", log)[1]) for name in FIGURES}
    assert sum(map(float, layers.values())) <= figures["Average Forward pass"] * 1.01
    both = figures["Average Forward pass"] + figures["Average Backward pass"]
    assert both <= figures["Average Forward-Backward"] * 1.01
    assert figures["Total Time"] == pytest.approx(2 * figures["Average Forward-Backward"], rel=1e-4)
    assert "Iteration: 2 forward-backward time: " in log


FIGURES = ("Average Forward pass", "Average Backward pass", "Average Forward-Backward", "Total Time")


def test_what_a_timed_net_is_given_is_of_use_to_it(mini):
    net = caffe.load_net("train_val.prototxt", phase="TRAIN")
    times = timing.measure(net, 1, lambda line: None)
    assert {name for name, forward, _ in times.layers if forward > 0} == {param.name for param, _ in net.sequence}
    inputs = timing._inputs(net, torch.device("cpu"))
    assert (inputs["label"] == 0).all() and inputs["cm"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert inputs["data"].std() > 0.1
    net.message.force_backward = True
    assert timing._inputs(net, torch.device("cpu"))["data"].requires_grad


# ---- inspect


def test_operations_are_counted_of_every_type():
    assert set(inspect.OPERATIONS) == set(LAYERS)


@pytest.mark.parametrize(
    "net, values, products",
    [
        (caffe_nets.caffenet(batch=1), 60_965_224, 724_406_816),
        (caffe_nets.googlenet(batch=1), 6_998_552, 1_582_671_872),
    ],
)
def test_well_known_nets_have_their_well_known_figures(net, values, products, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(str(net))
    with torch.device("meta"):
        sketch = inspect.sketch(read_net_structure(path), str(path))
    assert all(p.is_meta for p in sketch.parameters())
    layers = inspect.figures(sketch)
    assert sum(layer.values for layer in layers) == values
    weighted = [layer for layer in layers if layer.type in ("Convolution", "InnerProduct")]
    assert sum(layer.operations for layer in weighted) == 2 * products


def test_operations_and_memory_by_hand(mini):
    net = caffe.load_net("deploy.prototxt")
    found = {layer.name: layer for layer in inspect.figures(net)}
    assert found["lstm1"].operations == 2 * 8 * (48 * 16 + 48 * 12) + 11 * 8 * 12
    assert found["conv2"].operations == 2 * prod((8, 8, 6, 6)) * 3 * 5 * 5
    assert found["pool1"].operations == 9 * prod((8, 6, 15, 15))
    assert found["norm1"].operations == (5 + 5) * prod((8, 6, 15, 15))
    assert found["relu1"].operations == prod((8, 6, 31, 31))
    assert found["conv1"].memory == 4 * prod((8, 6, 31, 31))
    assert found["relu1"].memory == found["reshape-data"].memory == 0, "in place, and a view"


def test_inspect_tells_all_that_does_not_fit(mini, capsys):
    assert tool.main(["inspect", "deploy.prototxt", "--weights", "init.caffemodel"]) == 0
    assert "init.caffemodel: fits" in capsys.readouterr().out
    text = Path("deploy.prototxt").read_text()
    text = text.replace('name: "fc8-final"', 'name: "fc9"').replace("num_output: 16", "num_output: 15")
    Path("other.prototxt").write_text(text.replace("dim: 16", "dim: 15"))
    sentence = refusal("inspect", "other.prototxt", "--weights", "init.caffemodel")
    told = capsys.readouterr().out
    for part in (
        'layer "fc6": blob 0 has shape (16, 8), expected (15, 8)',
        'layer "fc6": blob 1 has shape (16,), expected (15,)',
        'layer "lstm1": blob 0 has shape (48, 16), expected (48, 15)',
        'layer "fc9": no weights for it, expected (5, 12), (5,)',
        'layer "fc8-final": has (5, 12), (5,), but the net has no such layer',
    ):
        assert part in told
    assert sentence == "init.caffemodel does not fit: 5 differences, told above"


def test_inspect_shows_solvers_and_saved_nets(folder, capsys):
    assert tool.main(["inspect", "solver.prototxt"]) == 0
    out = capsys.readouterr().out
    assert "rate: 0.1 at 0, 0.05 at 4, 0.05 at 7" in out
    assert 'lr_policy: "step"' in out and "train net: net.prototxt" in out and "test net #0: net.prototxt" in out
    assert out.count("train-data") == 1 and out.count("test-data") == 1 and out.count("Accuracy") == 1
    tool.main(["train", "--solver", "solver.prototxt"])
    capsys.readouterr()
    for lost in ((), ("data.h5",)):  # where its data are gone, what the file says is told
        for name in lost:
            Path(name).unlink()
        assert tool.main(["inspect", "snap_iter_8.caffemodel"]) == 0
        out, notes = capsys.readouterr()
        assert "10 × 5" in out and ("12 × 10" in out) == (not lost) and ("not known" in notes) == bool(lost)


def test_a_solver_with_a_mistake_is_still_one(folder):
    Path("solver.prototxt").write_text(SOLVER + "\nmomentom: 0.9\n")
    assert inspect.is_solver("solver.prototxt") and not inspect.is_solver("net.prototxt")
    assert re.match(r"solver.prototxt, line 5: .*momentom", refusal("inspect", "solver.prototxt"))
    Path("net.prototxt").write_text(NET + "\nlayer { nam: 1 }\n")
    assert re.match(r"net.prototxt, line 15: .*nam", refusal("inspect", "net.prototxt"))


def test_nets_are_told_without_their_data(folder, capsys):
    net = """
    layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 20 mirror: true }
            data_param { source: "gone_lmdb" batch_size: 6 backend: LMDB } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
    """
    Path("net.prototxt").write_text(net)
    assert tool.main(["inspect", "net.prototxt"]) == 0
    out, notes = capsys.readouterr()
    assert "2 × 1200" in out and "taken to give data (6, 3, 20, 20), label (6,)" in notes
    assert tool.main(["inspect", "net.prototxt", "--shape", "data=1,1,4,4"]) == 0
    assert "2 × 16" in capsys.readouterr().out
    assert tool.main(["time", "--model", "net.prototxt", "--iterations", "1"]) == 0
    Path("net.prototxt").write_text(net.replace("crop_size: 20", ""))
    assert "--shape data=... --shape label=..." in refusal("inspect", "net.prototxt")
    shapes = ("--shape", "data=1,1", "--shape", "label=1")
    assert "shapes are given for oops" in refusal("inspect", "net.prototxt", *shapes, "--shape=oops=1")
    assert "expected a blob and its dimensions" in refusal("inspect", "net.prototxt", "--shape", "data")


# ---- draw


def test_pictures_of_nets(mini, capsys):
    assert tool.main(["draw", "train_val_drop.prototxt", "net.svg", "--phase", "TRAIN"]) == 0
    assert capsys.readouterr().out == "net.svg\n"
    picture = Path("net.svg").read_text()
    xml.fromstring(picture)
    for text in ("conv1", "Convolution  6 of 7×7 /2", "relu1", "lstm1", "8 × 6 × 31 × 31", "label  8"):
        assert f"<!-- {text} -->" in picture, text
    tool.main(["draw", "train_val_drop.prototxt", "again.svg", "--phase", "TRAIN"])
    assert Path("again.svg").read_text() == picture, "the same picture each time"

    from PIL import Image

    sizes = {}
    for rankdir in ("TB", "LR"):
        tool.main(["draw", "deploy.prototxt", f"{rankdir}.png", "--rankdir", rankdir])
        with Image.open(f"{rankdir}.png") as image:
            sizes[rankdir] = image.size
    assert sizes["TB"][1] > 2 * sizes["TB"][0] and sizes["LR"][0] > 2 * sizes["LR"][1]
    assert "expected the ending .svg or .png" in refusal("draw", "deploy.prototxt", "net.pdf")
    assert "can't be written" in refusal("draw", "deploy.prototxt", "gone/net.svg")


def test_a_net_is_drawn_without_its_data_or_a_font_for_its_names(folder, capsys):
    Path("data.h5").unlink()
    Path("net.prototxt").write_text(NET.replace('name: "relu"', 'name: "神経"'))
    assert tool.main(["draw", "net.prototxt", "net.svg"]) == 0
    assert "drawn without shapes" in capsys.readouterr().err
    assert "□□" in Path("net.svg").read_text()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ["googlenet", "resnet50", "captioner", "siamese"])
def test_cards_do_not_overlap_and_lines_go_on(name, flat, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(str(getattr(caffe_nets, name)(train=True)))
    message = read_net_structure(path)
    filter_layers(message, "TRAIN", 0, (), str(path))
    cards = draw._cards(message, {})
    for card in cards:
        card.size = draw._size(card)
    ranks = draw._ranks(cards)
    draw._order(ranks)
    draw._place(ranks, flat)
    assert sum(len(card.rows) for card in cards) == len(message.layer)
    for rank, behind in zip(ranks, [*ranks[1:], []], strict=True):
        for a, b in pairwise(rank):
            assert b.across - a.across >= (a.broad + b.broad) / 2
        for card in rank:
            assert all(line.target in behind for line in card.below)
            along = 0 if flat else 1
            assert all(card.until < line.target.along - line.target.size[along] / 2 for line in card.below)
    reads = {(param.name, bottom) for param in message.layer for bottom in param.bottom if list(param.top) != [bottom]}
    ends = {line.target for rank in ranks for card in rank for line in card.below if line.target.rows}
    assert {card.rows[0][0] for card in ends} == {name for name, _ in reads}


def test_every_type_has_a_colour():
    assert set(LAYERS) - {"Split"} <= set(draw.KIND_OF) and set(draw.KIND_OF.values()) == set(draw.KINDS)


# ---- convert


def test_a_net_becomes_a_run_and_a_net_again(mini, capsys):
    words = ["convert", "-model", "deploy.prototxt", "-weights", "init.caffemodel", "--workdir", "run"]
    assert tool.main([*words, "--classes", "a,b,c,d,e", "--mean", "104,117,123"]) == 0
    out = capsys.readouterr().out
    assert "(temporal): LSTM(16, 12)" in out and "checkpoint: run/checkpoints/step_0.pt" in out
    assert "conv1 (Convolution) -> encoder.conv1: Conv2d(3, 6" in out
    assert "lstm1 (LSTM) -> temporal, its layer 0" in out and "fc8-final (InnerProduct) -> head" in out
    assert "seqclf train --config configs/<your own>.py --init run" in out
    _, _, record, _ = load_run("run")
    assert record["data"]["classes"] == ["a", "b", "c", "d", "e"]

    assert tool.main(["convert", "run", "back.prototxt", "back.caffemodel", "--frames", "4", "--streams=2"]) == 0
    assert "input data: 8 × 3 × 67 × 67" in capsys.readouterr().out
    data = torch.from_numpy(mini.arrays["data_i16"]).float()
    cm = torch.from_numpy(mini.arrays["cm"]).float()
    with torch.no_grad():
        again = caffe.load_net("back.prototxt", "back.caffemodel")(data=data, cm=cm)
        net = caffe.load_net("deploy.prototxt", "init.caffemodel")(data=data, cm=cm.view(8, 1, 1, 1))
    assert torch.allclose(again["probs"], net["probs"], atol=1e-6)

    assert "is not empty" in refusal(*words)
    words[-1] = "other"
    assert "5 classes, but there are 2 names" in refusal(*words, "--classes", "a,b")
    Path("names.txt").write_text("eins\nzwei\ndrei\nvier\nfünf\n")
    assert tool.main([*words, "--classes", "names.txt"]) == 0
    assert load_run("other")[2]["data"]["classes"][4] == "fünf"


def test_means_may_be_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case = Case("io_mean", tmp_path)
    want = case.arrays["mean"][0].mean((1, 2))
    assert tool.mean_of("legacy.binaryproto") == pytest.approx(want.tolist(), rel=1e-5)
    with pytest.raises(SeqclfError, match="expected numbers"):
        tool.mean_of("a,b")


# ---- mistakes


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("train --solver gone.prototxt", "gone.prototxt: no such file"),
        ("train --solver solver.prototxt --weights a --snapshot b", "not both"),
        ("train --solver solver.prototxt --snapshot gone.solverstate", "gone.solverstate: no such file"),
        ("train --solver solver.prototxt -gpu 0,1", "training uses one GPU"),
        ("train --solver solver.prototxt -gpu one", "--gpu one: expected a number, or all"),
        ("train --solver solver.prototxt -gpu 99", "GPU 99: PyTorch finds"),
        ("test --model net.prototxt --weights gone.caffemodel", "gone.caffemodel: no such file"),
        ("test --model net.prototxt --weights w --iterations 0", "--iterations 0: expected 1 or more"),
        ("time --model net.prototxt --iterations -3", "--iterations -3: expected 1 or more"),
        ("inspect gone.prototxt", "gone.prototxt: no such file"),
        ("draw gone.prototxt x.svg", "gone.prototxt: no such file"),
        ("convert --model net.prototxt", "--model, --weights and --workdir are needed"),
        ("convert a.prototxt b.caffemodel", "expected RUN OUT.prototxt OUT.caffemodel"),
        ("convert run a.prototxt b.caffemodel", "run is not a run folder"),
        ("convert --model m --weights w --workdir d steps=5", "steps=5: settings change a config"),
    ],
)
def test_mistakes_are_told_in_one_sentence(folder, words, sentence):
    assert sentence in refusal(*words.split())


@pytest.mark.parametrize(
    "words", ["", "fly", "train", "train --solver", "test --model x", "draw x", "time --phase SOON"]
)
def test_command_lines_that_are_none_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        tool.main(words.split())
    assert ended.value.code == 2 and "caffe.py" in capsys.readouterr().err.replace(Path(sys.argv[0]).name, "caffe.py")


@pytest.mark.parametrize("words", ["--help", *(f"{command} --help" for command in tool.COMMANDS), "--help train"])
def test_help(words, capsys):
    with pytest.raises(SystemExit) as ended:
        tool.main(words.split())
    assert ended.value.code == 0 and capsys.readouterr().out
