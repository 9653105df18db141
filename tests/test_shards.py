"""Shards: reading order, data equal to files and folders, shards of webdataset, damaged shards."""

import io
import json
import pickle
import shutil
import tarfile
from collections import Counter
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seqclf import LSTM, Experiment, FrameSequenceClassifier, SeqclfError, annotated_set, shard_set, video_set
from seqclf.data import Shards, Video, batches, mix
from seqclf.data.digits.moving import make_moving_digits
from seqclf.data.sampling import window
from seqclf.data.shards.index import read_part, scan
from seqclf.data.video.container import Place
from seqclf.data.video.file import VideoFile
from seqclf.training.loop import train

ROOT = Path(__file__).resolve().parents[1]
few = settings(derandomize=True, deadline=None, max_examples=30)


# ---- the order


class Blank:
    path, frame_shape = "blank", (1,)

    def __len__(self):
        return 1

    def read(self, numbers):
        return torch.zeros(len(numbers), 1)


def some_shards(sizes, lanes):
    shards = [[Video(f"{s}_{k}", Blank(), 0) for k in range(size)] for s, size in enumerate(sizes)]
    return Shards(shards, lanes, training=True)


sets = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@few
@given(sets, st.integers(1, 9), st.integers(1, 20), st.integers(0, 5))
def test_each_lane_reads_its_shards_one_by_one_and_every_sample_once_a_pass(sizes, lanes, batch, seed):
    data = some_shards(sizes, lanes)
    shard_of = {n: s for s, samples in enumerate(data.shards) for n in samples}
    shares = data.shares(min(lanes, len(sizes), batch))
    assert sorted(shard for share in shares for shard in share) == list(range(len(sizes)))
    edges = [lane * batch // len(shares) for lane in range(len(shares) + 1)]
    steps = torch.stack([data.order(batch, seed, step) for step in range(60)])
    for lane, share in enumerate(shares):
        stream = steps[:, edges[lane] : edges[lane + 1]].flatten().tolist()
        own = sorted(n for shard in share for n in data.shards[shard])
        assert edges[lane] < edges[lane + 1] and set(stream) <= set(own)
        for start in range(0, len(stream) - len(own) + 1, len(own)):
            one = stream[start : start + len(own)]
            assert sorted(one) == own
            assert len(list(groupby(one, shard_of.get))) == len(share)  # each shard from beginning to end


@few
@given(sets, st.integers(1, 9), st.integers(1, 20), st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_the_order_of_a_step_does_not_depend_on_earlier_calls(sizes, lanes, batch, steps):
    walked = some_shards(sizes, lanes)
    before = [walked.order(batch, 3, step) for step in range(100)]
    jumping = some_shards(sizes, lanes)
    for step in steps:
        assert torch.equal(jumping.order(batch, 3, step), before[step])
        assert torch.equal(some_shards(sizes, lanes).order(batch, 3, step), before[step])
    assert before[0].dtype == torch.int64


@few
@given(st.lists(st.integers(1, 9), min_size=8, max_size=16), st.sampled_from([1, 2, 4, 8]), st.integers(8, 30))
def test_each_process_reads_only_its_own_shards(sizes, processes, batch):
    data = some_shards(sizes, 8)
    shard_of = torch.cat([torch.full((size,), s) for s, size in enumerate(sizes)])
    edges = [rank * batch // processes for rank in range(processes + 1)]
    read = [set() for _ in range(processes)]
    for step in range(40):
        shards = shard_of[data.order(batch, 0, step)].tolist()
        for rank in range(processes):
            read[rank] |= set(shards[edges[rank] : edges[rank + 1]])
    assert max(Counter(s for own in read for s in own).values()) == 1


def test_passes_and_seeds_differ_and_lanes_are_of_equal_size():
    data = some_shards([6, 5, 6, 5], 2)
    orders = {tuple(data.order(22, seed, step).tolist()) for seed in range(3) for step in range(3)}
    assert len(orders) == 9
    sizes = [sum(len(data.shards[s]) for s in share) for share in data.shares(2)]
    assert sizes == [11, 11]
    with pytest.raises(SeqclfError, match="lanes=0"):
        some_shards([1], 0)


# ---- the same data as from files and folders


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return {
        (task, form): make_moving_digits(root / f"{task}_{form}", 10, 3, task, form, source="digits", frames=(24, 28))
        for task, form in (("clip", "mp4"), ("clip", "folders"), ("frames", "mp4"), ("frames", "folders"))
    }


@pytest.fixture
def pack(made, tmp_path, prepare):
    """Packs the videos of both parts into shards and returns the folder."""

    def run(task, form, out="shards", *options):
        root = made[task, form]
        if task == "frames":
            options = ("--segments", root / "segments.csv", "--background", "background", *options)
        else:
            options = ("--class-index", root / "classes.txt", "--list-form", "plain", *options)
        lists = ("--train", root / "train.txt", "--test", root / "test.txt", "--root", root)
        code, message, err = prepare("shards", *lists, "--out", tmp_path / out, *options)
        assert (code, err) == (0, "") and "0 failed" in message
        return tmp_path / out

    return run


def from_files(made, task, form, **keywords):
    root = str(made[task, form])
    if task == "clip":
        return video_set(root, "train.txt", "test.txt", form="plain", class_index="classes.txt", **keywords)
    files = ("train.txt", "test.txt", "segments.csv", "classes.txt")
    return annotated_set(root, *files, background="background", **keywords)


@pytest.mark.slow
@pytest.mark.parametrize("without_index", [False, True])
@pytest.mark.parametrize(("task", "form"), [(t, f) for t in ("clip", "frames") for f in ("mp4", "folders")])
def test_frames_and_labels_are_those_of_the_files(made, pack, task, form, without_index):
    root = pack(task, form)
    keywords = {}
    if without_index:
        for index in root.glob("*.index.json"):
            index.unlink()
        if task == "frames":
            keywords = {"classes": str(made[task, form] / "classes.txt"), "background": "background"}
    ours, theirs = shard_set(str(root), **keywords), from_files(made, task, form)
    assert list(ours.classes) == list(theirs.classes) and ours.background == theirs.background
    for part in ("train", "test"):
        a, b = getattr(ours, part), getattr(theirs, part)
        assert len(a) == len(b) and a.frame_shape == b.frame_shape and a.training == b.training
        plain = {Path(video.name).stem: video for video in b.videos}
        for video in a.videos:
            other = plain.pop(Path(video.name).stem)
            assert len(video.source) == len(other.source) and video.source.frame_shape == other.source.frame_shape
            numbers = [5, 0, len(other.source) - 1, 5, 6]
            assert torch.equal(video.source.read(numbers), other.source.read(numbers))
            assert torch.equal(torch.as_tensor(video.labels), torch.as_tensor(other.labels))
            again = pickle.loads(pickle.dumps(video.source))
            assert torch.equal(again.read([2]), other.source.read([2]))
        assert not plain
    index = [n for _, n in sorted((video.name, n) for n, video in enumerate(ours.test.videos))]
    batch, other = ours.test.batch(torch.tensor(index)), theirs.test.batch(torch.arange(3))
    assert torch.equal(batch.frames, other.frames) and torch.equal(batch.labels, other.labels)


def test_batches_are_the_same_for_any_number_of_threads(pack):
    root = str(pack("clip", "mp4"))
    plan = [(data.order(6, 0, step), mix(0, step)) for data in [shard_set(root).train] for step in range(4)]
    one, two = (list(batches(shard_set(root, workers=n).train, plan)) for n in (0, 3))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.frames, b.frames) and torch.equal(a.labels, b.labels)


def test_a_run_on_shards_resumes_bit_for_bit(pack, tmp_path):
    root = str(pack("clip", "folders"))
    experiment = Experiment(
        data=partial(shard_set, root, sampling=partial(window, frames=4), lanes=3),
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=4)),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        steps=5,
        batch_size=4,
        checkpoint_every=2,
        eval_every=5,
    )
    train(experiment, tmp_path / "whole", "cpu")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut/checkpoints/step_5.pt").unlink()
    train(experiment, tmp_path / "cut", "cpu", resume=True)
    whole, cut = (torch.load(tmp_path / run / "checkpoints/step_5.pt")["model"] for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


# ---- what is written


def test_shards_are_reproducible_and_the_index_describes_them(pack):
    one, two = pack("frames", "folders", "a"), pack("frames", "folders", "b")
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(
        [f"{part}-{n:06}.tar" for part, count in (("train", 8), ("test", 3)) for n in range(count)]
        + ["train.index.json", "test.index.json"]
    )
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    part = read_part(one, "train")
    assert part.background == "background" and len(part.classes) == 11
    assert all(scan(path) == samples for path, samples in part.shards.items())
    counts = [len(samples) for samples in part.shards.values()]
    assert sum(counts) == 10 and max(counts) - min(counts) == 1
    assert len(read_part(pack("frames", "folders", "c", "--lanes", 3), "train").shards) == 3
    assert len(read_part(pack("frames", "folders", "d", "--size", 0.1, "--lanes", 3), "train").shards) == 9
    with tarfile.open(one / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    keys = [m.name.partition(".")[0] for m in members]
    assert all("/" not in m.name for m in members) and len(list(groupby(keys))) == len(set(keys))


def test_the_order_is_shuffled_or_that_of_the_list(made, pack):
    listed = [line.split()[0] for line in (made["clip", "mp4"] / "train.txt").read_text().splitlines()]
    in_order, shuffled, other = (
        [video.name for video in shard_set(str(pack("clip", "mp4", out, *words))).train.videos]
        for out, words in (("a", ["--in-order"]), ("b", []), ("c", ["--seed", 1]))
    )
    assert in_order == listed and sorted(shuffled) == sorted(other) == listed
    assert len({tuple(in_order), tuple(shuffled), tuple(other)}) == 3


def test_names_become_keys_valid_in_webdataset(tmp_path, made, prepare):
    video = made["clip", "mp4"] / "videos/train_00000.mp4"
    names = ["a/x.1.mp4", "a/x_1.mp4", "b/Ärger & Ä.mp4", "b/" + "long" * 50 + ".mp4"]
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, tmp_path / "set" / name)
    (tmp_path / "list.txt").write_text("".join(f"{name}, {name[0]}\n" for name in names), encoding="utf-8")
    shutil.copy(video, tmp_path / "set/c.mp4")
    (tmp_path / "test.txt").write_text("c.mp4, a\n")
    lists = ("--train", tmp_path / "list.txt", "--test", tmp_path / "test.txt", "--root", tmp_path / "set")
    assert prepare("shards", *lists, "--out", tmp_path / "out", "--in-order")[0] == 0
    samples = [sample for shard in read_part(tmp_path / "out", "train").shards.values() for sample in shard]
    assert [sample.name for sample in samples] == names and [sample.class_name for sample in samples] == list("aabb")
    assert [sample.key for sample in samples][:3] == ["a_x_1", "a_x_1_2", "b__rger____"]
    assert len(samples[3].key) <= 90 and len({sample.key for sample in samples}) == 4


def test_a_pattern_selects_the_packed_pictures(tmp_path, prepare):
    for name in ("v", "w"):
        folder = tmp_path / "set/walk" / name
        folder.mkdir(parents=True)
        for number in (1, 2, 10):
            (folder / f"img_{number}.png").write_bytes(picture())
            (folder / f"flow_{number}.png").write_bytes(picture((9, 6)))
        (tmp_path / f"{name}.txt").write_text(f"walk/{name} 0\n")
    lists = ("--train", tmp_path / "v.txt", "--test", tmp_path / "w.txt", "--root", tmp_path / "set")
    words = ("shards", *lists, "--out", tmp_path / "out", "--list-form", "lrcn")
    code, _, err = prepare(*words)
    assert code == 2 and "pattern=" in err and not list((tmp_path / "out").glob("*"))
    assert prepare(*words, "--pattern", "img_*")[0] == 0
    video = shard_set(str(tmp_path / "out")).train.videos[0]
    assert len(video.source) == 3 and video.source.frame_shape == (3, 6, 8) and video.name == "walk/v"


def test_an_unreadable_video_is_reported_and_skipped(tmp_path, made, prepare):
    root = tmp_path / "set"
    shutil.copytree(made["clip", "mp4"], root)
    (root / "videos/train_00003.mp4").write_bytes(b"nothing of a video")
    lists = ("--train", root / "train.txt", "--test", root / "test.txt", "--root", root, "--list-form", "plain")
    words = ("shards", *lists, "--out", tmp_path / "out", "--class-index", root / "classes.txt")
    code, message, err = prepare(*words, "--parts", "train")
    assert code == 2 and "train_00003.mp4" in err and "9 videos of" in message and "1 failed" in message
    part = read_part(tmp_path / "out", "train")
    assert sum(map(len, part.shards.values())) == 9 and len(part.classes) == 10
    code, _, err = prepare(*words)
    assert code == 2 and "part train exists" in err
    (root / "classes.txt").write_text("\n".join("9876543210") + "\n")
    code, _, err = prepare(*words, "--parts", "test")
    assert code == 2 and "other classes" in err and not (tmp_path / "out/test-000000.tar").exists()
    shutil.copy(made["clip", "mp4"] / "classes.txt", root)
    assert prepare(*words, "--parts", "test")[0] == 0
    assert len(shard_set(str(tmp_path / "out")).classes) == 10


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "0"], "megabytes=0.0"),
        (["--background", "x"], "background='x'"),
        (["--segments", "{root}/segments.csv", "--class-index", "c"], "class_index='c'"),
        (["--segments", "{root}/segments.csv", "--classes", "c"], "classes="),
        (["--parts", "a/b"], "a/b"),
        (["--workers", "0"], "workers"),
        (["--lanes", "0"], "lanes=0"),
    ],
)
def test_invalid_arguments_are_refused_by_name(made, tmp_path, prepare, options, sentence):
    root = made["frames" if "--segments" in options else "clip", "mp4"]
    options = [option.format(root=root) for option in options]
    lists = ("--train", "train.txt", "--test", "test.txt", "--root", root)
    code, _, err = prepare("shards", *lists, "--out", tmp_path / "out", *options)
    assert code == 2 and sentence in err and not (tmp_path / "out").exists()


