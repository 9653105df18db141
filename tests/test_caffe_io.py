"""``caffe.io``: parity with pycaffe of both forks and with NumPy, laws, errors, and damaged files."""

from __future__ import annotations

import tracemalloc
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seqclf.batch import SeqclfError
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.io import (
    Transformer,
    array_to_blobproto,
    blobproto_to_array,
    flip_image,
    load_image,
    oversample,
    read_mean,
    resize_image,
)

with np.load(Path(__file__).parent / "caffe_io.npz") as _file:
    GOLDEN = dict(_file)  # made by pycaffe; ".subN" keeps every Nth row and column, resized images those of `some`
FLAVOURS = ("bvlc", "lisa")

quick = partial(settings, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


def unit(name: str) -> np.ndarray:
    """A golden input as passed to pycaffe: float32 from 0 to 1."""
    return (GOLDEN[f"in.{name}"] / 255).astype(np.float32)


def some(n: int) -> list[int]:
    """The indices of n rows or columns that are compared, including the last two."""
    return [*range(0, n - 1, 4), n - 2, n - 1]


def golden(prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in GOLDEN if key.startswith(prefix)]


def assert_near(found: torch.Tensor, expected: np.ndarray, scale: float = 1) -> None:
    assert found.dtype == torch.float32 and tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6 * scale)


def image(H: int, W: int, K: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(H, W, K, generator=torch.Generator().manual_seed(seed))


def lrcn(flavour: str = "bvlc", **settings) -> Transformer:
    """A transformer of the input "data" with the given settings; by default it transposes to K x H x W."""
    shape = settings.pop("shape", (1, 3, 32, 40))
    transformer = Transformer({"data": shape}, flavour)
    for name, value in {"transpose": (2, 0, 1), **settings}.items():
        getattr(transformer, f"set_{name}")("data", value)
    return transformer


# ---- resizing


@pytest.mark.parametrize("case", golden("resize."))
def test_resize_image_equals_pycaffe(case):
    flavour, name, size, *more = case.split(".")
    grey, constant = unit("small")[:, :, :1], np.full((4, 6, 3), 0.25, np.float32)
    given_image = {"small_255": unit("small") * np.float32(255), "gray": grey, "constant": constant}.get(name)
    x = unit(name) if given_image is None else given_image
    H, W = map(int, size.split("x"))
    order = next((int(word[-1]) for word in more if word.startswith("order")), 1)
    found = resize_image(x, (H, W), order, flavour)
    assert found.shape == (H, W, x.shape[-1])
    found = found[::8, ::8] if "sub8" in more else found[some(H)][:, some(W)]
    assert_near(found, GOLDEN[f"resize.{case}"], scale=255 if name == "small_255" else 1)


def reference(x: np.ndarray, M: int, order: int, border: str) -> np.ndarray:
    """Rows ``(N, D)`` resized to ``(M, D)`` in float64, by np.interp or by solving the equations of a spline."""
    N, pad, k = len(x), 24, np.arange(M)
    at = k * ((N - 1) / (M - 1) if M > 1 else 1.0) if border == "corners" else (k + 0.5) * (N / M) - 0.5
    beyond = (at > N - 1)[:, None] & (border == "corners")
    mode = {"zero": "constant", "edge": "edge", "corners": "reflect" if N > 1 else "edge"}[border]
    padded = np.pad(x.astype(np.float64), ((pad, pad), (0, 0)), mode)
    places = np.arange(N + 2 * pad)
    if order == 0:
        y = padded[np.floor(at + 0.5).astype(int) + pad]
    elif order == 1:
        y = np.stack([np.interp(at + pad, places, column) for column in padded.T], 1)
    else:

        def b_spline(t):
            t = np.abs(t)
            return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)

        coefficients = np.linalg.solve(b_spline(places[:, None] - places), padded)
        y = b_spline(at[:, None] + pad - places) @ coefficients
    return np.where(beyond, 0, y)


