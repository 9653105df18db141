"""Clips of videos: sampling, reproducible batches, reading ahead, unreadable videos."""

import random
import sys
import weakref
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_videos import noise, write_folder, write_video
from torch import nn

from seqclf import IGNORE, LSTM, Batch, Clips, Data, Experiment, FrameSequenceClassifier, SeqclfError, video_set
from seqclf.data import Video, Videos, batches, mix, open_video, sample_order
from seqclf.data.batch_memory import Memory, Rows
from seqclf.data.digits.moving import make_moving_digits
from seqclf.data.labelling import every_frame, last_frame
from seqclf.data.sampling import dense, sample_clips, uniform, whole, window
from seqclf.data.transforms import colour, flip, in_turn, random_crop, resize
from seqclf.evaluation.evaluator import evaluate
from seqclf.prediction.fit import Fit
from seqclf.runtime.files import read_json
from seqclf.training.loop import train
from seqclf.training.most_wrong import most_wrong_frames


class Numbers:
    """A video whose frame k is filled with k (plus 100 times its own number); some frames may be damaged."""

    def __init__(self, length, number=0, shape=(3, 4, 5), damaged=()):
        self.length, self.number, self.frame_shape, self.damaged = length, number, shape, damaged
        self.path = f"video{number}.mp4"

    def __len__(self):
        return self.length

    def read(self, numbers):
        for n in numbers:
            if n in self.damaged:
                raise SeqclfError(f"{self.path}: frame {n} is damaged")
        values = torch.tensor(numbers) + 100 * self.number
        return values.to(torch.int16).view(-1, 1, 1, 1).expand(-1, *self.frame_shape).clone()


def generator(seed):
    return torch.Generator().manual_seed(seed)


