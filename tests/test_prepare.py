"""Preparation of videos: exact frames, features of an encoder, interrupted work."""

import json
import re
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from made_videos import noise, write_folder, write_streams

from seqclf import (
    LSTM,
    Experiment,
    FrameSequenceClassifier,
    SeqclfError,
    annotated_set,
    check_videos,
    feature_set,
    video_set,
)
from seqclf.data import open_video
from seqclf.data.digits.moving import make_moving_digits
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.pictures import read_picture
from seqclf.data.transforms import center_crop, in_turn, random_crop, resize
from seqclf.data.video.file import VideoFile
from seqclf.prediction import load_run
from seqclf.preparing.extract import write_features, write_frames
from seqclf.preparing.jobs import run_jobs
from seqclf.training.loop import train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return make_moving_digits(root / "videos", 4, 2, "frames", "mp4", seed=2, frames=(24, 30), source="digits")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---- frames


@pytest.mark.parametrize("fps", [None, 10])
def test_pngs_are_the_videos_frames_exactly(made, tmp_path, prepare, fps):
    options = [] if fps is None else ["--fps", fps]
    code, out, err = prepare("frames", made / "videos", "--form", "png", "--out", tmp_path / "out", *options)
    assert (code, err) == (0, "")
    total = 0
    for video in sorted((made / "videos").glob("*.mp4")):
        source, folder = VideoFile(video, fps), FrameFolder(tmp_path / "out" / video.stem)
        assert torch.equal(folder.read(range(len(folder))), source.read(range(len(source))))
        assert folder.names[0] == f"{video.stem}.0000.png" and len(folder) == len(source)
        total += len(source)
    assert f"6 videos of {total} frames" in out and "0 skipped (done before), 0 failed" in out


def test_frames_of_one_of_several_video_streams_are_written(tmp_path, prepare):
    path = write_streams(tmp_path / "two.mkv", noise(3, 3, 8, 10), noise(3, 3, 8, 10, seed=1))
    for number in (0, 1):
        options = ("--form", "png", "--video-stream", number, "--out", tmp_path / str(number))
        code, _, errors = prepare("frames", path, *options)
        assert code == 0 and f"stream {number} is read" in errors
        written = FrameFolder(tmp_path / str(number) / "two").read(range(3))
        assert torch.equal(written, VideoFile(path, stream=number).read(range(3)))


def test_class_folders_are_kept_and_frames_are_scaled(made, tmp_path, prepare):
    for at, name in (("Run/fast", "train_00000"), ("Walk", "train_00001"), ("Walk", "v.1.x")):
        (tmp_path / "set" / at).mkdir(parents=True, exist_ok=True)
        source = made / "videos/train_00002.mp4" if name == "v.1.x" else made / f"videos/{name}.mp4"
        shutil.copy(source, tmp_path / "set" / at / f"{name}.mp4")
    code, _, _ = prepare("frames", "--size", 24, 40, tmp_path / "set", "--quality", 80, "--out", tmp_path / "out")
    assert code == 0
    assert {Path(name).parent.as_posix() for name in files(tmp_path / "out")} == {
        ".", "Run/fast/train_00000", "Walk/train_00001", "Walk/v.1.x",
    }  # fmt: skip
    picture = tmp_path / "out/Walk/v.1.x/v.1.x.0002.jpg"
    frame = resize(VideoFile(made / "videos/train_00002.mp4").read([2]), None, (24, 40))[0]
    difference = read_picture(picture).astype(int) - frame.permute(1, 2, 0).numpy()
    assert np.abs(difference).mean() < 8

    (tmp_path / "list.txt").write_text("Run/fast/train_00000 0\nWalk/train_00001 1\n")
    lists = ("--list", tmp_path / "list.txt", "--root", tmp_path / "set")
    assert prepare("frames", *lists, "--size", 24, "--out", tmp_path / "of_list")[0] == 0
    assert read_picture(tmp_path / "of_list/Run/fast/train_00000/train_00000.0000.jpg").shape == (24, 24, 3)
    assert not (tmp_path / "of_list/Walk/v.1.x").exists()


@pytest.mark.parametrize("out", ["set", "set/out"])
def test_results_among_the_videos_are_not_videos(made, run, tmp_path, prepare, out):
    shutil.copytree(made / "videos", tmp_path / "set/class")
    frames = ("frames", tmp_path / "set", "--out", tmp_path / out)
    features = ("features", run, tmp_path / "set/class", "--out", tmp_path / "set/class", "--device", "cpu")
    for words in (features, frames):
        for message in ("6 videos of", "6 skipped (done before), 0 failed"):
            code, output, err = prepare(*words)
            assert (code, err) == (0, "") and message in output
        shutil.rmtree(tmp_path / "set/class/features", ignore_errors=True)


