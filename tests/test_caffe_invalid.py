"""Invalid files of Caffe are refused by layer, field and blob; unusual files that Caffe accepts are read."""

from __future__ import annotations

import math
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from caffe_mutants import MEMORY, address_space, varint

from seqclf import caffe
from seqclf.caffe import CaffeFormatError
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.nets.weights import read_weights
from seqclf.caffe.solvers.snapshot import read_state


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": MEMORY}.__getitem__)


INPUTS = 'input: "x" input_shape { dim: 2 dim: 3 } input: "label" input_shape { dim: 2 } '
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } %s } '
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" %s } '


def layer(name, type, bottom, top, more=""):
    return f'layer {{ name: "{name}" type: "{type}" bottom: "{bottom}" top: "{top}" {more} }} '


def given(*dims):
    return f'input: "x" input_shape {{ {" ".join(f"dim: {n}" for n in dims)} }} '


def wide(outputs, inputs=10):
    return given(1, inputs) + layer("ip", "InnerProduct", "x", "y", f"inner_product_param {{ num_output: {outputs} }}")


V0_PAD = (
    'input: "x" input_dim: 1 input_dim: 1 input_dim: 2 input_dim: 2 '
    'layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "x" top: "p" } '
    'layers { layer { name: "a" type: "%s" } bottom: "p" top: "y" }'
)
WRONG_NETS = {
    # the problem: the prototxt, and the parts of the error besides the file
    "a terabyte of input": (given(1000000, 1000000), '"input"', "(1000000, 1000000)"),
    "a terabyte of parameters": (wide(2**31 - 1, 1000), '"ip"', "(2147483647, 1000)"),
    "more parameters than memory": (wide(2_000_000), '"ip"', "0.1 GB"),
    "more dummy data than memory": (
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 100000 dim: 1000 } } }',
        '"d"',
        "0.4 GB",
    ),
    "a negative size": (given(2, -3), '"input"', "(2, -3)"),
    "a size whose product overflows": (given(2**62, 4), '"input"'),
    "33 axes": (given(*[1] * 33), '"input"', "32 axes"),
    "a cycle": (layer("a", "ReLU", "q", "p") + layer("b", "ReLU", "p", "q"), '"a"', '"q"', "later"),
    "a layer that reads itself": (layer("a", "ReLU", "p", "p"), '"a"', '"p"'),
    "two makers of a blob": (given(2) + layer("a", "ReLU", "x", "y") + layer("b", "TanH", "x", "y"), '"b"', '"y"'),
    "two inputs of a name": (given(2) + given(2), '"input"', '"x"'),
    "a blob changed that others read": (
        given(2) + layer("a", "ReLU", "x", "y") + layer("b", "TanH", "x", "x"),
        '"b"',
        '"x"',
        "in place",
    ),
    "two layers of a name": (INPUTS + IP % "" + layer("ip", "ReLU", "y", "z"), '"ip"', "2 layers"),
    "no such blob": (given(2) + layer("a", "ReLU", "z", "y"), '"a"', '"z"'),
    "no such type": (given(2) + layer("a", "Relu", "x", "y"), '"a" (Relu)', "unknown type"),
    "no type": (given(2) + 'layer { name: "a" bottom: "x" top: "y" }', '"a"', "type is missing"),
    "too many bottoms": (INPUTS + layer("a", "ReLU", "x", "y", 'bottom: "label"'), '"a"', "2 bottoms"),
    "too many tops": (given(2) + layer("a", "ReLU", "x", "y", 'top: "z"'), '"a"', "2 tops"),
    "too many loss weights": (INPUTS + IP % "loss_weight: 1 loss_weight: 2", '"ip"', "loss_weight", "2 values"),
    "too few propagate_down": (
        INPUTS + IP % "" + LOSS % "propagate_down: true",
        '"loss"',
        "propagate_down",
        "1 values",
    ),
    "too many params": (INPUTS + IP % "param {} param {} param {}", '"ip"', "param", "3 entries"),
    "params of a layer that has none": (
        given(2) + layer("a", "ReLU", "x", "y", "param {}"),
        '"a"',
        "param",
        "1 entries",
    ),
    "include and exclude": (given(2) + layer("a", "ReLU", "x", "y", "include {} exclude {}"), '"a"', "exclude"),
    "shared parameters of two shapes": (
        INPUTS + IP % 'param { name: "w" }' + layer("b", "Scale", "x", "z", 'param { name: "w" }'),
        '"b"',
        '"w"',
        "(4, 3)",
        "(3,)",
    ),
    "a filler without bounds": (
        INPUTS + IP.replace("4 }", '4 weight_filler { type: "uniform" max: inf } }') % "",
        '"ip"',
    ),
    "no such filler": (
        INPUTS + IP.replace("4 }", '4 weight_filler { type: "normal" } }') % "",
        '"ip"',
        '"normal"',
        "gaussian",
    ),
    "a V0 layer of no type": ('layers { layer { name: "a" type: "rel" } }', '"a" (rel)', "unknown type"),
    "a V0 layer that reads padding": (V0_PAD % "relu", '"a" (relu)', '"pad"'),
    "a V0 layer without its bottom": ('layers { layer { name: "a" type: "relu" } bottom: "x" }', '"a" (relu)', '"x"'),
    "several problems": (
        given(2)
        + layer("a", "NotThere", "x", "y", "not_there_param { width: 3 }")
        + layer("b", "Pooling", "x", "z", "pooling_param { kernel_size: 1 side: 2 }")
        + layer("c", "AlsoNot", "y", "u")
        + layer("d", "ReLU", "u", "v")
        + layer("e", "ReLU", "w", "w"),
        "6 problems",
        "expected 4 axes",
        '"a" (NotThere): unknown field not_there_param',
        '"b" (Pooling): unknown field pooling_param.side',
        '"e" (ReLU): bottom "w"',
        '"a" (NotThere): unknown type',
        '"c" (AlsoNot): unknown type',
    ),
    "ceil_mode that contradicts round_mode": (
        given(2) + layer("a", "Pooling", "x", "y", "pooling_param { round_mode: FLOOR ceil_mode: true }"),
        '"a"',
        "round_mode",
        "ceil_mode",
    ),
    "both forms": ('layer { name: "a" } layers { name: "b" type: RELU }', "layers"),
    "a V1 layer without a type": ('layers { name: "a" }', '"a"', "type"),
    "input_dim of too few": ('input: "x" input_dim: 1 input_dim: 2', "input_dim", "2 values"),
    "input_shape of too few": ('input: "x" input: "z" input_shape {}', "input_shape", "1 shapes"),
    "both ways to say sizes": ('input: "x" input_shape { dim: 1 } input_dim: 1', "input_dim"),
    "a required field": (given(2) + layer("a", "Clip", "x", "y", "clip_param { min: 1 }"), "clip_param.max"),
    "no such field": ("\n\nlayer { colour: 3 }", "line 3", "colour"),
    "no such value": ("\nlayer { pooling_param { pool: MEDIAN } }", "line 2", "MEDIAN"),
    "a number too large": ("layer { pooling_param { pad: 4294967296 } }", "line 1", "4294967296"),
    "a number that is none": ("layer { pooling_param { pad: nan } }", "line 1", "nan"),
    "an unfinished string": ('\nname: "x', "line 2"),
    "an unfinished layer": ("layer {", "Expected"),
    "deep nesting": ("layer { " * 100_000, "line 1"),
    "text that is not UTF-8": (b'name: "caf\xe9"', "UTF-8"),
    "a string that is not UTF-8": (r'name: "\377"', "line 1"),
    "a binary file": (b"\x0a\xff\xff\xff\xff\x0f", "line 2"),
}