# ---- sampling


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
def test_clips_are_inside_their_video_and_have_the_requested_length(length, frames, step, stride, seed):
    for training in (True, False):
        draw = generator(seed) if training else None
        longest = min(frames, (length - 1) // step + 1)
        (clip,) = window(length, draw, frames, step)
        assert len(clip) == longest and clip == list(range(clip[0], clip[0] + longest * step, step))
        assert clip[0] >= 0 and clip[-1] < length
        (spread,) = uniform(length, draw, frames)
        assert len(spread) == min(frames, length) and spread == sorted(set(spread))
        assert all(i * length // len(spread) <= k < (i + 1) * length // len(spread) for i, k in enumerate(spread))
        (everything,) = whole(length, draw, step)
        assert everything == list(range(0, length, step))
        windows = dense(length, draw, frames, stride, step)
        assert all(len(w) == longest and w[-1] < length for w in windows)
        if training:
            assert len(windows) == 1
        else:
            assert windows[-1][-1] == length - 1 and windows[0][0] == 0
            starts = [w[0] for w in windows]
            assert all(0 < b - a <= stride for a, b in pairwise(starts))


def test_lrcns_windows():
    starts = [w[0] for w in dense(35, None, 16, 8)]
    assert starts == [0, 8, 16, 19]
    assert dense(16, None, 16, 8) == [list(range(16))]
    assert dense(9, None, 16, 8) == [list(range(9))]


@pytest.mark.parametrize(
    "call",
    [
        partial(window, 0, None, 4),
        partial(window, 5, None, 0),
        partial(dense, 5, None, 4, 0),
        partial(whole, 5, None, 0),
    ],
)
def test_invalid_sampling_settings_are_refused(call):
    with pytest.raises(SeqclfError, match=r"expected at least 1|no frames"):
        call()


# ---- batches


def some_videos(lengths=(9, 4, 12, 7, 1), **keywords):
    return [Video(f"v{i}", Numbers(n, i, **keywords), labels=i % 3) for i, n in enumerate(lengths)]


def test_a_batch_is_a_function_of_its_key_for_any_number_of_threads():
    plan = [(sample_order(5, 4, 0, step), mix(0, step)) for step in range(12)]
    made = []
    for workers in (0, 1, 4):
        videos = Videos(some_videos(), partial(window, frames=5), training=True, workers=workers)
        made.append(list(batches(videos, plan)))
    for one, two, three in zip(*made, strict=True):
        for other in (two, three):
            assert torch.equal(one.frames, other.frames) and torch.equal(one.labels, other.labels)
            assert torch.equal(one.indices, other.indices)
    starts = {int(batch.frames[row, 0, 0, 0, 0]) for batch in made[0] for row in range(4)}
    assert len(starts) > 12, "clips begin in many places"
    later = list(batches(Videos(some_videos(), partial(window, frames=5), training=True), plan[7:]))
    assert torch.equal(later[0].frames, made[0][7].frames), "any step may be the first"


def test_short_videos_are_padded_and_padding_has_no_label():
    videos = Videos(some_videos((6, 2, 4)), labelling=last_frame)
    batch = videos.batch(torch.arange(3))
    assert batch.frames.shape == (3, 6, 3, 4, 5) and batch.lengths.tolist() == [6, 2, 4]
    assert batch.labels.tolist() == [[IGNORE] * 5 + [0], [IGNORE, 1] + [IGNORE] * 4, [IGNORE] * 3 + [2] + [IGNORE] * 2]
    assert batch.frames[1, :2, 0, 0, 0].tolist() == [100, 101] and (batch.frames[1, 2:] == 0).all()
    assert Videos(some_videos((3, 3))).batch(torch.arange(2)).lengths is None


def test_memory_of_batches_is_used_again_once_no_tensor_refers_to_it():
    memory = Memory()
    first = memory.new((3, 40))
    part, place = first.fill_(1)[1:].view(torch.int32), first.data_ptr()
    del first
    other = memory.new((3, 40)).fill_(2)
    assert other.data_ptr() != place and (part == 0x01010101).all()
    del part
    again = memory.new((2, 30), torch.int16)
    assert again.data_ptr() == place and place % 64 == 0 and again.shape == (2, 30)


def test_clips_are_decoded_into_their_batch(tmp_path):
    write_folder(tmp_path / "folder", noise(9, 3, 8, 12))
    videos = [Video("", open_video(write_video(tmp_path / f"{k}.mp4", noise(9, 3, 8, 12, seed=k))), 0) for k in (0, 1)]
    folders = [Video("", open_video(tmp_path / "folder"), 0)] * 2
    for sources, layout in ((videos, "planes"), (folders, "channels last"), ([videos[0], folders[0]], "mixed")):
        clips = [video.source.read([2, 3, 4]) for video in sources]
        data = Videos(sources, partial(window, frames=3), workers=2, training=True)
        rows = Rows(2, Memory())
        placed = [video.source.read_into([2, 3, 4], partial(rows.take, k)) for k, video in enumerate(sources)]
        batch = rows.batch(placed)
        assert torch.equal(batch, torch.stack(clips))
        assert (batch.data_ptr() == placed[0].data_ptr()) == (layout != "mixed")
        for read, alone in zip(batches(data, [(torch.arange(2), 5)]), [data.batch(torch.arange(2), 5)], strict=True):
            assert torch.equal(read.frames, alone.frames)


def test_a_sampling_returns_lists_of_whole_numbers():
    arrays = sample_clips(lambda length, generator: np.array([[0, 2]]), 3, None, "a.mp4")
    tensors = sample_clips(lambda length, generator: [torch.tensor([0, 2])], 3, None, "a.mp4")
    assert arrays == tensors == [[0, 2]] and {type(n) for clip in (*arrays, *tensors) for n in clip} == {int}
    for wrong in ([0, 1], [[0.0, 1.0]], None, [["0"]], np.zeros((1, 2))):
        with pytest.raises(SeqclfError, match=r"a\.mp4: the sampling returns .*expected a list of clips"):
            sample_clips(lambda length, generator, wrong=wrong: wrong, 3, None, "a.mp4")


def test_later_passes_use_the_memory_of_earlier_ones(tmp_path):
    videos = [Video("", open_video(write_video(tmp_path / "a.mp4", noise(9, 3, 8, 12))), 0)]
    data = Videos(videos, partial(window, frames=3), workers=1)

    def blocks() -> list[weakref.ref]:
        """The memory after a pass."""
        assert len(list(batches(data, [(torch.arange(1), key) for key in range(9)]))) == 9
        return [weakref.ref(block) for block in data.memory._blocks]

    before, after = blocks(), blocks()
    assert any(old() is new() is not None for old in before for new in after)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_without_clips_is_left_out(tmp_path, workers):
    videos = [Video("", open_video(write_video(tmp_path / "a.mp4", noise(9, 3, 8, 12))), 0)]
    data = Videos(videos, partial(window, frames=3), workers=workers)
    found = list(batches(data, [(torch.arange(0), 5), (torch.arange(1), 6)]))
    assert [len(batch.frames) for batch in found] == [1]


@pytest.mark.parametrize("part", [(slice(2), slice(3)), (slice(2), slice(2)), (slice(None), slice(None))])
def test_parts_of_decoded_clips_form_a_batch_of_their_own_frames(part):
    """As a transform that cuts clips without a copy returns them."""
    rows = Rows(2, Memory())
    clips = [torch.from_numpy(rows.take(k, (3, 3, 8, 12)))[part[k]] for k in range(2)]
    for k, clip in enumerate(clips):
        torch.from_numpy(rows.take(k, (3, 3, 8, 12)))[:] = 9
        clip[:] = k + 1
    batch = rows.batch(clips)
    assert batch.shape[:2] == (2, max(map(len, clips)))
    for frames, clip in zip(batch, clips, strict=True):
        assert torch.equal(frames[: len(clip)], clip) and not frames[len(clip) :].any()


def test_decoded_clips_of_unequal_frames_are_refused():
    rows = Rows(2, Memory())
    clips = [torch.from_numpy(rows.take(k, (3, 3, 8, 12)))[:, :, : 8 - k] for k in range(2)]
    with pytest.raises(SeqclfError, match=r"frames of shapes \(3, 7, 12\) and \(3, 8, 12\)"):
        rows.batch(clips)


def test_every_sampling_has_defaults():
    data = Videos(some_videos((40,)), dense)
    assert [numbers[0] for _, numbers in data.clips] == [0, 8, 16, 24]
    assert [len(numbers) for _, numbers in Videos(some_videos((40,)), uniform).clips] == [16]


def test_labels_of_frames_follow_their_frames():
    labels = torch.tensor([0, 0, 1, IGNORE, 2, 2, 1])
    videos = Videos([Video("v", Numbers(7), labels)], partial(dense, frames=3, stride=2))
    batch = videos.batch(torch.arange(len(videos)))
    assert batch.labels.tolist() == [[0, 0, 1], [1, IGNORE, 2], [2, 2, 1]]
    videos.check_labels(3)
    with pytest.raises(SeqclfError, match=r"label 2 of v .* 2 classes"):
        videos.check_labels(2)
    with pytest.raises(SeqclfError, match=r"video0.mp4: .* 7 .* 6 .*\(v\)"):
        Videos([Video("v", Numbers(7), labels[:6])]).batch(torch.arange(1))


def test_the_transform_is_drawn_by_the_key_and_the_sample():
    def shift(clip, generator):
        return clip + (1000 if generator is None else int(torch.randint(1000, (1,), generator=generator)))

    videos = Videos(some_videos((4, 4)), transform=shift, training=True)
    first, again, other = (videos.batch(torch.arange(2), key) for key in (1, 1, 2))
    assert torch.equal(first.frames, again.frames) and not torch.equal(first.frames, other.frames)
    alone = videos.batch(torch.tensor([1]), 1)
    assert torch.equal(alone.frames[0], first.frames[1]), "whatever else is in the batch"
    assert (Videos(some_videos((4,)), transform=shift).batch(torch.arange(1)).frames[0, 0] == 1000).all()


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1).item(), lambda: np.random.rand(), lambda: random.random(), lambda: np.random.randn()]
)
def test_a_random_transform_of_an_evaluation_is_refused(draw):
    def noisy(frames, generator):
        return frames + int(10 * draw())

    def drawn_from_the_generator(frames, generator):
        return frames if generator is None else frames + torch.randint(0, 9, (1,), generator=generator)

    videos = [Video("a", Numbers(5), 0), Video("b", Numbers(7), 1)]
    with pytest.raises(SeqclfError, match="test_transform="):
        Videos(videos, whole, noisy).frame_shape  # noqa: B018
    assert Videos(videos, whole, drawn_from_the_generator).frame_shape == (3, 4, 5)
    assert Videos(videos, whole, noisy, training=True).frame_shape == (3, 4, 5)