@quick(max_examples=200)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0, 1, 3]),
    st.sampled_from(["bvlc", "lisa"]),
    st.sampled_from([1, 2, 3, 5]),
    st.integers(0, 2**32),
)
@pytest.mark.slow
def test_resize_image_equals_a_direct_computation(H, W, h, w, order, flavour, K, seed):
    x = image(H, W, K, seed).numpy() * 4 - 1
    border = {"bvlc": "zero", "lisa": "edge"}[flavour] if K in (1, 3) else "corners"
    low, high = (x.min(), x.max()) if K in (1, 3) else (0, 1)
    scaled = (x - low) / ((high - low) or 1)
    rows = reference(scaled.reshape(H, W * K), h, order, border).reshape(h, W, K)
    expected = reference(rows.swapaxes(0, 1).reshape(W, h * K), w, order, border).reshape(w, h, K).swapaxes(0, 1)
    if K in (1, 3):
        expected = np.clip(expected, 0, 1)
    assert_near(resize_image(x, (h, w), order, flavour), expected * (high - low) + low, scale=4)


def test_enlarging_darkens_the_border_in_bvlc_only():
    x = torch.ones(4, 4, 3)
    x[1, 1, 0] = 0
    assert resize_image(x, (8, 8))[0, 4].tolist() == [0.75] * 3
    assert resize_image(x, (8, 8), flavour="lisa")[0, 4].tolist() == [1] * 3


def test_the_last_row_is_0_where_scipys_zoom_misses_it_by_rounding():
    assert 25 * (7 / 25) > 7  # 8 rows to 26
    y = resize_image(torch.ones(8, 4, 2), (26, 4))
    assert (y[-1] == 0).all() and (y[:-1] == 1).all()


@every_flavour
@pytest.mark.parametrize("order", [0, 1, 3])
def test_images_of_one_value_or_of_the_same_size_are_unchanged(flavour, order):
    assert (resize_image(torch.full((3, 5, 3), 7.25), (11, 4), order, flavour) == 7.25).all()
    assert resize_image(torch.full((3, 5, 1), torch.nan), (2, 2), order, flavour).isnan().all()
    for K in (2, 3):
        x = image(9, 7, K)
        assert_near(resize_image(x, (9, 7), order, flavour), x.numpy())


@every_flavour
@pytest.mark.parametrize("K", [1, 3, 5])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_batch_is_resized_image_by_image(flavour, K, order):
    x = torch.stack([image(6, 9, K, seed) * (seed + 1) for seed in range(4)]).reshape(2, 2, 6, 9, K)
    x[1, 1] = 0.5
    one_by_one = [resize_image(y, (8, 5), order, flavour) for y in x.flatten(0, 1)]
    assert torch.equal(resize_image(x, (8, 5), order, flavour), torch.stack(one_by_one).reshape(2, 2, 8, 5, K))


@pytest.mark.slow
def test_resizing_has_a_gradient_after_it_ran_in_inference_mode():
    with torch.inference_mode():
        resize_image(image(5, 6, 2), (7, 9))
    x = image(5, 6, 2).double().requires_grad_()
    y = torch.rand(7, 9, 2)
    (slope,) = torch.autograd.grad((resize_image(x, (7, 9)) * y).sum(), x)
    step = image(5, 6, 2, seed=1).double()
    difference = ((resize_image(x.detach() + step, (7, 9)) - resize_image(x.detach(), (7, 9))) * y).sum()
    torch.testing.assert_close((slope * step).sum().float(), difference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(4, 4, 3), (2, 2), 2), r"interp_order=2"),
        ((torch.ones(4, 4, 3), (2, 2), 1, "mine"), 'flavour=\'mine\': expected "bvlc" or "lisa"'),
        ((torch.ones(4, 4, 3), (2,)), r"new_dims=\(2,\)"),
        ((torch.ones(4, 4, 3), (2, 2.5)), "expected two whole numbers"),
        ((torch.ones(4, 4, 3), 5), "expected two whole numbers"),
        ((torch.ones(4, 4, 3), (2, 0)), "at least 1"),
        ((torch.ones(4, 4, 3), (2**20, 2**20)), "more than 2\\*\\*31 - 1 values"),
        ((torch.ones(4, 4), (2, 2)), r"image of shape \(4, 4\)"),
        ((torch.ones(4, 0, 3), (2, 2)), "none of them 0"),
        ((torch.ones(4, 4, 3) * 1j, (2, 2)), "complex64"),
        ((np.array([[["a"]]]), (2, 2)), "<U1"),
        (([[[1.0]]], (2, 2)), "found list"),
    ],
)
def test_invalid_arguments_of_resize_image_are_refused(arguments, message):
    with pytest.raises(SeqclfError, match=message):
        resize_image(*arguments)