def test_labels_of_frames_keep_their_rate(made, pack, tmp_path):
    root = pack("clip", "mp4")
    slow = shard_set(str(root), fps=10).test.videos[0].source
    assert torch.equal(
        slow.read(range(len(slow))),
        VideoFile(made["clip", "mp4"] / "videos" / slow_name(slow), 10).read(range(len(slow))),
    )
    root = pack("frames", "mp4", "other")
    with pytest.raises(SeqclfError, match=r"train-000000\.tar: sample .*fps=None"):
        shard_set(str(root), fps=10)


def slow_name(source):
    return source.path.rpartition("videos_")[2] + ".mp4"


# ---- a video inside a larger file


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts"])
def test_a_video_is_read_inside_the_shard(tmp_path, suffix):
    av = pytest.importorskip("av")
    path = tmp_path / f"v.{suffix}"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(20):
            picture = np.kron(rng.integers(0, 255, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    big = tmp_path / "big: one, with a name.tar"
    big.write_bytes(content[:1000] + content + content[:3000])
    plain, part = VideoFile(path), VideoFile(Place(str(big), 1000, len(content), "big: v"))
    assert len(part) == len(plain) == 20 and torch.equal(part.seconds, plain.seconds) and part.path == "big: v"
    for numbers in ([17, 3], range(20), [4]):
        assert torch.equal(part.read(numbers), plain.read(numbers))
    assert torch.equal(pickle.loads(pickle.dumps(part)).read([9]), plain.read([9]))
    if suffix in ("mp4", "mkv"):
        with pytest.raises(SeqclfError, match="big: v: "):
            len(VideoFile(Place(str(big), 1000, len(content) - 900, "big: v")))
    with pytest.raises(SeqclfError, match=r"big: v: .*empty"):
        len(VideoFile(Place(str(big), 1000, 0, "big: v")))


# ---- others' shards, and damaged ones


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves it to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(made, pack):
    webdataset = pytest.importorskip("webdataset")
    for form in ("mp4", "folders"):
        root = pack("clip", form, form)
        tars = sorted(map(str, root.glob("train-*.tar")))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        ours = shard_set(str(root)).train.videos
        assert len(samples) == len(ours) == 10
        for sample, video in zip(samples, ours, strict=True):
            message = json.loads(sample["json"])
            assert (
                message["name"] == video.name
                and message["label"] == video.labels
                and message["class"] == str(video.labels)
            )
            assert message["frames"] == len(video.source) and sample["__key__"] == video.source.path.rpartition(" ")[2]
            path = made["clip", form] / video.name
            if form == "mp4":
                assert sample["mp4"] == path.read_bytes()
            else:
                pictures = [sample[name] for name in sorted(sample) if name.endswith(".jpg")]
                assert pictures == [picture.read_bytes() for picture in sorted(path.iterdir())]


@pytest.mark.parametrize("form", ["mp4", "folders"])
def test_shards_of_webdataset_are_read(made, tmp_path, form):
    webdataset = pytest.importorskip("webdataset")
    theirs = from_files(made, "clip", form)
    for part in ("train", "test"):
        for number in range(2):
            with webdataset.TarWriter(str(tmp_path / f"{part}-{number:04}.tar")) as writer:
                for video in getattr(theirs, part).videos[number::2]:
                    path = made["clip", form] / video.name
                    files = [path] if form == "mp4" else sorted(path.iterdir())
                    content = {name.name.partition(".")[2]: name.read_bytes() for name in files}
                    writer.write({"__key__": f"some/{path.stem}", "cls": video.labels, **content})
    ours = shard_set(str(tmp_path))
    assert ours.classes == [str(k) for k in range(10)]
    plain = {Path(video.name).stem: video for part in (theirs.train, theirs.test) for video in part.videos}
    assert len(ours.train) == 10 and len(ours.test) == 3
    for video in [*ours.train.videos, *ours.test.videos]:
        other = plain[video.name.removeprefix("some/")]
        assert video.labels == other.labels
        assert torch.equal(video.source.read([3, 0]), other.source.read([3, 0]))


def picture(size=(8, 6)):
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, "png")
    return stream.getvalue()


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            head = tarfile.TarInfo(name)
            head.size = len(content)
            tar.addfile(head, io.BytesIO(content))
    return path


GOOD = {"a.png": picture(), "a.cls": b"1\n"}


@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        ({"a.png": picture()}, r"train-0\.tar: sample a: has no label"),
        ({"a.png": picture(), "a.json": b'{"name": "x"}'}, "sample a: has no label"),
        ({"a.png": picture(), "a.json": b'{"label": 1, "labels": [1]}'}, "sample a: has both a label and labels"),
        ({"a.png": picture(), "a.json": b'{"label": '}, r"sample a: its \.json is damaged"),
        ({"a.png": picture(), "a.json": b"[1]"}, r"sample a: its \.json is \[1\]"),
        ({"a.png": picture(), "a.json": b'{"label": "walk"}'}, "sample a: its label is 'walk'"),
        ({"a.png": picture(), "a.cls": b"walk"}, "sample a: its label is 'walk'"),
        ({"a.png": picture(), "a.json": b'{"labels": [1, null]}'}, "sample a: its labels"),
        ({"a.1.png": picture(), "a.json": b'{"label": 1, "frames": 2}'}, "sample a: has 1 frames, but 2"),
        ({**GOOD, "a.flac": b"x"}, r"sample a: .*\.flac"),
        ({"a.cls": b"1"}, "sample a: has 0 videos and 0 frames"),
        ({**GOOD, "a.mp4": b"x"}, "sample a: has 1 videos and 1 frames"),
        ({**GOOD, "b.png": picture(), "b.cls": b"1", "a.json": b"{}"}, "sample a: "),
        ({**GOOD, "README": b"x"}, "train-0.tar: README: "),
        ({}, "train-0.tar: "),
    ],
)
def test_invalid_samples_are_refused_by_shard_and_key(tmp_path, files, pattern):
    write_tar(tmp_path / "train-0.tar", files)
    with pytest.raises(SeqclfError, match=pattern):
        shard_set(str(tmp_path), test="train")


