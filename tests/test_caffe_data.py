"""Fillers, image transformations and data layers: their laws, OpenCV's values, and errors."""

import sys
from io import BytesIO
from itertools import pairwise
from math import sqrt

import h5py
import lmdb
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.images.data_transform import Transform
from seqclf.caffe.images.decode import decode, resize
from seqclf.caffe.images.mean import read_mean_image
from seqclf.caffe.layers import LAYERS
from seqclf.caffe.layers.base import Surroundings
from seqclf.caffe.layers.fillers import fill

IP, CONV = (200, 300), (32, 8, 5, 5)


def filler(**fields):
    return schema().FillerParameter(**fields)


def make(text, file="net", flavour="bvlc", python=None, train=False, shapes=(), name="src"):
    """The data layer of a prototxt, in a net from ``file``."""
    param = text_format.Parse(text, schema(flavour).LayerParameter(name=name))
    layer = LAYERS[param.type](param, shapes, Surroundings(str(file), flavour, python or {}))
    return layer.train(train)


def refused(text, match, **where):
    with pytest.raises(CaffeFormatError, match=match) as error:
        make(text, **where)
    assert 'layer "src"' in str(error.value)


def rows(layer, batches):
    """The first value of each row of the first top, for the next batches."""
    return [[int(row.flatten()[0]) for row in layer()[0]] for _ in range(batches)]


# ---- fillers


@pytest.mark.parametrize(
    ("fields", "shape", "mean", "std", "limit"),
    [
        (dict(type="uniform", min=-0.08, max=0.08), IP, 0, 0.16 / sqrt(12), 0.08),
        (dict(type="uniform"), CONV, 0.5, 1 / sqrt(12), 1),
        (dict(type="gaussian", std=0.01), IP, 0, 0.01, None),
        (dict(type="gaussian", mean=1, std=0.5), CONV, 1, 0.5, None),
        (dict(type="gaussian", sparse=15), IP, 0, sqrt(15 / 200), None),
        (dict(type="gaussian", sparse=15), CONV, 0, sqrt(15 / 32), None),
        (dict(type="xavier"), IP, 0, sqrt(1 / 300), sqrt(3 / 300)),
        (dict(type="xavier"), CONV, 0, sqrt(1 / 200), sqrt(3 / 200)),
        (dict(type="xavier", variance_norm=1), IP, 0, sqrt(1 / 200), sqrt(3 / 200)),
        (dict(type="xavier", variance_norm=1), CONV, 0, sqrt(1 / 800), sqrt(3 / 800)),
        (dict(type="xavier", variance_norm=2), CONV, 0, sqrt(1 / 500), sqrt(3 / 500)),
        (dict(type="xavier"), (6000,), 0, 1, sqrt(3)),
        (dict(type="xavier", variance_norm=1), (6000,), 0, sqrt(1 / 6000), sqrt(3 / 6000)),
        (dict(type="xavier"), (8, 5, 5, 4, 6), 0, sqrt(1 / 600), sqrt(3 / 600)),
        (dict(type="msra"), IP, 0, sqrt(2 / 300), None),
        (dict(type="msra", variance_norm=1), CONV, 0, sqrt(2 / 800), None),
        (dict(type="positive_unitball"), IP, 1 / 300, 1 / 300 / sqrt(3), None),
    ],
)
def test_fillers_draw_from_caffes_distributions(fields, shape, mean, std, limit):
    torch.manual_seed(0)
    blob = torch.nn.Parameter(torch.empty(shape))
    fill(blob, filler(**fields))
    assert blob.mean().item() == pytest.approx(mean, abs=5 * std / sqrt(blob.numel()))
    assert blob.std().item() == pytest.approx(std, rel=0.06)
    if limit is not None:
        assert 0.99 * limit < blob.max().item() <= limit
    torch.manual_seed(0)
    again = torch.empty(shape)
    fill(again, filler(**fields))
    assert torch.equal(blob, again) and blob.grad_fn is None


def test_deterministic_fillers():
    blob = torch.ones(3, 4, dtype=torch.float64)
    fill(blob, None)
    assert not blob.any()
    fill(blob, filler(value=0.25))
    assert (blob == 0.25).all()
    fill(blob, filler(type="positive_unitball"))
    assert torch.allclose(blob.sum(1), torch.ones(3, dtype=torch.float64)) and blob.min() >= 0
    fill(blob, filler(type="gaussian", sparse=0))
    assert not blob.any()


