"""``seqclf predict`` and ``seqclf stream`` on files, with one run or several."""

import csv
import json
import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_videos import noise, write_folder, write_streams, write_video
from PIL import Image

from seqclf import (
    IGNORE,
    LSTM,
    Experiment,
    FrameSequenceClassifier,
    SeqclfError,
    annotated_set,
    load,
    load_experiment,
    predict,
    predict_part,
    train,
)
from seqclf.data.transforms import mirror, resize, ten_crops
from seqclf.data.video.file import VideoFile
from seqclf.prediction import Prediction, fuse
from seqclf.runs.folder import RunFolder

loaded = cache(load)
CONFIG = """
from functools import partial
import torch
from seqclf import LSTM, Data, Experiment, FrameSequenceClassifier, Video, Videos
from seqclf.data import open_video
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.sampling import dense, uniform, whole, window

CLASSES = ("run", "walk", "a, comma")

class Blank:
    frame_shape = SHAPE = (3, 8, 10)
    kind = "folder"
    def __init__(self, path):
        self.path = path
    def __len__(self):
        return 6
    def read(self, numbers):
        return torch.zeros(len(numbers), *self.SHAPE, dtype=torch.uint8)
    def reader(self):
        return FrameFolder

def data(sampling=partial(dense, frames=4, stride=2), classes=CLASSES, transform=None, root=None):
    videos = [Video("a" * (k + 1), Blank(f"{root}/" + "a" * (k + 1)), k % 3) for k in range(3)]
    clips = Videos(videos, sampling, transform, workers=0)
    return Data(clips, clips, classes, "blank frames", allow_shared=True)

def get_config():
    model = partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=6))
    return Experiment(data, model, partial(torch.optim.SGD, lr=0.1), steps=1, batch_size=2)
"""


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def write_run(config, folder, *settings):
    """A run folder as training writes it before its first step."""
    experiment = load_experiment(config, settings)
    run = RunFolder(folder)
    run.make()
    run.write_config(experiment)
    torch.manual_seed(experiment.seed)
    data = experiment.data()
    model = experiment.model(frame_shape=data.train.frame_shape, num_classes=data.num_classes)
    run.save_checkpoint({"model": model.state_dict(), "optimizer": {}, "scaler": {}, "window": {}, "best": None}, 0)
    run.write_record({"data": data.identity(), "input": data.input_spec().to_json()})
    return folder


def read_rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def read_out(out, name):
    """A video's entry in predictions.json, the rows of its CSV, and the whole file."""
    content = json.loads((out / "predictions.json").read_text())
    video = next(video for video in content["videos"] if video["name"] == name)
    return video, read_rows(out / f"{name}.csv"), content


def columns(rows):
    return torch.tensor([[float(row[name]) for name in ("run", "walk", "a, comma")] for row in rows])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that are evaluated on windows of 4 every 2, and one with other classes."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.py").write_text(CONFIG)
    for name, *settings in (("one",), ("two", "seed=1"), ("other", "data.classes=('x','y','z')")):
        write_run(folder / "tiny.py", folder / name, *settings)
    return folder


@pytest.fixture
def command(tool):
    """Runs ``seqclf predict`` on the CPU, without timelines."""
    return lambda *words: tool("predict", *words, "--device", "cpu", "--no-timelines")


@pytest.mark.slow
def test_the_command_writes_what_the_predictor_says(tool, runs, tmp_path):
    frames = noise(9, 3, 8, 10)
    write_folder(tmp_path / "videos" / "a[b]", frames)
    long = "second" * 25
    write_folder(tmp_path / "videos" / long, frames[:2])
    code, printed, errors = tool("predict", runs / "one", tmp_path / "videos", "--fps", 4, "--device", "cpu")
    assert (code, errors) == (0, "")
    out = runs / "one" / "predictions"
    with Image.open(out / f"{long}.png") as picture:
        assert picture.width > 1000
    video, rows, content = read_out(out, "a[b]")
    expected = loaded(runs / "one").windows(frames, frames=4, stride=2)
    assert len(rows) == video["frames"] == 9 and video["fps"] == 4
    close(columns(rows), expected.probabilities)
    assert [row["class"] for row in rows] == [expected.classes[k] for k in expected.probabilities.argmax(1)]
    assert [row["time"] for row in rows[:3]] == ["0.0000", "0.2500", "0.5000"] and rows[8]["frame"] == "8"
    assert content["decision"] == video["decision"] == "mean"
    for entry, rule in ((video, "mean"), (video["mean_of_frames"], "mean"), (video["last_frame"], "last")):
        label, p = expected.label(rule)
        assert (entry["label"], entry["probability"]) == (label, pytest.approx(p, abs=1e-5))
    assert [entry["class"] for entry in video["top"]] == [name for name, _ in expected.ranking("mean")]
    assert [(s["class"], s["start"], s["end"]) for s in video["segments"]] == expected.segments()
    assert all(s["end_seconds"] == s["end"] / 4 for s in video["segments"])
    assert [(clip["first_frame"], clip["last_frame"]) for clip in video["clips"]] == [(0, 3), (2, 5), (4, 7), (5, 8)]
    assert [v["name"] for v in content["videos"]] == ["a[b]", long] and content["failed"] == {}
    assert (
        f"{video['label']} {video['probability']:.1%}" in printed
        and f"{tmp_path}/videos/{long}" in printed
        and "a[b]" in printed
    )


