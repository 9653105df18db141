"""Files in old forms and other encodings: each gives the net that it would give in today's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from seqclf import caffe
from seqclf.caffe.description.inspect import is_solver
from seqclf.caffe.formats.schema import schema

V0 = """
name: "v0" input: "x" input_dim: 2 input_dim: 3 input_dim: 9 input_dim: 9 force_backward: true
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "x" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1 biasterm: false
    weight_filler { type: "xavier" } blobs_lr: 1 weight_decay: 3 } bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 pad: 1 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 k: 2 } bottom: "pool1" top: "norm1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.3 } bottom: "norm1" top: "norm1" }
layers { layer { name: "join" type: "concat" concat_dim: 2 } bottom: "pool1" bottom: "norm1" top: "join" }
layers { layer { name: "ip" type: "innerproduct" num_output: 5 bias_filler { value: 0.5 }
    weight_filler { type: "gaussian" std: 0.1 } blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. }
    bottom: "join" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
"""
TODAY = """
name: "v0" force_backward: true
layer { name: "input" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
layer { name: "conv1" type: "Convolution" bottom: "x" top: "conv1" param { lr_mult: 1 decay_mult: 3 }
    convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 1 bias_term: false pad: 2
        weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
    pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.1 beta: 0.5 k: 2 } }
layer { name: "drop" type: "Dropout" bottom: "norm1" top: "norm1" dropout_param { dropout_ratio: 0.3 } }
layer { name: "join" type: "Concat" bottom: "pool1" bottom: "norm1" top: "join" concat_param { concat_dim: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "join" top: "ip" param { lr_mult: 1 decay_mult: 1 }
    param { lr_mult: 2 decay_mult: 0 } inner_product_param { num_output: 5 bias_filler { value: 0.5 }
        weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
V0_DATA = """
layers { layer { name: "a" type: "data" source: "s" batchsize: 3 scale: 0.5 meanfile: "m" cropsize: 7 mirror: true
    rand_skip: 4 } top: "a" top: "l" }
layers { layer { name: "b" type: "images" source: "s" batchsize: 3 shuffle_images: true new_height: 8 new_width: 9
    rand_skip: 2 } top: "b" top: "m" }
layers { layer { name: "c" type: "window_data" source: "s" batchsize: 3 det_fg_threshold: 0.6 det_bg_threshold: 0.4
    det_fg_fraction: 0.3 det_context_pad: 16 det_crop_mode: "square" } top: "c" top: "n" }
layers { layer { name: "d" type: "hdf5_data" source: "s" batchsize: 3 } top: "d" }
layers { layer { name: "e" type: "infogain_loss" source: "s" } bottom: "a" bottom: "l" top: "e" }
layers { layer { name: "f" type: "hdf5_output" hdf5_output_param { file_name: "o" } } bottom: "a" bottom: "l" }
"""
TODAY_DATA = """
layer { name: "a" type: "Data" top: "a" top: "l" data_param { source: "s" batch_size: 3 rand_skip: 4 }
    transform_param { scale: 0.5 mean_file: "m" crop_size: 7 mirror: true } }
layer { name: "b" type: "ImageData" top: "b" top: "m"
    image_data_param { source: "s" batch_size: 3 shuffle: true new_height: 8 new_width: 9 rand_skip: 2 } }
layer { name: "c" type: "WindowData" top: "c" top: "n" window_data_param { source: "s" batch_size: 3
    fg_threshold: 0.6 bg_threshold: 0.4 fg_fraction: 0.3 context_pad: 16 crop_mode: "square" } }
layer { name: "d" type: "HDF5Data" top: "d" hdf5_data_param { source: "s" batch_size: 3 } }
layer { name: "e" type: "InfogainLoss" bottom: "a" bottom: "l" top: "e" infogain_loss_param { source: "s" } }
layer { name: "f" type: "HDF5Output" bottom: "a" bottom: "l" hdf5_output_param { file_name: "o" } }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parse(text, kind="NetParameter"):
    return text_format.Parse(text, getattr(schema(), kind)())


@pytest.mark.parametrize("flavour", ["bvlc", "lisa"])
@pytest.mark.parametrize(("old", "new"), [(V0, TODAY), (V0_DATA, TODAY_DATA)], ids=["layers", "data"])
def test_v0_nets_are_upgraded_as_bvlc_caffe_does(old, new, flavour):
    Path("v0.prototxt").write_text(old)
    Path("v0.caffemodel").write_bytes(parse(old).SerializeToString())
    for path in ("v0.prototxt", "v0.caffemodel"):
        assert text_format.MessageToString(caffe.read_net(path, flavour)) == text_format.MessageToString(parse(new))


def test_weights_of_a_v0_file():
    rng = np.random.default_rng(0)
    message = parse(V0)
    weights = {"conv1": [(4, 3, 3, 3)], "ip": [(1, 1, 5, 128), (1, 1, 1, 5)]}
    for layer in message.layers:
        for shape in weights.get(layer.layer.name, ()):
            blob = layer.layer.blobs.add(**dict(zip(("num", "channels", "height", "width"), shape, strict=True)))
            blob.data.extend(rng.normal(size=int(np.prod(shape))).astype(np.float32).tolist())
    Path("v0.caffemodel").write_bytes(message.SerializeToString())
    Path("today.prototxt").write_text(TODAY)
    nets = [caffe.load_net("v0.caffemodel"), caffe.load_net("today.prototxt", "v0.caffemodel")]
    caffe.save_net(nets[0], "again.caffemodel")
    nets.append(caffe.load_net("again.caffemodel"))
    x = torch.randn(2, 3, 9, 9)
    first, *rest = (net(x=x)["prob"] for net in nets)
    assert all(torch.equal(first, one) for one in rest)
    assert np.allclose(nets[0].params["ip"][1].detach(), message.layers[7].layer.blobs[1].data)


def test_a_field_that_does_not_belong_to_a_v0_type_is_ignored_with_a_warning():
    Path("v0.prototxt").write_text(
        'input: "x" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1 '
        'layers { layer { name: "r" type: "relu" num_output: 3 } bottom: "x" top: "y" }'
    )
    with pytest.warns(UserWarning, match=r'"r" \(relu\).*num_output'):
        assert caffe.read_net("v0.prototxt").layer[1].type == "ReLU"


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "utf-8", "shift-jis"])
def test_comments_may_be_in_any_encoding(encoding):
    comment = {"latin-1": "H\u00f6he \u00d7 Breite"}.get(encoding, "\u4e2d\u6587")
    text = f'name: "n"  # {comment}\ninput: "x" # {comment}\ninput_shape {{ dim: 2 }}\n# {comment}'
    for name in ("net.prototxt", "net"):
        Path(name).write_bytes(text.encode(encoding))
        assert caffe.load_net(name).blob_shapes == {"x": (2,)}
    Path("solver.prototxt").write_bytes(f"base_lr: 0.5 # {comment}".encode(encoding))
    assert caffe.read_solver("solver.prototxt").base_lr == 0.5
    assert is_solver("solver.prototxt")


def test_a_utf8_byte_order_mark_is_skipped():
    Path("net.prototxt").write_bytes('input: "x" input_shape { dim: 2 }'.encode("utf-8-sig"))
    assert caffe.load_net("net.prototxt").blob_shapes == {"x": (2,)}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_refused_by_name(encoding):
    Path("net.prototxt").write_bytes('input: "x" input_shape { dim: 2 }'.encode(encoding))
    with pytest.raises(caffe.CaffeFormatError, match=r"net\.prototxt: .*UTF-16"):
        caffe.load_net("net.prototxt")


PROBLEMS = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "resize" interp_param { height: 4 } bottom: "x" top: "r" type: "Interp" }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_outputs: 3 kernel_size: 3 } }
layer { name: "add" type: "Eltwise" bottom: "absent" bottom: "x" top: "a" }
"""


def problems_of(text):
    Path("net.prototxt").write_text(text)
    with pytest.raises(caffe.CaffeFormatError, match=r"^net\.prototxt") as caught:
        caffe.load_net("net.prototxt")
    return caught.value.problems


def test_all_problems_of_a_net_are_reported_at_once_with_their_layers():
    resize_field, conv_field, *later = problems_of(PROBLEMS)
    assert resize_field.startswith('line 3: layer "resize" (Interp)') and "interp_param" in resize_field
    assert conv_field.startswith('line 4: layer "conv" (Convolution)') and "num_outputs" in conv_field
    assert any(problem.startswith('layer "add" (Eltwise)') and "absent" in problem for problem in later)
    assert any(problem.startswith('layer "resize" (Interp)') for problem in later)


def test_unknown_values_of_enums_are_reported_with_unknown_fields():
    field, _, value = problems_of(PROBLEMS.replace('top: "a"', 'top: "a" include { phase: TRIAN }'))
    assert "interp_param" in field
    assert value.startswith('line 5: layer "add" (Eltwise)') and "include.phase" in value and "TRIAN" in value


def test_unknown_types_of_v1_layers_are_reported_with_their_layers():
    field, kind = problems_of('layers { name: "a" type: RELU foo: 1 }\nlayers { name: "b" type: FANCY }')
    assert field.startswith('line 1: layer "a" (RELU)') and "foo" in field
    assert kind.startswith('line 2: layer "b" (FANCY)') and "type" in kind


def test_unknown_types_and_fields_of_v0_layers_are_reported_at_once():
    layer = 'layers {{ layer {{ name: "{0}" type: "{1}" {2} }} bottom: "x" top: "{0}" }}\n'
    field, *kinds = problems_of(
        'input: "x" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1\n'
        + layer.format("a", "fancy", "")
        + layer.format("b", "conv", "kernelsise: 3")
        + layer.format("c", "odd", "")
    )
    assert field.startswith('line 3: layer "b" (conv)') and "kernelsise" in field
    assert [kind[:17] for kind in kinds] == ['layer "a" (fancy)', 'layer "c" (odd): ']


@pytest.mark.parametrize(
    ("other", "named"), [('layer { name: "r" type: "ReLU" }', "layers"), ('layers { name: "r" type: RELU }', '"r"')]
)
def test_v0_layers_are_not_mixed_with_later_forms(other, named):
    Path("net.prototxt").write_text(V0 + other)  # Caffe drops them, or fails later
    with pytest.raises(caffe.CaffeFormatError, match=rf"net\.prototxt.*{named}"):
        caffe.load_net("net.prototxt")


def test_a_file_of_another_kind_is_refused_as_weights():
    Path("net.prototxt").write_text(TODAY)
    Path("x_iter_1.solverstate").write_bytes(b"\x08\x01")
    for name in ("net.prototxt", "x_iter_1.solverstate"):
        with pytest.raises(caffe.CaffeFormatError, match=rf"{name}: .*\.caffemodel"):
            caffe.load_net("net.prototxt", name)


def test_the_parameters_of_a_net_are_saved_once():
    Path("net.prototxt").write_text(TODAY)
    net = caffe.load_net("net.prototxt")
    assert len(net.state_dict()) == len(list(net.parameters())) == 3


def test_hdf5_is_recognized_by_content_and_defines_no_net():
    Path("net.prototxt").write_text(TODAY)
    net = caffe.load_net("net.prototxt")
    caffe.save_net(net, "w.caffemodel.h5")
    with pytest.raises(caffe.CaffeFormatError, match=r"w\.caffemodel\.h5: .*prototxt"):
        caffe.load_net("w.caffemodel.h5")
    for name in ("w.caffemodel", "weights", "w.h5"):
        Path(name).write_bytes(Path("w.caffemodel.h5").read_bytes())
        again = caffe.load_net("net.prototxt", name)
        assert all(map(torch.equal, net.parameters(), again.parameters()))
    with pytest.raises(caffe.CaffeFormatError, match=r"weights: .*prototxt"):
        caffe.load_net("weights")


BATCH_NORMS = """
layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "x" %s batch_norm_param { use_global_stats: false } }
layer { name: "bn_p" type: "BatchNorm" bottom: "b" top: "y" %s batch_norm_param { use_global_stats: true } }
"""


@pytest.mark.parametrize("names", [("m", "v", "f"), ("", "", "")])
def test_batch_norms_whose_statistics_have_names_share_them(names):
    specs = " ".join(f'param {{ name: "{name}" lr_mult: 0 }}' if name else "param { lr_mult: 0 }" for name in names)
    Path("net.prototxt").write_text(BATCH_NORMS % (specs, specs))
    net = caffe.load_net("net.prototxt", phase="TRAIN")
    shared = names[0] != ""
    assert all((a is b) == shared for a, b in zip(net.params["bn"], net.params["bn_p"], strict=True))
    assert [(lr, decay) for _, lr, decay in net.multipliers] == [(0, 0)] * (3 if shared else 6)
    a, b = torch.randn(4, 3) + 5, torch.randn(4, 3)
    y = net(a=a, b=b)["y"]
    mean, variance = (a.mean(0), a.var(0)) if shared else (torch.zeros(3), torch.zeros(3))
    torch.testing.assert_close(y, (b - mean) / (variance + 1e-5).sqrt())  # updated by "bn" before "bn_p" reads them
    for file in ("w.caffemodel", "w.h5"):
        caffe.save_net(net, file)
        again = caffe.load_net("net.prototxt", file, phase="TRAIN")
        for name in ("bn", "bn_p"):
            assert all(map(torch.equal, net.params[name], again.params[name]))
        assert (again.params["bn"][0] is again.params["bn_p"][0]) == shared


@pytest.mark.parametrize(
    ("setting", "size"),
    [("", 5), ("ceil_mode: true", 5), ("ceil_mode: false", 4), ("round_mode: CEIL", 5), ("round_mode: FLOOR", 4)],
)
def test_ceil_mode_and_round_mode(setting, size):
    Path("net.prototxt").write_text(
        'input: "x" input_shape { dim: 1 dim: 1 dim: 10 dim: 10 } layer { name: "p" type: "Pooling" bottom: "x" '
        f'top: "y" pooling_param {{ kernel_size: 3 stride: 2 {setting} }} }}'
    )
    net = caffe.load_net("net.prototxt")
    x = torch.arange(100.0).view(1, 1, 10, 10)
    y = net(x=x)["y"]
    assert net.blob_shapes["y"] == tuple(y.shape) == (1, 1, size, size)
    assert y[0, 0, -1, -1] == (99 if size == 5 else 88)
    caffe.save_net(net, "w.caffemodel")  # which BVLC Caffe reads in the same way
    assert caffe.load_net("w.caffemodel").blob_shapes["y"] == (1, 1, size, size)
