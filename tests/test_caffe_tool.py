"""``seqclf caffe``: Caffe's options and log format, tables of inspect, drawings, conversion, and errors."""

import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as xml
from math import prod
from pathlib import Path

import caffe_nets
import pytest
import torch
from caffe_golden import Case

from seqclf import SeqclfError, caffe
from seqclf.caffe.description import draw, inspect, layers_table, sketch, timing
from seqclf.caffe.layers import CATEGORIES, LAYERS, Layer
from seqclf.caffe.nets.load import read_net_structure
from seqclf.cli.caffe import COMMANDS, convert
from seqclf.cli.caffe import main as run
from seqclf.cli.caffe.signals import signal_effects
from seqclf.prediction import load_run

ROOT = Path(__file__).resolve().parents[1]

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


def error_of(*words):
    """Runs a command line that fails and returns its error message, which must be one line."""
    with pytest.raises(SeqclfError) as caught:
        run(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- train: Caffe's tools/extra/parse_log.py and parse_log.sh must be able to parse the log


def parse_log(text):
    """Parses rows (iteration, learning rate, outputs) of the train and test nets, and the time of each in seconds."""
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
    """Seconds since midnight, parsed like parse_log.py does, which fails on a line of another form."""
    words = line.strip().split()
    assert 1 <= int(words[0][1:3]) <= 12 and 1 <= int(words[0][3:]) <= 31
    hours, minutes, rest = words[1].split(":")
    return 3600 * int(hours) + 60 * int(minutes) + int(rest.split(".")[0]) + int(rest.split(".")[1]) / 1e6


def test_caffes_parsers_can_parse_the_log(folder, capsys):
    assert run(["train", "-solver", "solver.prototxt", "--gpu="]) == 0
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


def test_train_equals_the_python_solver_from_weights_and_snapshots(folder, capsys):
    assert run(["train", "--solver=solver.prototxt"]) == 0
    trained = Path("snap_iter_8.caffemodel").read_bytes()
    caffe.load_solver("solver.prototxt").solve()
    assert Path("snap_iter_8.caffemodel").read_bytes() == trained
    Path("snap_iter_8.caffemodel").unlink()
    # one dash or two, and options before the command, as gflags allows
    assert run(["-solver=solver.prototxt", "train", "--snapshot", "snap_iter_4.solverstate"]) == 0
    assert Path("snap_iter_8.caffemodel").read_bytes() == trained

    log = capsys.readouterr().err
    assert "Restoring previous solver status from snap_iter_4.solverstate" in log
    assert (
        run(["train", "-solver", "solver.prototxt", "-weights", "snap_iter_4.caffemodel,snap_iter_8.caffemodel"]) == 0
    )
    log = capsys.readouterr().err
    assert "Finetuning from snap_iter_4.caffemodel" in log and "Finetuning from snap_iter_8.caffemodel" in log


def test_a_solver_with_gpu_mode_trains_on_a_cpu_with_a_warning(folder, capsys, monkeypatch):
    Path("solver.prototxt").write_text(SOLVER.replace("solver_mode: CPU", "").replace("max_iter: 8", "max_iter: 0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(["train", "--solver", "solver.prototxt"]) == 0
    assert "no CUDA device" in capsys.readouterr().err


def test_stages_and_levels_reach_the_train_net(folder, capsys):
    extra = 'layer { name: "more" type: "InnerProduct" bottom: "h" top: "more" include { stage: "a" min_level: 2 } '
    Path("net.prototxt").write_text(NET + extra + "inner_product_param { num_output: 1 } }")
    for words, there in (([], False), (["--stage", "a,b", "--level", "2"], True), (["-stage", "a"], False)):
        run(["train", "--solver", "solver.prototxt", *words])
        assert ("more" in caffe.read_net("snap_iter_8.caffemodel").SerializeToString().decode("latin1")) == there


def test_a_net_without_data_layers_cannot_be_trained_or_tested(mini):
    assert "come from no data layer" in error_of("train", "--solver", "solver.prototxt")
    assert "come from no data layer" in error_of("test", "--model", "deploy.prototxt", "--weights", "init.caffemodel")


def test_python_layers_read_batches_of_a_function(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("batches.py").write_text(
        "import numpy\n\n\ndef make(param_str):\n    return [(numpy.ones((int(param_str), 5)), numpy.zeros(6))]\n"
    )
    layer = 'type: "Python" python_param { module: "m" layer: "reader" param_str: "6" }'
    text = re.sub(r'type: "HDF5Data"(.*?)hdf5_data_param \{.*?\}', rf"{layer}\1", NET, flags=re.DOTALL)
    Path("net.prototxt").write_text(text)
    assert "reader" in error_of("train", "--solver", "solver.prototxt")
    assert run(["train", "--solver", "solver.prototxt", "--python", "reader=batches:make"]) == 0
    assert "NAME=module:function" in error_of("train", "--solver", "solver.prototxt", "--python", "reader")
    assert "nothing" in error_of("train", "--solver", "solver.prototxt", "--python", "reader=batches:nothing")
    assert run(["inspect", "net.prototxt", "--shape", "x=2,5", "--shape", "label=2"]) == 0


@pytest.mark.slow
def test_ctrl_c_stops_and_resuming_equals_the_uninterrupted_run(folder):
    Path("solver.prototxt").write_text(SOLVER.replace("max_iter: 8", "max_iter: 1000000").replace("snapshot: 4", ""))
    command = [sys.executable, "-m", "seqclf", "caffe", "train", "--solver", "solver.prototxt"]
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
        assert run(["train", "--solver", "solver.prototxt", *words]) == 0
        results.append(Path(f"snap_iter_{end}.caffemodel").read_bytes())
    assert results[0] == results[1]


def test_signals_have_the_effects_of_the_options():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)
    with signal_effects("snapshot", "none") as (next_request, stopped):
        assert next_request() is None
        for signum in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), signum)
        assert next_request() == "snapshot" and next_request() is None and not stopped
    with signal_effects("none", "stop") as (next_request, stopped):
        for signum in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), signum)
        assert next_request() == "stop" and stopped == [signal.SIGHUP]
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP))