def test_damaged_shards_are_refused_with_and_without_an_index(tmp_path, pack):
    root = pack("clip", "folders")
    shard, index = root / "train-000001.tar", root / "train.index.json"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-3000])
    with pytest.raises(SeqclfError, match=r"train-000001\.tar: .*bytes.*train\.index\.json"):
        shard_set(str(root))
    shard.unlink()
    with pytest.raises(SeqclfError, match=r"train-000001\.tar: .*train\.index\.json"):
        shard_set(str(root))
    shard.write_bytes(whole)
    shutil.copy(shard, root / "train-000077.tar")
    with pytest.raises(SeqclfError, match=r"train-000077\.tar: .*train\.index\.json"):
        shard_set(str(root))
    (root / "train-000077.tar").unlink()
    text = index.read_text()
    for content, sentence in ((text[:-30], "damaged"), (text.replace('"format":1', '"format":9'), "format 9")):
        index.write_text(content)
        with pytest.raises(SeqclfError, match=rf"train\.index\.json: .*{sentence}"):
            shard_set(str(root))
    index.unlink()
    sample = scan(shard)[-1]
    end = sample.at[-1] + sample.sizes[-1]
    for cut in (0, 100, 512, sample.at[-1] - 512, sample.at[-1] - 100, sample.at[-1] + 50, end, -(-end // 512) * 512):
        shard.write_bytes(whole[:cut])
        with pytest.raises(SeqclfError, match=r"train-000001\.tar: "):
            shard_set(str(root))
    head = sample.at[3] - 512
    shard.write_bytes(whole[:head] + b"?" * 512 + whole[head + 512 :])
    with pytest.raises(SeqclfError, match=rf"train-000001\.tar: .* after sample {sample.key}"):
        shard_set(str(root))
    with pytest.raises(SeqclfError, match="none-000000"):
        shard_set(str(root), train="none")
    with pytest.raises(SeqclfError, match="nowhere: "):
        shard_set(str(root / "nowhere"))


def test_a_damaged_picture_is_named_or_skipped(tmp_path, pack):
    root = pack("clip", "folders")
    shard = root / "train-000001.tar"
    sample = scan(shard)[0]
    content = bytearray(shard.read_bytes())
    content[sample.at[4] : sample.at[4] + sample.sizes[4]] = bytes(sample.sizes[4])
    shard.write_bytes(content)
    data = shard_set(str(root)).train
    bad = next(video for video in data.videos if video.name == sample.name)
    assert bad.source.read([3, 5]).shape == (2, 3, 64, 64)
    with pytest.raises(SeqclfError, match=rf"train-000001\.tar: sample {sample.key}: frame 4: "):
        bad.source.read([4])
    with pytest.raises(SeqclfError, match="frame 99"):
        bad.source.read([99])
    skipping = shard_set(str(root), sampling=partial(window, frames=24), on_error="skip").train
    skipping.batch(torch.arange(len(skipping)))
    assert set(skipping.skipped) <= {sample.name}
    shard.write_bytes(content[: sample.at[-1] + 10])
    with pytest.raises(SeqclfError, match="the shard is truncated"):
        bad.source.read([len(bad.source) - 1])
    shard.unlink()
    with pytest.raises(SeqclfError, match=rf"train-000001\.tar: sample {sample.key}: "):
        bad.source.read([0])


def test_pictures_of_two_sizes_and_two_names_of_a_class_are_refused(tmp_path):
    label = b'{"label": 0, "class": "%s"}'
    files = {"a.1.png": picture(), "a.2.png": picture((9, 6)), "a.json": label % b"walk"}
    for part in ("train", "test"):
        write_tar(tmp_path / f"{part}-0.tar", files)
    data = shard_set(str(tmp_path))
    assert data.classes == ["walk"]
    with pytest.raises(SeqclfError, match=r"sample a: frame 1 .*9x6.*frame 0 .*8x6"):
        data.train.videos[0].source.read([0, 1])
    write_tar(tmp_path / "train-1.tar", {"b.png": picture(), "b.json": label % b"run"})
    with pytest.raises(SeqclfError, match=r"sample b: class 0 .*'run'.*'walk'"):
        shard_set(str(tmp_path))
    assert shard_set(str(tmp_path), classes=["go", "stand"]).num_classes == 2
    with pytest.raises(SeqclfError, match=r"background 'none' .*go"):
        shard_set(str(tmp_path), classes=["go"], background="none")
    assert "the same" in shard_set(str(tmp_path), test="train", classes=["go", "stand"]).warning


def test_a_split_column_selects_the_videos_of_a_part(made, prepare, tmp_path):
    root = made["clip", "folders"]
    listed = [line.split() for line in (root / "train.txt").read_text().splitlines()]
    rows = [f"{path},{label},{'test' if i < 3 else 'train'}" for i, (path, label) in enumerate(listed)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    lists = ("--train", tmp_path / "l.csv", "--test", tmp_path / "l.csv", "--root", root)
    assert prepare("shards", *lists, "--out", tmp_path / "out", "--class-index", root / "classes.txt")[0] == 0
    data = shard_set(str(tmp_path / "out"))
    assert (len(data.train), len(data.test)) == (len(listed) - 3, 3)