# ---- crops


@every_flavour
def test_oversample_equals_pycaffe(flavour):
    small, big = unit("small"), unit("big")

    def expected(name):
        return GOLDEN[f"oversample.{flavour}.{name}"]

    assert_near(oversample([small, 1 - small], (32, 40))[:, ::4, ::4], expected("small2.32x40.sub4"))
    assert_near(oversample([small], (31, 39))[:, ::4, ::4], expected("small.31x39.sub4"))
    crops = oversample([big], (227, 227))
    assert_near(crops[:, ::8, ::8][:, ::4, ::4], expected("big.227x227.sub32"))
    np.testing.assert_allclose(crops.double().sum((1, 2, 3)).numpy(), expected("big.227x227.sums"), rtol=1e-12)
    if flavour == "lisa":
        flow = oversample([small], (32, 40), flow=True)
        assert_near(flow[:, ::4, ::4], expected("small.32x40.flow.sub4"))


@quick(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.data())
def test_oversample_mirrors(N, H, W, K, data):
    h, w = data.draw(st.integers(1, H)), data.draw(st.integers(1, W))
    x = torch.stack([image(H, W, K, seed) for seed in range(N)])
    crops = oversample(x, (h, w)).reshape(N, 10, h, w, K)
    assert torch.equal(crops[:, 5:], crops[:, :5].flip(3))
    mirrored = oversample(x.flip(2), (h, w)).reshape(N, 10, h, w, K)
    assert torch.equal(mirrored[:, [5, 6, 7, 8]], crops[:, [1, 0, 3, 2]])  # left corners are now right ones
    assert torch.equal(crops[:, 0], x[:, :h, :w]) and torch.equal(crops[:, 3], x[:, H - h :, W - w :])
    top, left = (H - h) // 2, (W - w) // 2
    assert torch.equal(crops[:, 4], x[:, top : top + h, left : left + w])
    flow = oversample(x, (h, w), flow=True).reshape(N, 10, h, w, K)
    crops[:, 5:, ..., 0] = 1 - crops[:, 5:, ..., 0]
    assert torch.equal(flow, crops)


def test_oversample_accepts_lists_arrays_and_generators_of_any_dtype():
    x = (image(6, 7, 3) * 255).byte()
    expected = oversample(torch.stack([x, x]), (3, 5))
    assert expected.dtype == torch.float32
    for images in ([x, x], np.stack([x.numpy()] * 2), (x.numpy().astype(np.int64)[:, ::1] for _ in range(2))):
        assert torch.equal(oversample(images, (3, 5)), expected)


@pytest.mark.parametrize(
    ("images", "crop", "message"),
    [
        ([torch.ones(4, 4, 3), torch.ones(4, 5, 3)], (2, 2), "all of one shape"),
        ([], (2, 2), "expected one or more images"),
        (torch.ones(4, 4, 3), (2, 2), r"expected \(N, H, W, K\)"),
        ([torch.ones(4, 4, 3)], (5, 2), "crop_dims 5 x 2: .* 4 x 4"),
        ([torch.ones(4, 4, 3)], (2, -1), "at least 1"),
        ([torch.ones(4, 4)], (2, 2), r"expected \(H, W, K\)"),
        (7, (2, 2), "found int"),
    ],
)
def test_invalid_arguments_of_oversample_are_refused(images, crop, message):
    with pytest.raises(SeqclfError, match=message):
        oversample(images, crop)