@pytest.mark.parametrize("change", [lambda clip: clip[1:] - clip[:-1], lambda clip: clip.tolist(), torch.sum])
@pytest.mark.parametrize("training", [True, False])
def test_a_transform_that_changes_the_number_of_frames_is_refused(change, training):
    videos = [Video("a", Numbers(5), 0), Video("b", Numbers(7), 1)]
    with pytest.raises(SeqclfError, match=r"video0\.mp4: the transform"):
        Videos(videos, whole, lambda clip, generator: change(clip), training).sample(0, 0)
    with pytest.raises(SeqclfError, match=r"the clip: the transform"):
        Fit(lambda clip, generator: change(clip))(Numbers(5).read([0, 1, 2]), None, "the clip")


def test_an_unreadable_video_is_named_or_skipped_and_listed():
    def damaged(training, on_error):
        list_of = some_videos((4, 4, 4))
        list_of[1].source.damaged = (2,)
        return Videos(list_of, training=training, on_error=on_error)

    for training in (True, False):
        with pytest.raises(SeqclfError, match=r"video1.mp4: frame 2 "):
            list(batches(damaged(training, "raise"), [(torch.arange(3), 0)]))
    training = damaged(True, "skip")
    batch = next(batches(training, [(torch.arange(3), 0)]))
    assert batch.indices.tolist() == [0, 2, 2] and training.skipped == {"v1": "video1.mp4: frame 2 is damaged"}
    testing = damaged(False, "skip")
    assert testing.batch(torch.arange(3)).indices.tolist() == [0, 2]
    everything = Videos([Video("v", Numbers(2, damaged=(0, 1)), 0)], training=True, on_error="skip")
    for ask in (lambda: everything.batch(torch.arange(1)), lambda: everything.frame_shape):
        with pytest.raises(SeqclfError, match=r"video0.mp4: frame 0 "):
            ask()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_video_a_whole_batch_or_unopenable_files_can_be_skipped(workers):
    class Shut(Numbers):
        def __len__(self):
            raise SeqclfError(f"{self.path}: is no video")

    videos = [Video("shut", Shut(3, 7), 0), *some_videos((4, 4, 4))]
    videos[1].source.damaged = (1,)
    training = Videos(videos, training=True, on_error="skip", workers=workers)
    assert training.frame_shape == (3, 4, 5) and training.num_frames == 4
    testing = Videos(videos, on_error="skip", workers=workers)
    assert testing.open() == 12 and len(testing) == 3
    plan = [(rows, 0) for rows in torch.arange(len(testing)).split(1)]
    assert [batch.indices.tolist() for batch in batches(testing, plan)] == [[1], [2]]
    for data in (training, testing):
        assert data.skipped == {"shut": "video7.mp4: is no video", "v0": "video0.mp4: frame 1 is damaged"}
    with pytest.raises(SeqclfError, match=r"video7\.mp4: "):
        len(Videos(videos, workers=workers))


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "no video"),
        ([Video("a", Numbers(3), 0), Video("b", Numbers(3), torch.zeros(3, dtype=torch.int64))], "labels per frame"),
        ([Video("a", Numbers(3), None)], "one label"),
    ],
)
def test_invalid_arguments_of_videos_are_refused(videos, message):
    with pytest.raises(SeqclfError, match=message):
        Videos(videos)