# ---- test, time


def test_test_logs_the_outputs_of_every_batch_and_their_means(folder, capsys):
    run(["train", "--solver", "solver.prototxt"])
    capsys.readouterr()
    assert run(["test", "-model", "net.prototxt", "-weights", "snap_iter_8.caffemodel", "-iterations", "3"]) == 0
    lines = [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    net = caffe.load_net("net.prototxt", "snap_iter_8.caffemodel")
    logged = {
        name: [float(line.split()[4]) for line in lines if re.match(rf"Batch \d, {name} = ", line)] for name in OUTPUTS
    }
    with torch.no_grad():
        batches = [net() for _ in range(3)]
    for name in OUTPUTS:
        assert logged[name] == pytest.approx([float(batch[name]) for batch in batches], rel=1e-5)
    accuracy, loss = (sum(logged[name]) / 3 for name in OUTPUTS)
    assert lines[-3:-1] == [f"Loss: {loss:.6g}", f"accuracy = {accuracy:.6g}"]
    assert re.fullmatch(r"loss = (\S+) \(\* 1 = \1 loss\)", lines[-1])


OUTPUTS = ("accuracy", "loss")


def test_time_logs_every_layer_and_the_whole_net(mini, capsys):
    assert run(["time", "-model", "train_val.prototxt", "-iterations", "2"]) == 0
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


def test_random_inputs_are_valid_labels_and_markers(mini):
    net = caffe.load_net("train_val.prototxt", phase="TRAIN")
    times = timing.measure(net, 1, lambda line: None)
    assert {name for name, forward, _ in times.layers if forward > 0} == {param.name for param, _ in net.sequence}
    inputs = timing.random_inputs(net, torch.device("cpu"))
    assert (inputs["label"] == 0).all() and inputs["cm"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert inputs["data"].std() > 0.1
    net.message.force_backward = True
    assert timing.random_inputs(net, torch.device("cpu"))["data"].requires_grad


# ---- inspect


@pytest.mark.parametrize(
    "prototxt, values, products",
    [
        (caffe_nets.caffenet(batch=1), 60_965_224, 724_406_816),
        (caffe_nets.googlenet(batch=1), 6_998_552, 1_582_671_872),
    ],
)
def test_parameters_and_operations_of_published_nets(prototxt, values, products, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(str(prototxt))
    with torch.device("meta"):
        net = sketch.sketch(read_net_structure(path), str(path))
    assert all(p.is_meta for p in net.parameters())
    layers = inspect.figures(net)
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
    assert found["relu1"].memory == found["reshape-data"].memory == 0  # in place; a view


def test_inspect_lists_all_parameters_that_do_not_fit(mini, capsys):
    assert run(["inspect", "deploy.prototxt", "--weights", "init.caffemodel"]) == 0
    assert "init.caffemodel: fits" in capsys.readouterr().out
    text = Path("deploy.prototxt").read_text()
    text = text.replace('name: "fc8-final"', 'name: "fc9"').replace("num_output: 16", "num_output: 15")
    Path("other.prototxt").write_text(text.replace("dim: 16", "dim: 15"))
    message = error_of("inspect", "other.prototxt", "--weights", "init.caffemodel")
    out = capsys.readouterr().out
    for part in (
        'layer "fc6": blob 0 has shape (16, 8), expected (15, 8)',
        'layer "fc6": blob 1 has shape (16,), expected (15,)',
        'layer "lstm1": blob 0 has shape (48, 16), expected (48, 15)',
        'layer "fc9": has no weights, expected (5, 12), (5,)',
        'layer "fc8-final": has (5, 12), (5,), but the net has no such layer',
    ):
        assert part in out
    assert message.startswith("init.caffemodel") and "5 differences" in message


def test_inspect_shows_solvers_and_saved_nets(folder, capsys):
    assert run(["inspect", "solver.prototxt"]) == 0
    out = capsys.readouterr().out
    assert "learning rate: 0.1 at 0, 0.05 at 4, 0.05 at 7" in out and "train_state" not in out
    assert 'lr_policy: "step"' in out and "train net: net.prototxt" in out and "test net #0: net.prototxt" in out
    assert out.count("train-data") == 1 and out.count("test-data") == 1 and out.count("Accuracy") == 1
    run(["train", "--solver", "solver.prototxt"])
    capsys.readouterr()
    for lost in ((), ("data.h5",)):  # without its data, the shapes of blobs are unknown
        for name in lost:
            Path(name).unlink()
        assert run(["inspect", "snap_iter_8.caffemodel"]) == 0
        out, notes = capsys.readouterr()
        assert "10 × 5" in out and ("12 × 10" in out) == (not lost) and ("not known" in notes) == bool(lost)


def test_a_solver_is_inspected_without_its_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "x" top: "y" data_param { source: "no_such_lmdb" batch_size: 4 } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "z" inner_product_param { num_output: 3 } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "y" top: "l" }\n'
    )
    Path("solver.prototxt").write_text('net: "net.prototxt"\nbase_lr: 0.1\nlr_policy: "fixed"\nmax_iter: 1\n')
    assert run(["inspect", "solver.prototxt", "--shape", "x=4,2", "--shape", "y=4"]) == 0
    assert "4 × 3" in capsys.readouterr().out


def test_a_solver_with_an_unknown_field_is_recognized(folder):
    Path("solver.prototxt").write_text(SOLVER + "\nmomentom: 0.9\n")
    assert inspect.is_solver("solver.prototxt") and not inspect.is_solver("net.prototxt")
    assert re.match(r"solver.prototxt, line 5: .*momentom", error_of("inspect", "solver.prototxt"))
    Path("net.prototxt").write_text(NET + "\nlayer { nam: 1 }\n")
    assert re.match(r"net.prototxt, line 15: .*nam", error_of("inspect", "net.prototxt"))


def test_inspect_needs_no_data(folder, capsys):
    net = """
    layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 20 mirror: true }
            data_param { source: "gone_lmdb" batch_size: 6 backend: LMDB } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
    """
    Path("net.prototxt").write_text(net)
    assert run(["inspect", "net.prototxt"]) == 0
    out, notes = capsys.readouterr()
    assert "2 × 1200" in out and "data (6, 3, 20, 20), label (6,)" in notes
    assert run(["inspect", "net.prototxt", "--shape", "data=1,1,4,4"]) == 0
    assert "2 × 16" in capsys.readouterr().out
    assert run(["time", "--model", "net.prototxt", "--iterations", "1"]) == 0
    Path("net.prototxt").write_text(net.replace("crop_size: 20", ""))
    assert "--shape data=... --shape label=..." in error_of("inspect", "net.prototxt")
    shapes = ("--shape", "data=1,1", "--shape", "label=1")
    assert "the top oops" in error_of("inspect", "net.prototxt", *shapes, "--shape=oops=1")
    assert "--shape data:" in error_of("inspect", "net.prototxt", "--shape", "data")


# ---- draw


def graph_of(path):
    """The nodes, as text, and the edges (node, label, node) of a DOT file."""
    text = Path(path).read_text()
    nodes = dict(re.findall(r"^  (\w+) \[(.*)\]$", text, re.M))
    edges = [
        (a, (re.search(r'label="([^"]*)"', rest) or ["", ""])[1].strip(), b)
        for a, b, rest in re.findall(r"^  (n\w+) -> (n\w+)(.*)$", text, re.M)
    ]
    return nodes, edges


def test_a_drawing_has_every_layer_and_blob(mini):
    assert run(["draw", "train_val_drop.prototxt", "net.dot", "--phase", "TRAIN"]) == 0
    text = Path("net.dot").read_text()
    nodes, edges = graph_of("net.dot")
    for layer in caffe.load_net("train_val_drop.prototxt", phase="TRAIN").message.layer:
        assert text.count(f"<b>{layer.name}</b>") == 1
    conv1 = next(n for n, label in nodes.items() if "<b>conv1</b>" in label)
    assert "Convolution 6 of 7×7 /2" in nodes[conv1] and "<b>relu1</b>" in nodes[conv1]  # relu1 works in place
    assert [label for a, label, _ in edges if a == conv1] == ["8×6×31×31"]
    loss = next(n for n, label in nodes.items() if "<b>loss</b>" in label)
    assert [label for a, label, _ in edges if a == loss] == ["scalar"]
    run(["draw", "train_val_drop.prototxt", "again.dot", "--phase", "TRAIN"])
    assert Path("again.dot").read_text() == text
    run(["draw", "train_val_drop.prototxt", "flat.dot", "--rankdir", "LR"])
    assert 'rankdir="LR"' in Path("flat.dot").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "resnet50", "captioner", "siamese"])