def test_flip_image_equals_lisa_caffe():
    pixels, small = GOLDEN["in.small"], unit("small")
    assert_near(flip_image(pixels)[::4, ::4], GOLDEN["flip_rgb.sub4"])
    assert_near(flip_image(pixels, 1, flow=True)[::4, ::4], GOLDEN["flip_flow_128.sub4"])
    assert_near(flip_image(small, 1, flow=True)[::4, ::4], GOLDEN["flip_flow_1.sub4"])
    both = torch.from_numpy(np.stack([pixels, small]))
    assert torch.equal(flip_image(both, flow=True)[1], flip_image(small, flow=True))
    assert torch.equal(flip_image(small, 0), torch.from_numpy(small[::-1].copy()))
    assert torch.equal(flip_image(flip_image(small, flow=True), flow=True)[..., 1:], torch.from_numpy(small)[..., 1:])
    with pytest.raises(SeqclfError, match="axis=2"):
        flip_image(small, 2)


# ---- preprocessing

USUAL = {"channel_swap": (2, 1, 0), "raw_scale": 255.0}
CASES = {
    "a": {**USUAL, "mean": GOLDEN["in.mean_channel"], "input_scale": 0.017},
    "b": {**USUAL, "mean": GOLDEN["in.mean_array"]},
    "c": {},
    "d": {**USUAL, "mean": GOLDEN["in.mean_channel"], "shape": (1, 3, 48, 64)},
    "e": {**USUAL, "mean": GOLDEN["in.mean_other_size"]},
}


@pytest.mark.parametrize("case", [key.split(".")[:2] for key in golden("preprocess.") if "lrcn" not in key])
def test_the_transformer_equals_pycaffe(case):
    flavour, name = case
    transformer = lrcn(flavour, **CASES[name])
    x = transformer.preprocess("data", unit("small"))
    assert_near(x[:, ::3, ::3], GOLDEN[f"preprocess.{flavour}.{name}.sub3"], scale=1 if name == "c" else 255)
    assert_near(transformer.deprocess("data", x)[::3, ::3], GOLDEN[f"deprocess.{flavour}.{name}.sub3"])


@every_flavour
def test_the_transformer_equals_pycaffe_for_lrcn(flavour):
    mean = np.array([103.939, 116.779, 128.68], np.float32)
    transformer = lrcn(flavour, shape=(10, 3, 227, 227), mean=mean, **USUAL)
    x = transformer.preprocess("data", oversample([unit("big")], (227, 227)))
    assert_near(x[..., ::16, ::16], GOLDEN[f"preprocess.{flavour}.lrcn.sub16"], scale=255)


@quick(max_examples=100)
@given(
    st.integers(1, 5),
    st.permutations([0, 1, 2]),
    st.data(),
    st.floats(0.1, 300),
    st.floats(0.01, 10),
    st.booleans(),
    st.integers(0, 99),
)
def test_deprocess_inverts_preprocess(n, transpose, data, raw_scale, input_scale, by_channel, seed):
    x, mean = image(n, n, n, seed), image(n, n, n, seed + 1)  # of one side, so that any transposition is legal
    swap = data.draw(st.permutations(range(n)))
    mean = mean[:, :1, :1] if by_channel else mean
    options = {"transpose": transpose, "channel_swap": swap, "mean": mean[:, 0, 0] if by_channel else mean}
    transformer = lrcn(shape=(2, n, n, n), raw_scale=raw_scale, input_scale=input_scale, **options)
    y = transformer.preprocess("data", x)
    expected = (x.numpy().transpose(transpose)[swap] * raw_scale - mean.numpy()) * input_scale
    torch.testing.assert_close(y, torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-5 * input_scale * raw_scale)
    assert y.is_contiguous()
    back = transformer.deprocess("data", y)
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5 * (1 + 10 / raw_scale))
    assert torch.equal(transformer.deprocess("data", y[None].numpy()), back)


