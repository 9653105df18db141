"""Data sets of videos on disk, from the files to a run: one label per video, labels per frame, feature sequences."""

import dataclasses
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

import seqclf
from seqclf import SeqclfError, annotated_set, feature_set, moving_digits, video_set
from seqclf.data.digits.moving import make_moving_digits
from seqclf.data.frames.span import VideoSpan
from seqclf.data.sampling import dense, uniform, whole, window
from seqclf.experiment.loading import load_experiment
from seqclf.training.loop import train

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FEW = ["data.videos=12", "data.test_videos=6", "steps=2", "batch_size=3", "eval_batch=3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "classes"), [("moving_digits", 10), ("moving_digits_frames", 11), ("moving_digits_mstcn", 11)]
)
def test_the_whole_path_from_video_files_to_a_prediction(config, classes, tmp_path):
    experiment = load_experiment(CONFIGS / f"{config}.py", [*FEW, f"data.root={tmp_path}/made"])
    results = train(experiment, tmp_path / "run", "cpu")
    figures = results["parts"]["test"]
    assert figures["frames"] > 6 * 24 and len(figures["confusion"]) == classes
    assert ("f1_50" in figures) == (config != "moving_digits")
    predictor = seqclf.load(tmp_path / "run")
    video = seqclf.data.open_video(next((tmp_path / "made").rglob("*.mp4")))
    prediction = predictor(video.read(range(len(video))))
    assert prediction.probabilities.shape == (len(video), classes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return {task: make_moving_digits(root / task, 8, 4, task, "folders", seed=1) for task in ("clip", "frames")}


def test_lists_of_folders_become_clips(made):
    data = video_set(str(made["clip"]), "train.txt", "test.txt", form="plain", class_index="classes.txt")
    assert len(data.train) == 8 and len(data.test) == 4 and data.num_classes == 10 and data.background is None
    batch = data.train.batch(torch.arange(8), 5)
    assert batch.frames.shape == (8, 16, 3, 64, 64) and batch.frames.dtype == torch.uint8
    assert (batch.labels == batch.labels[:, :1]).all()
    assert data.identity()["train"]["frame_shape"] == [3, 64, 64]


def test_annotated_videos_have_the_labels_of_their_segments(made):
    root = str(made["frames"])
    data = annotated_set(root, "train.txt", "test.txt", "segments.csv", "classes.txt", background="background")
    assert data.background == [10] and len(data.test) == 4
    batch = data.test.batch(torch.arange(4))
    assert set(batch.labels.unique().tolist()) <= {seqclf.IGNORE, *range(11)} and (batch.labels == 10).any()
    in_windows = annotated_set(root, "train.txt", "test.txt", test_sampling=partial(dense, frames=8))
    assert in_windows.background is None, "segments are measured over whole videos only"
    without = annotated_set(root, "train.txt", "test.txt", "segments.csv", "classes.txt")
    unlabelled = without.test.batch(torch.arange(4)).labels
    assert torch.equal(unlabelled == seqclf.IGNORE, (batch.labels == 10) | (batch.labels == seqclf.IGNORE))
    with pytest.raises(SeqclfError, match=r"nowhere\.txt"):
        annotated_set(root, "nowhere.txt", "test.txt", "segments.csv", "classes.txt")


@pytest.mark.parametrize(
    "data_set", [video_set, annotated_set, feature_set, moving_digits, window, dense, uniform, whole]
)
def test_settings_are_checked_by_their_types(data_set):
    assert get_type_hints(data_set)  # the types resolve; otherwise no setting would be checked


def test_a_setting_may_be_a_list(tmp_path):
    features(tmp_path / "set")
    overrides = [f"data.root={tmp_path}/set", "data.background=['nothing', 'pour']", "data.sample_rate=2"]
    data = load_experiment(CONFIGS / "features_lstm.py", overrides).data()
    assert data.background == [0, 1] and data.identity()["background"] == ["nothing", "pour"]
    with pytest.raises(SeqclfError, match=r"data\.sample_rate=two"):
        load_experiment(CONFIGS / "features_lstm.py", ["data.sample_rate=two"])


def test_what_was_read_is_reported_and_split_measures_another_list(made):
    root, keywords = str(made["clip"]), {"form": "plain", "class_index": "classes.txt"}
    data = video_set(root, "train.txt", "test.txt", **keywords)
    frames = [sum(len(video.source) for video in part.videos) for part in (data.train, data.test)]
    for words in ("train.txt: form plain, 8 videos, 10 classes named by classes.txt", "test.txt: form plain, 4 videos"):
        assert words in data.source
    assert all(f"{count} frames" in data.source for count in frames)
    other = video_set(root, "train.txt", "test.txt", split="train.txt", **keywords)
    assert len(other.test) == 8 and not other.test.training
    root = str(made["frames"])
    data = annotated_set(
        root, "train.txt", "test.txt", "segments.csv", "classes.txt", validation="test.txt", split="train.txt"
    )
    assert len(data.test) == 8 and len(data.validation) == 4
    assert "train.txt: 8 videos, " in data.source and "11 classes" in data.source


def test_a_tilde_is_the_users_home(made, monkeypatch):
    monkeypatch.setenv("HOME", str(made["clip"].parent))
    assert len(video_set("~/clip", "train.txt", "test.txt").train) == 8
    assert len(annotated_set("~/frames", "train.txt", "test.txt", "segments.csv", "classes.txt").train) == 8


def odd_set(root):
    """Videos whose paths have spaces; one file is damaged, one is missing."""
    for k, name in enumerate(("a b/v 1", "a b/v 2", "c/v 1")):
        (root / name).mkdir(parents=True)
        for n in range(6):
            Image.fromarray(np.full((8, 8, 3), 40 * k + n, np.uint8)).save(root / name / f"{n}.png")
    (root / "damaged.mp4").write_bytes(b"no video")
    (root / "good.txt").write_text("a b/v 1\na b/v 2\n")
    (root / "bad.txt").write_text("a b/v 1 0\na b/v 2,1\ndamaged.mp4 0\nmissing.mp4 1\n")
    (root / "s.csv").write_text("video,start,end,label\na b/v 1,1,3,x\nv 2.mp4,0,6,y\ndamaged,0,1,x\n")
    return str(root)


def test_annotated_videos_may_have_spaces_in_their_paths_and_be_left_out(tmp_path):
    root = odd_set(tmp_path)
    read = partial(annotated_set, root, test="good.txt", split="good.txt", segments="s.csv", classes=["x", "y"])
    data = read("bad.txt", on_error="skip")
    assert [video.name for video in data.train.videos] == ["a b/v 1", "a b/v 2"]
    assert [video.labels.tolist() for video in data.train.videos] == [[-100, 0, 0, -100, -100, -100], [1] * 6]
    assert data.skipped().keys() == {"damaged.mp4", "missing.mp4 1"}
    assert data.skipped()["missing.mp4 1"].startswith("bad.txt, line 4")
    with pytest.raises(SeqclfError, match=r"bad\.txt, line 4: video 'missing.mp4 1'"):
        read("bad.txt")
    (tmp_path / "bad.txt").write_text("damaged.mp4\n")
    for on_error in ("raise", "skip"):
        with pytest.raises(SeqclfError, match=r"damaged\.mp4"):
            read("bad.txt", on_error=on_error)
    assert "1 video of s.csv in no list" in read("good.txt").source
    with pytest.raises(SeqclfError, match="fps="):
        read("good.txt", unit="seconds")
    in_seconds = read("good.txt", unit="seconds", fps=1)
    assert in_seconds.test.videos[0].labels.tolist() == [-100, 0, 0, -100, -100, -100]


def test_one_name_in_a_csv_of_two_videos_is_refused(tmp_path):
    root = odd_set(tmp_path)
    (tmp_path / "good.txt").write_text("a b/v 1\nc/v 1\n")
    (tmp_path / "s.csv").write_text("video,start,end,label\nv 1,1,3,x\n")
    with pytest.raises(SeqclfError, match=r"s\.csv: video v 1 .*a b/v 1 and c/v 1"):
        annotated_set(root, "good.txt", "good.txt", "s.csv", ["x"])


def test_a_run_records_what_was_left_out(tmp_path):
    root = odd_set(tmp_path / "set")
    data = partial(video_set, root, "bad.txt", "test.txt", on_error="skip")
    (tmp_path / "set" / "bad.txt").write_text("damaged.mp4,x\na b/v 1,x\nmissing.mp4,y\nc/v 1,y\n")
    (tmp_path / "set" / "test.txt").write_text("a b/v 2,x\nmissing.mp4,y\n")
    experiment = seqclf.Experiment(
        data=data,
        model=partial(seqclf.FrameSequenceClassifier, temporal=partial(seqclf.LSTM, hidden=4)),
        optimizer=partial(torch.optim.Adam, lr=0.02),
        steps=2,
        batch_size=3,
        eval_batch=1,
    )
    results = train(experiment, tmp_path / "run", "cpu")
    assert results["parts"]["test"]["clips"] == 1
    skipped = json.loads((tmp_path / "run/run.json").read_text())["skipped"]
    assert skipped.keys() == {"damaged.mp4", "missing.mp4"}
    checkpoint = tmp_path / "run/checkpoints/step_2.pt"
    content = torch.load(checkpoint)
    assert content["skipped"] == skipped
    torch.save({**content, "skipped": {"mended.mp4": "was damaged"}}, checkpoint)
    train(dataclasses.replace(experiment, steps=3), tmp_path / "run", "cpu", resume=True)
    again = json.loads((tmp_path / "run/run.json").read_text())["skipped"]
    assert again == {**skipped, "mended.mp4": "was damaged"}, "kept over a resume"
    with pytest.raises(SeqclfError, match=r"bad\.txt, line 3: video 'missing\.mp4'"):
        video_set(root, "bad.txt", "test.txt")


def test_a_pattern_chooses_among_pictures_and_flow(tmp_path):
    for n in range(4):
        for kind, shade in (("img", 200), ("flow_x", 10)):
            (tmp_path / "v").mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(tmp_path / "v" / f"{kind}_{n:05}.png")
    for name in ("l.txt", "m.txt"):
        (tmp_path / name).write_text("v 0\n")
    with pytest.raises(SeqclfError, match=r"flow_x_\*, img_\*.* pattern='img_\[0-9\]\*'"):
        video_set(str(tmp_path), "l.txt", "m.txt")
    data = video_set(str(tmp_path), "l.txt", "m.txt", pattern="img_[0-9]*", split="m.txt")
    assert data.test.batch(torch.arange(1)).frames.unique().tolist() == [200]


# ---- lists


def numbered_folder(folder, numbers, size=8):
    """A folder of grey pictures; the value of each is its number modulo 256."""
    folder.mkdir(parents=True)
    for number in numbers:
        Image.fromarray(np.full((size, size, 3), number % 256, np.uint8)).save(folder / f"img_{number:05}.png")


def shades(source) -> list[int]:
    return source.read(range(len(source)))[:, 0, 0, 0].tolist()


def test_one_list_serves_both_parts_by_its_split_column_only(tmp_path):
    for k in range(6):
        numbered_folder(tmp_path / f"v{k}", range(3))
    rows = [f"v{k},{'ab'[k % 2]},{'train' if k < 4 else 'test'}\n" for k in range(6)]
    (tmp_path / "l.csv").write_text("path,label,split\n" + "".join(rows))
    data = video_set(str(tmp_path), "l.csv", "l.csv")
    assert [video.name for video in data.train.videos] == ["v0", "v1", "v2", "v3"]
    assert [video.name for video in data.test.videos] == ["v4", "v5"]
    assert data.warning is None and "split" in data.source
    (tmp_path / "l.csv").write_text("path,label\nv0,a\nv1,b\n")
    with pytest.raises(SeqclfError, match=r"l\.csv.*split_column"):
        video_set(str(tmp_path), "l.csv", str(tmp_path / "l.csv"))


def test_numbers_mean_the_same_classes_in_both_lists(tmp_path):
    for k in range(4):
        numbered_folder(tmp_path / f"v{k}", range(2))
    (tmp_path / "train.txt").write_text("v0 1\nv1 2\nv2 4\n")
    (tmp_path / "test.txt").write_text("v3 4\n")
    data = video_set(str(tmp_path), "train.txt", "test.txt")
    assert data.classes == ["1", "2", "4"] and data.test.videos[0].labels == 2
    (tmp_path / "test.txt").write_text("v3 3\n")
    with pytest.raises(SeqclfError, match=r"test\.txt, line 1: label 3"):
        video_set(str(tmp_path), "train.txt", "test.txt")


@pytest.mark.parametrize("columns", ["start_frame,end_frame", "start,end"])
def test_rows_with_start_and_end_are_clips_of_a_video(tmp_path, columns):
    numbered_folder(tmp_path / "v", [n for n in range(1, 41) if n != 12])
    numbered_folder(tmp_path / "w", range(8))
    (tmp_path / "train.csv").write_text(f"path,{columns},label\nv,10,20,a\nv,20,24,b\nw,0,8,a\n")
    (tmp_path / "test.csv").write_text(f"path,{columns},label\nv,30,41,b\n")
    settings = {"unit": "frames"} if columns == "start,end" else {}
    data = video_set(str(tmp_path), "train.csv", "test.csv", **settings)
    assert [shades(video.source) for video in data.train.videos] == [
        [n for n in range(10, 20) if n != 12],
        [20, 21, 22, 23],
        list(range(8)),
    ]
    assert shades(data.test.videos[0].source) == list(range(30, 41))
    assert [video.labels for video in data.train.videos] == [0, 1, 0]
    batch = data.test.batch(torch.arange(1))
    assert batch.frames.shape == (1, 11, 3, 8, 8) and batch.frames[0, :, 0, 0, 0].tolist() == list(range(30, 41))
    (tmp_path / "test.csv").write_text(f"path,{columns},label\nv,30,60,b\n")
    with pytest.raises(SeqclfError, match="30 to 59"):
        video_set(str(tmp_path), "train.csv", "test.csv", **settings)


def test_a_clip_of_a_video_file_is_predicted_as_it_was_evaluated(made_mp4, tmp_path):
    video = seqclf.data.open_video(made_mp4)
    T = len(video)
    for name, rows in (("train.csv", ["0,0.4,a", "0.4,0.8,b"]), ("test.csv", ["0.2,0.6,a", "0.5,0.9,b"])):
        (tmp_path / name).write_text("path,start,end,label\n" + "".join(f"{made_mp4},{row}\n" for row in rows))
    experiment = seqclf.Experiment(
        data=partial(video_set, str(tmp_path), "train.csv", "test.csv", test_sampling=whole),
        model=partial(seqclf.FrameSequenceClassifier, temporal=partial(seqclf.LSTM, hidden=4)),
        optimizer=partial(torch.optim.Adam, lr=0.02),
        steps=2,
        batch_size=2,
    )
    train(experiment, tmp_path / "run", "cpu")
    predictor = seqclf.load(tmp_path / "run")
    data = experiment.data()
    span = VideoSpan(video, 0.2, 0.6, "seconds")
    assert len(span) == 10 and T > 22
    assert torch.equal(span.read(range(10)), video.read(range(5, 15)))
    assert span.seconds.tolist() == pytest.approx([k / 25 for k in range(5, 15)])
    with pytest.raises(seqclf.SeqclfError, match=r"0\.021 to 0\.022 s contains no frame"):
        len(VideoSpan(video, 0.021, 0.022, "seconds"))
    with torch.no_grad():
        batch = data.test.batch(torch.arange(1))
        expected = predictor.model(batch.frames)[0][0].softmax(-1)
    assert torch.allclose(predictor(span.read(range(10))).probabilities, expected, atol=1e-5)


# ---- labels of frames


def annotated(root, segments, **keywords):
    """The folders and videos in ``root``, with these rows of segments."""
    videos = sorted(path.name for path in root.iterdir() if path.is_dir() or path.suffix == ".mp4")
    (root / "l.txt").write_text("".join(f"{name}\n" for name in videos))
    (root / "s.csv").write_text("video,start,end,label\n" + "".join(f"{line}\n" for line in segments))
    return annotated_set(
        str(root), "l.txt", "l.txt", "s.csv", ["bg", "act"], split="l.txt", background="bg", **keywords
    )


def active(data, video=0) -> list[int]:
    """The numbers of the frames that are labelled."""
    source, labels = data.test.videos[video].source, data.test.videos[video].labels.tolist()
    return [n for n, label in zip(source.frame_times().numbers.tolist(), labels, strict=True) if label == 1]


@pytest.mark.parametrize(
    "numbers",
    [
        range(40),
        range(1, 41),
        range(10, 50),
        [n for n in range(40) if n not in (5, 6, 27)],
        range(0, 1000, 25),
    ],
)
def test_segments_refer_to_the_numbers_in_the_names(tmp_path, numbers):
    numbered_folder(tmp_path / "v", numbers)
    data = annotated(tmp_path, ["v,20,30,act"])
    found = [n for n in numbers if 20 <= n < 30]
    assert active(data) == found
    video = data.test.videos[0]
    is_active = video.labels.tolist()
    assert [s for s, label in zip(shades(video.source), is_active, strict=True) if label] == [n % 256 for n in found]
    choice = data.details["frame_numbers"]
    assert choice["choice"] == "names" and "numbers in their names" in data.source
    assert bool(choice["incomplete"]) == (list(numbers) not in (list(range(40)), list(range(1, 41))))
    in_order = annotated(tmp_path, ["v,20,30,act"], frame_numbers="order")
    assert in_order.test.videos[0].labels.nonzero()[:, 0].tolist() == list(range(20, 30))
    assert in_order.details["frame_numbers"]["choice"] == "order"


def test_missing_numbers_are_reported(tmp_path):
    numbered_folder(tmp_path / "v", [n for n in range(40) if n not in (5, 6, 27)])
    data = annotated(tmp_path, ["v,20,30,act"])
    assert "v (0 to 39, 3 missing)" in data.source
    assert data.details["frame_numbers"]["incomplete"]["v"] == {"first": 0, "last": 39, "step": 1, "missing": 3}


def test_a_segment_at_0_of_frames_named_from_1_counts_in_order(tmp_path):
    numbered_folder(tmp_path / "v", range(1, 41))
    numbered_folder(tmp_path / "w", range(1, 21))
    data = annotated(tmp_path, ["v,0,10,act", "w,5,9,act"])
    assert [active(data, k) for k in (0, 1)] == [list(range(10)), [5, 6, 7, 8]]
    assert data.details["frame_numbers"]["choice"] == "order" and "in order from 0" in data.source
    assert active(annotated(tmp_path, ["v,0,10,act", "w,5,9,act"], frame_numbers="names")) == list(range(1, 10))
    numbered_folder(tmp_path / "x", range(10, 50))
    with pytest.raises(SeqclfError, match=r"s\.csv.*frame_numbers"):
        annotated(tmp_path, ["v,0,10,act", "w,5,9,act", "x,20,30,act"])


def test_a_run_reads_folders_as_its_data_set_did(tmp_path):
    numbered_folder(tmp_path / "set" / "v", range(1, 41))
    data = annotated(tmp_path / "set", ["v,0,10,act"], fps=10)
    reader = data.test.videos[0].source.reader()
    source = reader(tmp_path / "set" / "v")
    assert source.frame_numbers == "order" and source.seconds[:3].tolist() == pytest.approx([0, 0.1, 0.2])


@pytest.fixture(scope="module")
def made_mp4(tmp_path_factory):
    """A video file of 119 frames at 25 frames per second, whose shades rise from 0 to 236."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for k in range(119):
            picture = np.full((32, 32, 3), 2 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("fps", [None, 5, 1, 60])
@pytest.mark.parametrize(("unit", "segment"), [("frames", "25,75"), ("seconds", "1,3"), ("seconds", "0:01,0:00:03.0")])
def test_after_resampling_a_frame_has_the_label_of_the_time_it_shows(made_mp4, tmp_path, fps, unit, segment):
    (tmp_path / "v.mp4").symlink_to(made_mp4)
    data = annotated(tmp_path, [f"v,{segment},act"], unit=unit, fps=fps)
    times = np.arange(len(data.test.videos[0].source)) / (fps or 25)
    shown = np.minimum((times * 25 + 1e-6).astype(int), 118)
    assert data.test.videos[0].labels.tolist() == ((shown >= 25) & (shown < 75)).astype(int).tolist()


@pytest.mark.parametrize(("unit", "fine", "beyond"), [("frames", "100,120", "100,122"), ("seconds", "4,4.8", "4,4.9")])
def test_a_segment_past_the_end_is_clipped_or_costs_its_video_only(made_mp4, tmp_path, unit, fine, beyond):
    for name in "ab":
        (tmp_path / f"{name}.mp4").symlink_to(made_mp4)
    data = annotated(tmp_path, [f"a,{fine},act", f"b,{fine},act"], unit=unit)
    assert active(data) == list(range(100, 119)) and "4 segments clipped" in data.source
    wrong = [f"a,{fine},act", f"b,{beyond},act"]
    with pytest.raises(SeqclfError, match=r"s\.csv, line 3"):
        annotated(tmp_path, wrong, unit=unit)
    skipped = annotated(tmp_path, wrong, unit=unit, on_error="skip")
    assert [video.name for video in skipped.test.videos] == ["a.mp4"]
    assert "line 3" in skipped.skipped()["b.mp4"]
    allowed = annotated(tmp_path, wrong, unit=unit, past_end=5)
    assert active(allowed, 1) == list(range(100, 119))


def test_a_wrong_row_costs_its_video_only(made_mp4, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").symlink_to(made_mp4)
    data = annotated(tmp_path, ["a,1,9,act", "b,1,9,other"], on_error="skip")
    assert [video.name for video in data.test.videos] == ["a.mp4"] and "'other'" in data.skipped()["b.mp4"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_seconds_are_player_time_where_the_picture_starts_after_the_sound(tmp_path, suffix):
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the program ffmpeg")
    run = ["ffmpeg", "-v", "error", "-y"]
    source = "color=black:s=64x48:r=25:d=1[a];color=white:s=64x48:r=25:d=3[b];[a][b]concat=n=2:v=1"
    mpeg4 = ["-c:v", "mpeg2video", "-q:v", "2", str(tmp_path / "silent.mkv")]
    subprocess.run([*run, "-filter_complex", source, *mpeg4], check=True)
    out = tmp_path / "set" / f"v.{suffix}"
    out.parent.mkdir()
    sound = ["-f", "lavfi", "-i", "sine=d=6", "-map", "1:a", "-map", "0:v", "-c:v", "copy", "-c:a", "mp2"]
    subprocess.run([*run, "-itsoffset", "2", "-i", str(tmp_path / "silent.mkv"), *sound, str(out)], check=True)
    (out.parent / "l.txt").write_text(out.name + "\n")
    (out.parent / "s.csv").write_text(f"video,start,end,label\n{out.name},3.01,3.99,white\n")
    data = annotated_set(
        *(str(out.parent), "l.txt", "l.txt", "s.csv", ["black", "white"]),
        split="l.txt",
        background="black",
        unit="seconds",
    )
    video = data.test.videos[0]
    seconds = video.source.seconds
    assert float(seconds[0]) == pytest.approx(2, abs=0.03)
    is_white = torch.tensor([shade > 128 for shade in shades(video.source)])
    assert is_white.nonzero()[0].item() == 25
    labelled = video.labels.nonzero()[:, 0]
    assert abs(labelled[0].item() - 25) <= 1 and abs(labelled[-1].item() - 49) <= 1
    half = annotated_set(
        *(str(out.parent), "l.txt", "l.txt", "s.csv", ["black", "white"]),
        split="l.txt",
        background="black",
        unit="seconds",
        fps=12.5,
    )
    assert float(half.test.videos[0].source.seconds[0]) == pytest.approx(float(seconds[0]))
    assert abs(half.test.videos[0].labels.nonzero()[0].item() - 13) <= 1


# ---- features


def features(root, lengths=(30, 21, 17), cut=0):
    rng = np.random.default_rng(0)
    for folder in ("features", "groundTruth", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 nothing\n1 pour\n2 stir\n")
    names = []
    for i, length in enumerate(lengths):
        labels = rng.integers(0, 3, length)
        np.save(root / f"features/v{i}.npy", (np.eye(3)[labels].T + rng.normal(0, 0.1, (3, length))).astype(np.float32))
        words = [["nothing", "pour", "stir"][k] for k in labels]
        (root / f"groundTruth/v{i}.txt").write_text("\n".join(words[: length - cut]) + "\n")
        names.append(f"v{i}.txt\n")
    (root / "splits/train.split1.bundle").write_text("".join(names[:-1]))
    (root / "splits/test.split1.bundle").write_text(names[-1])


def test_feature_sequences_are_learned_in_windows_of_time(tmp_path):
    features(tmp_path / "set")
    experiment = seqclf.Experiment(
        data=partial(feature_set, str(tmp_path / "set"), background=["nothing"]),
        model=partial(seqclf.FrameSequenceClassifier, temporal=partial(seqclf.LSTM, hidden=16)),
        optimizer=partial(torch.optim.Adam, lr=0.02),
        steps=60,
        batch_size=2,
        truncate=8,
    )
    results = train(experiment, tmp_path / "run", "cpu")
    figures = results["parts"]["test"]
    assert figures["frames"] == 17 and figures["frame_accuracy"] == 1 and figures["f1_50"] == figures["edit"] == 100
    with pytest.raises(SeqclfError, match="background='stirr'"):
        feature_set(str(tmp_path / "set"), background=["stirr"])


def test_features_and_labels_of_two_lengths_are_cut_and_reported_or_refused(tmp_path):
    features(tmp_path / "set", cut=2)
    data = feature_set(str(tmp_path / "set"), sampling=partial(window, frames=4))
    assert "cut" in data.source and len(data.test.videos[0].labels) == 15
    with pytest.raises(SeqclfError, match=r"v0"):
        feature_set(str(tmp_path / "set"), on_length="refuse")