def test_one_of_several_video_streams_is_classified(command, runs, tmp_path):
    path = write_streams(tmp_path / "two.mkv", noise(6, 3, 8, 10), noise(6, 3, 8, 10, seed=1))
    for number in (0, 1):
        code, printed, errors = command(runs / "one", path, "--video-stream", number, "--out", tmp_path)
        assert code == 0 and f"stream {number} " in printed + errors
        frames = VideoFile(path, stream=number).read(range(6))
        close(columns(read_out(tmp_path, "two")[1]), loaded(runs / "one").windows(frames, 4, 2).probabilities)
    code, _, errors = command(runs / "one", path, "--video-stream", 2, "--out", tmp_path)
    assert code == 2 and "stream=2" in errors
    code, _, errors = command(runs / "one", write_folder(tmp_path / "v", noise(6, 3, 8, 10)), "--video-stream", 1)
    assert code == 2 and f"{tmp_path / 'v'}: video_stream=1" in errors


def test_options_reach_the_predictor(command, runs, tmp_path):
    frames, predictor = noise(9, 3, 16, 20), loaded(runs / "one")
    folder = write_folder(tmp_path / "v", frames)
    for options, expected in (
        (["--whole", "--crop"], predictor.windows(frames, None, crop=True)),
        (["--crops", 10, "--frames", 4, "--stride", 1], predictor.windows(frames, 4, 1, crops=10)),
        (["--frames", 3, "--resize", 8, 10], predictor.windows(frames, 3, resize=(8, 10))),
        (["--resize", 9, "--crop"], predictor.windows(frames, 4, 2, resize=9, crop=True)),
    ):
        out = tmp_path / "out"
        assert command(runs / "one", folder, *options, "--out", out)[0] == 0
        video, rows, _ = read_out(out, "v")
        close(columns(rows), expected.probabilities)
        assert rows[0]["time"] == "" and video["fps"] is None and "start_seconds" not in video["segments"][0]


def test_the_function_returns_what_the_command_writes(command, runs, tmp_path):
    folder = write_folder(tmp_path / "v", noise(9, 3, 8, 10))
    assert command(runs / "one", folder, "--out", tmp_path / "out")[0] == 0
    content = predict(runs / "one", folder, device="cpu")
    assert content == json.loads((tmp_path / "out" / "predictions.json").read_text())


def test_the_headline_label_follows_the_decision_rule(command, runs, tmp_path):
    frames = noise(9, 3, 8, 10)
    folder = write_folder(tmp_path / "v", frames)
    for rule in ("last", "mean"):
        code, printed, _ = command(runs / "one", folder, "--decision", rule, "--out", tmp_path / rule)
        video, _, content = read_out(tmp_path / rule, "v")
        label, p = loaded(runs / "one").windows(frames, 4, 2).label(rule)
        assert code == 0 and (video["label"], video["probability"]) == (label, pytest.approx(p, abs=1e-5))
        assert content["decision"] == rule
        assert f"label ({'last frame' if rule == 'last' else 'mean of frames'})" in printed