def test_the_bilinear_filler_equals_caffe():
    three, four = torch.empty(2, 1, 3, 3), torch.empty(2, 1, 4, 4)
    fill(three, filler(type="bilinear"))
    fill(four, filler(type="bilinear"))
    assert three[1, 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    edge, inner = [0.0625, 0.1875, 0.1875, 0.0625], [0.1875, 0.5625, 0.5625, 0.1875]
    assert four[0, 0].tolist() == [edge, inner, inner, edge]


@pytest.mark.parametrize(
    ("fields", "shape", "match"),
    [
        (dict(type="orthogonal"), (2, 3), '"orthogonal": expected constant, uniform, gaussian'),
        (dict(type="uniform", min=1, max=0), (2, 3), "min 1 .*max 0"),
        (dict(type="gaussian", std=0), (2, 3), "std 0"),
        (dict(type="gaussian", sparse=3), (2, 3), "sparse 3"),
        (dict(type="xavier", sparse=1), (2, 3), "can't be sparse"),
        (dict(type="bilinear"), (2, 1, 3, 4), r"expected \(N, C, K, K\)"),
        (dict(), (0, 3), "nothing to fill"),
    ],
)
def test_invalid_fillers_are_refused(fields, shape, match):
    with pytest.raises(CaffeFormatError, match=match):
        fill(torch.empty(shape), filler(**fields))


# ---- image transformations


def caffes(picture, mean, scale, crop, mirrored, top, left, flow):
    """Computes data_transformer.cpp value by value, in float32."""
    C, H, W = picture.shape
    h, w = (crop, crop) if crop else (H, W)
    out = np.empty((C, h, w), np.float32)
    for c, y, x in np.ndindex(C, h, w):
        value = np.float32(picture[c, top + y, left + x])
        if flow and c == 2 and mirrored:
            value = np.float32(255) - value
        out[c, y, w - 1 - x if mirrored else x] = (value - mean[c, top + y, left + x]) * np.float32(scale)
    return out


@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(3, 6), st.integers(3, 6)),
    crop=st.integers(0, 3),
    mirror=st.booleans(),
    scale=st.sampled_from([1, 0.00390625, 0.017]),
    means=st.sampled_from(["none", "one", "channels", "file"]),
    flow=st.booleans(),
    train=st.booleans(),
    floats=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_transformed_image_is_one_that_caffe_can_draw(size, crop, mirror, scale, means, flow, train, floats, seed):
    numbers = np.random.default_rng(seed)
    C, H, W = size
    picture = numbers.integers(0, 256, size).astype(np.float32 if floats else np.uint8)
    param = schema("lisa").TransformationParameter(crop_size=crop, mirror=mirror, scale=scale, flow=flow)
    mean = np.zeros(size, np.float32)
    if means == "file":
        mean = (255 * numbers.random(size)).astype(np.float32)
    elif means != "none":
        param.mean_value.extend((255 * numbers.random(1 if means == "one" else C)).tolist())
        mean = mean + np.array(param.mean_value, np.float32)[:, None, None]
    transform = Transform(param, torch.from_numpy(mean) if means == "file" else None)
    before = picture.copy()
    got = transform(torch.from_numpy(picture), train, torch.Generator().manual_seed(seed))
    assert got.dtype == torch.float32 and tuple(got.shape) == transform.shape(size)
    assert np.array_equal(picture, before)
    tops = (range(H - crop + 1) if train else [(H - crop) // 2]) if crop else [0]
    lefts = (range(W - crop + 1) if train else [(W - crop) // 2]) if crop else [0]
    outcomes = [
        caffes(picture, mean, param.scale, crop, mirrored, top, left, flow)
        for mirrored in {False, mirror}
        for top in tops
        for left in lefts
    ]
    assert any(np.array_equal(got.numpy(), outcome) for outcome in outcomes)
    again = transform(torch.from_numpy(picture), train, torch.Generator().manual_seed(seed))
    assert torch.equal(got, again)


@pytest.mark.parametrize("train", [True, False])
def test_transform_crops_anywhere_in_training_and_mirrors_always(train):
    transform = Transform(schema().TransformationParameter(crop_size=2, mirror=True))
    picture = torch.arange(12).view(1, 3, 4)
    generator = torch.Generator().manual_seed(0)
    seen = {tuple(transform(picture, train, generator)[0, 0].int().tolist()) for _ in range(200)}
    lines = {(y + x, y + x + 1) for y in (0, 4) for x in (0, 1, 2)} if train else {(1, 2)}
    assert seen == lines | {line[::-1] for line in lines}


def test_invalid_transforms_are_refused():
    def transform(mean=None, **fields):
        transform = Transform(schema().TransformationParameter(**fields), mean)
        transform(torch.zeros(3, 4, 5), True, torch.Generator())

    for match, fields in [
        ("4 x 5 .* smaller than crop_size 5", dict(crop_size=5)),
        ("2 mean_values", dict(mean_value=[1, 2])),
        ("both mean_file and mean_value", dict(mean_value=[1], mean=torch.zeros(3, 4, 5))),
        (r"mean picture's is \(3, 5, 5\)", dict(mean=torch.zeros(3, 5, 5))),
    ]:
        with pytest.raises(CaffeFormatError, match=match):
            transform(**fields)


def test_resize_equals_opencv_bit_for_bit():
    picture = (np.arange(35) ** 2 * 37 % 256).astype(np.uint8).reshape(1, 5, 7)
    for size, want in {
        (3, 4): [[21, 150, 94, 109], [102, 25, 210, 147], [138, 67, 46, 75]],
        (5, 3): [[25, 77, 122], [50, 116, 175], [117, 197, 99], [226, 64, 151], [121, 229, 74]],
        (8, 9): [
            [0, 25, 86, 132, 77, 79, 123, 122, 52],
            [9, 35, 99, 147, 94, 98, 144, 145, 77],
            [25, 54, 113, 159, 121, 128, 168, 170, 115],
            [64, 96, 87, 82, 172, 182, 135, 123, 177],
            [117, 151, 109, 63, 155, 168, 125, 115, 172],
            [182, 219, 180, 101, 72, 88, 136, 148, 100],
            [128, 166, 131, 83, 157, 64, 92, 108, 52],
            [80, 121, 87, 66, 229, 51, 56, 74, 20],
        ],
    }.items():
        assert resize(torch.from_numpy(picture), *size)[0].tolist() == want


RGB = np.array([[[30, 200, 10], [0, 0, 255], [0, 255, 0], [255, 0, 0], [77, 77, 77], [3, 2, 1]]], np.uint8)


def encoded(pixels, kind="PNG", mode="RGB", **options):
    file = BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def test_images_are_decoded_as_in_opencv():
    bgr = RGB.transpose(2, 0, 1)[::-1].tolist()
    assert decode(BytesIO(encoded(RGB)), True).tolist() == bgr
    assert decode(BytesIO(encoded(RGB)), None).tolist() == bgr
    assert decode(BytesIO(encoded(RGB)), False).tolist() == [[[127, 29, 149, 76, 77, 2]]]
    assert decode(BytesIO(encoded(RGB, "BMP")), False).tolist() == [[[128, 29, 150, 76, 77, 2]]]
    assert decode(BytesIO(encoded(RGB, mode="RGBA")), None).tolist() == [*bgr, [[255] * 6]]
    assert decode(BytesIO(encoded(RGB, mode="RGBA")), True).tolist() == bgr
    grey = RGB[..., 0]
    assert decode(BytesIO(encoded(grey, mode="L")), None).tolist() == [grey.tolist()]
    assert decode(BytesIO(encoded(grey, mode="L")), True).tolist() == [grey.tolist()] * 3
    flat = np.full((16, 16), 90, np.uint8)
    assert (decode(BytesIO(encoded(flat, "JPEG", quality=95)), False) == 90).all()


def test_16_bit_images_are_cut_to_their_upper_8_bits_as_opencv_does():
    grey = np.array([[0, 255, 256, 65535], [32768, 4660, 511, 512]], np.uint16)
    file = encoded(grey, mode="I;16")
    want = [[0, 0, 1, 255], [128, 18, 1, 2]]
    assert decode(BytesIO(file), True).tolist() == [want] * 3
    assert decode(BytesIO(file), False).tolist() == [want]
    with pytest.raises(CaffeFormatError, match="8 bits"):  # Caffe refuses what imdecode leaves at 16 bits
        decode(BytesIO(file), None)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_are_rotated_by_their_exif_orientation_as_opencv_4_does(kind):
    from PIL import Image

    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255  # a white corner at the top left, as stored
    corners = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    for orientation, corner in corners.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = BytesIO()
        Image.fromarray(stored).save(file, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
        for colour in (True, False):
            image = decode(BytesIO(file.getvalue()), colour)[0]
            assert image.shape == ((16, 24) if orientation < 5 else (24, 16))
            found = [(y, x) for y in (0, 1) for x in (0, 1) if image[-y, -x] > 128]
            assert found == [corner], f"orientation {orientation}"
        native = decode(BytesIO(file.getvalue()), None)  # IMREAD_UNCHANGED, which a Data layer uses, does not rotate
        assert native.shape == (3, 16, 24) and native[0, 0, 0] > 128


# ---- layers without files


def test_input_has_shapes_and_no_values():
    layer = make('type: "Input" top: "x" top: "cont" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } }')
    assert layer.top_shapes == [(4, 3), (4,)]
    assert make('type: "Input" top: "x" top: "y" input_param { shape { dim: 4 } }').top_shapes == [(4,), (4,)]
    with pytest.raises(CaffeFormatError, match="needs values for x, cont"):
        layer()
    refused('type: "Input" top: "x" top: "y"', 'none for "x", "y"')
    refused('type: "Input" top: "x" top: "y" top: "z" input_param { shape {} shape {} }', 'none for "z"')
    refused('type: "Input" top: "x" input_param { shape {} shape {} }', "2, expected one")


def test_dummy_data_redraw_random_tops_for_every_batch():
    text = """type: "DummyData" top: "a" top: "b" dummy_data_param {
        data_filler { type: "constant" value: 2 } data_filler { type: "gaussian" }
        shape { dim: 2 dim: 3 } shape { dim: 4 } }"""
    torch.manual_seed(1)
    layer = make(text)
    (a, b), (c, d) = layer(), layer()
    assert layer.top_shapes == [(2, 3), (4,)] and a.dtype == b.dtype == torch.float32
    assert (a == 2).all() and (c == 2).all() and not torch.equal(b, d)
    old = 'type: "DummyData" top: "a" top: "b" dummy_data_param { num: 5 num: 6 channels: 1 height: 2 width: 1 }'
    assert make(old).top_shapes == [(5, 1, 2, 1), (6, 1, 2, 1)] and not make(old)()[0].any()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ("", "0 shapes"),
        ("shape {dim: 1} num: 1", "both shape and num"),
        ("num: 1 channels: 2 height: 3", "0 values of width"),
        ("shape {dim: 2} data_filler {} data_filler {}", "2 data_fillers"),
        ('shape {dim: 2} data_filler { type: "magic" }', 'top "a": filler "magic"'),
        ("shape {dim: 0}", "nothing to fill"),
        ("shape {dim: 65536 dim: 65536}", "at most"),
    ],
)
def test_invalid_dummy_data_are_refused(fields, match):
    refused(f'type: "DummyData" top: "a" top: "b" top: "c" dummy_data_param {{ {fields} }}', match)


MEMORY = 'type: "MemoryData" top: "data" top: "label" memory_data_param {'


def test_memory_data_repeat():
    layer = make(MEMORY + "batch_size: 2 channels: 1 height: 1 width: 3 }")
    assert layer.top_shapes == [(2, 1, 1, 3), (2,)]
    with pytest.raises(CaffeFormatError, match=r"set\("):
        layer()
    layer.set(np.arange(12).reshape(4, 1, 1, 3), [7, 8, 9, 10])
    got = [layer() for _ in range(3)]
    assert [x[:, 0, 0, 0].tolist() for x, _ in got] == [[0, 3], [6, 9], [0, 3]]
    assert [y.tolist() for _, y in got] == [[7, 8], [9, 10], [7, 8]]
    got[0][0].zero_()  # what the net does to its batch does nothing to the data
    layer.seek(0)
    assert layer()[0][1, 0, 0].tolist() == [3, 4, 5] and layer.position() == 1
    layer.set(torch.ones(2, 1, 1, 3), torch.zeros(2, 1, 1, 1))
    assert layer.position() == 0 and layer()[1].shape == (2,)
    read_only = np.zeros((2, 1, 1, 3), np.float32)
    read_only.flags.writeable = False
    layer.set(read_only, read_only[:, 0, 0, 0])
    for values, labels, match in [
        (np.zeros((3, 1, 1, 3)), np.zeros(3), "multiple of batch_size 2"),
        (np.zeros((0, 1, 1, 3)), [], r"\(0, 1, 1, 3\)"),
        (np.zeros((2, 3)), np.zeros(2), r"expected \(n, 1, 1, 3\)"),
        (np.zeros((2, 1, 1, 3)), np.zeros(4), r"labels of shape \(4,\)"),
        (np.zeros((2, 1, 1, 3)), ["a", "b"], "labels: "),
        ([[1], [2, 3]], [1, 2], "data: "),
    ]:
        with pytest.raises(CaffeFormatError, match=match):
            layer.set(values, labels)
    refused(MEMORY + "batch_size: 2 channels: 1 height: 1 }", r"\(2, 1, 1, 0\)")
    refused(MEMORY + "batch_size: 2 channels: 1 height: 1 width: 1 } transform_param {}", "transform_param")


# ---- HDF5


def write_h5(folder, sizes=(3, 2, 4), **others):
    """Writes files whose rows are numbered across files, and their list."""
    at = 0
    for i, n in enumerate(sizes):
        with h5py.File(folder / f"{i}.h5", "w") as file:
            file["x"] = np.arange(at, at + n)[:, None] + np.array([0, 0.5])
            file["y"] = np.arange(at, at + n, dtype=np.int64)
            for name, value in others.items():
                file[name] = value
        at += n
    (folder / "list.txt").write_text("".join(f"{i}.h5\n" for i in range(len(sizes))))
    return folder / "net.prototxt"


def h5(size, more="", tops=("x", "y"), source="list.txt"):
    names = " ".join(f'top: "{top}"' for top in tops)
    return f'type: "HDF5Data" {names} hdf5_data_param {{ source: "{source}" batch_size: {size} {more} }}'


def test_hdf5_batches_continue_across_files_and_repeat(tmp_path):
    layer = make(h5(4), write_h5(tmp_path))
    assert layer.top_shapes == [(4, 2), (4,)]
    x, y = layer()
    assert x.tolist() == [[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5]] and x.dtype == y.dtype == torch.float32
    assert y.tolist() == [0, 1, 2, 3]
    assert rows(layer, 3) == [[4, 5, 6, 7], [8, 0, 1, 2], [3, 4, 5, 6]]
    assert rows(make(h5(20), tmp_path / "net"), 1) == [[*range(9), *range(9), 0, 1]]
    assert rows(make(h5(2), write_h5(tmp_path, sizes=[3])), 3) == [[0, 1], [2, 0], [1, 2]]


def test_hdf5_files_and_rows_are_shuffled_in_every_epoch(tmp_path):
    file = write_h5(tmp_path)
    torch.manual_seed(3)
    turns = rows(make(h5(9, "shuffle: true"), file), 40)
    assert all(sorted(turn) == list(range(9)) for turn in turns)
    groups = [{0, 1, 2}, {3, 4}, {5, 6, 7, 8}]
    orders = set()
    for turn in turns:  # the rows of a file stay together
        order = [next(i for i, group in enumerate(groups) if row in group) for row in turn]
        assert sum(a != b for a, b in pairwise(order)) == 2
        orders.add(tuple(dict.fromkeys(order)))
    assert len(orders) == 6 and len(set(map(tuple, turns))) > 30


def test_invalid_hdf5_data_are_refused(tmp_path, monkeypatch):
    file = write_h5(tmp_path, words=np.array([b"a", b"b"]), one=1.0, few=np.zeros((1, 3)))
    kind = {"file": file}
    refused(h5(0), "batch_size 0", **kind)
    refused(h5(2) + "transform_param {}", "transform_param", **kind)
    refused(h5(2, source="no.txt"), rf"(?s)no\.txt.*missing.*{tmp_path}", **kind)
    refused(h5(2, tops=["z"]), r'no dataset "z", only few, one, words, x, y', **kind)
    refused(h5(2, tops=["words"]), "expected rows of numbers", **kind)
    refused(h5(2, tops=["one"]), "expected rows of numbers", **kind)
    refused(h5(2, tops=["x", "few"]), r'"few" has shape \(1, 3\)', **kind)
    refused(h5(2, source="0.h5"), "can't be read as text", **kind)
    with h5py.File(tmp_path / "1.h5", "a") as changed:
        del changed["x"]
        changed["x"] = np.zeros((2, 3))
    refused(h5(2), r"1\.h5.*shape \(2, 3\), expected rows of shape \(2,\)", **kind)
    (tmp_path / "1.h5").write_bytes(b"not HDF5")
    refused(h5(2), r"1\.h5: not an HDF5 file, or damaged", **kind)
    (tmp_path / "list.txt").write_text("\n")
    refused(h5(2), "names no files", **kind)
    write_h5(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(h5(2), r"pip install 'seqclf\[caffe\]'", **kind)


def test_hdf5_output_is_read_by_hdf5_data(tmp_path, monkeypatch):
    text = f'type: "HDF5Output" bottom: "a" bottom: "b" hdf5_output_param {{ file_name: "{tmp_path}/o.h5" }}'
    x, y = torch.randn(3, 2, requires_grad=True), torch.arange(3.0)
    for _ in range(2):  # the second layer writes a new file
        layer = make(text, shapes=[(3, 2), (3,)])
        assert layer.top_shapes == [] and layer(x, y) == ()
        with h5py.File(tmp_path / "o.h5") as file:
            assert file["data"].shape == (3, 2, 1, 1) and file["label"].shape == (3, 1, 1, 1)
    layer(x[:2] + 1, y[:2] + 3)
    (tmp_path / "list.txt").write_text("o.h5")
    data, label = make(h5(5, tops=["data", "label"]), tmp_path / "net")()
    assert torch.equal(data.flatten(1), torch.cat((x, x[:2] + 1)).detach()) and label.flatten().tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    with pytest.raises(CaffeFormatError, match="as many rows"):
        layer(x, y[:2])
    kind = {"shapes": [(3, 2), (3,)]}
    refused('type: "HDF5Output" bottom: "a" bottom: "b"', "has no file_name", **kind)
    refused(text.replace("/o.h5", "/no/o.h5"), "there is no folder", **kind)
    refused(text, "at most 4 axes", shapes=[(3, 1, 1, 1, 1), (3,)])
    layer.path = tmp_path
    layer.written = False
    with pytest.raises(CaffeFormatError, match="can't be written"):
        layer(x, y)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(text, "pip install", **kind)


# ---- images from files and databases


def write_pictures(folder, count=5, size=(4, 6)):
    """Writes PNG images whose red value is their number, and a list with ten times that number as label."""
    numbers = np.random.default_rng(0)
    pictures = []
    for i in range(count):
        pixels = numbers.integers(0, 256, (*size, 3), dtype=np.uint8)
        pixels[..., 0] = i
        Image.fromarray(pixels).save(folder / f"a picture {i}.png")
        pictures.append(torch.from_numpy(pixels.transpose(2, 0, 1)[::-1].copy()).float())
    (folder / "list.txt").write_text("".join(f"a picture {i}.png {10 * i}\n" for i in range(count)))
    return folder / "net.prototxt", pictures


def images(fields="batch_size: 2", more="", source="list.txt"):
    tops = 'type: "ImageData" top: "data" top: "label"'
    return f'{tops} image_data_param {{ source: "{source}" {fields} }} {more}'


def numbers_of(layer, batches):
    """The numbers of the images in the next batches."""
    return [[int(label) // 10 for label in layer()[1]] for _ in range(batches)]


def test_image_data_follow_the_list_and_repeat(tmp_path):
    file, pictures = write_pictures(tmp_path)
    layer = make(images(), file)
    assert layer.top_shapes == [(2, 3, 4, 6), (2,)]
    for first, second in ((0, 1), (2, 3), (4, 0)):
        x, label = layer()
        assert torch.equal(x, torch.stack((pictures[first], pictures[second])))
        assert label.tolist() == [10 * first, 10 * second]
    layer = make(images("new_height: 3 new_width: 9", "transform_param { scale: 0.5 mean_value: 100 }"), file)
    assert layer.top_shapes == [(1, 3, 3, 9), (1,)]
    assert torch.equal(layer()[0][0], (resize(pictures[0].byte(), 3, 9).float() - 100) * 0.5)
    layer = make(images("is_color: false batch_size: 5"), file)
    assert layer.top_shapes == [(5, 1, 4, 6), (5,)] and layer()[0].shape == (5, 1, 4, 6)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "list").write_text("picture 3.png\t-7 \r\n\n")
    layer = make(images(f'root_folder: "{tmp_path}/a "', source="other/list"), file)
    assert layer()[1].item() == -7 and layer()[0][0, 2, 0, 0] == 3


def test_image_data_of_different_sizes(tmp_path):
    file, _ = write_pictures(tmp_path, 2)
    Image.new("RGB", (8, 5)).save(tmp_path / "a picture 1.png")
    one = make(images("batch_size: 1"), file)
    assert [tuple(one()[0].shape) for _ in range(3)] == [(1, 3, 4, 6), (1, 3, 5, 8), (1, 3, 4, 6)]
    with pytest.raises(CaffeFormatError, match=r"line 2: .*\(3, 5, 8\).*\(3, 4, 6\)"):
        make(images(), file)()
    assert make(images("batch_size: 2", "transform_param { crop_size: 4 }"), file)()[0].shape == (2, 3, 4, 4)
    refused(
        images("batch_size: 2", "transform_param { crop_size: 5 }"), "line 1: .*smaller than crop_size 5", file=file
    )
    lisa = make(images("min_height: 6 min_width: 7"), file, "lisa")  # 4 x 6 lacks more height
    assert [tuple(lisa()[0].shape[2:]) for _ in range(2)] == [(6, 9), (6, 10)]
    assert make(images("min_height: 5 min_width: 9"), file, "lisa").top_shapes[0] == (1, 3, 6, 9)
    assert make(images("min_height: 2 min_width: 3"), file, "lisa").top_shapes[0] == (1, 3, 4, 6)


def test_image_data_shuffles_and_skips(tmp_path):
    file, _ = write_pictures(tmp_path, 6)
    torch.manual_seed(0)
    turns = numbers_of(make(images("batch_size: 6 shuffle: true"), file), 20)
    assert all(sorted(turn) == list(range(6)) for turn in turns) and len(set(map(tuple, turns))) > 10
    starts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        skipped = numbers_of(make(images("batch_size: 1 rand_skip: 4"), file), 7)
        start = skipped[0][0]
        assert skipped == [[(start + i) % 6] for i in range(7)]
        starts.add(start)
    assert starts == {0, 1, 2, 3}


def test_invalid_image_data_are_refused(tmp_path):
    file, _ = write_pictures(tmp_path)
    kind = {"file": file}
    refused(images(source="no.txt"), "no.txt.*missing", **kind)
    refused(images(source=""), "has no source", **kind)
    refused(images("batch_size: 0"), "batch_size 0", **kind)
    refused(images("new_height: 3"), "new_height 3 and new_width 0, expected both", **kind)
    refused(images("min_width: 3"), "min_height 0 and min_width 3", flavour="lisa", **kind)
    refused(images("rand_skip: 6"), "names 5 pictures, expected 6 or more", **kind)
    refused(images(more="transform_param { force_gray: true }"), "force_gray is for Data", **kind)
    refused(images(more="transform_param { flow: true }"), "flow is for Data", flavour="lisa", **kind)
    refused(images(more='transform_param { mean_file: "m" }'), 'mean_file "m" is missing', **kind)
    good = (tmp_path / "list.txt").read_text()
    for text, match in [
        ("", "names 0 pictures"),
        (good + "a picture 0.png\n", "line 6: 'a picture 0.png'"),
        (good + "a picture 0.png 1.5\n", "line 6"),
        ("absent.png 1\n", "list.txt, line 1: picture.*absent.png.*missing"),
    ]:
        (tmp_path / "list.txt").write_text(text)
        refused(images(), match, **kind)
    (tmp_path / "list.txt").write_text(good)
    damaged = tmp_path / "a picture 3.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    layer = make(images(), file)
    layer()
    with pytest.raises(CaffeFormatError, match=r"list\.txt, line 4: .*a picture 3\.png"):
        layer()
    assert layer.position() == 1


def write_lmdb(folder, datums):
    with lmdb.open(str(folder / "db"), map_size=1 << 22) as database, database.begin(write=True) as writing:
        for i, datum in enumerate(datums):
            writing.put(f"{i:08d}".encode(), datum if isinstance(datum, bytes) else datum.SerializeToString())
    return folder / "net.prototxt"


def datum(values, label=0, **fields):
    channels, height, width = values.shape
    pixels = {"data": values.tobytes()} if values.dtype == np.uint8 else {"float_data": values.ravel()}
    return schema().Datum(channels=channels, height=height, width=width, label=label, **pixels, **fields)


def db(fields="batch_size: 2", more="", tops='top: "data" top: "label"', backend="LMDB"):
    return f'type: "Data" {tops} data_param {{ source: "db" backend: {backend} {fields} }} {more}'


def test_data_reads_raw_float_and_encoded_datums(tmp_path):
    numbers = np.random.default_rng(0)
    raw = numbers.integers(0, 256, (3, 1, 6), dtype=np.uint8)
    floats = numbers.normal(size=(3, 1, 6)).astype(np.float32)
    packed = schema().Datum(data=encoded(RGB), encoded=True, label=3)
    file = write_lmdb(tmp_path, [datum(raw, 1), datum(floats, 2), packed])
    layer = make(db(), file)
    assert layer.top_shapes == [(2, 3, 1, 6), (2,)]
    bgr = RGB.transpose(2, 0, 1)[::-1].astype(np.float32)
    want = [raw, floats, bgr]
    for first, second in ((0, 1), (2, 0), (1, 2)):
        x, label = layer()
        assert np.array_equal(x.numpy(), np.stack((want[first], want[second]))) and x.dtype == torch.float32
        assert label.tolist() == [first + 1, second + 1]
    alone = make(db(tops='top: "data"'), file)
    assert alone.top_shapes == [(2, 3, 1, 6)] and len(alone()) == 1
    skipping = make(db("batch_size: 1 rand_skip: 3"), file)
    first, second = int(skipping()[1]), int(skipping()[1])
    assert second == first % 3 + 1


def test_data_forces_colour_or_grey_on_encoded_datums(tmp_path):
    grey = schema().Datum(data=encoded(RGB[..., 0], mode="L"), encoded=True)
    file = write_lmdb(tmp_path, [grey, schema().Datum(data=encoded(RGB), encoded=True)])
    for more, channels in (("force_color: true", 3), ("force_gray: true", 1)):
        layer = make(db(more=f"transform_param {{ {more} }}"), file)
        assert layer.top_shapes[0] == (2, channels, 1, 6) and layer()[0].shape == (2, channels, 1, 6)
    assert make(db("batch_size: 2 force_encoded_color: true"), file)()[0].shape == (2, 3, 1, 6)
    with pytest.raises(CaffeFormatError, match=r"key '00000001'"):
        make(db(), file)()


def test_data_subtracts_a_mean_file_and_mirrors_flow(tmp_path):
    numbers = np.random.default_rng(0)
    raw, mean = numbers.integers(0, 256, (3, 5, 4), dtype=np.uint8), numbers.normal(size=(3, 5, 4)).astype(np.float32)
    blob = schema().BlobProto(num=1, channels=3, height=5, width=4, data=mean.ravel())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    assert np.array_equal(read_mean_image(tmp_path / "mean.binaryproto").numpy(), mean)
    file = write_lmdb(tmp_path, [datum(raw)] * 40)
    more = 'transform_param { mean_file: "mean.binaryproto" mirror: true flow: true scale: 2 }'
    batch = make(db("batch_size: 40", more), file, "lisa")()[0].numpy()
    plain = (raw - mean) * np.float32(2)
    flowing = raw.astype(np.float32)
    flowing[2] = 255 - flowing[2]
    mirrored = ((flowing - mean) * np.float32(2))[..., ::-1]
    kinds = [0 if np.array_equal(x, plain) else 1 if np.array_equal(x, mirrored) else 2 for x in batch]
    assert set(kinds) == {0, 1}
    blob = schema().BlobProto(data=[1], shape={"dim": [1]})
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    refused(db(more=more), "expected a mean", file=file, flavour="lisa")
    refused(db(more="transform_param { mean_value: [1, 2] }"), "key '00000000': 2 mean_values", file=file)


def test_invalid_lmdb_data_are_refused(tmp_path, monkeypatch):
    raw = np.zeros((1, 2, 2), np.uint8)
    packed = schema().Datum(data=encoded(RGB)[:50], encoded=True)
    short = datum(raw)
    short.width = 3
    file = write_lmdb(tmp_path, [datum(raw), short, packed, b"\xff"])
    kind = {"file": file}
    refused(db(backend="LEVELDB"), "convert_imageset -backend lmdb", **kind)
    refused('type: "Data" top: "data" data_param { source: "db" batch_size: 1 }', "backend LEVELDB", **kind)
    refused(db("batch_size: 0"), "batch_size 0", **kind)
    refused(db(more="transform_param { force_color: true force_gray: true }"), "forces both", **kind)
    refused(db(more="transform_param { force_color: true }"), "key '00000000': .* raw", **kind)
    refused(db().replace('"db"', '"none"'), 'source "none"', **kind)
    refused(db().replace('"db"', '"net.prototxt"'), "missing", **kind)
    layer = make(db("batch_size: 1"), file)
    for n, match in (1, "4 values"), (2, ""), (3, ".*Datum"):
        layer.seek(n)
        with pytest.raises(CaffeFormatError, match=f"key '0000000{n}': {match}"):
            layer()
    flow = write_lmdb(tmp_path, [schema().Datum(data=encoded(RGB), encoded=True)])
    refused(db(more="transform_param { flow: true }"), "flow .* raw", file=flow, flavour="lisa")
    (tmp_path / "db" / "data.mdb").write_bytes(b"nothing of the kind" * 1000)
    refused(db(), "LMDB", **kind)
    (tmp_path / "db" / "data.mdb").unlink()
    write_lmdb(tmp_path, [])
    refused(db(), "has no entries", **kind)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    refused(db(), r"needs the lmdb package: pip install 'seqclf\[caffe\]'", **kind)


def test_files_are_found_from_the_working_directory_first(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "net").mkdir()
    write_h5(tmp_path / "here", sizes=[1])
    file = write_h5(tmp_path / "net", sizes=[2])
    layer = make(h5(3), file)
    assert rows(layer, 1) == [[0, 1, 0]]
    monkeypatch.chdir(tmp_path / "here")
    assert rows(make(h5(3), file), 1) == [[0, 0, 0]]
    refused(h5(3, source="x"), rf"missing: looked for {tmp_path}/here/x and {tmp_path}/net/x", file=file)


# ---- Python


PYTHON = """type: "Python" top: "data" top: "cont" python_param {
    module: "mine" layer: "Frames" param_str: "{'n': 2}" }"""


def stood_in(batches):
    return make(PYTHON, python={"Frames": batches})


def test_a_python_layer_returns_the_batches_of_its_replacement():
    batches = [{"data": np.full((2, 3), i), "cont": [0, 1]} for i in range(2)]
    layer = stood_in(batches)
    assert layer.top_shapes == [(2, 3), (2,)]
    assert rows(layer, 5) == [[0, 0], [1, 1], [0, 0], [1, 1], [0, 0]]
    received = []

    def generate(param_str):
        received.append(param_str)
        for i in range(3):
            yield torch.full((1, 2), i), torch.ones(1, dtype=torch.int64)

    layer = stood_in(generate)
    assert rows(layer, 5) == [[0], [1], [2], [0], [1]] and set(received) == {"{'n': 2}"}
    layer.seek(2)
    assert rows(layer, 2) == [[2], [0]] and layer.position() == 4
    once = stood_in(generate(""))
    assert rows(once, 3) == [[0], [1], [2]]
    with pytest.raises(CaffeFormatError, match="only once"):
        once()


def test_invalid_python_layers_are_refused():
    refused(PYTHON, r'python=\{"Frames": \.\.\.\}', python={"Other": []})
    refused('bottom: "x" ' + PYTHON, "reads bottoms", python={"Frames": []}, shapes=[(1,)])
    for stand_in, match in [
        ([], "has no batches"),
        (3, "a int"),
        (lambda param_str: None, "NoneType"),
        ([{"data": [1]}], "has data"),
        ([{"data": [1], "cont": [1], "more": [1]}], "more"),
        ([([1], [1], [1])], "has 3 arrays"),
        ([np.zeros(2)], "is a ndarray"),
        ([(["a"], [1])], 'top "data": expected an array of numbers'),
    ]:
        refused(PYTHON, match, python={"Frames": stand_in})


# ---- randomness


def test_batches_are_functions_of_seed_layer_and_number(tmp_path):
    file, _ = write_pictures(tmp_path)
    (tmp_path / "h").mkdir()
    write_h5(tmp_path / "h")
    noise = 'type: "DummyData" top: "x" dummy_data_param { data_filler { type: "uniform" } shape { dim: 9 } }'
    augmented = images("batch_size: 3 shuffle: true rand_skip: 3", "transform_param { crop_size: 2 mirror: true }")
    for text, where in ((noise, file), (augmented, file), (h5(4, "shuffle: true"), tmp_path / "h" / "net")):
        torch.manual_seed(5)
        state = torch.get_rng_state()
        layer = make(text, where, train=True)
        drawn = [layer() for _ in range(6)]
        assert torch.equal(torch.get_rng_state(), state) and torch.initial_seed() == 5
        late = make(text, where, train=True)
        late.seek(4)
        assert late.position() == 4
        for tops, again in zip(drawn[4:], (late(), late()), strict=True):
            assert all(map(torch.equal, tops, again))
        assert late.position() == 6
        torch.manual_seed(6)
        other = make(text, where, train=True)
        assert any(not torch.equal(a[0], other()[0]) for a in drawn)
        torch.manual_seed(5)
        named = make(text, where, train=True, name="again")
        assert any(not torch.equal(a[0], named()[0]) for a in drawn)
