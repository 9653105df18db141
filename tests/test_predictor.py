"""The predictor: calls, batches, windows, crops, streams, labels and late fusion."""

import gc
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seqclf import GRU, IGNORE, LSTM, RNN, FrameSequenceClassifier, Identity, Normalize, SeqclfError
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.input_spec import InputSpec
from seqclf.data.transforms import mirror, ten_crops
from seqclf.prediction import Prediction, Predictor, fuse
from seqclf.prediction.fit import Fit

TEMPORALS = (Identity, partial(LSTM, hidden=6), partial(GRU, hidden=6), partial(RNN, hidden=6))


class Reversed(nn.Module):
    """A temporal model that looks ahead: it declares nothing."""

    def __init__(self, input_size):
        super().__init__()
        self.out_features = input_size

    def forward(self, x, is_first=None, state=None, lengths=None):
        return x.flip(1).cumsum(1).flip(1), None


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make_predictor(temporal=TEMPORALS[1], shape=(3, 8, 10), classes="abc"):
    torch.manual_seed(0)
    return Predictor(FrameSequenceClassifier(temporal=temporal, frame_shape=shape, num_classes=len(classes)), classes)


def write_folder(path, frames):
    path.mkdir(parents=True)
    for n, frame in enumerate(frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(path / f"f_{n}.png")
    return path


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


# ---- windows


def test_windows_that_do_not_overlap_are_the_plain_calls():
    predictor, frames = make_predictor(), noise(12, 3, 8, 10)
    plain = torch.cat([predictor(part).probabilities for part in frames.split(4)])
    close(predictor.windows(frames, frames=4, stride=4).probabilities, plain)
    close(predictor.windows(frames.numpy(), 4, 4).probabilities, plain)


def test_a_frame_has_the_mean_over_the_windows_that_cover_it():
    predictor, frames = make_predictor(), noise(7, 3, 8, 10)
    windows = {start: predictor(frames[start : start + 4]).probabilities for start in (0, 2, 3)}
    by_hand = [torch.stack([p[t - s] for s, p in windows.items() if s <= t < s + 4]).mean(0) for t in range(7)]
    close(predictor.windows(frames, frames=4, stride=2).probabilities, torch.stack(by_hand))
    close(predictor.windows(frames, frames=4).probabilities, torch.stack(by_hand))  # half a window


def test_the_mean_is_over_the_frames_of_all_windows_as_lrcn_takes_it():
    predictor, frames = make_predictor(), noise(7, 3, 12, 13)
    windows = [ten_crops(frames[start : start + 4], (8, 10)) for start in (0, 2, 3)]
    each = torch.stack([predictor(crop).probabilities for crops in windows for crop in crops])  # 30 of 4 frames
    prediction = predictor.windows(frames, 4, 2, crops=10)
    best = each.mean((0, 1))
    assert prediction.label("mean") == ("abc"[int(best.argmax())], pytest.approx(float(best.max()), abs=1e-5))
    assert prediction.seen.tolist() == [1, 1, 2, 3, 2, 2, 1]
    assert fuse([prediction, prediction]).label("mean")[1] == pytest.approx(float(best.max()), abs=1e-5)


@pytest.mark.parametrize("T", [1, 3, 40, 100])
def test_a_short_or_whole_video_is_one_window(T):
    predictor, frames = make_predictor(), noise(T, 3, 8, 10)
    close(predictor.windows(frames, frames=None).probabilities, predictor(frames).probabilities)
    close(predictor.windows(frames, frames=T + 5).probabilities, predictor(frames).probabilities)


def test_a_source_is_read_once_and_in_order(tmp_path):
    predictor, frames = make_predictor(), noise(11, 3, 8, 10)
    source, read = write_folder(tmp_path / "v", frames), []

    class Counted(FrameFolder):
        def read(self, numbers):
            read.extend(numbers)
            return super().read(numbers)

    close(predictor.windows(Counted(source), 4, 2).probabilities, predictor.windows(frames, 4, 2).probabilities)
    assert read == list(range(11))


# ---- crops


def test_ten_crops_are_the_mean_over_the_corners_the_middle_and_their_mirror_images():
    predictor, frames = make_predictor(), noise(5, 3, 12, 13)
    each = [predictor(crop).probabilities for crop in ten_crops(frames, (8, 10))]
    close(predictor.windows(frames, 8, crops=10).probabilities, torch.stack(each).mean(0))
    center = predictor(frames[:, :, 2:10, 1:11]).probabilities
    close(predictor.windows(frames, 8, crop=True).probabilities, center)
    negated = [predictor(crop).probabilities for crop in ten_crops(frames, (8, 10), negate_x=True)]
    close(predictor.windows(frames, 8, crops=10, flow=True).probabilities, torch.stack(negated).mean(0))


def test_crops_of_constant_frames_equal_one_crop():
    predictor = make_predictor()
    frames = torch.arange(0, 60, 10, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 20, 30)
    one = predictor.windows(frames, 4, crop=True).probabilities
    close(predictor.windows(frames, 4, crops=10).probabilities, one)
    close(predictor.windows(frames, 4, resize=(8, 10)).probabilities, one)
    close(predictor.windows(frames, 4, resize=8, crop=True).probabilities, one)


def test_ten_crops_of_frames_of_the_models_size_are_the_frames_and_their_mirror_images():
    predictor, frames = make_predictor(), noise(5, 3, 8, 10)
    assert Fit(crops=10)(frames, (3, 8, 10), "clip").shape == (2, 5, 3, 8, 10)
    both = (predictor(frames).probabilities + predictor(mirror(frames)).probabilities) / 2
    close(predictor.windows(frames, 8, crops=10).probabilities, both)


@pytest.mark.parametrize("size", [(7, 10), (8, 11), (32, 40), (4, 5)])
def test_frames_of_another_size_are_refused_with_the_way_out(size):
    predictor, frames = make_predictor(), noise(2, 3, *size)
    with pytest.raises(SeqclfError, match=rf"{size[0]}x{size[1]}.*8x10.*--resize.*--crop"):
        predictor.windows(frames)
    with pytest.raises(SeqclfError, match=r"--resize.*--crop"):
        predictor(frames)
    assert len(predictor.windows(frames, resize=(8, 10)).probabilities) == 2


@pytest.mark.parametrize(
    ("frames", "keywords", "named"),
    [
        (noise(2, 3, 7, 10), {"crop": True}, "7x10.*8x10.*--resize"),
        (noise(2, 3, 9, 9), {"crops": 10}, "9x9.*8x10.*--resize"),
        (noise(2, 8, 10, 3), {}, r"\(8, 10, 3\).*\(3, 8, 10\).*channels come first"),
        (noise(2, 1, 8, 10), {}, r"\(1, 8, 10\)"),
        (noise(2, 30), {}, r"\(30,\)"),
        (noise(2, 3, 8, 10), {"crops": 5}, "crops=5"),
        (noise(2, 3, 8, 10), {"frames": 4, "stride": 5}, "stride=5.*4"),
        (noise(2, 3, 8, 10), {"stride": 0}, "stride=0"),
        (noise(2, 3, 8, 10), {"frames": 0}, "frames=0"),
        (noise(2, 3, 8, 10), {"frames": None, "stride": 3}, "stride=3"),
        (noise(2, 3, 8, 10), {"resize": (0, 9)}, "0x9"),
        (noise(0, 3, 8, 10), {}, "no frames"),
        (np.array([None]), {}, "array"),
    ],
)
def test_invalid_windows_are_refused(frames, keywords, named):
    with pytest.raises(SeqclfError, match=named):
        make_predictor().windows(frames, **keywords)


def test_features_are_not_changed():
    predictor, features = make_predictor(shape=(7,)), torch.randn(9, 7)
    close(predictor.windows(features, None).probabilities, predictor(features).probabilities)
    with pytest.raises(SeqclfError, match=r"\(7,\)"):
        predictor.windows(features, crops=10)


def test_arrays_as_opencv_loops_have_them_are_taken():
    predictor, frames = make_predictor(), noise(4, 3, 8, 10)
    flipped = frames.numpy()[:, ::-1]
    close(predictor(flipped).probabilities, predictor(frames.flip(1)).probabilities)
    read_only = frames.numpy().copy()
    read_only.flags.writeable = False
    close(predictor.stream()(read_only[0]), predictor(frames[:1]).probabilities[0])


class Table:
    """Like a table of pandas, it has an array, but its items are columns."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, name):
        raise KeyError(name)

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_tables_and_any_iterable_of_clips_are_taken():
    predictor, features = make_predictor(shape=(7,)), torch.randn(9, 7)
    close(predictor(Table(features.numpy())).probabilities, predictor(features).probabilities)
    for found in predictor.batch(clip for clip in (features, features)):
        close(found.probabilities, predictor(features).probabilities)


def test_lists_of_frames_and_paths_are_taken(tmp_path):
    predictor, frames = make_predictor(), noise(4, 3, 8, 10)
    expected = predictor(frames).probabilities
    for given in (list(frames), [frame.numpy() for frame in frames], tuple(frames.numpy().tolist())):
        close(predictor(given).probabilities, expected)
    close(predictor.windows(list(frames), None).probabilities, expected)
    folder = write_folder(tmp_path / "v", frames)
    for path in (folder, str(folder)):
        close(predictor.windows(path, None).probabilities, expected)
    close(predictor(frames.long()).probabilities, expected)
    close(predictor(frames / 255).probabilities, expected)


@pytest.mark.parametrize(
    ("frames", "named"),
    [
        (np.zeros((2, 8, 10, 3), np.uint8), r"\(8, 10, 3\).*frames\.transpose.*BGR"),
        (noise(2, 3, 8, 9), r"\(3, 8, 9\).*\(3, 8, 10\)"),
        (noise(3, 8, 10), r"frame\[None\]"),
        (noise(1, 2, 3, 8, 10), "one clip"),
        (noise(0, 3, 8, 10), "no frames"),
        ([], "empty"),
        ([noise(3, 8, 10), noise(3, 8, 9)], "different shapes"),
        (noise(2, 3, 8, 10).numpy().astype(np.uint16) * 257, "0 to 255"),
        (noise(2, 3, 8, 10).to(torch.int16) - 200, "-200"),
        (torch.ones(2, 3, 8, 10, dtype=torch.bool), "bool"),
        (torch.full((2, 3, 8, 10), torch.nan), "finite"),
        (np.full((2, 3, 8, 10), 1e39), "finite"),  # too large for float32
        (np.ma.masked_greater(np.ones((2, 3, 8, 10), "float32"), 0), "masked"),
        ("video.mp4", "array"),
        (None, "array"),
    ],
)
def test_wrong_frames_are_refused(frames, named):
    with pytest.raises(SeqclfError, match=named):
        make_predictor()(frames)


def test_a_stream_refuses_a_wrong_frame_and_continues():
    predictor, frames = make_predictor(), noise(4, 3, 8, 10)
    stream = predictor.stream()
    stream(frames[0])
    with pytest.raises(SeqclfError, match=r"\(8, 10, 3\)"):
        stream(frames[1].permute(1, 2, 0))
    close(stream(frames[1]), predictor(frames[:2]).probabilities[1])
    stream(frames[2].double() / 255)
    with pytest.raises(SeqclfError, match="finite"):
        stream(torch.full((3, 8, 10), 1e39, dtype=torch.float64))  # of the same kind as the last one


def test_uint8_frames_that_became_floats_give_a_warning():
    with pytest.warns(UserWarning, match="uint8"):
        make_predictor()(noise(4, 3, 8, 10).float())


def test_frames_must_have_the_scale_on_which_the_run_was_trained():
    predictor, frames = make_predictor(shape=(3,)), noise(4, 3)
    predictor.spec = InputSpec((3,), tuple("abc"), "last", dtype="float32")
    for integers in (frames, frames.long()):
        with pytest.raises(SeqclfError, match=r"the clip: .*float32"):
            predictor(integers)
    with pytest.raises(SeqclfError, match=r"the frame: .*float32"):
        predictor.stream()(frames[0])
    predictor.spec = InputSpec((3,), tuple("abc"), "last", dtype="uint8")
    for floats in (frames.float(), frames + 0.5):  # the second as after resizing
        with pytest.warns(UserWarning, match="uint8"):
            predictor(floats)
    close(predictor(frames).probabilities, predictor(frames / 255).probabilities)


@pytest.mark.parametrize("temporal", [*TEMPORALS, Reversed], ids=lambda t: getattr(t, "func", t).__name__)
def test_a_batch_equals_its_clips(temporal):
    lengths = (5, 5, 5) if temporal is Reversed else (5, 1, 9)  # the first ignores padding
    predictor = make_predictor(temporal)
    clips = [noise(T, 3, 8, 10, seed=T + k) for k, T in enumerate(lengths)]
    for clip, prediction in zip(clips, predictor.batch(clips), strict=True):
        close(prediction.probabilities, predictor(clip).probabilities)
    assert predictor.batch([]) == []
    with pytest.raises(SeqclfError, match="second"):
        predictor.batch([clips[0], clips[1][:, :, :2]], ["first", "second"])


@pytest.mark.parametrize("T", [20, 100])
def test_a_model_that_looks_ahead_gets_whole_sequences_and_no_stream(T):
    predictor, frames = make_predictor(Reversed), noise(T, 3, 8, 10)
    close(predictor.windows(frames, frames=None).probabilities, predictor(frames).probabilities)
    with pytest.raises(SeqclfError, match=r"Reversed.*causal"):
        predictor.stream()


# ---- streams, labels, fusion


@pytest.mark.parametrize("temporal", TEMPORALS, ids=lambda t: getattr(t, "func", t).__name__)
def test_streamed_frame_by_frame_is_the_whole_video(temporal):
    predictor, frames = make_predictor(temporal), noise(70, 3, 8, 10)
    stream = predictor.stream()
    streamed = torch.stack([stream(frame) for frame in frames])
    close(streamed, predictor(frames).probabilities)
    close(streamed, predictor.windows(frames, frames=None).probabilities)


class OwnLSTM(LSTM):
    """A subclass with its own forward pass."""

    def forward(self, features, is_first=None, state=None, lengths=None):
        outputs, state = super().forward(features, is_first, state, lengths)
        return outputs.sin(), state


class Thousandths(nn.Module):
    """A user's own preprocessing."""

    def forward(self, frames):
        return frames.float() / 1000


@pytest.mark.parametrize(
    "parts",
    [
        {"preprocess": partial(Normalize, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), bgr=True)},
        {"preprocess": Thousandths},
        {"temporal": partial(LSTM, hidden=6, layers=3, dropout=0.5, dropout_after=0.5)},
        {"temporal": partial(GRU, hidden=6, layers=2, residual=True, layer_norm=True, projection=True)},
        {"temporal": partial(LSTM, hidden=6, layers=2, layer_norm=True)},
        {"temporal": partial(OwnLSTM, hidden=6)},
        {"refine": [partial(LSTM, hidden=4), partial(RNN, hidden=3)]},
        {"encoder": lambda shape: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), "channels_last": True},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_streamed_is_whole_for_every_kind_of_part(parts):
    torch.manual_seed(0)
    options = {"preprocess": Normalize, "temporal": TEMPORALS[1]} | parts
    model = FrameSequenceClassifier(frame_shape=(3, 8, 10), num_classes=3, **options)
    predictor, frames = Predictor(model, "abc"), noise(5, 3, 8, 10)
    stream = predictor.stream()
    for clip in (frames, frames / 255):
        stream.reset()
        close(torch.stack([stream(frame) for frame in clip]), predictor(clip).probabilities)


def test_frames_of_one_stream_may_change_their_type_and_hold_no_nan():
    predictor, frames = make_predictor(), noise(6, 3, 8, 10)
    stream = predictor.stream()
    mixed = [frame / 255 if number % 3 else frame for number, frame in enumerate(frames)]
    for frame, expected in zip(mixed, predictor(frames).probabilities, strict=True):
        with pytest.raises(SeqclfError, match=r"the frame: .*not finite"):
            stream(frame * torch.nan)
        close(stream(frame), expected)


def test_the_state_of_a_stream_can_be_set_and_is_checked():
    predictor, frames = make_predictor(), noise(6, 3, 8, 10)
    stream, other = predictor.stream(), predictor.stream()
    for frame in frames[:3]:
        stream(frame)
    other(frames[5])
    other.state = stream.state
    for frame in frames[3:]:
        assert torch.equal(stream(frame), other(frame))
    other.state = tuple(part[:, :, :2] for part in stream.state)
    with pytest.raises(SeqclfError, match="state"):
        other(frames[0])


@pytest.mark.parametrize("name", ["", "preprocess", "encoder", "temporal", "head"])
@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_hook_is_called_at_every_frame(name, kind, everywhere):
    predictor, frames = make_predictor(), noise(6, 3, 8, 10)
    expected, module = predictor(frames).probabilities, predictor.model.get_submodule(name)
    stream, calls = predictor.stream(), []
    close(torch.stack([stream(frame) for frame in frames[:2]]), expected[:2])
    add = getattr(torch.nn.modules.module if everywhere else module, "register_" + "module_" * everywhere + kind)
    handle = add(lambda part, *_: calls.append(part))
    try:
        close(torch.stack([stream(frame) for frame in frames[2:4]]), expected[2:4])
    finally:
        handle.remove()
    close(torch.stack([stream(frame) for frame in frames[4:]]), expected[4:])
    assert sum(part is module for part in calls) == 2


def traced():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
@pytest.mark.parametrize("temporal", TEMPORALS, ids=lambda t: getattr(t, "func", t).__name__)
def test_a_stream_holds_no_more_after_many_frames_than_after_a_few(temporal):
    predictor, frames = make_predictor(temporal), noise(50, 3, 8, 10)
    stream = predictor.stream()

    def held():
        state = stream.state if isinstance(stream.state, tuple) else (stream.state,)
        tensors = [part for part in state if part is not None]
        assert not any(part.requires_grad or part.grad_fn for part in tensors)
        return [(part.shape, part.untyped_storage().nbytes()) for part in tensors]

    tracemalloc.start()
    try:
        for frame in [*frames, *frames]:
            p = stream(frame)
        before, first = held(), tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            for frame in frames:
                p = stream(frame)
        assert held() == before
        assert traced() < first + 20_000  # keeping an object for each of the 1,000 frames would take more
    finally:
        tracemalloc.stop()
    assert not p.requires_grad and p.shape == (3,)


def test_labels_and_segments():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.4, 0.0], [0.1, 0.7, 0.2]])
    prediction = Prediction(p, "abc")
    assert prediction.label() == ("b", pytest.approx(0.7)) and prediction.label("mean")[0] == "b"
    assert Prediction(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), "ab", "mean").label() == ("a", pytest.approx(0.65))
    with pytest.raises(SeqclfError, match="middle"):
        prediction.label("middle")
    assert [name for name, _ in prediction.ranking("mean")] == ["b", "a", "c"]
    assert prediction.segments() == [("a", 0, 2), ("b", 2, 3)]
    assert Prediction(p, "abc", seen=torch.tensor([1, 0, 1])).segments() == [("a", 0, 1), ("b", 2, 3)]
    assert Prediction(p, "abc", seen=torch.tensor([1, 0, 1])).labels().tolist() == [0, IGNORE, 1]


