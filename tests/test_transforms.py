"""Transforms of clips: equal for all frames, reproducible, LRCN's crop, frames that do not fit."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from seqclf import SeqclfError
from seqclf.data import reading
from seqclf.data.reading import read_frames
from seqclf.data.transforms import (
    center_crop,
    colour,
    compose,
    corner_crop,
    corners_and_center,
    flip,
    framewise,
    in_turn,
    is_framewise,
    lrcn_crop,
    mirror,
    random_crop,
    resize,
    shift,
    ten_crops,
)
from seqclf.data.warp import warp
from seqclf.experiment.rendering import render


def key(seed):
    return torch.Generator().manual_seed(seed)


def clip_of(T=3, C=3, H=20, W=26, seed=0):
    return torch.randint(0, 256, (T, C, H, W), dtype=torch.uint8, generator=key(seed))


STEPS = {
    "resize": partial(resize, size=(11, 9)),
    "resize_short": partial(resize, size=12),
    "random_crop": partial(random_crop, size=9),
    "center_crop": partial(center_crop, size=(8, 15)),
    "corner_crop": partial(corner_crop, size=11),
    "flip": flip,
    "flip_flow": partial(flip, negate_x=True),
    "colour": partial(colour, brightness=0.4, contrast=0.4, saturation=0.4),
    "lrcn": partial(lrcn_crop, size=200, negate_x=True),
    "lrcn_faithful": partial(lrcn_crop, size=200, faithful=True),
    "warp": warp,
}
STEPS["composed"] = compose(STEPS["resize_short"], STEPS["random_crop"], STEPS["flip"], STEPS["colour"])


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@settings(derandomize=True, deadline=None, max_examples=8)
@given(data=st.data())
def test_the_same_key_changes_every_frame_alike_and_evaluation_never_draws(step, data):
    seed = data.draw(st.integers(0, 999))
    clip = clip_of(T=data.draw(st.integers(1, 4)), H=data.draw(st.integers(15, 24)), W=data.draw(st.integers(15, 24)))
    before = clip.clone()
    changed = step(clip, key(seed))
    assert changed.dtype == torch.uint8 and len(changed) == len(clip)
    assert torch.equal(changed, step(clip, key(seed)))
    for t in range(len(clip)):  # a single frame is transformed as in a clip
        assert torch.equal(changed[t : t + 1], step(clip[t : t + 1], key(seed)))
    torch.manual_seed(seed)  # independent of PyTorch's own generator
    assert torch.equal(step(clip, None), step(clip, None))
    assert torch.equal(clip, before), "the clip that was given is left as it is"


@pytest.mark.parametrize("name", ["resize", "random_crop", "flip_flow", "colour", "lrcn", "warp"])
def test_a_batch_is_transformed_clip_by_clip_each_with_its_own_draws(name):
    batch = torch.stack([clip_of(seed=seed) for seed in range(8)])
    generator = key(4)
    one_by_one = torch.stack([STEPS[name](clip, generator) for clip in batch])
    assert torch.equal(STEPS[name](batch, key(4)), one_by_one)
    assert torch.equal(STEPS[name](batch, None), torch.stack([STEPS[name](clip, None) for clip in batch]))


def test_only_transforms_of_single_frames_are_framewise():
    def difference(frames, generator):
        return frames[1:] - frames[:-1]

    assert all(map(is_framewise, STEPS.values())) and is_framewise(framewise(lambda frames, generator: frames))
    assert not is_framewise(difference) and not is_framewise(compose(flip, difference))
    assert is_framewise(compose(flip, compose(STEPS["resize"])))


class Held:
    """Frames in memory as a source that records how many are read at a time."""

    path = "held.mp4"

    def __init__(self, frames):
        self.frames, self.reads = frames, []

    def read(self, numbers):
        self.reads.append(len(numbers))
        if self.reads[-1] > 40:
            raise MemoryError
        return self.frames[list(numbers)]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("training", [True, False])
def test_a_long_clip_is_transformed_in_pieces_with_the_result_of_the_whole(step, training, monkeypatch):
    monkeypatch.setattr(reading, "PIECE_BYTES", 5 * 3 * 20 * 26)
    source, numbers = Held(clip_of(T=37)), [*range(1, 37), 0]
    frames = read_frames(source, numbers, step, key(3) if training else None)
    assert torch.equal(frames, step(source.frames[numbers], key(3) if training else None))
    assert max(source.reads) == 5


def test_a_transform_that_is_not_framewise_gets_the_whole_clip():
    source = Held(clip_of(T=37))
    frames = read_frames(source, range(37), lambda frames, generator: frames - frames.roll(1, 0))
    assert torch.equal(frames, source.frames - source.frames.roll(1, 0))


def test_missing_memory_names_the_video_and_the_settings():
    with pytest.raises(SeqclfError, match=r"held\.mp4.*sampling.*transform.*eval_batch"):
        read_frames(Held(clip_of(T=41, H=2, W=2)), range(41))
    assert len(read_frames(Held(clip_of(T=41, H=2, W=2)), range(41), STEPS["flip"])) == 41


@pytest.mark.parametrize("transform", [None, STEPS["flip"]])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_frames_that_are_not_finite_are_named(value, transform):
    source = Held(torch.zeros(30, 3, 2, 2))
    source.frames[23, 1, 0, 0] = value
    with pytest.raises(SeqclfError, match=r"held\.mp4: frame 23 "):
        read_frames(source, range(20, 30), transform)
    source.frames[:] = 3e38  # finite, though their sum is not
    assert len(read_frames(source, range(30))) == 30


def test_shift_moves_the_frames_of_a_clip_alike_and_clips_apart():
    batch = torch.stack([clip_of()] * 9)
    moved = shift(batch, key(0), pixels=2)
    assert len(moved.flatten(1).unique(dim=0)) > 3
    for clip in [*moved, shift(batch[0], key(1), pixels=2)]:
        found = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(clip, F.pad(batch[0], (2, 2, 2, 2))[..., down : down + 20, right : right + 26])
        ]
        assert len(found) == 1
    assert torch.equal(shift(batch, None), batch)
    rows = torch.arange(12.0).view(1, 3, 4)  # frames that are the rows of an image
    assert (shift(rows.repeat(20, 1, 1), key(0)) == 0).any(2).any(1).sum() > 10


def test_warp_reads_each_pixel_from_a_place_nearby():
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    clip = torch.stack([rows, columns])[None]  # each pixel holds its position
    draws = key(0)
    warped = [warp(clip, draws, p=1.0, affine=0.0, pixels=0.5)[0] - clip[0] for _ in range(30)]
    inner = torch.stack(warped)[:, :, 4:-4, 4:-4]
    assert 0.2 < float(inner.std()) < 0.6 and float(inner.abs().max()) < 3
    assert float(inner.diff(dim=-1).abs().max()) < 0.6, "neighbors stay neighbors"
    assert torch.equal(warp(clip, key(0), p=1.0, affine=0.0, pixels=0.0).round(), clip)
    turned = warp(clip, key(1), p=1.0, affine=0.1, pixels=0.0)[0, :, 6:-6, 6:-6]
    assert float(turned.diff(n=2, dim=-1).abs().max()) < 1e-4, "an affine map is linear in the position"
    changed = sum(not torch.equal(warp(clip, draws, p=0.5), clip) for _ in range(100))
    assert 30 < changed < 70 and torch.equal(warp(clip, draws, p=0.0), clip)


@pytest.mark.parametrize("wrong", [{"p": 1.5}, {"affine": -1}, {"pixels": -1}, {"points": 1}])
def test_warp_names_an_argument_that_is_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(SeqclfError, match=f"warp: .*{name}={wrong[name]}"):
        warp(clip_of(), None, **wrong)
    with pytest.raises(SeqclfError, match=r"warp: .*\(3, 20\)"):
        warp(torch.zeros(3, 20), None)


@pytest.mark.parametrize("name", ["random_crop", "corner_crop", "flip", "colour", "lrcn", "lrcn_faithful", "composed"])
def test_other_keys_give_other_results(name):
    clip = clip_of(T=1)
    assert len({STEPS[name](clip, key(seed)).numpy().tobytes() for seed in range(12)}) > 1


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_crops_are_parts_of_the_frame(H, W, h, w, seed):
    clip = torch.arange(H * W, dtype=torch.int32).view(1, 1, H, W)  # each pixel holds its position
    for step in (random_crop, center_crop, corner_crop):
        if h > H or w > W:
            with pytest.raises(SeqclfError, match=f"{h}x{w}.*{H}x{W}"):
                step(clip, key(seed), size=(h, w))
            continue
        crop = step(clip, key(seed), size=(h, w))
        top, left = divmod(int(crop[0, 0, 0, 0]), W)
        assert torch.equal(crop, tv.crop(clip, top, left, h, w))
        if step is corner_crop:
            assert (top, left) in corners_and_center(H, W, h, w)
        middle = step(clip, None, size=(h, w))
        assert divmod(int(middle[0, 0, 0, 0]), W) == ((H - h) // 2, (W - w) // 2)


def test_every_place_of_a_crop_comes_the_first_and_the_last_too():
    clip = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)
    generator = key(0)
    assert {int(random_crop(clip, generator, 2)[0, 0, 0, 0]) for _ in range(200)} == {0, 1, 2, 4, 5, 6}
    assert {int(corner_crop(clip, generator, 2)[0, 0, 0, 0]) for _ in range(200)} == {0, 2, 4, 6, 1}


def test_resize_to_a_size_or_to_the_shorter_side():
    clip = clip_of(H=20, W=30)
    assert resize(clip, None, size=10).shape[-2:] == (10, 15)
    assert resize(clip.transpose(2, 3), None, size=10).shape[-2:] == (15, 10)
    assert torch.equal(resize(clip, None, size=(7, 9)), tv.resize(clip, [7, 9], antialias=True))
    assert torch.equal(resize(clip, None, size=10), tv.resize(clip, [10], antialias=True))
    assert resize(clip, None, size=20) is clip


def test_flip_mirrors_half_of_the_clips_and_negates_flow():
    clip = clip_of()
    generator = key(0)
    flipped = [not torch.equal(flip(clip, generator), clip) for _ in range(400)]
    assert 160 < sum(flipped) < 240
    assert torch.equal(flip(clip, key(0), p=1.0), tv.horizontal_flip(clip))
    assert torch.equal(flip(clip, key(0), p=0.0), clip)
    flow = flip(clip, key(0), p=1.0, negate_x=True)
    assert torch.equal(flow[:, 0], 255 - clip[:, 0].flip(-1)) and torch.equal(flow[:, 1:], clip[:, 1:].flip(-1))
    assert torch.equal(mirror(flow, negate_x=True), clip)


def test_ten_crops_in_caffes_order():
    clip = torch.arange(35, dtype=torch.uint8).view(1, 1, 5, 7)
    crops = ten_crops(clip, (2, 4))
    assert crops.shape == (10, 1, 1, 2, 4)
    assert crops[:5, 0, 0, 0, 0].tolist() == [0, 3, 21, 24, 8]
    assert torch.equal(crops[5:], crops[:5].flip(-1))
    flow = ten_crops(clip_of(), 9, negate_x=True)
    assert torch.equal(flow[5:, :, 0], 255 - flow[:5, :, 0].flip(-1))


def test_colour_is_torchvisions_and_does_nothing_by_default():
    clip = clip_of()
    assert torch.equal(colour(clip, key(0)), clip)
    factor = 1 + 0.5 * (2 * float(torch.rand((), generator=key(3))) - 1)
    assert torch.equal(colour(clip, key(3), brightness=0.5), tv.adjust_brightness(clip, factor))
    assert torch.equal(colour(clip, None, brightness=0.5), clip)


def test_lrcn_mirrors_crops_and_scales_the_whole_frame_otherwise():
    clip = torch.zeros(1, 3, 240, 320, dtype=torch.uint8)
    clip[0, 0] = torch.arange(240, dtype=torch.uint8)[:, None]  # each pixel holds its row and its column
    clip[0, 1:] = torch.stack([torch.arange(320) // 256, torch.arange(320) % 256])[:, None].to(torch.uint8)
    squeezed = tv.resize(clip, [227, 227], antialias=False)
    generator, places = key(0), []
    for _ in range(600):
        crop = lrcn_crop(clip, generator, faithful=True)
        assert crop.shape[-2:] == (227, 227)
        if torch.equal(crop, squeezed):
            continue
        row, high, low = crop[0, :, 0, 0].tolist()
        places.append((row, 319 - (256 * high + low)))
        assert torch.equal(crop, tv.horizontal_flip(clip)[..., row : row + 227, places[-1][1] : places[-1][1] + 227])
    assert 250 < len(places) < 350
    assert {top for top, _ in places} == set(range(13)), "the original never draws the last place, 13"
    assert max(left for _, left in places) == 92
    sane = {int(lrcn_crop(clip, generator)[0, 0, 0, 0]) for _ in range(300)}
    assert sane == set(range(14))
    for faithful in (False, True):
        assert torch.equal(lrcn_crop(clip, None, faithful=faithful), clip[..., 6:233, 46:273])


def test_lrcn_scales_other_frames_first_and_negates_flow():
    small, large = clip_of(H=120, W=90), clip_of(T=1, H=480, W=400)
    for clip in (small, large):
        assert torch.equal(lrcn_crop(clip, None), lrcn_crop(tv.resize(clip, [240, 320], antialias=True), None))
    assert torch.equal(lrcn_crop(large, None, faithful=True), large[..., 126:353, 86:313]), "the original did not"
    for faithful in (False, True):
        generator = key(1)
        flow = clip_of(T=1, H=240, W=320)
        crops = {lrcn_crop(flow, key(s), faithful=faithful, negate_x=True).numpy().tobytes() for s in range(9)}
        plain = {lrcn_crop(flow, key(s), faithful=faithful).numpy().tobytes() for s in range(9)}
        assert 0 < len(crops & plain) < 9, "mirrored flow is negated, the rest is not"
        assert lrcn_crop(small, generator, size=64, faithful=faithful).shape[-2:] == (64, 64)


def test_a_chain_of_steps_can_be_written_into_a_config():
    from seqclf import Experiment, mnist

    def experiment(transform):
        return Experiment(
            data=partial(mnist, labelling=transform), model=in_turn, optimizer=in_turn, steps=1, batch_size=1
        )

    text = render(experiment(compose(partial(resize, size=(24, 32)), partial(random_crop, size=20), flip)))
    scope = {}
    exec(text, scope)
    again = scope["get_config"]().data.keywords["labelling"]
    clip = clip_of(H=40, W=30)
    assert torch.equal(again(clip, key(5)), compose(*again.keywords["steps"])(clip, key(5)))
    assert again(clip, key(5)).shape == (3, 3, 20, 20)
    assert torch.equal(in_turn(clip, key(0)), clip)


@pytest.mark.parametrize(
    ("step", "clip", "message"),
    [
        (partial(random_crop, size=0), clip_of(), "random_crop: size 0x0, expected at least 1x1"),
        (partial(resize, size=(4, 0)), clip_of(), "resize: size 4x0, expected at least 1x1"),
        (partial(center_crop, size=5), torch.zeros(4, 12), r"center_crop: expected a clip of pictures .*\(4, 12\)"),
        (partial(flip, p=1.5), clip_of(), r"flip: p=1.5, expected a probability"),
        (partial(flip, p=1.0, negate_x=True), clip_of().float(), "negate_x: expected flow as uint8"),
        (partial(colour, contrast=2.0), clip_of(), "colour: contrast=2.0, expected a number from 0 to 1"),
        (partial(colour, contrast=0.2), clip_of(C=2), "colour: frames have 2 channels, expected 3"),
        (partial(lrcn_crop, size=241), clip_of(T=1), "crop of 241x241 does not fit into frames of 240x320"),
        (partial(lrcn_crop, size=240, faithful=True), clip_of(T=1), "lrcn_crop: size=240, expected 1 to 239"),
    ],
)
def test_frames_that_do_not_fit_a_transform_are_refused(step, clip, message):
    with pytest.raises(SeqclfError, match=message):
        step(clip, key(0))