def test_edges_connect_each_layer_with_the_layers_that_read_it(name, tmp_path):
    file = tmp_path / "net.prototxt"
    file.write_text(str(getattr(caffe_nets, name)(train=True)))
    assert run(["draw", str(file), str(tmp_path / "net.dot"), "--phase", "TRAIN"]) == 0
    nodes, edges = graph_of(tmp_path / "net.dot")
    names = {node: re.findall(r"<b>(.*?)</b>", label) for node, label in nodes.items()}
    drawn = {(a.split("t")[0], b) for a, _, b in edges if names[b]}
    drawn = {(names[a][-1], names[b][0]) for a, b in drawn}
    wanted, maker = set(), {}
    for layer in caffe.load_net(file, phase="TRAIN").message.layer:
        if list(layer.top) != list(layer.bottom):
            wanted |= {(maker[bottom], layer.name) for bottom in layer.bottom}
        maker.update((top, layer.name) for top in layer.top)
    last = {rows[i]: rows[-1] for rows in names.values() for i in range(len(rows))}
    assert drawn == {(last[a], b) for a, b in wanted}


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
def test_images_are_rendered_by_graphviz(mini):
    assert run(["draw", "deploy.prototxt", "net.svg"]) == 0
    assert "conv1" in "".join(xml.parse("net.svg").getroot().itertext())
    for suffix, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert run(["draw", "deploy.prototxt", f"net.{suffix}"]) == 0
        assert Path(f"net.{suffix}").read_bytes().startswith(magic)


