"""seqclf reproduces every case that the original Caffe recorded: outputs, gradients, training, files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from caffe_golden import Case, close, names
from google.protobuf.json_format import MessageToDict

from seqclf import caffe
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.layers.fillers import fill
from seqclf.caffe.solvers.snapshot import read_state

WITH_OUR_OWN_RANDOM_NUMBERS = {"layer_dropout_train", "lisa_layer_dropout_train", "fillers"}
"""Cases of random numbers, whose distributions are compared."""

RECORDED_WITHOUT_GRADIENT = {"loss_hinge_l1", "loss_hinge_l2"}
"""HingeLoss keeps its margins in the bottom's diff between forward and backward (hinge_loss_layer.cpp). The recording
zeroed all diffs in between, so it has no gradient. Training does not zero them, so the formula is tested instead."""


@pytest.mark.parametrize("name", names())
def test_golden(name, tmp_path, monkeypatch):
    case = Case(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    plain = name.removeprefix("lisa_")
    check = next(check for start, check in CHECKS.items() if plain.startswith(start))
    check(case)


def test_the_cases_are_all_there():
    assert len(names()) == 349
    assert sum(name.startswith("lisa_") for name in names()) == 134


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
    if case.name.removeprefix("lisa_") in RECORDED_WITHOUT_GRADIENT:
        return check_hinge(case, inputs)
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
            assert blobs[key].shape == shape, f"the declared shape of {key}"
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


def check_hinge(case, inputs):
    recorded, label = case.arrays["indiff.x"], case.arrays["in.label"].astype(int)
    assert (recorded == 0).all()
    x = case.arrays["in.x"].astype(np.float64)
    sign = np.ones_like(x)
    sign[np.arange(len(x)), label] = -1
    margin = np.maximum(0, 1 + sign * x)
    gradient = sign * (np.sign(margin) if case.name.endswith("l1") else 2 * margin) / len(x)
    close(inputs["x"].grad, gradient, "gradient of x")


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
    """Caffe's weights are read bit for bit, and written again as the same bytes."""
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
    shutil.copytree(case.folder, case.folder / "original")
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
    if solver.param.snapshot:
        (snapshot,) = (case.folder / "original").glob("*iter_10.solverstate*")
        for file in (case.folder / "original").glob("snap_iter_10*"):  # replaces the files of our own run
            shutil.copy(file, case.folder)
        check_resumed(case, snapshot.name, per_update)


def check_shared_parameters(case):
    """Two layers share a weight and a bias, which each fork updates in its own way, also after resuming."""
    save_rows(case.folder, case.arrays["x"], case.arrays["y"])
    for flavour, histories in (("bvlc", 2), ("lisa", 4)):
        for kind, momentum in (("SGD", 0.5), ("NESTEROV", 0.5), ("ADAGRAD", 0.0)):
            (case.folder / "solver.prototxt").write_text(
                f'net: "net.prototxt" base_lr: 0.1 momentum: {momentum} lr_policy: "fixed" max_iter: 9 '
                f'solver_type: {kind} snapshot_prefix: "snap"'
            )
            solver = caffe.load_solver("solver.prototxt", flavour=flavour)
            for layer in ("a", "b"):
                set_params(solver.net, {f"{layer}.{j}": case.arrays[f"init.{name}"] for j, name in enumerate("WB")})
            losses = case.facts[f"{flavour}.{kind}.losses"]
            check_losses(solver, losses[:2])
            snapshot = solver.snapshot()[1]
            assert len(read_state(snapshot, flavour)["history"]) == histories
            check_losses(solver, losses[2:4])

            resumed = caffe.load_solver("solver.prototxt", snapshot=snapshot, flavour=flavour)
            again = snapshot.read_bytes()
            resumed.snapshot()
            assert snapshot.read_bytes() == again
            check_losses(resumed, losses[2:4])
            for one in (solver, resumed):
                for key, value in case.part(f"{flavour}.{kind}.iter4.").items():
                    layer, j = key.split(".")
                    close(one.net.params[layer][int(j)].flatten(), value, f"{flavour} {kind}: {key}")
                check_losses(one, losses[4:])

            other = {"bvlc": "lisa", "lisa": "bvlc"}[flavour]
            with pytest.raises(caffe.CaffeFormatError, match="history"):  # the other fork's has another length
                caffe.load_solver("solver.prototxt", snapshot=snapshot, flavour=other)


def check_losses(solver, losses):
    for want in losses:
        solver.step(1)
        assert abs(solver.loss - want) < 2e-5


def save_rows(folder, x, y):
    import h5py

    with h5py.File(folder / "h.h5", "w") as file:
        file["x"], file["y"] = x, y
    (folder / "h.txt").write_text("h.h5\n")


def check_resumed(case, snapshot, per_update):
    theirs = read_state(snapshot, case.flavour)
    solver = caffe.load_solver("solver.prototxt", snapshot=snapshot, flavour=case.flavour)
    assert solver.iter == 10
    check_params(solver.net, case.part("iter10."), "restored", 0)
    solver.feed = feed_of(case)
    solver.passes = 10 * per_update

    # written again, it has the bytes of Caffe's file, or in HDF5 the same content
    ending = ".h5" if snapshot.endswith(".h5") else ""
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


# ---- images and fillers