def test_frames_of_two_sizes_are_refused_in_a_batch():
    videos = [Video("a", Numbers(3), 0), Video("b", Numbers(3, shape=(3, 5, 5)), 0)]
    with pytest.raises(SeqclfError, match=r"\(3, 4, 5\).*\(3, 5, 5\)"):
        Videos(videos).batch(torch.arange(2))
    known = Videos(videos)
    assert known.frame_shape == (3, 4, 5)
    with pytest.raises(SeqclfError, match=r"video0\.mp4: .*\(3, 5, 5\)"):
        known.batch(torch.arange(1, 2))
    data = Data(Videos(videos[:1], training=True), Videos(videos[1:]), ["a"], "two sizes", allow_shared=True)
    with pytest.raises(SeqclfError, match=r"train .*\(3, 4, 5\)"):
        data.identity()


# ---- windows of time


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 13), st.booleans(), st.integers(0, 99))
def test_windows_carry_the_state(T, frames, ragged, seed):
    torch.manual_seed(seed)
    lengths = torch.randint(1, T + 1, (3,)) if ragged else None
    is_first = torch.rand(3, T) < 0.2
    batch = Batch(torch.randn(3, T, 6), torch.randint(0, 4, (3, T)), lengths, is_first)
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=5), frame_shape=(6,), num_classes=4)
    whole_logits, _ = model(batch.frames, is_first, lengths=lengths)
    state, parts = None, []
    for piece in batch.windows(frames):
        logits, state = model(piece.frames, piece.is_first, state, piece.lengths)
        parts.append(logits)
    valid = torch.arange(T) < (torch.full((3,), T) if lengths is None else lengths)[:, None]
    assert torch.allclose(torch.cat(parts, 1)[valid], whole_logits[valid], atol=1e-6)
    assert torch.equal(torch.cat([piece.labels for piece in batch.windows(frames)], 1), batch.labels)