@every_flavour
def test_a_batch_is_preprocessed_image_by_image(flavour):
    transformer = lrcn(flavour, **CASES["a"])
    x = torch.stack([image(20, 30, 3, seed) for seed in range(6)]).reshape(2, 3, 20, 30, 3)
    one_by_one = torch.stack([transformer.preprocess("data", y) for y in x.flatten(0, 1)])
    assert torch.equal(transformer.preprocess("data", x), one_by_one.reshape(2, 3, 3, 32, 40))


@pytest.mark.parametrize("name", [*CASES, "nothing"])
def test_arguments_are_neither_changed_nor_returned(name):
    kind = {"transpose": (0, 1, 2), "shape": (1, 32, 40, 40)} if name == "nothing" else CASES[name]
    transformer = lrcn(**kind)
    H, W = transformer.inputs["data"][2:]
    for x in (image(H, W, 3), image(H, W, 3).numpy()):
        before = x.copy() if isinstance(x, np.ndarray) else x.clone()
        y = transformer.preprocess("data", x)
        z, kept = transformer.deprocess("data", y), y.clone()
        z.fill_(9)
        assert torch.equal(y, kept)
        y.fill_(9)
        for copy in (oversample([x], (3, 3)), flip_image(x, flow=True), resize_image(x, (H, W))):
            copy.fill_(9)
        assert (before == x).all()
    if "mean" in kind:
        mean = torch.tensor(kind["mean"])
        transformer = lrcn(**{**kind, "mean": mean})
        mean += 1
        assert_near(transformer.preprocess("data", before), lrcn(**kind).preprocess("data", before).numpy())


def test_read_only_reversed_and_foreign_arrays_are_accepted():
    x = image(6, 8, 3).numpy()
    expected = resize_image(x, (4, 5))
    x.flags.writeable = False
    swapped = x.astype(x.dtype.newbyteorder())
    doubled = (x.astype(np.float64), torch.tensor(x).double())
    for same in (x, x[::-1].copy()[::-1], np.asfortranarray(x), swapped, *doubled):
        assert torch.equal(resize_image(same, (4, 5)), expected)


def test_a_float64_mean_is_subtracted_in_float64():
    mean = np.array([103.939, 116.779, 128.68])
    x = image(32, 40, 3)
    expected = x.numpy().transpose(2, 0, 1) * np.float32(255)
    expected -= mean[:, None, None]
    np.testing.assert_array_equal(lrcn(raw_scale=255, mean=mean).preprocess("data", x), expected)


def test_means_of_other_shapes():
    x = image(32, 40, 3)
    plain = lrcn().preprocess("data", x)
    level = image(32, 40, 1)[..., 0]
    for mean in (level, level[None].numpy()):
        assert_near(lrcn(mean=mean).preprocess("data", x), (plain - level).numpy())
    assert_near(lrcn(mean=torch.full((3, 5, 9), 0.25)).preprocess("data", x), (plain - 0.25).numpy())
    assert_near(lrcn(mean=torch.full((5, 9), 0.25)).preprocess("data", x), (plain - 0.25).numpy())
    assert_near(lrcn("lisa", shape=(1, 1, 32, 40), mean=level).preprocess("data", x[..., :1])[0], plain[0] - level)


def refused(message: str, call, *arguments, error=SeqclfError) -> None:
    with pytest.raises(error, match=message):
        call(*arguments)