def check_resize(case):
    bytes_of = {key.removesuffix("_u8"): value for key, value in case.part("in.").items()}
    images = {key: value.astype(np.float32) / np.float32(255) for key, value in bytes_of.items()}
    images |= {
        "small_255": bytes_of["small"].astype(np.float32),
        "gray": images["small"][..., :1],
        "constant": np.full((4, 6, 3), 0.25, np.float32),
    }
    for key, want in case.part("out.").items():
        name, size, *more = key.split(".")
        order = next((int(word[-1]) for word in more if word.startswith("order")), 1)
        got = caffe.io.resize_image(images[name], tuple(map(int, size.split("x"))), order, case.flavour)
        close(got[::4, ::4] if "sub4" in more else got, want, key)


def check_oversample(case):
    small, big = (case.arrays[f"in.{name}_u8"].astype(np.float32) / np.float32(255) for name in ("small", "big"))
    crops = {
        "small2.32x40": caffe.io.oversample([small, 1 - small], (32, 40)),
        "small.31x39": caffe.io.oversample([small], (31, 39)),
        "big.227x227.sub8": caffe.io.oversample([big], (227, 227))[:, ::8, ::8],
        "big.227x227.sums": caffe.io.oversample([big], (227, 227)).double().sum((1, 2, 3)),
        "small.32x40.flow": caffe.io.oversample([small], (32, 40), flow=True),
    }
    for key, want in case.part("out.").items():
        close(crops[key], want, key)


def check_transformer(case):
    small, big = (case.arrays[f"in.{name}_u8"].astype(np.float32) / np.float32(255) for name in ("small", "big"))
    usual = {"channel_swap": (2, 1, 0), "raw_scale": 255.0}
    means = {key: case.arrays[key] for key in ("mean_channel", "mean_array", "mean_other_size") if key in case.arrays}
    settings = {
        "a": ((1, 3, 32, 40), {**usual, "mean": means["mean_channel"], "input_scale": 0.017}),
        "b": ((1, 3, 32, 40), {**usual, "mean": means["mean_array"]}),
        "c": ((1, 3, 32, 40), {}),
        "d": ((1, 3, 48, 64), {**usual, "mean": means["mean_channel"]}),
        "e": ((1, 3, 32, 40), {**usual, "mean": means.get("mean_other_size")}),
        "lrcn": ((10, 3, 227, 227), {**usual, "mean": np.array([103.939, 116.779, 128.68], np.float32)}),
    }
    for key, want in case.part("out.").items():
        name = key.split(".")[0]
        if name.startswith("flip_"):
            image = small if name.endswith("_1") else case.arrays["in.small_u8"]
            close(caffe.io.flip_image(image, 1, flow="flow" in name), want, key)
            continue
        shape, values = settings[name]
        transformer = caffe.io.Transformer({"data": shape}, case.flavour)
        for what, value in {"transpose": (2, 0, 1), **values}.items():
            getattr(transformer, f"set_{what}")("data", value)
        if name == "lrcn":
            crops = caffe.io.oversample([big], (227, 227))
            got = torch.stack([transformer.preprocess("data", crop) for crop in crops])[..., ::4, ::4]
        else:
            got = transformer.preprocess("data", small)
            if f"deprocess.{name}" in case.arrays:
                close(transformer.deprocess("data", got), case.arrays[f"deprocess.{name}"], f"deprocess {name}")
        close(got, want, key)


def check_mean(case):
    for file in case.folder.glob("*.binaryproto"):
        got = caffe.io.read_mean(file, case.flavour)
        assert np.array_equal(got.numpy().reshape(-1), case.arrays["mean"].reshape(-1)), file.name
        said = case.facts.get(f"{file.stem}_shape_read_back")
        assert said is None or list(got.shape) == said[-got.dim() :], file.name
        assert list(got.shape) == [3, 6, 5], "a mean is one image: the axis before it is left out"


FILLERS = {
    "default": {},
    "constant": {"type": "constant", "value": 0.3},
    "uniform": {"type": "uniform", "min": -0.08, "max": 0.08},
    "uniform_default": {"type": "uniform"},
    "gaussian": {"type": "gaussian", "std": 0.01},
    "gaussian_mean": {"type": "gaussian", "mean": 1, "std": 0.5},
}


def check_fillers(case):
    torch.manual_seed(0)
    for side in ("3", "4"):
        got = torch.empty(case.arrays[f"bilinear.{side}"].shape)
        fill(got, schema().FillerParameter(type="bilinear"))
        close(got, case.arrays[f"bilinear.{side}"], f"bilinear {side}")
    compared = 0
    for key, want in case.facts["stats"].items():
        kind = key.split(".")[0]
        param = FILLERS.get(kind)
        if param is None and kind in ("xavier", "msra"):
            param = {"type": kind}
        if param is None:
            continue
        compared += 1
        blob = torch.empty(want["shape"])
        fill(blob, schema().FillerParameter(**param))
        noise = 5 * want["std"] / blob.numel() ** 0.5
        assert abs(float(blob.mean()) - want["mean"]) <= 2 * noise + 1e-7, key
        assert abs(float(blob.std()) - want["std"]) <= 2 * noise + 1e-7, key
        span = want["max"] - want["min"]
        assert abs(float(blob.max()) - want["max"]) <= 0.3 * span + 1e-7, key
    assert compared >= 12


CHECKS = {
    "io_resize": check_resize,
    "io_oversample": check_oversample,
    "io_transformer": check_transformer,
    "io_mean": check_mean,
    "fillers": check_fillers,
    "v1_": check_v1,
    "solver_shared_parameters": check_shared_parameters,
    "solver_": check_solver,
    "mnist_like": check_mnist,
    "mini_lrcn": check_mini_lrcn,
    "": check_net,
}