# ---- training and evaluation


def video_data(training_frames=5):
    videos = some_videos((9, 8, 12, 7, 6, 5), shape=(3, 4, 4))
    return Data(
        train=Videos(videos, partial(window, frames=training_frames), training=True),
        test=Videos(videos),
        classes=["a", "b", "c"],
        source="numbers",
        allow_shared=True,
    )


def experiment(**settings):
    return Experiment(
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8)),
        optimizer=partial(torch.optim.SGD, lr=0.01),
        **{"data": video_data, "steps": 6, "batch_size": 4, "eval_batch": 2, "checkpoint_every": 3, **settings},
    )


def test_a_run_on_videos_resumes_bit_for_bit(tmp_path):
    results = train(experiment(), tmp_path / "whole", "cpu")
    assert results["parts"]["test"]["clips"] == 6
    train(experiment(steps=3), tmp_path / "parts", "cpu")
    train(experiment(), tmp_path / "parts", "cpu", resume=True)
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert read_json(tmp_path / "whole/run.json")["skipped"] == {}


def same_weights(*runs):
    one, *others = (torch.load(run / "checkpoints/step_6.pt")["model"] for run in runs)
    return all(torch.equal(one[name], other[name]) for other in others for name in one)


def test_with_augmentation_a_run_is_the_same_for_any_number_of_workers_and_resumed_with_another(tmp_path):
    """Video files, resized, cropped, mirrored, coloured."""
    root = make_moving_digits(tmp_path / "made", 6, 2, "clip", "mp4", frames=(12, 20))
    steps = (partial(resize, size=40), partial(random_crop, size=32), flip, partial(colour, brightness=0.5))

    def experiment_with(workers, number):
        data = partial(video_set, str(root), "train.txt", "test.txt", class_index="classes.txt", workers=workers)
        data = partial(data, sampling=partial(window, frames=4), transform=partial(in_turn, steps=steps))
        return experiment(data=data, steps=number)

    for workers in (0, 1, 4):
        train(experiment_with(workers, 6), tmp_path / f"{workers}", "cpu")
    train(experiment_with(1, 3), tmp_path / "parts", "cpu")
    checkpoint = torch.load(tmp_path / "parts/checkpoints/step_3.pt")["model"]
    train(experiment_with(1, 6), tmp_path / "parts", "cpu", resume=True)
    assert same_weights(*(tmp_path / name for name in ("0", "1", "4", "parts")))
    weights = torch.load(tmp_path / "parts/checkpoints/step_6.pt")["model"]
    assert not torch.equal(weights["head.weight"], checkpoint["head.weight"])


def test_truncation_changes_only_the_gradient_and_nothing_at_the_whole_length(tmp_path):
    weights = {}
    for truncate in (None, 5, 2):
        train(experiment(truncate=truncate), tmp_path / str(truncate), "cpu")
        weights[truncate] = torch.load(tmp_path / str(truncate) / "checkpoints/step_6.pt")["model"]
    assert all(torch.equal(weights[None][k], weights[5][k]) for k in weights[None])
    assert any(not torch.equal(weights[None][k], weights[2][k]) for k in weights[None])
    with pytest.raises(SeqclfError, match="truncate=0"):
        experiment(truncate=0)


@pytest.mark.parametrize(("answer", "named"), [(lambda x: x[1:], "3 frames"), (lambda x: x.numpy(), "ndarray")])
def test_a_source_that_does_not_read_what_was_asked_for_is_refused(answer, named):
    class Wrong(Numbers):
        def read(self, numbers):
            return answer(super().read(numbers))

    with pytest.raises(SeqclfError, match=rf"{named}, expected a tensor of 4 frames"):
        Videos([Video("v", Wrong(4, 0), 0)]).sample(0, 0)