def test_a_streamed_video_is_the_whole_one(tool, command, runs, tmp_path):
    path = write_video(tmp_path / "camera.mp4", noise(12, 3, 16, 32))
    assert command(runs / "one", path, "--whole", "--crop", "--out", tmp_path / "whole")[0] == 0
    streamed = tmp_path / "streamed.csv"
    code, printed, summary = tool("stream", runs / "one", path, "--crop", "--out", streamed, "--device", "cpu")
    whole, rows, _ = read_out(tmp_path / "whole", "camera")
    assert code == 0
    close(columns(read_rows(streamed)), columns(rows))
    assert whole["fps"] == 10 and rows[3]["time"] == "0.3000"
    assert whole["segments"][-1]["end_seconds"] == pytest.approx(1.2)
    lines = list(map(json.loads, printed.splitlines()))
    assert [line["label"] for line in lines] == [segment["class"] for segment in whole["segments"]]
    assert [line["frame"] for line in lines] == [segment["start"] for segment in whole["segments"]]
    assert "12 frames, 0 dropped" in summary


def test_two_runs_are_fused(command, runs, tmp_path):
    frames = noise(7, 3, 8, 10)
    folder = write_folder(tmp_path / "v", frames)
    each = [loaded(runs / name).windows(frames, 4, 2) for name in ("one", "two")]
    assert command(runs / "one", runs / "two", "--weights", 1, 2, folder, "--out", tmp_path / "out")[0] == 0
    video, rows, content = read_out(tmp_path / "out", "v")
    fused = fuse(each, (1, 2))
    close(columns(rows), fused.probabilities)
    assert video["label"] == fused.label("mean")[0]
    assert content["weights"] == pytest.approx([1 / 3, 2 / 3]) and len(content["runs"]) == 2


def test_videos_of_one_name_are_numbered(command, runs, tmp_path):
    for number in (1, 2):
        write_folder(tmp_path / str(number) / "v", noise(3, 3, 8, 10, seed=number))
    out = tmp_path / "out"
    assert command(runs / "one", tmp_path / "1", tmp_path / "2", "--out", out)[0] == 0
    (one, *_), (two, *_) = read_out(out, "v"), read_out(out, "v_2")
    assert one["path"].endswith("1/v") and two["path"].endswith("2/v")


def test_a_bad_video_is_reported_and_the_others_are_classified(command, runs, tmp_path):
    good = write_folder(tmp_path / "good", noise(3, 3, 8, 10))
    small = write_folder(tmp_path / "small", noise(3, 3, 4, 4))
    large = write_folder(tmp_path / "large", noise(3, 3, 32, 40))
    damaged = write_folder(tmp_path / "damaged", noise(3, 3, 8, 10))
    (damaged / "f_001.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    code, printed, errors = command(runs / "one", small, large, tmp_path / "absent", damaged, good, "--out", out)
    assert code == 2 and "good" in printed and errors.count("error: ") == 4 and "Traceback" not in errors
    assert f"{small}: has frames of 4x4" in errors and f"{large}: has frames of 32x40" in errors
    assert errors.count("--resize") == errors.count("--crop") == 2 and "absent" in errors and "f_001.png" in errors
    _, rows, content = read_out(out, "good")
    assert len(rows) == 3 and len(content["videos"]) == 1
    assert set(content["failed"]) == {str(small), str(large), str(tmp_path / "absent"), str(damaged)}


@pytest.mark.parametrize(
    ("table", "keywords"),
    [
        (
            {"s.csv": "clip;from;to;what\na;1;2;x\na;3;3;y\na;4;5;x\na;6;6;y\n"},
            {"segments": "s.csv", "columns": {"video": "clip", "start": "from", "end": "to", "label": "what"},
             "inclusive": True, "first_frame": 1},
        ),
        (
            {"phases/a-phase.txt": "Frame\tPhase\n" + "".join(f"{25 * n}\t{k}\n" for n, k in enumerate("xxyxxy"))},
            {"segments": "phases/*-phase.txt", "annotation_fps": 25, "fps": 1},
        ),
        ({"s.csv": "video,start,end,label\na,0,1.0,x\na,1.0,1.5,y\na,1.5,2.5,x\na,2.5,3.0,y\n"},
         {"segments": "s.csv", "unit": "seconds", "fps": 2}),
    ],
)  # fmt: skip
def test_true_segments_are_read_as_the_run_read_its_own(tmp_path, monkeypatch, table, keywords):
    write_folder(tmp_path / "a", noise(6, 3, 4, 4))
    (tmp_path / "phases").mkdir()
    for name, text in ({"l.txt": "a\n"} | table).items():
        (tmp_path / name).write_text(text)
    keywords |= {"frame_numbers": "order"}
    data = annotated_set(str(tmp_path), "l.txt", "l.txt", classes=None, split="l.txt", **keywords)
    model = partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=2))
    train(Experiment(data, model, partial(torch.optim.SGD, lr=0.1), steps=1, batch_size=1), tmp_path / "run")
    seen = []
    monkeypatch.setattr(
        "seqclf.prediction.files.output.timeline", lambda p, classes, path, truth, *_, **__: seen.append(truth)
    )
    segments = tmp_path / keywords["segments"]
    predict(tmp_path / "run", tmp_path / "a", device="cpu", out=tmp_path / "out", segments=segments)
    assert seen[0].tolist() == data.test.videos[0].labels.tolist() == [0, 0, 1, 0, 0, 1]