def test_without_graphviz_the_graph_is_written_and_named(mini, monkeypatch):
    monkeypatch.setenv("PATH", "")
    message = error_of("draw", "deploy.prototxt", "net.svg")
    assert "dot" in message and "net.dot" in message and not Path("net.svg").exists()
    assert Path("net.dot").read_text().startswith("digraph")


def test_drawing_errors_name_the_file(mini):
    assert "net.jpg" in error_of("draw", "deploy.prototxt", "net.jpg")
    assert "deploy.prototxt/net.dot" in error_of("draw", "deploy.prototxt", "deploy.prototxt/net.dot")


def test_a_net_is_drawn_without_its_data_and_with_any_name(folder, capsys):
    Path("data.h5").unlink()
    names = ("神経", '<b>&amp;"\\\\n', "x" * 100, "a\\001b")
    for name in names:
        Path("net.prototxt").write_text(NET.replace('name: "relu"', "name: '" + name + "'"))
        assert run(["draw", "net.prototxt", "net.dot"]) == 0
        assert "drawn without shapes" in capsys.readouterr().err
        if shutil.which("dot"):
            assert run(["draw", "net.prototxt", "net.svg"]) == 0
            xml.parse("net.svg")


# ---- what a layer class declares


def test_every_layer_type_declares_its_documentation():
    for name, layer in LAYERS.items():
        assert layer.category in CATEGORIES and re.fullmatch(r"\w+_layer\.[ch]pp", layer.caffe_source), name
        assert set(layer.bottom_roles) <= {"data", "labels", "cont"}, name
    assert set(draw.COLOURS) == set(CATEGORIES)