def test_invalid_transformer_settings_are_refused():
    t, x = lrcn(**CASES["a"]), image(32, 40, 3)
    methods = ("preprocess", "deprocess", "set_transpose", "set_channel_swap", "set_mean", "set_is_flow")
    for method in (*methods, "set_raw_scale", "set_input_scale"):
        refused('"frames" is not one of the net\'s inputs: data', getattr(t, method), "frames", x)
        markers = Transformer({"cm": [16]})
        refused(r'input "cm" of shape \(16,\): expected \(N, K, H, W\)', getattr(markers, method), "cm", x)
    refused("expected \\(N, K, H, W\\)", Transformer, {"data": (1, 3, 0, 4)})
    refused("expected \\(N, K, H, W\\)", Transformer, {"data": 7})
    refused("flavour='mine'", Transformer, {"data": (1, 3, 4, 4)}, "mine")
    for order in ((0, 1), (0, 1, 3), (0, 1, 0.5), 7, None, (0, 1, 1)):
        refused("transpose order", t.set_transpose, "data", order)
    for order in ((0, 1), (0, 1, 3), "bgr", None):
        refused("channel swap .* 0 to 2", t.set_channel_swap, "data", order)
    for scale in ("a", None, torch.ones(2), np.ones(3), torch.nan, torch.inf):
        refused("raw scale .* expected a number", t.set_raw_scale, "data", scale)
        refused("input scale .* expected a number", t.set_input_scale, "data", scale)
    for shape in ((), (2,), (1, 3, 32, 40), (2, 32, 40)):
        refused(r"expected \(3,\) or \(3, 32, 40\)", t.set_mean, "data", torch.ones(shape))
    refused(r"expected \(3,\) or", lrcn("lisa").set_mean, "data", GOLDEN["in.mean_other_size"])
    refused("expected a tensor or an array", t.set_mean, "data", [1, 2, 3])
    refused(r"expected \(K, H, W\) or \(1, K, H, W\)", t.deprocess, "data", torch.ones(2, 3, 32, 40))
    refused("does not fit data of shape", lrcn(mean=torch.ones(3)).preprocess, "data", image(32, 40, 2))
    refused("does not fit data of shape", lrcn(mean=torch.ones(3)).deprocess, "data", torch.ones(5, 32, 40))
    refused("channels first", lrcn(channel_swap=(2, 1, 0)).preprocess, "data", image(32, 40, 2))
    refused("has no inverse", lrcn(channel_swap=(0, 0, 0)).deprocess, "data", torch.ones(3, 32, 40))


def test_results_are_on_the_device_of_the_image():
    x = image(20, 30, 3).to("meta")
    for order in (0, 1, 3):
        for K in (1, 2, 3):
            assert resize_image(x[..., :K], (9, 40), order).device.type == "meta"
    assert oversample([x, x], (9, 10), flow=True).device.type == flip_image(x, flow=True).device.type == "meta"
    transformer = lrcn(**CASES["b"])
    y = transformer.preprocess("data", x)
    assert y.device.type == transformer.deprocess("data", y).device.type == "meta"


def test_set_is_flow_changes_nothing():
    x = image(32, 40, 3)
    assert torch.equal(lrcn("lisa", is_flow=True).preprocess("data", x), lrcn("lisa").preprocess("data", x))


