"""The videos of moving digits: determined by the seed, correct labels and lists, no other folder overwritten."""

import csv
import json
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from seqclf import SeqclfError, annotated_set
from seqclf.data.digits.moving import make_moving_digits
from seqclf.data.digits.pictures import BACKGROUND, draw_video
from seqclf.data.order import mix

pytest.importorskip("av")

SMALL = {"videos": 12, "test_videos": 5, "frames": (20, 45), "source": "digits"}


def decode(path):
    """(T, 64, 64, 3) uint8 of a video file or a folder of frames."""
    if path.is_dir():
        return np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])
    import av

    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def lines(path):
    return path.read_text().splitlines()


def segments(root):
    """Video -> its digits' segments (start, end, label)."""
    with (root / "segments.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = {}
    for row in rows:
        found.setdefault(row["video"], []).append((int(row["start"]), int(row["end"]), int(row["label"])))
    return found


def shows_digit(pictures):
    """(T,) bool: whether each frame has a bright connected region, as only digits are."""
    grey = pictures.min(-1).astype(np.float32)  # digits are bright in every channel, the texture is not
    around = np.lib.stride_tricks.sliding_window_view(grey, (3, 3), axis=(1, 2)).mean((-1, -2))
    return around.max((1, 2)) > 125


@pytest.mark.slow
@pytest.mark.parametrize("form", ["mp4", "folders"])
@pytest.mark.parametrize("task", ["clip", "frames"])
def test_files_and_lists_fit_the_tasks(tmp_path, task, form):
    done = []
    root = make_moving_digits(tmp_path / "made", task=task, form=form, progress=lambda *p: done.append(p), **SMALL)
    assert done == [(n, 17) for n in range(1, 18)]
    classes = [*"0123456789", *(["background"] if task == "frames" else [])]
    assert lines(root / "classes.txt") == classes
    listed = [line.split() for part in ("train", "test") for line in lines(root / f"{part}.txt")]
    paths = [fields[0] for fields in listed]
    assert sorted(paths) == sorted(f"videos/{path.name}" for path in (root / "videos").iterdir())
    assert {len(fields) for fields in listed} == ({2} if task == "clip" else {1})
    if task == "clip":
        assert {fields[1] for fields in listed} == set("0123456789")
    known = segments(root) if task == "frames" else {path: [(0, None, 0)] for path in paths}
    assert set(known) <= set(paths)
    for path in paths:
        pictures = decode(root / path)
        T = len(pictures)
        assert pictures.shape == (T, 64, 64, 3) and 20 <= T <= 45
        expected = np.zeros(T, bool)
        for start, end, label in known.get(path, []):
            assert 0 <= start < (end or T) <= T and 0 <= label < BACKGROUND
            expected[start:end] = True
        assert (shows_digit(pictures) == expected).mean() > 0.95, path
        if form == "folders":
            names = sorted(file.name for file in (root / path).iterdir())
            stem = path.split("/")[1]
            assert names == [f"{stem}.{n:04}.jpg" for n in range(T)]


def test_the_data_sets_read_the_files(tmp_path):
    from seqclf.data.sets.video_sets import annotated_set, video_set

    root = make_moving_digits(tmp_path / "clip", **SMALL)
    data = video_set(str(root), "train.txt", "test.txt", form="plain", class_index="classes.txt")
    assert data.num_classes == 10 and [v.labels for v in data.test.videos] == [0, 1, 2, 3, 4]
    root = make_moving_digits(tmp_path / "frames", task="frames", **SMALL)
    data = annotated_set(
        str(root), "train.txt", "test.txt", "segments.csv", "classes.txt", background="background", workers=0
    )
    batch = data.test.batch(torch.arange(5))
    for row, (path, length) in enumerate(zip(lines(root / "test.txt"), batch.lengths.tolist(), strict=True)):
        expected = torch.full((length,), BACKGROUND)
        for start, end, label in segments(root).get(path, []):
            expected[start:end] = label
        assert torch.equal(batch.labels[row, :length], expected)
        pictures = batch.frames[row, :length].permute(0, 2, 3, 1).numpy()
        assert (shows_digit(pictures) == (expected != BACKGROUND).numpy()).mean() > 0.95


def test_folders_have_the_labels_of_the_video_files(tmp_path):
    lists = ("train.txt", "test.txt", "segments.csv", "classes.txt")
    small = {**SMALL, "videos": 4, "test_videos": 2, "task": "frames"}
    sets = [
        annotated_set(str(make_moving_digits(tmp_path / form, form=form, **small)), *lists, background="background")
        for form in ("mp4", "folders")
    ]
    for part in ("train", "test"):
        for file, folder in zip(*(data.parts()[part].videos for data in sets), strict=True):
            assert torch.equal(file.labels, folder.labels)


@pytest.mark.parametrize("form", ["mp4", "folders"])
def test_the_seed_determines_the_pictures(tmp_path, form):
    small = {**SMALL, "videos": 2, "test_videos": 1, "task": "frames", "form": form}
    one, same, other = (
        make_moving_digits(tmp_path / name, **small, seed=s) for name, s in (("a", 1), ("b", 1), ("c", 2))
    )
    paths = lines(one / "train.txt") + lines(one / "test.txt")
    torch.manual_seed(5)  # the result depends on the seed only
    for path in paths:
        assert np.array_equal(decode(one / path), decode(same / path))
        pair = decode(one / path), decode(other / path)
        assert pair[0].shape != pair[1].shape or not np.array_equal(*pair)
    assert (one / "segments.csv").read_text() == (same / "segments.csv").read_text()
    first, last = decode(one / paths[0]), decode(one / paths[-1])
    assert first.shape != last.shape or not np.array_equal(first, last), "test videos are not the training videos"


def test_training_and_test_show_different_images(tmp_path, monkeypatch):
    module = sys.modules["seqclf.data.digits.moving"]
    used = []

    def draw(images, labels, *args, **kwargs):
        used.append(images)
        return draw_video(images, labels, *args, **kwargs)

    monkeypatch.setattr(module, "draw_video", draw)
    make_moving_digits(tmp_path / "made", **{**SMALL, "videos": 1, "test_videos": 1}, form="folders")
    train, test = used
    assert (len(train), len(test)) == (1438, 359)
    assert not {image.numpy().tobytes() for image in train} & {image.numpy().tobytes() for image in test}


def test_a_finished_folder_is_kept_and_an_unfinished_one_made_again(tmp_path):
    root, small = tmp_path / "made", {**SMALL, "videos": 3, "test_videos": 1, "form": "folders"}

    class Enough(Exception):
        pass

    def stop(done, total):
        if done == 2:
            raise Enough

    with pytest.raises(Enough):
        make_moving_digits(root, progress=stop, **small)
    assert not (root / "made.json").exists()
    (root / "videos" / "train_00000" / "train_00000.0000.jpg").write_bytes(b"cut short")
    make_moving_digits(root, **small)
    assert (root / "made.json").exists() and not (root / "making.json").exists()
    assert decode(root / "videos" / "train_00000").shape[1:] == (64, 64, 3)

    def files():
        return {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    before = files()
    assert make_moving_digits(root, **small) == make_moving_digits(str(root), **{**small, "source": "auto"}) == root
    assert files() == before
    with pytest.raises(SeqclfError, match=r"made: .*videos=3, not 4; seed=0, not 1"):
        make_moving_digits(root, **{**small, "videos": 4, "seed": 1})
    assert files() == before
    (root / "made.json").write_text("{")
    with pytest.raises(SeqclfError, match=r"made\.json: damaged"):
        make_moving_digits(root, **small)


def test_a_folder_or_file_of_other_origin_is_not_changed(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").write_bytes(b"dear")
    with pytest.raises(SeqclfError, match=str(tmp_path)):
        make_moving_digits(tmp_path, **SMALL)
    assert (tmp_path / "videos" / "holiday.mp4").read_bytes() == b"dear"
    with pytest.raises(SeqclfError, match=r"holiday\.mp4: "):
        make_moving_digits(tmp_path / "videos" / "holiday.mp4", **SMALL)


def test_without_mnist_auto_takes_the_built_in_digits_without_a_download(tmp_path):
    small = {**SMALL, "videos": 1, "test_videos": 1, "form": "folders", "source": "auto"}
    root = make_moving_digits(tmp_path / "made", **small, mnist_root=str(tmp_path / "none"))
    assert json.loads((root / "made.json").read_text())["source"] == "digits"
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["clip", "frames"])
def test_segments_cover_the_video_and_the_digits_are_legible(task):
    images = torch.zeros(10, 28, 28, dtype=torch.uint8)
    images[:, 6:22, 8:20] = 255
    labels = torch.arange(10)
    seen = set()
    for v in range(60):
        generator = torch.Generator().manual_seed(mix(0, v))
        video, shown = draw_video(images, labels, task, (1, 70), generator, digit=v % 10)
        assert video.dtype == torch.uint8 and video.shape[1:] == (3, 64, 64)
        assert shown[0].start == 0 and shown[-1].end == len(video)
        assert all(a.end == b.start and a.label != b.label for a, b in pairwise(shown))
        first = next((s.label for s in shown if s.label != BACKGROUND), None)
        assert first in (None, v % 10)
        seen |= {s.label for s in shown}
        area = (video.float().amin(1) > 140).float().sum((1, 2))
        for s in shown:
            part = area[s.start : s.end]
            if s.label == BACKGROUND:
                assert part.max() < 15
            else:
                assert part.min() > 40, "a digit is never hidden whole"
                assert s.end - s.start >= min(6, len(video))
    assert seen == set(range(10 if task == "clip" else 11))


def test_the_frames_show_the_digit_of_the_label():
    images = torch.zeros(20, 28, 28, dtype=torch.uint8)
    images[3::10, 6:22, 8:20] = 255  # all digits are threes
    threes = 0
    for v in range(40):
        generator = torch.Generator().manual_seed(v)
        video, shown = draw_video(images, torch.arange(20) % 10, "frames", (40, 60), generator, digit=v % 10)
        bright = (video.amin(1) > 140).sum((1, 2)) > 30
        for s in shown:
            threes += s.label == 3
            assert bright[s.start : s.end].all() if s.label == 3 else not bright[s.start : s.end].any()
    assert threes > 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "video"}, "task='video', expected one of clip, frames"),
        ({"form": "avi"}, "form='avi', expected one of mp4, folders"),
        ({"source": "cifar"}, "source='cifar', expected one of auto, digits, mnist"),
        ({"test_videos": 0}, "test_videos=0, expected at least 1 of each"),
        ({"frames": (9, 3)}, r"frames=\(9, 3\)"),
        ({"frames": (0, 3)}, r"frames=\(0, 3\)"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, wrong, message):
    with pytest.raises(SeqclfError, match=message):
        make_moving_digits(tmp_path / "made", **{**SMALL, **wrong})
    assert not (tmp_path / "made").exists()


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SeqclfError, match=r"pip install 'seqclf\[video\]'"):
        make_moving_digits(tmp_path / "made", **SMALL)
    assert not (tmp_path / "made").exists()
    make_moving_digits(tmp_path / "made", **{**SMALL, "videos": 1, "test_videos": 1}, form="folders")