def test_an_error_in_a_users_source_stays_itself_and_names_the_video():
    class Wrong(Numbers):
        def read(self, numbers):
            return {}["key"]

    with pytest.raises(KeyError, match="'key'") as caught:
        Videos([Video("v", Wrong(4, 7), 0)]).sample(0, 0)
    if sys.version_info >= (3, 11):
        assert "Wrong.read()" in caught.value.__notes__[0] and "video7.mp4" in caught.value.__notes__[0]


def test_a_folder_with_parentheses_is_named_whole(tmp_path):
    root = tmp_path / "my set (2)"
    root.mkdir()
    for name, size in (("a", 3), ("b", 4)):
        np.save(root / f"{name}.npy", np.zeros((5, size), np.float32))
    (root / "l.csv").write_text("path,label,split\na.npy,x,train\nb.npy,x,test\n")
    with pytest.raises(SeqclfError) as caught:
        video_set(str(root), "l.csv", "l.csv").identity()
    assert str(caught.value).startswith(f"{root}: train clips have frames of shape (3,)")


def test_labels_of_a_video_are_integers_of_python_numpy_or_pytorch():
    source = Numbers(3, 0)
    assert Video("v", source, np.int64(2)).labels == 2
    assert torch.equal(Video("v", source, np.arange(3)).labels, torch.arange(3))
    for wrong in ("walk", 1.0, torch.zeros(3), np.zeros(3)):
        with pytest.raises(SeqclfError, match="video v: labels"):
            Video("v", source, wrong)


def test_a_transform_must_give_training_and_test_frames_of_one_scale():
    test = Videos(some_videos((20, 5), shape=(3, 4, 4)))
    for transform, refused in ((lambda frames, generator: frames.byte(), True), (None, False)):
        train = Videos(some_videos((20, 5), shape=(3, 4, 4)), transform=transform)
        with pytest.raises(SeqclfError, match=r"train part are uint8.*test part int16") if refused else nullcontext():
            Data(train=train, test=test, classes=["a", "b", "c"], source="numbers").identity()


def test_sixteen_frames_of_a_long_misclassified_video_are_kept_evenly():
    videos = Videos(some_videos((20, 5), shape=(3, 4, 4)))
    data = Data(train=videos, test=videos, classes=["a", "b", "c"], source="numbers")
    assert data.warning == "the videos of train and of test are the same"
    frames, lengths = most_wrong_frames(data, [1, 0])
    assert frames.shape == (2, 16, 3, 4, 4) and lengths == [5, 16]
    long, short = (videos.batch(torch.tensor([i])).frames[0].numpy() for i in (0, 1))
    assert np.array_equal(frames[0], np.concatenate([short, np.zeros((11, 3, 4, 4), np.uint8)]))
    assert np.array_equal(frames[1, [0, -1]], long[[0, -1]])


def test_the_padding_of_a_misclassified_clip_is_not_kept():
    clips = Clips(torch.ones(2, 6, 3), [0, 1], lengths=torch.tensor([2, 5]))
    frames, lengths = most_wrong_frames(Data(clips, clips, "abc", "ones"), [1, 0])
    assert lengths == [5, 2] and frames.sum((1, 2)).tolist() == [15, 6]


def test_videos_are_evaluated_sixteen_at_a_time_by_default():
    sizes = []
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=2), frame_shape=(3, 4, 4), num_classes=3)
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    evaluate(model, Videos(some_videos((3,) * 20, shape=(3, 4, 4))), 3)
    assert sizes == [16, 4]


def test_evaluation_is_the_same_for_any_batch_size():
    torch.manual_seed(0)
    model = FrameSequenceClassifier(
        temporal=partial(LSTM, hidden=8), head=nn.Linear, frame_shape=(3, 4, 4), num_classes=3
    )
    videos = Videos(some_videos(shape=(3, 4, 4)), labelling=every_frame)
    figures = [evaluate(model, videos, 3, batch_size) for batch_size in (1, 2, 5)]
    assert all(f["confusion"] == figures[0]["confusion"] and f["clips"] == 5 for f in figures)