# ---- image files


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16", "CMYK"])
def test_load_image(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        wide = pixels[..., 0].astype(np.uint16) * 256 + pixels[..., 1]
        Image.fromarray(wide).save(path)
        expected = (wide / 65535).astype(np.float32)[..., None].repeat(3, -1)
    else:
        whole = Image.fromarray(pixels, "RGBA" if mode != "CMYK" else "CMYK")
        picture = whole if mode in ("RGBA", "CMYK") else whole.convert("RGB").convert(mode)
        if mode == "LA":
            picture.putalpha(Image.fromarray(pixels[..., 3]))
        picture.save(path, **({"transparency": bytes(range(200))} if mode == "P" else {}))
        expected = {
            "RGBA": pixels[..., :3],
            "P": np.array(picture.convert("RGB")),
            "CMYK": np.array(picture.convert("RGB")),
        }.get(mode)
        if expected is None:
            expected = np.array(picture.convert("L" if mode in ("1", "LA") else mode))
            expected = expected if expected.ndim == 3 else expected[..., None].repeat(3, -1)
        expected = (expected / 255).astype(np.float32)
    x, grey = load_image(path), load_image(str(path), color=False)
    assert x.dtype == grey.dtype == torch.float32 and grey.shape == (5, 7, 1)
    assert np.array_equal(x, expected)
    assert_near(grey[..., 0], (expected @ np.array([0.2125, 0.7154, 0.0721])).astype(np.float32))
    if mode in ("L", "LA", "1", "I;16"):
        assert torch.equal(grey[..., 0], x[..., 0])
    resize_image(x, (3, 3)).add_(1)


def test_all_256_levels_equal_pycaffe(tmp_path):
    levels = np.arange(256, dtype=np.uint8)[None]
    Image.fromarray(levels).save(tmp_path / "levels.png")
    assert np.array_equal(load_image(tmp_path / "levels.png")[0, :, 0], (levels[0] / 255).astype(np.float32))


def test_invalid_images_are_refused(tmp_path):
    refused("absent.png: no such file", load_image, tmp_path / "absent.png")
    refused("not an image that can be read", load_image, tmp_path)
    path = tmp_path / "frame.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        refused("frame.png: ", load_image, path)
    Image.new("F", (3, 3)).save(tmp_path / "float.tiff")
    refused("its pixels are of mode F, expected 8 bits", load_image, tmp_path / "float.tiff")


# ---- means


def golden_means() -> list[tuple[str, str]]:
    return [tuple(key.split(".")) for key in golden("meanfile.")]


@pytest.mark.parametrize(("flavour", "kind"), golden_means())
def test_read_mean_equals_pycaffe(tmp_path, flavour, kind):
    content, mean = GOLDEN[f"meanfile.{flavour}.{kind}"].tobytes(), GOLDEN[f"mean.{flavour}"]
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(content)
    found = read_mean(path, flavour)
    assert found.dtype == torch.float32 and np.array_equal(found, mean[0])
    blob = schema(flavour).BlobProto.FromString(content)
    shape = (3, 6, 5) if (flavour, kind) == ("bvlc", "nd") else (1, 3, 6, 5)
    assert np.array_equal(blobproto_to_array(blob), mean.reshape(shape))
    if kind == "with_diff":
        assert blobproto_to_array(blob, return_diff=True).shape == shape
        assert np.array_equal(blobproto_to_array(blob, return_diff=True).numpy().ravel(), list(blob.diff))
    Transformer({"data": (1, 3, 6, 5)}, flavour).set_mean("data", found)


def test_array_to_blobproto_writes_pycaffes_bytes():
    mean = GOLDEN["mean.bvlc"]
    for flavour, array in (("bvlc", mean[0]), ("lisa", torch.from_numpy(mean))):
        blob = array_to_blobproto(array, flavour=flavour)
        assert blob.SerializeToString(deterministic=True) == GOLDEN[f"meanfile.{flavour}.nd"].tobytes()


@every_flavour
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3), (1, 2, 3, 4), (2, 0, 3, 1), (1, 2, 1, 2, 1)])
def test_arrays_survive_a_blobproto(flavour, shape):
    x = torch.randn(shape, dtype=torch.float64)
    if flavour == "lisa" and len(shape) != 4:
        refused("lisa-caffe's blobs have four axes", partial(array_to_blobproto, flavour="lisa"), x)
        return
    blob = array_to_blobproto(x, -x, flavour)
    assert torch.equal(blobproto_to_array(blob), x.float())
    assert torch.equal(blobproto_to_array(blob, return_diff=True), -x.float())
    refused("diff of shape .* that of the array", array_to_blobproto, x, torch.ones(*shape, 2))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (3, 6, 5), (6, 5), (3,)])
def test_read_mean_reads_npy(tmp_path, shape, dtype, order):
    mean = np.asarray(np.round(100 * GOLDEN["mean.bvlc"].ravel()[: np.prod(shape)]).reshape(shape) % 200, dtype, order)
    np.save(tmp_path / "mean.npy", mean)
    found = read_mean(tmp_path / "mean.npy")
    expected = mean[0] if mean.ndim == 4 else mean
    assert found.dtype == torch.float32 and np.array_equal(found, expected)