class Cube(Layer):
    category = "activation"
    caffe_source = "cube_layer.cpp"
    limits = "none"

    def setup(self, shapes):
        return shapes

    def forward(self, x):
        return self.param.power_param.scale * x**3

    def operations(self, bottoms, tops):
        return 3 * prod(bottoms[0])

    @staticmethod
    def summary(param):
        return f"times {param.power_param.scale:g}"


def test_a_new_layer_type_needs_only_its_class(tmp_path, monkeypatch):
    monkeypatch.setitem(LAYERS, "Cube", Cube)
    file = tmp_path / "net.prototxt"
    file.write_text(
        'input: "x" input_shape { dim: 2 dim: 5 } '
        'layer { name: "cube" type: "Cube" bottom: "x" top: "y" power_param { scale: 2 } }'
    )
    net = caffe.load_net(file)
    assert net(x=torch.full((2, 5), 3.0))["y"].unique().tolist() == [54]
    assert inspect.figures(net)[-1].operations == 30
    assert "Cube times 2" in draw.to_dot(net.message)
    assert "| `Cube` | activation | both | none | cube_layer.cpp |" in layers_table.make_table()


def test_the_table_of_layers_in_the_documentation_is_up_to_date():
    text = (ROOT / "docs/caffe.md").read_text(encoding="utf-8")
    assert layers_table.replace_table(text) == text, (
        "run: python -m seqclf.caffe.description.layers_table docs/caffe.md"
    )


# ---- convert