@pytest.mark.parametrize("what", WRONG_NETS)
def test_an_invalid_net_is_refused_by_layer_and_field(what, tmp_path):
    text, *parts = WRONG_NETS[what]
    path = tmp_path / "wrong.prototxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = address_space()
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_net(path)
    assert address_space() - before < 100
    for part in (str(path), *parts):
        assert part in str(error.value)
    assert str(error.value).replace("\n", "").isprintable()


def changed_layer(**fields):
    def change(net):
        for name, value in fields.items():
            setattr(net.layer[0], name, value)

    return change


def changed_blob(j, change):
    def of_net(net):
        change(net.layer[0].blobs[j])

    return of_net


def twice(net):
    net.layer.add().CopyFrom(net.layer[0])


def without(field):
    return lambda blob: blob.ClearField(field)


WRONG_WEIGHTS = {
    # the problem: a change of the net's message, and the parts of the error
    "one value more": (changed_blob(0, lambda b: b.data.append(1)), '"ip"', "blob 0", "(4, 3)", "13"),
    "one value less": (changed_blob(1, lambda b: b.data.pop()), '"ip"', "blob 1", "(4,)", "3"),
    "no values": (changed_blob(0, without("data")), '"ip"', "blob 0", "(4, 3)", "0"),
    "no shape": (changed_blob(0, without("shape")), '"ip"', "blob 0", "()", "12"),
    "a negative size": (changed_blob(0, lambda b: b.shape.dim.extend([-1])), '"ip"', "blob 0", "(4, 3, -1)"),
    "a terabyte": (changed_blob(0, lambda b: b.shape.dim.extend([10**11])), '"ip"', "blob 0", "100000000000"),
    "sizes that overflow": (changed_blob(0, lambda b: b.shape.dim.extend([2**62, 4])), '"ip"', "blob 0"),
    "33 axes": (changed_blob(1, lambda b: b.shape.dim.extend([1] * 32)), '"ip"', "blob 1", "32 axes"),
    "another shape": (changed_blob(0, lambda b: b.shape.dim.reverse()), '"ip"', "blob 0", "(3, 4)", "(4, 3)"),
    "swapped blobs": (lambda net: net.layer[0].blobs.reverse(), '"ip"', "blob 0", "(4,)", "(4, 3)"),
    "a blob more": (lambda net: net.layer[0].blobs.add(data=[1]), '"ip"', "3 blobs", "2"),
    "a blob less": (lambda net: net.layer[0].blobs.pop(), '"ip"', "1 blobs", "2"),
    "no blobs": (lambda net: net.layer[0].ClearField("blobs"), '"ip"', "0 blobs", "2"),
    "the same layer twice": (twice, '"ip"', "two layers"),
    "another layer": (changed_layer(name="other"), "no weights for layer ip", "layer other"),
    "weights of a layer that has none": (changed_layer(name="relu"), '"relu"', "2 blobs"),
    "both forms": (lambda net: net.layers.add(name="old"), "layers"),
    "a legacy shape of another size": (
        changed_blob(0, lambda b: (b.ClearField("shape"), setattr(b, "num", 12), setattr(b, "channels", 1))),
        '"ip"',
        "blob 0",
        "(12, 1, 0, 0)",
    ),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A net and its weights, as a message."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(INPUTS + IP % "" + layer("relu", "ReLU", "y", "z"))
    message = schema().NetParameter()
    ip = message.layer.add(name="ip", type="InnerProduct")
    for shape in ((4, 3), (4,)):
        ip.blobs.add(shape={"dim": shape}, data=range(math.prod(shape)))
    return message


@pytest.mark.parametrize("what", WRONG_WEIGHTS)
def test_invalid_weights_are_refused_by_layer_and_blob(what, small):
    Path("right.caffemodel").write_bytes(small.SerializeToString())
    caffe.load_net("net.prototxt", "right.caffemodel")
    change, *parts = WRONG_WEIGHTS[what]
    change(small)
    Path("wrong.caffemodel").write_bytes(small.SerializeToString())
    before = address_space()
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_net("net.prototxt", "wrong.caffemodel")
    assert address_space() - before < 100
    for part in ("wrong.caffemodel", *parts):
        assert part in str(error.value)


@pytest.mark.parametrize("size", [2**31 - 1, 2**40, 2**63 - 1, 2**64 - 1])
def test_a_length_beyond_the_file_allocates_no_memory(size, small):
    data = small.SerializeToString()
    for at in (0, data.index(b"InnerProduct"), len(data)):
        Path("wrong.caffemodel").write_bytes(data[:at] + varint(100 << 3 | 2) + varint(size) + data[at:])
        before = address_space()
        for read in (caffe.read_net, read_weights):
            with pytest.raises(CaffeFormatError, match=r"wrong\.caffemodel"):
                read("wrong.caffemodel")
        assert address_space() - before < 100


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\0b", b"x" * 10**6, b"", b"\n", b"\x1b[2J"])
def test_a_layer_name_may_contain_any_bytes(name, small):
    small.layer[0].ClearField("name")
    rest = small.layer[0].SerializeToString()
    named = varint(1 << 3 | 2) + varint(len(name)) + name + rest
    Path("wrong.caffemodel").write_bytes(varint(100 << 3 | 2) + varint(len(named)) + named)
    with pytest.raises(CaffeFormatError, match=r"wrong\.caffemodel") as error:
        caffe.load_net("net.prototxt", "wrong.caffemodel")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 3000


@pytest.mark.parametrize("ending", ["caffemodel", "solverstate", "h5", "prototxt"])
def test_pipes_folders_and_devices_are_refused_without_waiting(ending, small):
    os.mkfifo(f"pipe.{ending}")
    Path(f"folder.{ending}").mkdir()
    os.symlink("/dev/zero", f"endless.{ending}")
    reads = {
        "caffemodel": lambda file: caffe.load_net("net.prototxt", file),
        "solverstate": read_state,
        "h5": lambda file: caffe.load_net("net.prototxt", file),
        "prototxt": caffe.load_net,
    }
    for file in (f"{name}.{ending}" for name in ("pipe", "folder", "endless", "none")):
        with pytest.raises(CaffeFormatError, match=file):
            reads[ending](file)


def h5_weights(change):
    with h5py.File("wrong.h5", "w") as file:
        file["data/ip/0"] = np.zeros((4, 3), "f4")
        file["data/ip/1"] = np.zeros(4, "f4")
        file.create_group("data/relu")
        change(file)


def remake(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


WRONG_H5 = {
    "no data": (lambda file: file.move("data", "other"), "data"),
    "another layer": (lambda file: file.move("data/ip", "data/other"), "no weights for layer ip", "layer other"),
    "another shape": (remake("data/ip/0", data=np.zeros((3, 4), "f4")), '"ip"', "blob 0", "(3, 4)", "(4, 3)"),
    "a blob less": (lambda file: file.pop("data/ip/0"), '"ip"', "1 blobs", "2"),
    "a blob more": (lambda file: file.create_dataset("data/ip/2", data=1.0), '"ip"', "3 blobs"),
    "a blob of a layer that has none": (lambda file: file.create_dataset("data/relu/0", data=1.0), '"relu"', "1 blobs"),
    "no number": (lambda file: file.move("data/ip/1", "data/ip/bias"), "/data/ip/bias"),
    "no layer": (lambda file: file.move("data/ip/1", "data/1"), "/data/1"),
    "no numbers": (remake("data/ip/1", data=np.array([b"x"] * 4)), '"ip"', "blob 1"),
    "nothing": (remake("data/ip/1", data=h5py.Empty("f4")), '"ip"', "blob 1"),
    "a terabyte": (remake("data/ip/0", shape=(10**6, 10**6), dtype="f4"), '"ip"', "blob 0", "(1000000, 1000000)"),
    "4 GB that are not there": (remake("data/ip/0", shape=(2**30,), dtype="f4"), '"ip"', "blob 0", "more values"),
    "4 GB compressed": (
        remake("data/ip/0", shape=(2**30,), dtype="f4", chunks=(2**20,), compression="gzip"),
        '"ip"',
        "blob 0",
        "more values",
    ),
}


@pytest.mark.parametrize("what", WRONG_H5)
def test_invalid_hdf5_weights_are_refused_by_layer_and_blob(what, small):
    h5_weights(lambda file: None)
    caffe.load_net("net.prototxt", "wrong.h5")
    change, *parts = WRONG_H5[what]
    h5_weights(change)
    before = address_space()
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_net("net.prototxt", "wrong.h5")
    assert address_space() - before < 100
    for part in ("wrong.h5", *parts):
        assert part in str(error.value)


SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" '
WRONG_SOLVERS = {
    "no net": ('base_lr: 0.1 lr_policy: "fixed"', "train_net"),
    "two nets": (SOLVER + 'train_net: "net.prototxt"', "net, train_net"),
    "a net that is not there": (SOLVER.replace("net.", "no."), "field net", '"no.prototxt"'),
    "weights that are not there": (SOLVER + 'weights: "none.caffemodel"', "field weights", '"none.caffemodel"'),
    "no such policy": (SOLVER.replace("fixed", "stepwise"), "lr_policy", '"stepwise"'),
    "a policy without its field": (SOLVER.replace("fixed", "step"), "gamma and stepsize"),
    "no rate": ('net: "net.prototxt" lr_policy: "fixed"', "base_lr"),
    "no such type": (SOLVER + 'type: "Sgd"', '"Sgd"'),
    "two types": (SOLVER + 'type: "SGD" solver_type: ADAM', "solver_type"),
    "no such penalty": (SOLVER + 'regularization_type: "L3"', '"L3"'),
    "no iter_size": (SOLVER + "iter_size: 0", "field iter_size", "is 0"),
    "no average_loss": (SOLVER + "average_loss: 0", "field average_loss", "is 0"),
    "no test_interval": (SOLVER + "test_iter: 1", "field test_interval"),
    "a negative test_interval": (SOLVER + "test_iter: 1 test_interval: -1", "field test_interval"),
    "too few test_iter": (SOLVER + 'test_net: "net.prototxt" test_interval: 1', "field test_iter"),
    "too many test_state": (SOLVER + "test_iter: 1 test_interval: 1 test_state {} test_state {}", "field test_state"),
    "momentum that is no number": (SOLVER + "momentum: nan", "momentum nan"),
}


@pytest.mark.parametrize("what", WRONG_SOLVERS)
def test_an_invalid_solver_is_refused_by_field(what, small):
    text, *parts = WRONG_SOLVERS[what]
    Path("solver.prototxt").write_text(text)
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_solver("solver.prototxt")
    for part in ("solver.prototxt", *parts):
        assert part in str(error.value)


WRONG_STATES = {
    "a negative iteration": (lambda state: setattr(state, "iter", -1), "field iter", "-1"),
    "a negative step": (lambda state: setattr(state, "current_step", -5), "field current_step", "-5"),
    "weights that are not there": (
        lambda state: setattr(state, "learned_net", "no.caffemodel"),
        "learned_net",
        '"no.caff',
    ),
    "weights that never end": (lambda state: setattr(state, "learned_net", "/dev/zero"), "learned_net", "/dev/zero"),
    "weights of no name": (lambda state: setattr(state, "learned_net", "a\0b"), "learned_net", "a\\x00b"),
    "a blob less": (lambda state: state.history.pop(), "history of 1 blobs", "2"),
    "a blob more": (lambda state: state.history.add(data=[1]), "history of 3 blobs", "2"),
    "blobs swapped": (lambda state: state.history.reverse(), "history blob 0", "(4,)", "(4, 3)"),
    "one value less": (lambda state: state.history[1].data.pop(), "history 1", "(4,)", "3"),
}


@pytest.mark.parametrize("what", WRONG_STATES)
def test_an_invalid_snapshot_is_refused_by_field(what, small):
    Path("solver.prototxt").write_text(SOLVER)
    state = schema().SolverState(iter=3)
    for blob in small.layer[0].blobs:
        state.history.add().CopyFrom(blob)
    Path("right.solverstate").write_bytes(state.SerializeToString())
    assert caffe.load_solver("solver.prototxt", snapshot="right.solverstate").iter == 3
    change, *parts = WRONG_STATES[what]
    change(state)
    Path("wrong.solverstate").write_bytes(state.SerializeToString())
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_solver("solver.prototxt", snapshot="wrong.solverstate")
    for part in ("wrong.solverstate", *parts):
        assert part in str(error.value)


def test_iterations_are_limited_as_in_caffe(small):
    Path("solver.prototxt").write_text(SOLVER)
    Path("late.solverstate").write_bytes(
        schema().SolverState(iter=2**31 - 1, history=small.layer[0].blobs).SerializeToString()
    )
    solver = caffe.load_solver("solver.prototxt", snapshot="late.solverstate")
    with pytest.raises(CaffeFormatError, match=r"solver\.prototxt.*2\*\*31 - 1"):
        solver.step(1)


# ---- unusual files that Caffe accepts


def blobs_of(text, **inputs):
    Path("legal.prototxt").write_text(text)
    net = caffe.load_net("legal.prototxt")
    return net, net(**inputs)


def test_a_setting_for_another_type_of_layer_is_ignored(small):
    more = "pooling_param { kernel_size: 0 } transform_param { crop_size: 99 } loss_param { ignore_label: 1 }"
    net, blobs = blobs_of(given(2) + layer("a", "ReLU", "x", "y", more), x=torch.tensor([-1.0, 1.0]))
    assert blobs["y"].tolist() == [0, 1]
    assert net.message.layer[1].pooling_param.kernel_size == 0


def test_a_loss_without_a_top_is_part_of_the_total(small):
    """Caffe adds a top that no layer can read, and does not display it (Net::Init, AutoTopBlobs)."""
    labels = torch.zeros(2)
    net, blobs = blobs_of(
        INPUTS + IP % "" + LOSS.replace('top: "loss"', "") % "" + LOSS % "", x=torch.ones(2, 3), label=labels
    )
    assert net.outputs == ["loss"]
    assert net.loss(blobs) == 2 * blobs["loss"]
    caffe.save_net(net, "saved.caffemodel")
    saved = caffe.read_net("saved.caffemodel")
    loss = next(one for one in saved.layer if one.name == "loss")
    assert (list(loss.top), list(loss.loss_weight)) == ([], [1])
    assert caffe.load_net("legal.prototxt", "saved.caffemodel").outputs == ["loss"]


def test_the_second_top_of_softmax_loss_has_the_probabilities(small):
    Path("net.prototxt").write_text(INPUTS + IP % "" + LOSS % 'top: "p" loss_weight: 1 loss_weight: 0')
    net = caffe.load_net("net.prototxt")
    net.params["ip"][0].data.normal_()
    blobs = net(x=torch.randn(2, 3), label=torch.ones(2))
    assert torch.allclose(blobs["p"], blobs["y"].softmax(1))
    assert torch.allclose(blobs["loss"], -blobs["p"][:, 1].log().mean())
    net.loss(blobs).backward()
    assert net.params["ip"][0].grad.abs().sum() > 0
    with pytest.raises(CaffeFormatError, match=r'"loss".*loss_weight'):
        blobs_of(INPUTS + IP % "" + LOSS % 'top: "p"')


def test_a_layer_keeps_its_own_phase(small):
    text = (
        given(1000) + layer("a", "Dropout", "x", "y", "phase: TRAIN") + layer("b", "Dropout", "x", "z", "phase: TEST")
    )
    net, blobs = blobs_of(text, x=torch.ones(1000))
    assert 0 < (blobs["y"] == 0).sum() < 1000
    assert (net.train()(x=torch.ones(1000))["z"] == 1).all()


def test_a_blob_without_axes_has_no_shape(small):
    """Blob::ToProto writes no shape for the slope of a PReLU whose channels share it."""
    text = given(2, 3) + layer("a", "PReLU", "x", "y", "prelu_param { channel_shared: true }")
    net, _ = blobs_of(text, x=torch.zeros(2, 3))
    net.params["a"][0].data.fill_(0.75)
    caffe.save_net(net, "saved.caffemodel")
    blob = next(one for one in caffe.read_net("saved.caffemodel").layer if one.name == "a").blobs[0]
    assert not blob.HasField("shape") and list(blob.data) == [0.75]
    assert caffe.load_net("legal.prototxt", "saved.caffemodel").params["a"][0] == 0.75


def test_hdf5_files_contain_shared_parameters_once(small):
    """Net::ToHDF5 writes a shared parameter in the group of its owner only."""
    shared = IP % 'param { name: "w" }'
    text = INPUTS + shared + shared.replace('"ip"', '"ip2"').replace('"y"', '"z"')
    text += shared.replace('"ip"', '"ip3"').replace('"y"', '"q"').replace("4 }", "4 bias_term: false }")
    net, _ = blobs_of(text, x=torch.zeros(2, 3), label=torch.zeros(2))
    for p in net.parameters():
        p.data.normal_()
    caffe.save_net(net, "saved.h5")
    with h5py.File("saved.h5") as file:
        assert {name: sorted(file["data"][name]) for name in ("ip", "ip2", "ip3")} == {
            "ip": ["0", "1"],
            "ip2": ["1"],
            "ip3": [],
        }
    again = caffe.load_net("legal.prototxt", "saved.h5")
    for name, blobs in net.params.items():
        assert all(torch.equal(a, b) for a, b in zip(blobs, again.params[name], strict=True))
    with h5py.File("saved.h5", "r+") as file:
        del file["data/ip2/1"]
    with pytest.raises(CaffeFormatError, match=r'saved\.h5: layer "ip2": .* 0 blobs.* 2'):
        caffe.load_net("legal.prototxt", "saved.h5")


@pytest.mark.parametrize("kind", ["i4", "u1", ">f4", "f2", "f8", ">f8"])
def test_hdf5_weights_of_any_numeric_type_are_read(kind, small):
    h5_weights(remake("data/ip/0", data=np.arange(12).reshape(4, 3).astype(kind)))
    assert caffe.load_net("net.prototxt", "wrong.h5").params["ip"][0].flatten().tolist() == list(range(12))


def test_doubles_beyond_float32_become_infinite(small):
    small.layer[0].blobs[1].ClearField("data")
    small.layer[0].blobs[1].double_data.extend([1e300, -1e300, 1, 1e-300])
    Path("double.caffemodel").write_bytes(small.SerializeToString())
    bias = caffe.load_net("net.prototxt", "double.caffemodel").params["ip"][1]
    assert bias.tolist() == [math.inf, -math.inf, 1, 0]


def test_snapshots_with_four_axes_are_read(small):
    Path("solver.prototxt").write_text(SOLVER)
    state = schema().SolverState(iter=3)
    state.history.add(num=1, channels=1, height=4, width=3, data=range(12))
    state.history.add(num=1, channels=1, height=1, width=4, data=range(4))
    Path("old.solverstate").write_bytes(state.SerializeToString())
    weight, bias = caffe.load_solver("solver.prototxt", snapshot="old.solverstate").optimizer.history()
    assert (weight.flatten().tolist(), bias.tolist()) == (list(range(12)), list(range(4)))


def test_zero_test_iterations_give_no_results(small):
    Path("solver.prototxt").write_text(SOLVER + "test_iter: 0 test_interval: 1 test_compute_loss: true")
    lines = []
    solver = caffe.load_solver("solver.prototxt", log=lines.append)
    solver.feed = {"x": np.ones((2, 3)), "label": np.zeros(2)}
    solver.step(1)
    assert "Iteration 0, Testing net (#0)" in lines
    assert not any("Test net output" in line or "Test loss" in line for line in lines)


def test_a_solvers_states_choose_the_phase(small):
    for state, training in (("", True), ("train_state { phase: TEST }", False)):
        Path("solver.prototxt").write_text(SOLVER + state)
        assert caffe.load_solver("solver.prototxt").net.training is training
    Path("solver.prototxt").write_text(SOLVER)
    Path("net.prototxt").write_text("state { phase: TEST } " + Path("net.prototxt").read_text())
    assert not caffe.load_solver("solver.prototxt").net.training