def test_invalid_mean_files_are_refused(tmp_path):
    damaged = partial(refused, error=CaffeFormatError)
    path = tmp_path / "mean.binaryproto"
    damaged("absent.binaryproto: no such file", read_mean, tmp_path / "absent.binaryproto")
    damaged("no such file", read_mean, tmp_path)
    damaged('flavour=\'mine\': expected "bvlc" or "lisa"', read_mean, path, "mine")

    def write(**fields):
        blob = schema("bvlc").BlobProto()
        blob.shape.dim.extend(fields.pop("dims", []))
        for name, value in fields.items():
            blob.MergeFrom(type(blob)(**{name: value}))
        path.write_bytes(blob.SerializeToString())

    for fields, message in (
        ({}, "data .* 0 "),
        ({"data": [1] * 5, "dims": [2, 3]}, "data .* 5 .* 2 x 3"),
        ({"double_data": [1] * 5, "dims": [2, 3]}, "double_data .* 5 .* 2 x 3"),
        ({"data": [1] * 6, "dims": [-2, -3]}, "shape is -2 x -3"),
        ({"data": [1] * 6, "dims": [1] * 99}, "shape is 1 x .* x ..."),
        ({"data": [1], "dims": [2**62, 2**62]}, r"at most 2\*\*31 - 1 values"),
        ({"dims": [0, 2**62, 2**62]}, r"at most 2\*\*31 - 1 values"),
        ({"data": [1], "dims": [10**6, 2000]}, "data .* 1 .* 1000000 x 2000"),
        ({"data": [1] * 6, "num": 1, "channels": 2}, " 1 x 2 x 0 x 0"),
        ({"data": [1] * 6, "num": 1, "channels": -1, "height": -6, "width": 1}, "none negative"),
        ({"dims": [0, 3, 3]}, r"array of shape \(0, 3, 3\)"),
        ({"data": [1] * 6, "dims": [2, 3, 1, 1]}, r"array of shape \(2, 3, 1, 1\)"),
        ({"data": [1]}, r"array of shape \(\)"),
        ({"data": [1, float("nan"), 2], "dims": [3]}, "not finite"),
    ):
        write(**fields)
        damaged(rf"mean.binaryproto: .*{message}", read_mean, path)
    path.write_bytes(b"\x2a\xff\xff\xff\xff\x7f\x00")  # data said to be 32 GiB
    damaged("BlobProto", read_mean, path)

    path = tmp_path / "mean.npy"
    for array, message in (
        (np.array(["a"]), "<U1 in 1 axes"),
        (np.ones((1,) * 9), "float64 in 9 axes"),
        (np.ones((2, 3, 1, 1)), "expected a mean"),
        (np.full(3, np.inf), "not finite"),
    ):
        np.save(path, array)
        damaged(rf"mean.npy: .*{message}", read_mean, path)


def npy(shape: str, data: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + data


def test_a_declared_size_allocates_no_memory(tmp_path):
    path = tmp_path / "mean"
    for content in (
        npy("(250000000000,)", bytes(64)),
        npy("(4294967296, 4294967296)", bytes(64)),
        npy("(3, -1, -5)", bytes(60)),
        array_to_blobproto(torch.ones(1)).SerializeToString() + b"\x3a\x07\x0a\x05\x80\x80\x80\x80\x40",  # shape again
        b"\x2a\xff\xff\xff\xff\xff\x3f",
    ):
        path.write_bytes(content)
        tracemalloc.start()
        try:
            refused(str(path), read_mean, path, error=CaffeFormatError)
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


@quick(max_examples=150)
@given(
    st.sampled_from([*golden("meanfile."), "npy", "nothing"]),
    st.lists(st.tuples(st.integers(0, 160), st.binary(min_size=1, max_size=3)), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 400)),
)
def test_a_damaged_mean_file_is_read_or_raises_a_seqclf_error(tmp_path_factory, name, damage, end):
    stream = BytesIO()
    np.save(stream, GOLDEN["mean.bvlc"])
    content = {"npy": stream.getvalue(), "nothing": b""}.get(name)
    content = bytearray(GOLDEN[f"meanfile.{name}"].tobytes() if content is None else content)
    for at, replacement in damage:
        content[at : at + len(replacement)] = replacement
    path = tmp_path_factory.getbasetemp() / "damaged-mean"
    path.write_bytes(content[:end])
    try:
        mean = read_mean(path)
    except CaffeFormatError as error:
        assert str(path) in str(error)
    else:
        assert mean.dtype == torch.float32 and mean.isfinite().all() and mean.ndim in (1, 2, 3)