def test_convert_to_a_run_and_back(mini, capsys):
    words = ["convert", "-model", "deploy.prototxt", "-weights", "init.caffemodel", "--workdir", "run"]
    assert run([*words, "--classes", "a,b,c,d,e", "--mean", "104,117,123"]) == 0
    out = capsys.readouterr().out
    assert "(temporal): LSTM(16, 12)" in out and "checkpoint: run/checkpoints/step_0.pt" in out
    assert "conv1 (Convolution) -> encoder.conv1: Conv2d(3, 6" in out
    assert "lstm1 (LSTM) -> temporal, layer 0" in out and "fc8-final (InnerProduct) -> head" in out
    assert "seqclf train --config CONFIG.py --init run" in out
    _, _, record, _ = load_run("run")
    assert record["data"]["classes"] == ["a", "b", "c", "d", "e"]

    assert run(["convert", "run", "back.prototxt", "back.caffemodel", "--frames", "4", "--streams=2"]) == 0
    assert "input data: 8 × 3 × 67 × 67" in capsys.readouterr().out
    data = torch.from_numpy(mini.arrays["data_i16"]).float()
    cm = torch.from_numpy(mini.arrays["cm"]).float()
    with torch.no_grad():
        again = caffe.load_net("back.prototxt", "back.caffemodel")(data=data, cm=cm)
        net = caffe.load_net("deploy.prototxt", "init.caffemodel")(data=data, cm=cm.view(8, 1, 1, 1))
    assert torch.allclose(again["probs"], net["probs"], atol=1e-6)

    assert "run" in error_of(*words)
    words[-1] = "other"
    assert "5 classes" in error_of(*words, "--classes", "a,b")
    Path("names.txt").write_text("eins\nzwei\ndrei\nvier\nfünf\n")
    assert run([*words, "--classes", "names.txt"]) == 0
    assert load_run("other")[2]["data"]["classes"][4] == "fünf"


def test_the_mean_may_be_a_binaryproto_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case = Case("io_mean", tmp_path)
    want = case.arrays["mean"][0].mean((1, 2))
    assert convert.parse_mean("legacy.binaryproto") == pytest.approx(want.tolist(), rel=1e-5)
    with pytest.raises(SeqclfError, match="expected numbers"):
        convert.parse_mean("a,b")


# ---- mistakes


@pytest.mark.parametrize(
    "words, part",
    [
        ("train --solver gone.prototxt", "gone.prototxt"),
        ("train --solver solver.prototxt --weights a --snapshot b", "--weights and --snapshot"),
        ("train --solver solver.prototxt --snapshot gone.solverstate", "gone.solverstate"),
        ("train --solver solver.prototxt -gpu 0,1", "--gpu 0,1"),
        ("train --solver solver.prototxt -gpu one", "--gpu one"),
        ("train --solver solver.prototxt -gpu 99", "GPU 99"),
        ("test --model net.prototxt --weights gone.caffemodel", "gone.caffemodel"),
        ("test --model net.prototxt --weights w --iterations 0", "--iterations 0"),
        ("time --model net.prototxt --iterations -3", "--iterations -3"),
        ("inspect gone.prototxt", "gone.prototxt"),
        ("draw gone.prototxt x.svg", "gone.prototxt"),
        ("convert --model net.prototxt", "--model, --weights and --workdir"),
        ("convert a.prototxt b.caffemodel", "RUN OUT.prototxt OUT.caffemodel"),
        ("convert run a.prototxt b.caffemodel", "run is not a run folder"),
        ("convert --model m --weights w --workdir d steps=5", "steps=5"),
    ],
)
def test_user_errors_name_the_option_or_file(folder, words, part):
    assert part in error_of(*words.split())


@pytest.mark.parametrize(
    "words", ["", "fly", "train", "train --solver", "test --model x", "draw x", "time --phase SOON"]
)
def test_invalid_command_lines_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        run(words.split())
    assert ended.value.code == 2 and "seqclf caffe" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--help", *(f"{command} --help" for command in COMMANDS), "--help train"])
def test_help(words, capsys):
    with pytest.raises(SystemExit) as ended:
        run(words.split())
    assert ended.value.code == 0 and capsys.readouterr().out