def test_a_page_shows_what_was_predicted(tool, runs, tmp_path):
    frames = noise(9, 3, 8, 10)
    write_folder(tmp_path / "a", frames)
    (tmp_path / "truth.csv").write_text("video,start,end,label\na,0,4,run\na,4,9,walk\n")
    options = ("--segments", tmp_path / "truth.csv", "--out", tmp_path / "out", "--device", "cpu", "--no-timelines")
    code, printed, errors = tool("predict", runs / "one", tmp_path / "a", "--html", *options)
    assert (code, errors) == (0, "") and str(tmp_path / "out" / "index.html") in printed
    video, rows, _ = read_out(tmp_path / "out", "a")
    text = (tmp_path / "out" / "index.html").read_text()
    stored = json.loads(text.split('id="video-0">')[1].split("</script>")[0])
    assert stored["truth"] == [[0, 0, 4], [1, 4, 9]] and video["page"].startswith("embedded small copy")
    found = [row for k, start, stop in stored["predicted"] for row in [("run", "walk", "a, comma")[k]] * (stop - start)]
    assert found == [row["class"] for row in rows]


def test_the_page_has_the_name_that_is_given(tool, runs, tmp_path):
    for name in ("a", "b"):
        write_folder(tmp_path / name, noise(4, 3, 8, 10))
    options = ("--out", tmp_path / "out", "--device", "cpu", "--no-timelines")
    for words, page in (
        (("--html", tmp_path / "new.html", runs / "one", tmp_path / "a", tmp_path / "b"), "new.html"),
        (("--html", runs / "one", tmp_path / "a", tmp_path / "b"), "out/index.html"),
        ((runs / "one", "--html", tmp_path / "a", tmp_path / "b"), "out/index.html"),
    ):
        code, printed, errors = tool("predict", *words, *options)
        assert (code, errors) == (0, "") and printed.splitlines()[-1] == f"page: {tmp_path / page}"
        found = json.loads((tmp_path / "out" / "predictions.json").read_text())["videos"]
        assert [video["path"] for video in found] == [str(tmp_path / "a"), str(tmp_path / "b")]
    code, _, errors = tool("predict", runs / "one", tmp_path / "a", f"--html={tmp_path / 'a.mp4'}", *options)
    assert code == 2 and "a.mp4" in errors and not (tmp_path / "a.mp4").exists()


def test_tables_of_the_user_are_not_replaced(tool, runs, tmp_path):
    video, own = write_video(tmp_path / "v.mp4", noise(6, 3, 8, 10)), "video,start,end,label\nv.mp4,0,3,run\n"
    (tmp_path / "v.csv").write_text(own)
    for words in (
        ("predict", runs / "one", video, "--out", tmp_path),
        ("stream", runs / "one", video, "--out", tmp_path / "v.csv"),
        ("evaluate", runs / "one", "--predictions", tmp_path / "v.csv"),
    ):
        code, _, errors = tool(*words)
        assert code == 2 and f"{tmp_path / 'v.csv'}: exists" in errors, (words, errors)
        assert (tmp_path / "v.csv").read_text() == own
    (tmp_path / "v.csv").unlink()
    assert [tool("predict", runs / "one", video, "--out", tmp_path)[0] for _ in range(2)] == [0, 0]


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tool, runs, tmp_path, monkeypatch):
    for name in ("seqclf.models.FrameSequenceClassifier.forward", "seqclf.preparing.check_videos"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("it was done"))
    source, taken = write_folder(tmp_path / "v", noise(9, 3, 8, 10)), tmp_path / "taken"
    taken.write_text("a file")
    for words, out in (
        (("predict", runs / "one", source), taken),
        (("stream", runs / "one", source), tmp_path),
        (("stream", runs / "one", source), taken / "frames.csv"),
        (("prepare", "check", "list.csv", "--root", tmp_path), taken),
    ):
        code, printed, errors = tool(*words, "--out", out)
        assert (
            (code, printed) == (2, "") and errors.count("\n") == 1 and str(out if out == tmp_path else taken) in errors
        )
    code, _, errors = tool("evaluate", runs / "one", "--predictions", tmp_path, "--device", "cpu")
    assert code == 2 and str(tmp_path) in errors and taken.read_text() == "a file"