def test_finished_videos_are_skipped_and_unfinished_ones_repeated(made, tmp_path, prepare):
    out = tmp_path / "out"
    assert prepare("frames", made / "videos", "--out", out)[0] == 0
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    part = out / ".train_00001.part"  # the rest of a killed process
    (out / "train_00001").rename(part)
    (part / "train_00001.0001.jpg").write_bytes(b"half a pict")
    (part / "train_00001.9999.jpg").write_bytes(b"of another time")
    code, message, _ = prepare("frames", made / "videos", "--out", out)
    assert code == 0 and "1 video of" in message and "5 skipped" in message
    assert files(out) == sorted(before) and not part.exists()
    for name, written in before.items():
        assert ((out / name).stat().st_mtime_ns != written) == name.startswith("train_00001")
    code, _, err = prepare("frames", made / "videos", "--out", out, "--fps", 5)
    assert code == 2 and "was made with fps=None, not 5.0" in err
    (out / "prepare.json").unlink()
    code, _, err = prepare("frames", made / "videos", "--out", out)
    assert code == 2 and "was not made by this program" in err


def test_unfinished_work_leaves_nothing(made, tmp_path):
    source = VideoFile(made / "videos/train_00000.mp4")
    for job in (
        write_frames(source, tmp_path / "a/v"),
        write_features(source, tmp_path / "b/v.npy", lambda x: x.flatten(1)[:, :5], 4),
    ):
        assert next(job) > 0 and any(tmp_path.rglob(".v*.part"))
        job.close()
        assert not any(tmp_path.rglob("*v*"))

    def broken():
        yield 3
        raise OSError(28, "No space left on device")

    with pytest.raises(SeqclfError, match=r"some\.mp4: .*No space left"):
        run_jobs({"some.mp4": broken}, 1)


def test_an_interrupt_stops_all_work(capsys):
    ended = Event()

    def interrupted():
        yield 1
        raise KeyboardInterrupt

    def endless():
        try:
            while True:
                yield 1
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_jobs({"b": endless, "a": interrupted, "c": endless}, 2)
    assert ended.wait(60)


def test_progress_is_printed_in_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr("seqclf.preparing.jobs.REPORT_SECONDS", 0.0)
    done = run_jobs({name: lambda: (n for n in (3, 4)) for name in "ab"}, 1)
    lines = capsys.readouterr().out.splitlines()
    assert (done.made, done.frames, done.failed) == (2, 14, {})
    assert [line.split("  ")[:2] for line in lines] == [["video 1/2", "7 frames"], ["video 2/2", "14 frames"]]
    assert all("videos/s" in line and "left" in line for line in lines)


