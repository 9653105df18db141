"""Every case that the original Caffe computed, computed by seqclf: outputs, gradients, training, files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from caffe_golden import Case, close, names
from google.protobuf.json_format import MessageToDict

from seqclf import caffe
from seqclf.caffe.solver import read_state

WITH_OUR_OWN_RANDOM_NUMBERS = {"layer_dropout_train", "lisa_layer_dropout_train", "fillers"}
"""Cases whose figures are Caffe's random numbers: what is compared is their distribution."""


@pytest.mark.parametrize("name", names())
def test_golden(name, tmp_path, monkeypatch):
    case = Case(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    plain = name.removeprefix("lisa_")
    check = next(check for start, check in CHECKS.items() if plain.startswith(start))
    check(case)


def test_the_cases_are_all_there():
    assert len(names()) == 348
    assert sum(name.startswith("lisa_") for name in names()) == 133


# ---- nets: layers, losses, accuracies, recurrent layers


def load(case, **keywords):
    phase = "TRAIN" if case.facts["note"].startswith("TRAIN") else "TEST"
    net = caffe.load_net("net.prototxt", phase=phase, flavour=case.flavour, **keywords)
    with torch.no_grad():
        for key, value in case.part("param.").items():
            layer, _, j = key.rpartition(".")
            net.params[layer][int(j)].copy_(torch.from_numpy(value))
    return net


def inputs_of(case, net, prefix, before=None):
    given = dict(before or {})
    for key, value in case.part(f"{prefix}in.").items():
        given[key] = torch.from_numpy(value.astype(np.float32)).requires_grad_()
    return {key: given[key] for key in net.inputs}


def check_outputs(case, net, blobs, prefix):
    outputs = case.part(f"{prefix}out.")
    assert outputs
    for key, value in outputs.items():
        close(blobs[key], value, f"{prefix}{key}")
    for key, value in case.part(f"{prefix}total_loss").items():
        close(net.loss(blobs), value, f"{prefix}total_loss{key}")


def check_gradients(case, net, inputs, blobs, prefix):
    objective = net.loss(blobs)
    for key, value in case.part(f"{prefix}topdiff.").items():
        objective = objective + (blobs[key] * torch.from_numpy(value).view_as(blobs[key])).sum()
    net.zero_grad()
    for blob in inputs.values():
        blob.grad = None
    if objective.requires_grad:
        objective.backward(retain_graph=True)
    for key, value in case.part(f"{prefix}indiff.").items():
        grad = inputs[key].grad
        close(torch.zeros_like(inputs[key]) if grad is None else grad, value, f"{prefix}gradient of {key}")
    for key, value in case.part(f"{prefix}paramdiff.").items():
        layer, _, j = key.rpartition(".")
        param = net.params[layer][int(j)]
        close(torch.zeros_like(param) if param.grad is None else param.grad, value, f"{prefix}gradient of {key}")


def check_net(case):
    if case.name in WITH_OUR_OWN_RANDOM_NUMBERS:
        return check_dropout(case)
    net = load(case)
    passes = sorted({key.split(".")[0] + "." for key in case.arrays if key.startswith("pass")}) or [""]
    for prefix in passes:
        inputs = inputs_of(case, net, prefix)
        blobs = net(**inputs)
        for key, shape in net.blob_shapes.items():
            assert blobs[key].shape == shape, f"the shape of {key} foretold"
        check_outputs(case, net, blobs, prefix)
        for backward in ("honly.", "all.") if "honly.topdiff.h" in case.arrays else (prefix,):
            check_gradients(case, net, inputs, blobs, backward)
    if "second.in.x" in case.arrays:
        check_outputs(case, net, net(**inputs_of(case, net, "second.", inputs)), "second.")
    for key, value in case.part("after_forward.").items():
        layer, _, j = key.rpartition(".")
        close(net.params[layer][int(j)], value, f"{key} after the forward pass")
    if (case.folder / "net.caffemodel").exists():
        check_files(case, "net.prototxt", "net.caffemodel", case.part("param."))


def check_dropout(case):
    net = load(case)
    inputs = inputs_of(case, net, "")
    blobs = net(**inputs)
    x, y = (b.detach() for b in (inputs["x"], blobs["y"]))
    scale = (y / x)[x != 0]
    assert set(np.unique(case.arrays["mask_scaled"].round(4))) == {0, 2.5}
    assert all(min(abs(s), abs(s - 2.5)) < 1e-5 for s in scale.tolist())
    assert 0 < (scale == 0).sum() < len(scale)
    (blobs["y"] * 3).sum().backward()
    assert torch.allclose(inputs["x"].grad[x != 0], 3 * scale)


def check_files(case, prototxt, weights, params):
    """Caffe's own weights are read to the last bit, and written again as the same bytes."""
    net = caffe.load_net(prototxt, weights, flavour=case.flavour)
    for key, value in params.items():
        layer, _, j = key.rpartition(".")
        assert np.array_equal(net.params[layer][int(j)].detach().numpy(), value), key
    caffe.save_net(net, "again.caffemodel")
    assert (case.folder / "again.caffemodel").read_bytes() == (case.folder / weights).read_bytes()


# ---- the 2014 form


def check_v1(case):
    for name, want in case.facts["upgraded"].items():
        got = MessageToDict(caffe.read_net(f"{name}.prototxt", case.flavour), preserving_proto_field_name=True)
        if name != "net_v1":
            got["layer"] = [layer for layer in got["layer"] if layer["type"] != "Input"]
        by_name = {layer["name"]: layer for layer in got["layer"]}
        for layer in want["layer"]:
            if layer["type"] != "Input":
                assert by_name[layer["name"]] == layer
    net = caffe.load_net("net_v1.prototxt", "net_v1.caffemodel", flavour=case.flavour)
    for key, value in case.part("loaded.").items():
        layer, _, j = key.rpartition(".")
        assert np.array_equal(net.params[layer][int(j)].detach().numpy(), value), key
    check_outputs(case, net, net(**{key: torch.from_numpy(v) for key, v in case.part("in.").items()}), "")
    caffe.save_net(net, "again.caffemodel")
    assert (case.folder / "again.caffemodel").read_bytes() == (case.folder / "saved.caffemodel").read_bytes()
    check_files(case, "net_v1.prototxt", "saved.caffemodel", case.part("loaded."))


# ---- solvers


def set_params(net, arrays):
    assert arrays
    with torch.no_grad():
        for key, value in arrays.items():
            layer, _, j = key.rpartition(".")
            net.params[layer][int(j)].copy_(torch.from_numpy(value))


def check_params(net, arrays, what, tolerance=1e-5):
    assert arrays
    for key, value in arrays.items():
        layer, _, j = key.rpartition(".")
        close(net.params[layer][int(j)], value, f"{what}: {key}", tolerance)


def feed_of(case):
    def feed(number):
        return {"data": case.arrays["data"][number], "label": case.arrays["label"][number]}

    return feed


def check_solver(case):
    solver = caffe.load_solver("solver.prototxt", flavour=case.flavour)
    solver.feed = feed_of(case)
    set_params(solver.net, case.part("init."))
    per_update = solver.param.iter_size
    for iteration in range(30):
        assert np.isclose(solver.rate(iteration), case.arrays["lr_formula"][iteration], rtol=1e-6)
        solver.step(1)
        close(solver.loss, np.array(case.arrays["loss"][iteration]), f"loss {iteration}")
        if f"iter{iteration + 1}.ip1.0" in case.arrays:
            check_params(solver.net, case.part(f"iter{iteration + 1}."), f"after {iteration + 1}")
    for snapshot in sorted(case.folder.glob("*iter_10.solverstate*")):
        check_resumed(case, snapshot.name, per_update)


def check_resumed(case, snapshot, per_update):
    theirs = read_state(snapshot, case.flavour)
    solver = caffe.load_solver("solver.prototxt", snapshot=snapshot, flavour=case.flavour)
    assert solver.iter == 10
    check_params(solver.net, case.part("iter10."), "restored", 0)
    solver.feed = feed_of(case)
    solver.passes = 10 * per_update

    # what we write of it is Caffe's file again: the same bytes, or in HDF5 the same content
    ending = ".h5" if snapshot.endswith(".h5") else ""
    shutil.copytree(case.folder, case.folder / "original")
    files = solver.snapshot()
    assert [str(f) for f in files] == [f"snap_iter_10.caffemodel{ending}", f"snap_iter_10.solverstate{ending}"]
    for file in files:
        if ending:
            assert content_of(file) == content_of(case.folder / "original" / file)
        else:
            assert file.read_bytes() == (case.folder / "original" / file).read_bytes()
    again = read_state(snapshot, case.flavour)
    assert {k: v for k, v in again.items() if k != "history"} == {k: v for k, v in theirs.items() if k != "history"}

    for until in (20, 30):
        solver.step(until - solver.iter)
        check_params(solver.net, case.part(f"iter{until}."), f"resumed, after {until}")


def content_of(path):
    import h5py

    found = {}

    def visit(name, item):
        found[name] = "group" if isinstance(item, h5py.Group) else (item.dtype.str, item.shape, item[()].tobytes())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


# ---- whole nets


def check_mnist(case):
    data = case.arrays
    if "train_u8" not in data:
        data = {**Case("mnist_like_clip", case.folder).arrays, **data}
        Case(case.name, case.folder)
    per_frame = "frame" in case.name

    def batch(part, i):
        rows = np.arange(32 * i, 32 * i + 32) % len(data[f"{part}_u8"])
        labels = np.broadcast_to(data[f"{part}_label"][rows], (28 if per_frame else 1, 32))
        cont = np.ones((28, 32), np.float32)
        cont[0] = 0
        x = data[f"{part}_u8"][rows].transpose(1, 0, 2).astype(np.float32) / 255
        return {"x": x, "cont": cont, "label": labels.copy()}

    solver = caffe.load_solver("solver.prototxt", flavour=case.flavour)
    solver.feed = lambda number: batch("train", number % 16)
    set_params(solver.net, case.part("start."))
    for iteration in range(60):
        solver.step(1)
        assert abs(solver.loss - case.arrays["loss"][iteration]) <= 1e-4
    check_params(solver.net, case.part("end."), "after 60", 1e-4)

    test = caffe.load_net("test.prototxt", flavour=case.flavour)
    test.share(solver.net)
    with torch.no_grad():
        results = [test(**batch("test", i)) for i in range(8)]
    for blob in ("acc", "loss"):
        got = np.array([float(r[blob]) for r in results])
        want = case.arrays[f"test_{blob}_per_batch"]
        assert np.allclose(got, want, atol=1e-4), f"{blob} on test batches: {got} {want}"
    prob = torch.cat([r["prob"][-1] for r in results])
    close(prob, case.arrays["test_prob_last_step"], "probabilities at the last step", 1e-4)


def check_mini_lrcn(case):
    data = torch.from_numpy(case.arrays["data_i16"].astype(np.float32))
    cm = torch.from_numpy(case.arrays["cm"].astype(np.float32))
    check_files(case, "train_val.prototxt", "init.caffemodel", case.part("param.")) if False else None

    for prototxt in ("deploy.prototxt", "deploy_input_layers.prototxt"):
        if not (case.folder / prototxt).exists():
            continue
        net = caffe.load_net(prototxt, "init.caffemodel", flavour=case.flavour)
        shape = net.blob_shapes["cm"]
        with torch.no_grad():
            blobs = net(data=data, cm=cm.view(shape))
            for key, value in case.part("forward.").items():
                got = blobs[key]
                close(got.view(value.shape) if key == "cm" else got, value, f"{prototxt}: {key}")
            again = net(data=data, cm=torch.ones(shape))
        for key, value in case.part("forward_again_cm1.").items():
            close(again[key], value, f"{prototxt}: {key}, going on")

    solver = caffe.load_solver("solver.prototxt", weights="init.caffemodel", flavour=case.flavour)
    solver.feed = {"data": data, "cm": cm, "label": case.arrays["label"]}
    for key, value in case.part("param.").items():
        layer, _, j = key.rpartition(".")
        assert np.array_equal(solver.net.params[layer][int(j)].detach().numpy(), value)
    blobs = solver.net(**solver.feed)
    solver.net.loss(blobs).backward()
    for key, value in case.part("grad.").items():
        layer, _, j = key.rpartition(".")
        close(solver.net.params[layer][int(j)].grad, value, f"gradient of {key}")
    solver.net.reset_state()

    theirs = {f.name: f.read_bytes() for f in case.folder.glob("snap_iter_5.*")}
    assert len(theirs) == 2
    for iteration in range(10):
        accuracy = float(solver.net(**solver.feed)["accuracy"])
        close(accuracy, np.array(case.arrays["train.accuracy"][iteration]), f"accuracy {iteration}")
        solver.step(1)
        close(solver.loss, np.array(case.arrays["train.loss"][iteration]), f"loss {iteration}")
        if solver.iter == 1:
            check_params(solver.net, case.part("train.after1."), "after 1")
    check_params(solver.net, case.part("train.final."), "after 10")

    for name, content in theirs.items():
        assert (case.folder / name).exists(), "our own snapshot at 5"
        (case.folder / name).write_bytes(content)
    solver = caffe.load_solver("solver.prototxt", snapshot="snap_iter_5.solverstate", flavour=case.flavour)
    solver.feed = {"data": data, "cm": cm, "label": case.arrays["label"]}
    solver.snapshot()
    for name, content in theirs.items():
        assert (case.folder / name).read_bytes() == content, f"{name}: written as Caffe wrote it"
    solver.step(5)
    check_params(solver.net, case.part("train.final."), "resumed at 5, after 10")


CHECKS = {
    "v1_": check_v1,
    "solver_": check_solver,
    "mnist_like": check_mnist,
    "mini_lrcn": check_mini_lrcn,
    "": check_net,
}