def test_files_of_an_earlier_prediction_are_noted(tool, runs, tmp_path):
    for name in "ab":
        write_folder(tmp_path / name, noise(3, 3, 8, 10))
        options = ("--out", tmp_path / "out", "--device", "cpu", "--no-timelines")
        code, _, errors = tool("predict", runs / "one", tmp_path / name, *options)
        assert code == 0 and ("a.csv" in errors) == (name == "b")
    assert (tmp_path / "out" / "a.csv").exists()


def test_the_videos_of_the_data_are_reported(tool, runs):
    code, printed, errors = tool("report", runs / "one", "--videos", "--most", 2, "--device", "cpu")
    assert (code, errors) == (0, "") and "aaa" not in printed
    text = (runs / "one" / "report" / "videos.html").read_text()
    page = json.loads(text.split('id="page">')[1].split("</script>")[0])
    rows = predict_part(runs / "one", device="cpu")
    assert [video["name"] for video in page["videos"]] == ["a", "aa"]
    right = [row.label == row.truth for row in rows if row.clip == 0]
    assert [video["score"] == "right" for video in page["videos"]] == right[:2]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["{one}", "{two}", "--videos"], "2"),
        (["{one}", "--videos", "--segments", "s.csv"], "--segments"),
        (["{one}", "--videos", "--part", "validation"], "validation"),
        (["{one}", "--videos", "--most", "0"], "most=0"),
        (["{one}", "--videos", "--embed", "-1"], "embed=-1"),
    ],
)
def test_invalid_arguments_of_the_page_are_refused(tool, runs, words, named):
    code, _, errors = tool("report", *(word.format(one=runs / "one", two=runs / "two") for word in words))
    assert code == 2 and named in errors and errors.startswith("error: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{v}"], "run folder"),
        (["{one}"], "no file"),
        (["{one}", "{other}", "{v}"], "differ in their classes"),
        (["{one}", "{two}", "--weights", "1", "{v}"], "1 weights"),
        (["{one}", "{two}", "{v}", "--weights", "1", "-1"], "-1"),
        (["{one}", "--weights", "{v}"], "--weights"),
        (["{one}", "{v}", "--whole", "--frames", "2"], "--whole"),
        (["{one}", "{v}", "--stride", "2"], "--stride"),
        (["{one}", "{v}", "--frames", "4", "--stride", "9"], "stride=9"),
        (["{one}", "{v}", "--fps", "0"], "fps=0"),
        (["{one}", "{v}", "--resize", "1", "2", "3"], "--resize"),
        (["{one}", "{v}", "--checkpoint", "99"], "checkpoint 99"),
        (["{one}", "{two}", "{v}", "--roots", "a"], "1 roots"),
        (["{one}", "{v}/f_000.png"], "picture"),
    ],
)
def test_invalid_arguments_of_the_command_are_refused(command, runs, tmp_path, arguments, named):
    places = {name: runs / name for name in ("one", "two", "other")} | {"v": tmp_path / "v"}
    write_folder(tmp_path / "v", noise(3, 3, 8, 10))
    code, _, errors = command(*(argument.format(**places) for argument in arguments))
    assert code == 2 and named in errors and errors.startswith("error: ")