def test_late_fusion_is_the_weighted_mean():
    a, b = (torch.rand(5, 3, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    one, two = Prediction(a, "abc"), Prediction(b, "abc")
    close(fuse([one, two]).probabilities, (a + b) / 2)
    close(fuse([one, two], (1, 2)).probabilities, a / 3 + 2 * b / 3)
    close(fuse([one, two], (0, 3)).probabilities, b)


@pytest.mark.parametrize(
    ("other", "weights", "named"),
    [
        (Prediction(torch.rand(5, 3), "abd"), None, "classes"),
        (Prediction(torch.rand(4, 3), "abc"), None, "5 and 4"),
        (Prediction(torch.rand(5, 3), "abc"), (1,), "2 models.*1 weights"),
        (Prediction(torch.rand(5, 3), "abc"), (1, -1), "-1"),
        (Prediction(torch.rand(5, 3), "abc"), (0, 0), "all 0"),
        (Prediction(torch.rand(5, 3), "abc"), (1, float("nan")), "nan"),
        (Prediction(torch.rand(5, 3), "abc", "mean"), None, "decision"),
    ],
)
def test_invalid_fusion_is_refused(other, weights, named):
    with pytest.raises(SeqclfError, match=named):
        fuse([Prediction(torch.rand(5, 3), "abc"), other], weights)
    with pytest.raises(SeqclfError, match="no prediction"):
        fuse([])