def test_damaged_videos_are_reported_and_the_others_processed(made, tmp_path, prepare):
    folder = tmp_path / "set"
    shutil.copytree(made / "videos", folder)
    (folder / "test_00000.mp4").write_bytes(b"this is no video at all")
    whole = (folder / "train_00000.mp4").read_bytes()
    (folder / "train_00000.mp4").write_bytes(whole[: len(whole) // 2])
    code, out, err = prepare("frames", folder, "--out", tmp_path / "out", "--workers", 3)
    assert code == 2 and "4 videos of" in out and "2 failed" in out
    assert len(err.splitlines()) == 2 and "Traceback" not in err
    assert all(f"error: {folder / name}" in err for name in ("test_00000.mp4", "train_00000.mp4"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "test_00001", "train_00001", "train_00002", "train_00003",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "required: command"),
        (("frames", "--out", "{tmp}/o"), "there is no video"),
        (("frames", "{tmp}/none.mp4", "--out", "{tmp}/o"), "none.mp4: no such file or folder"),
        (("frames", "{made}", "--size", "0", "--out", "{tmp}/o"), "--size 0: expected"),
        (("frames", "{made}", "--size", "{made}", "--out", "{tmp}/o"), "expected one number of pixels"),
        (("frames", "{made}", "--quality", "101", "--out", "{tmp}/o"), "quality=101"),
        (("frames", "{made}", "--fps", "0", "--out", "{tmp}/o"), "fps=0.0"),
        (("frames", "{made}", "--workers", "0", "--out", "{tmp}/o"), "workers=0"),
        (("frames", "{made}", "--list", "{made}/train.txt", "--out", "{tmp}/o"), "root"),
        (
            ("frames", "{made}", "{made}/videos/train_00000.mp4", "{tmp}/train_00000.mp4", "--out", "{tmp}/o"),
            "train_00000",
        ),
        (("features", "{made}/videos", "--out", "{tmp}/o"), "name one run, or a torchvision model"),
        (("features", "{made}/videos", "--backbone", "resnet0", "--out", "{tmp}/o"), "no classification model"),
        (("features", "--backbone", "resnet18", "--weights", "none", "--out", "{tmp}/o"), "there is no video"),
        (
            ("features", "--backbone", "alexnet", "--weights", "none", "--root", "x", "--out", "{tmp}/o"),
            "root, train and test",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(made, tmp_path, prepare, words, sentence):
    shutil.copy(made / "videos/train_00000.mp4", tmp_path)
    code, out, err = prepare(*(word.format(tmp=tmp_path, made=made) for word in words))
    assert code == 2 and sentence in err and "Traceback" not in err and out == ""
    assert not (tmp_path / "o").exists()


def test_segments_of_a_video_fit_its_extracted_frames(made, tmp_path, prepare):
    lists = ("train.txt", "test.txt", "segments.csv", "classes.txt")
    videos = annotated_set(str(made), *lists, background="background")
    for fps in (None, 10, 20, 40):
        root = tmp_path / str(fps)
        options = () if fps is None else ("--fps", fps)
        assert prepare("frames", made / "videos", "--out", root / "videos", *options)[0] == 0
        for name in lists:
            shutil.copy(made / name, root / name)
        folders = annotated_set(str(root), *lists, background="background")
        assert folders.details["frame_numbers"]["choice"] == "names"
        for video, folder in zip(videos.train.videos, folders.train.videos, strict=True):
            kept = sorted(set(VideoFile(video.source.path, fps).file_numbers.tolist()))
            assert folder.source.frame_times().numbers.tolist() == kept
            assert folder.labels.tolist() == video.labels[kept].tolist()


# ---- features


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    transform = partial(in_turn, steps=(partial(resize, size=20), partial(random_crop, size=16)))
    lists = ("train.txt", "test.txt", "segments.csv", "classes.txt")
    experiment = Experiment(
        data=partial(annotated_set, str(made), *lists, background="background", transform=transform),
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=4)),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        steps=1,
        batch_size=2,
    )
    folder = tmp_path_factory.mktemp("run") / "run"
    train(experiment, folder, "cpu")
    return folder


ANNOTATED = ["--train", "{0}/train.txt", "--test", "{0}/test.txt", "--segments", "{0}/segments.csv"]
ANNOTATED += ["--classes", "{0}/classes.txt", "--root", "{0}"]


def test_features_of_a_run_equal_its_encoder_in_evaluation(made, run, tmp_path, prepare):
    video = made / "videos/train_00000.mp4"
    code, out, err = prepare("features", run, video, "--out", tmp_path, "--chunk", 5, "--device", "cpu")
    assert (code, err) == (0, "") and "1 video of" in out
    features = np.load(tmp_path / "features/train_00000.npy")
    _, model, _, _ = load_run(run)
    frames = center_crop(resize(VideoFile(video).read(range(len(VideoFile(video)))), None, 20), None, 16)
    with torch.inference_mode():
        expected = model.encoder(model.preprocess(frames))
    assert features.dtype == np.float32 and features.shape == (3 * 16 * 16, len(frames))
    torch.testing.assert_close(torch.from_numpy(features.T), expected, atol=1e-6, rtol=0)
    assert torch.equal(
        open_video(tmp_path / "features/train_00000.npy", layout="features_first").read([3, 1]),
        torch.tensor(features.T[[3, 1]]),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "prepare.json"]
    folder = tmp_path / "frames/v.1"  # of pictures, whose name has a dot
    assert prepare("frames", video, "--form", "png", "--out", tmp_path / "png")[0] == 0
    shutil.copytree(tmp_path / "png/train_00000", folder)
    assert prepare("features", run, folder, "--out", tmp_path, "--chunk", 5, "--device", "cpu")[0] == 0
    assert np.array_equal(np.load(tmp_path / "features/v.1.npy"), features)


def test_annotated_videos_become_a_feature_set(made, run, tmp_path, prepare):
    words = [word.format(made) for word in ANNOTATED]
    code, _, err = prepare("features", run, *words, "--background", "background", "--out", tmp_path / "set")
    assert (code, err) == (0, "")
    lists = ("train.txt", "test.txt", "segments.csv", "classes.txt")
    videos = annotated_set(str(made), *lists, background="background")
    data = feature_set(str(tmp_path / "set"), background=["background"])
    assert data.classes == videos.classes and data.background == videos.background
    for ours, theirs in ((data.train, videos.train), (data.test, videos.test)):
        for one, other in zip(ours.videos, theirs.videos, strict=True):
            assert one.name == Path(other.name).stem and torch.equal(one.labels, other.labels)
    (made / "videos/train_00000.mp4").touch()
    code, out, _ = prepare("features", run, *words, "--background", "background", "--out", tmp_path / "set")
    assert code == 0 and "6 skipped" in out


def test_features_of_a_backbone_are_reproducible(made, tmp_path, prepare):
    words = ["features", "--backbone", "resnet18", "--weights", "none", "--resize", 40, "--crop", 32]
    videos = [made / f"videos/train_0000{k}.mp4" for k in range(2)]
    assert prepare(*words, *videos, "--out", tmp_path / "a")[0] == 0
    assert prepare(*words, videos[1], "--out", tmp_path / "b", "--workers", 1)[0] == 0
    name = "features/train_00001.npy"
    assert np.load(tmp_path / "a" / name).shape == (512, len(VideoFile(videos[1])))
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    code, _, err = prepare(*words[:-1], 24, videos[1], "--out", tmp_path / "b")
    assert code == 2 and "was made with crop=32, not 24" in err
    code, _, err = prepare(*words[:-1], 48, videos[0], "--out", tmp_path / "c")
    assert code == 2 and "train_00000.mp4: " in err and "48x48 does not fit" in err
    assert json.loads((tmp_path / "c/prepare.json").read_text())["crop"] == 48


def test_features_that_are_not_finite_are_refused(made, tmp_path):
    source = VideoFile(made / "videos/train_00000.mp4")
    job = write_features(source, tmp_path / "v.npy", lambda x: 1 / (x.flatten(1)[:, :2] * 0.0), 4)
    with pytest.raises(SeqclfError, match=r"train_00000\.mp4: .*frame 0 "):
        list(job)
    assert files(tmp_path) == []


# ---- check


@pytest.fixture
def listed(tmp_path):
    """Three folders of pictures, and a list with a class and a part for each."""
    for k, name in enumerate("abc"):
        write_folder(tmp_path / "set" / name, noise(4, 3, 6, 8, seed=k))
    (tmp_path / "l.csv").write_text("path,label,split,subject\na,x,train,s1\nb,y,train,s2\nc,x,test,s3\n")
    return tmp_path


def test_a_check_of_good_videos_finds_nothing(listed, prepare):
    code, out, _ = prepare("check", listed / "l.csv", "--root", listed / "set", "--out", listed / "out", "--fps", 2)
    assert code == 0 and "8x6" in out and "3 groups by column subject" in out
    found = json.loads((listed / "out" / "check.json").read_text())
    assert found["problems"] == [] and found["parts"]["train"] == {
        **{"videos": 2, "clips": 2, "groups": 2, "frames": 8, "seconds": 4.0, "shortest": 4, "longest": 4},
        **{"sizes": {"8x6": 2}, "frame rates": {"2": 2}, "unreadable": 0},
    }
    assert found["warnings"] == ["1 of 2 classes have no video in test: y"]
    page = (listed / "out" / "check.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 and "http" not in page


def test_a_check_names_what_would_stop_training_and_what_may_be_wrong(listed, prepare):
    shutil.copytree(listed / "set" / "a", listed / "set" / "copy")
    write_folder(listed / "set" / "wide", noise(3, 3, 6, 12))
    (listed / "set" / "broken").mkdir()
    (listed / "set" / "broken" / "1.png").write_bytes(b"no picture")
    with (listed / "l.csv").open("a") as file:
        file.write("copy,x,test,s1\nwide,y,test,s4\nnone,y,test,s4\nbroken,y,train,s5\n")
    found = check_videos(listed / "l.csv", listed / "set", full=True)
    problems, warnings = "\n".join(found.problems), "\n".join(found.warnings)
    assert len(found.problems) == 3 and "line 7: video 'none'" in problems and "broken/1.png" in problems
    assert "such as s1" in problems
    for words in ("a and ", "copy", "2 sizes", "12x6 (1)", "1 duplicate file"):
        assert words in warnings
    assert found.files[str(listed / "set" / "broken")].error
    code, *printed = prepare("check", listed / "l.csv", "--root", listed / "set")
    assert code == 2 and [sum(text.count(problem) for text in printed) for problem in found.problems] == [1, 1, 1]


def test_a_check_compares_annotations_with_their_videos(listed):
    (listed / "l.txt").write_text("a\nb\nc\n")
    (listed / "s.csv").write_text("video,start,end,label\na,0,3,x\na,3,5,y\nb,0,9,x\nc,2,4,z\n")
    found = check_videos(listed / "l.txt", listed / "set", segments=str(listed / "s.csv"), classes=["x", "y"])
    assert [("line 4" in one and "b" in one) or ("line 5" in one and "'z'" in one) for one in found.problems] == [
        True
    ] * 2
    assert found.warnings[0].startswith("1 segment clipped") and found.clips[0].frames == {"x": 3, "y": 1}
    assert not set(found.warnings) & set(found.lists)
    (listed / "clips.csv").write_text("path,start_frame,end_frame,label\na,0,5,x\nb,2,9,y\n")
    found = check_videos(listed / "clips.csv", listed / "set")
    assert (
        len(found.problems) == 1
        and f"{listed / 'clips.csv'}, line 3: " in found.problems[0]
        and "1 clip cut" in found.warnings[0]
    )


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("a,x,train\nb,y,test\nc,x,test\n", "line 3.*'y'"),  # training knows the classes of its own rows only
        ("a,x,0\nb,x,1\n", "'split'.*test_split="),
        ("a,x,train\nb,x,test\n", ""),
    ],
)
def test_a_check_reads_each_part_of_a_list_as_training_does(listed, rows, problem):
    (listed / "l.csv").write_text("path,label,split\n" + rows)
    with pytest.raises(SeqclfError, match=problem) if problem else nullcontext():
        video_set(str(listed / "set"), str(listed / "l.csv"), str(listed / "l.csv"))
    found = check_videos(listed / "l.csv", listed / "set").problems
    assert re.search(problem, found[0]) and len(found) == 1 if problem else found == []


def test_a_check_and_both_sets_report_which_of_several_video_streams_is_read(tmp_path):
    write_streams(tmp_path / "two.mkv", noise(6, 3, 8, 10), noise(6, 3, 8, 10, seed=1))
    (tmp_path / "l.csv").write_text("path,start_frame,end_frame,label\ntwo.mkv,0,3,x\ntwo.mkv,3,6,y\n")
    (tmp_path / "s.csv").write_text("video,start,end,label\ntwo.mkv,0,3,x\ntwo.mkv,3,6,y\n")
    how = {"split": "l.csv", "stream": 1}
    video, segments = (
        video_set(str(tmp_path), "l.csv", "l.csv", **how),
        annotated_set(str(tmp_path), "l.csv", "l.csv", "s.csv", None, **how),
    )
    found = check_videos(tmp_path / "l.csv", tmp_path, stream=1)
    for text in (video.source, segments.source, " ".join(found.lists)):
        assert "video streams; stream 1 is read" in text


def test_a_check_compares_numbers_of_frames_with_the_list(listed):
    (listed / "l.txt").write_text("a 4 0\nb 7 1\n")
    assert any("b (4, not 7)" in one for one in check_videos(listed / "l.txt", listed / "set").warnings)


def test_a_check_has_a_part_for_each_list(listed, prepare):
    (listed / "tr.csv").write_text("clip;what\na;x|y\nb;y\n")
    (listed / "te.csv").write_text("clip;what\nc;x\n")
    words = ("check", listed / "tr.csv", listed / "te.csv", "--root", listed / "set")
    code, _, _ = prepare(*words, "--columns", "path=clip,label=what", "--multi-label", "--out", listed / "out")
    found = json.loads((listed / "out" / "check.json").read_text())
    assert code == 0 and list(found["parts"]) == ["tr", "te"] and found["clips"][0]["classes"] == ["x", "y"]
    code, _, err = prepare(*words, "--columns", "clip")
    assert code == 2 and "--columns" in err


def test_the_frames_of_any_list_are_extracted(made, tmp_path, prepare):
    (tmp_path / "l.csv").write_text("clip;from;to;what\ntrain_00000;0;5;x|y\ntrain_00000;5;9;x\ntrain_00001;0;4;\n")
    words = ("frames", "--list", tmp_path / "l.csv", "--root", made / "videos", "--out", tmp_path / "out")
    options = ("--columns", "path=clip,start=from,end=to,label=what", "--multi-label", "--unit", "frames")
    code, out, err = prepare(*words, *options)
    assert (code, err) == (0, "") and "2 videos" in out
    (tmp_path / "l.csv").write_text("test_00000.mp4\n")  # of annotated videos
    code, out, err = prepare(*words, "--segments", made / "segments.csv")
    assert (code, err) == (0, "") and "1 video of" in out
    (tmp_path / "l.csv").write_text("path,label\nnone,x\ntrain_00000,y\n")
    code, _, err = prepare(*words)
    assert code == 2 and "l.csv, line 2: video 'none'" in err