def test_ten_crops_take_the_place_of_the_runs_crop_and_flow_is_negated(command, runs, tmp_path):
    steps = "partial(resize, size=(9, 11)), partial(random_crop, size=(8, 10)), partial(flip, negate_x=True)"
    text = CONFIG.replace("transform=None", f"transform=partial(in_turn, steps=({steps}))")
    (tmp_path / "flow.py").write_text(
        "from seqclf.data.transforms import flip, in_turn, random_crop, resize\n"
        + text.replace("(3, 8, 10)", "(3, 9, 11)")
    )
    write_run(tmp_path / "flow.py", tmp_path / "run")
    frames = noise(5, 3, 6, 7)
    folder = write_folder(tmp_path / "v", frames)
    code, _, errors = command(tmp_path / "run", folder, "--crops", 10, "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    crops = ten_crops(resize(frames, None, size=(9, 11)), (8, 10), negate_x=True)
    predictor = load(tmp_path / "run")
    expected = torch.stack([predictor.windows(crop, 4, 2).probabilities for crop in crops]).mean(0)
    close(columns(read_out(tmp_path / "out", "v")[1]), expected)


def test_a_run_with_images_of_its_size_averages_mirror_images(runs, tmp_path):
    frames = noise(5, 3, 8, 10)
    content = predict(runs / "one", write_folder(tmp_path / "v", frames), crops=10, device="cpu")
    predictor = loaded(runs / "one")
    each = [predictor.windows(x, 4, 2).by_rule["mean"] for x in (frames, mirror(frames))]
    mean = torch.stack(each).mean(0)
    assert content["videos"][0]["probability"] == pytest.approx(float(mean.max()), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "numbers"),
    [("window", [4, 5, 6, 7]), ("uniform", [1, 4, 7, 10]), ("whole", list(range(13)))],
)
def test_frames_that_evaluation_does_not_sample_have_no_prediction(command, runs, tmp_path, sampling, numbers):
    """A frame between two frames of a clip has the prediction of the earlier; every frame of the file has a row."""
    keywords = "" if sampling == "whole" else ", frames=4"
    (tmp_path / "own.py").write_text(
        CONFIG.replace("partial(dense, frames=4, stride=2)", f"partial({sampling}{keywords})")
    )
    write_run(tmp_path / "own.py", tmp_path / "run")
    frames = noise(13, 3, 8, 10)
    folder = write_folder(tmp_path / "v", frames)
    assert command(tmp_path / "run", folder, "--out", tmp_path / "out")[0] == 0
    video, rows, _ = read_out(tmp_path / "out", "v")
    p = load(tmp_path / "run")(frames[numbers]).probabilities
    assert len(rows) == 13 and [int(row["frame"]) for row in rows] == list(range(13))
    close(columns([rows[n] for n in numbers]), p)
    gap = numbers[1] - numbers[0]
    for n, row in enumerate(rows):
        seen = numbers[0] <= n < numbers[-1] + gap
        assert bool(row["class"]) == seen
        if seen:
            close(columns([row])[0], p[(n - numbers[0]) // gap])
    assert video["segments"][0]["start"] == numbers[0] and len(video["clips"]) == 1


@pytest.mark.parametrize(("rate", "read"), [(10, 4), (10, 30), (12, 5)])
def test_predictions_at_another_rate_are_in_frames_and_times_of_the_file(command, runs, tmp_path, rate, read):
    path = write_video(tmp_path / "v.mp4", noise(24, 3, 16, 32), rate)
    options = ("--whole", "--crop", "--fps", read, "--out", tmp_path / "out")
    assert command(runs / "one", path, *options)[0] == 0
    video, rows, _ = read_out(tmp_path / "out", "v")
    assert video["frames"] == len(rows) == 24 and video["fps"] == rate and video["resampled_fps"] == read
    assert [float(row["time"]) for row in rows] == pytest.approx([n / rate for n in range(24)], abs=1e-3)
    assert video["segments"][0]["start"] == 0 and video["segments"][-1]["end"] == 24
    assert video["segments"][-1]["end_seconds"] == pytest.approx(24 / rate, abs=1e-3)
    source = VideoFile(path, read)
    p = loaded(runs / "one").windows(source, None, crop=True).probabilities
    first = [max(n for n in range(24) if n / rate <= k / read + 1e-3) for k in range(len(source))]  # the frame it shows
    close(columns(rows), p[[max(k for k in range(len(source)) if first[k] <= n) for n in range(24)]])


@pytest.mark.slow
@pytest.mark.parametrize("sample_rate", [1, 2, 3, 7])
def test_predictions_of_sampled_features_are_in_frames_of_the_file(tmp_path, sample_rate):
    from functools import partial

    from seqclf import LSTM, Experiment, FrameSequenceClassifier, feature_set, train

    for name in ("features", "groundTruth", "splits"):
        (tmp_path / name).mkdir()
    (tmp_path / "mapping.txt").write_text("0 a\n1 b\n")
    for part in ("train", "test"):
        np.save(tmp_path / "features" / f"{part}.npy", noise(4, 40, seed=len(part)).numpy().astype("f4"))
        (tmp_path / "groundTruth" / f"{part}.txt").write_text("a\n" * 20 + "b\n" * 20)
        (tmp_path / "splits" / f"{part}.split1.bundle").write_text(f"{part}.txt\n")
    experiment = Experiment(
        partial(feature_set, root=str(tmp_path), sample_rate=sample_rate, workers=0),
        partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=4)),
        partial(torch.optim.SGD, lr=0.1),
        steps=1,
        batch_size=1,
    )
    train(experiment, tmp_path / "run", "cpu")
    out = tmp_path / "out"
    video = predict(tmp_path / "run", tmp_path / "features" / "test.npy", out=out, timelines=False)["videos"][0]
    rows = read_rows(out / "test.csv")
    assert [int(row["frame"]) for row in rows] == list(range(40)) and video["frames"] == 40
    assert video.get("sample_rate", 1) == sample_rate
    p = load(tmp_path / "run")(np.load(tmp_path / "features" / "test.npy").T[::sample_rate].copy()).probabilities
    for n, row in enumerate(rows):
        assert float(row["a"]) == pytest.approx(float(p[n // sample_rate, 0]), abs=1e-5)
    assert video["segments"][-1]["end"] == 40


def test_runs_of_frames_and_of_flow_read_each_its_own(command, tmp_path):
    """A video has the same name under both roots. Flow, which is between two frames, has one frame less."""
    text = CONFIG.replace("transform=None, root=None", "transform=partial(flip, negate_x=False), root=None")
    (tmp_path / "rooted.py").write_text(f"from seqclf.data.transforms import flip\n{text}")
    frames, flow = noise(7, 3, 8, 10), noise(6, 3, 8, 10, seed=1)
    for name, pictures in (("rgb", frames), ("flow", flow)):
        write_folder(tmp_path / name / "v", pictures)
        settings = (f"data.root={tmp_path / name}", f"data.transform.negate_x={name == 'flow'}", f"seed={len(name)}")
        write_run(tmp_path / "rooted.py", tmp_path / f"run_{name}", *settings)
    runs = [tmp_path / "run_rgb", tmp_path / "run_flow"]
    each = [load(run).windows(pictures, 4, 2) for run, pictures in zip(runs, (frames, flow), strict=True)]
    each = [Prediction(prediction.probabilities[:6], prediction.classes) for prediction in each]
    roots = ["--roots", tmp_path / "rgb", tmp_path / "flow"]
    for options in ([], roots):
        code, _, errors = command(*runs, "--weights", 1, 2, tmp_path / "rgb", *options, "--out", tmp_path / "out")
        assert (code, errors) == (0, "")
        video, rows, _ = read_out(tmp_path / "out", "v")
        assert video["read"] == [str(tmp_path / "rgb/v"), str(tmp_path / "flow/v")] and video["frames"] == 6
        close(columns(rows), fuse(each, (1, 2)).probabilities)
    alone = write_folder(tmp_path / "rgb" / "alone", frames)
    code, _, errors = command(*runs, alone, "--out", tmp_path / "out")
    assert code == 0 and errors.startswith("note: ") and f"{alone}" in errors and "--roots" in errors
    code, _, errors = command(*runs, alone, *roots, "--out", tmp_path / "out")
    assert code == 2 and f"{tmp_path / 'flow' / 'alone'}" in errors
    for frame in list((tmp_path / "flow" / "v").iterdir())[:2]:
        frame.unlink()
    code, _, errors = command(*runs, tmp_path / "rgb" / "v", "--out", tmp_path / "out")
    assert code == 2 and "7 and 4 frames" in errors


def test_true_segments_are_in_the_timeline_where_they_are_known(tool, runs, tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_folder(tmp_path / "videos" / name, noise(6, 3, 8, 10))
    seen = {}

    def draw(p, classes, path, truth, fps, **_):
        path.write_bytes(b"\x89PNG")
        seen[path.stem] = None if truth is None else truth.tolist()

    monkeypatch.setattr("seqclf.prediction.files.output.timeline", draw)
    (tmp_path / "s.csv").write_text("video,start,end,label\nvideos/a.mp4,1,3,walk\n")
    arguments = ("predict", runs / "one", tmp_path / "videos", "--out", tmp_path / "out", "--device", "cpu")
    code, _, errors = tool(*arguments, "--segments", tmp_path / "s.csv")
    assert code == 2 and errors.count("error: ") == 1 and "s.csv" in errors
    assert seen == {"a": [IGNORE, 1, 1, IGNORE, IGNORE, IGNORE], "b": None}, "b is classified all the same"
    (tmp_path / "s.csv").write_text("video,start,end,label\na,0.5,1,walk\nb,0,0.25,run\n")
    assert tool(*arguments, "--segments", tmp_path / "s.csv", "--unit", "seconds", "--fps", 4)[0] == 0
    assert seen == {"a": [IGNORE, IGNORE, 1, 1, IGNORE, IGNORE], "b": [0, *[IGNORE] * 5]}
    (tmp_path / "truth").mkdir()
    for name in ("a", "b"):
        (tmp_path / "truth" / f"{name}.txt").write_text("run\nrun\nwalk\n")
    assert tool(*arguments, "--segments", tmp_path / "truth")[0] == 0
    assert seen["a"] == [0, 0, 1, IGNORE, IGNORE, IGNORE]
    code, _, errors = tool(*arguments, "--segments", tmp_path / "none.csv")
    assert code == 2 and str(tmp_path / "none.csv") in errors


def test_a_source_that_does_not_say_how_files_are_opened_is_refused(runs, tmp_path):
    (tmp_path / "own.py").write_text(CONFIG.replace("def reader(self)", "def not_reader(self)"))
    write_run(tmp_path / "own.py", tmp_path / "run")
    folder = write_folder(tmp_path / "v", noise(5, 3, 8, 10))
    with pytest.raises(SeqclfError, match=rf"{folder}: .*reader.*Blank"):
        predict(tmp_path / "run", folder, device="cpu")


@pytest.mark.parametrize("names", [["absent"], ["absent", "damaged"], []])
def test_predict_raises_where_no_file_could_be_predicted(runs, tmp_path, names):
    (tmp_path / "damaged").mkdir()
    paths = [str(tmp_path / name) for name in names]
    with pytest.raises(SeqclfError, match=paths[0] if paths else "paths="):
        predict(runs / "one", paths, device="cpu")
    if paths:
        good = write_folder(tmp_path / "good", noise(5, 3, 8, 10))
        assert set(predict(runs / "one", [*paths, good], device="cpu")["failed"]) == set(paths)


def test_a_kind_of_file_that_the_run_has_not_read_is_noted(command, runs, tmp_path):
    path = write_video(tmp_path / "v.mp4", noise(5, 3, 16, 32))
    code, _, errors = command(runs / "one", path, "--crop", "--out", tmp_path / "out")
    assert code == 0 and errors.startswith("note: ") and "video" in errors
    np.save(tmp_path / "x.npy", np.zeros((5, 4), "f4"))
    code, _, errors = command(runs / "one", tmp_path / "x.npy", "--out", tmp_path / "out")
    assert code == 2 and "x.npy" in errors and "(5, 4)" in errors


def test_a_decision_that_runs_do_not_share_must_be_chosen(runs, tmp_path):
    text = CONFIG.replace("transform, workers=0", "transform, workers=0, labelling=last_frame")
    (tmp_path / "own.py").write_text("from seqclf.data.labelling import last_frame\n" + text)
    write_run(tmp_path / "own.py", tmp_path / "run")
    folder = write_folder(tmp_path / "v", noise(5, 3, 8, 10))
    with pytest.raises(SeqclfError, match="--decision"):
        predict([runs / "one", tmp_path / "run"], folder, device="cpu")
    assert predict([runs / "one", tmp_path / "run"], folder, decision="last", device="cpu")["decision"] == "last"


def test_a_run_of_another_version_is_named(command, runs, tmp_path):
    shutil.copytree(runs / "one", tmp_path / "old")
    record = (tmp_path / "old" / "run.json").read_text()
    (tmp_path / "old" / "run.json").write_text(
        record.replace("seqclf.data:FrameFolder", "seqclf.data.former_module:FrameFolder")
    )
    code, _, errors = command(tmp_path / "old", write_folder(tmp_path / "v", noise(5, 3, 8, 10)))
    assert code == 2 and "former_module:FrameFolder" in errors and "another version of seqclf" in errors


def test_the_record_is_plain_json(runs):
    spec = json.loads((Path(runs) / "one" / "run.json").read_text())["input"]
    assert spec["sampling"] == {
        "call": "seqclf.sampling:dense",
        "arguments": [],
        "keywords": {"frames": 4, "stride": 2},
    }
    assert spec["readers"] == {"folder": {"call": "seqclf.data:FrameFolder"}} and spec["decision"] == "mean"
