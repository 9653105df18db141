"""Prediction on videos: windows and crops, streams, late fusion, and the tool from files to what it writes."""

import csv
import gc
import json
import tracemalloc
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seqclf import GRU, IGNORE, LSTM, RNN, FrameSequenceClassifier, Identity, SeqclfError, load
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.transforms import mirror, ten_crops
from seqclf.experiment.config import load_experiment, save_experiment
from seqclf.prediction import Prediction, Predictor, fuse
from seqclf.runs.checkpoint import save_checkpoint
from seqclf.runtime.files import write_json

loaded = cache(load)
ROOT = Path(__file__).resolve().parents[1]
TEMPORALS = (Identity, partial(LSTM, hidden=6), partial(GRU, hidden=6), partial(RNN, hidden=6))
CONFIG = """
from functools import partial
import torch
from seqclf import LSTM, Data, Experiment, FrameSequenceClassifier, Video, Videos
from seqclf.data.sampling import window

CLASSES = ("run", "walk", "a, comma")

class Blank:
    path = "blank"
    frame_shape = (3, 8, 10)
    def __len__(self):
        return 6
    def read(self, numbers):
        return torch.zeros(len(numbers), 3, 8, 10, dtype=torch.uint8)

def data(sampling=partial(window, frames=4), classes=CLASSES, transform=None):
    videos = [Video(f"v{k}", Blank(), k % 3) for k in range(3)]
    clips = Videos(videos, sampling, transform, workers=0)
    return Data(clips, clips, classes, "blank frames")

def get_config():
    model = partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=6))
    return Experiment(data, model, partial(torch.optim.SGD, lr=0.1), steps=1, batch_size=2)
"""


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make_predictor(temporal=TEMPORALS[1], shape=(3, 8, 10), classes="abc"):
    torch.manual_seed(0)
    return Predictor(FrameSequenceClassifier(temporal=temporal, frame_shape=shape, num_classes=len(classes)), classes)


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
    said = {
        start: predictor(frames[start : start + 4]).probabilities for start in (0, 2, 3)
    }  # the last ends at the end
    by_hand = [torch.stack([p[t - s] for s, p in said.items() if s <= t < s + 4]).mean(0) for t in range(7)]
    close(predictor.windows(frames, frames=4, stride=2).probabilities, torch.stack(by_hand))
    close(predictor.windows(frames, frames=4).probabilities, torch.stack(by_hand))  # half a window


def test_the_mean_is_over_the_frames_of_all_windows_as_lrcn_takes_it():
    predictor, frames = make_predictor(), noise(7, 3, 12, 13)
    windows = [predictor.fit(frames[start : start + 4], crops=10) for start in (0, 2, 3)]
    said = torch.stack([predictor(crop).probabilities for crops in windows for crop in crops])  # 30 of 4 frames
    prediction = predictor.windows(frames, 4, 2, crops=10)
    best = said.mean((0, 1))
    assert prediction.label("mean") == ("abc"[int(best.argmax())], pytest.approx(float(best.max()), abs=1e-5))
    assert prediction.seen.tolist() == [1, 1, 2, 3, 2, 2, 1] and len(prediction.until(3).probabilities) == 3
    assert fuse([prediction, prediction]).label("mean")[1] == pytest.approx(float(best.max()), abs=1e-5)


@pytest.mark.parametrize("T", [1, 3, 40, 100])
def test_a_short_or_whole_video_is_one_window(T):
    predictor, frames = make_predictor(), noise(T, 3, 8, 10)
    close(predictor.windows(frames, frames=None).probabilities, predictor(frames).probabilities)
    close(predictor.windows(frames, frames=T + 5).probabilities, predictor(frames).probabilities)


def test_windows_of_every_second_frame_answer_at_all_frames():
    predictor, frames = make_predictor(), noise(9, 3, 8, 10)
    p = predictor.windows(frames, frames=3, stride=2, step=2).probabilities
    for phase in (0, 1):
        close(p[phase::2], predictor.windows(frames[phase::2], frames=3, stride=2).probabilities)


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
    close(predictor.windows(frames, 8).probabilities, predictor(frames[:, :, 2:10, 1:11]).probabilities)
    negated = [predictor(crop).probabilities for crop in ten_crops(frames, (8, 10), negate_x=True)]
    close(predictor.windows(frames, 8, crops=10, negate_x=True).probabilities, torch.stack(negated).mean(0))


def test_crops_of_constant_frames_say_what_one_says():
    predictor = make_predictor()
    frames = torch.arange(0, 60, 10, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 20, 30)
    one = predictor.windows(frames, 4).probabilities
    close(predictor.windows(frames, 4, crops=10).probabilities, one)
    close(predictor.windows(frames, 4, resize=(9, 11)).probabilities, one)
    close(predictor.windows(frames, 4, resize=8).probabilities, one)


def test_frames_of_the_models_size_have_only_their_mirror_images():
    predictor, frames = make_predictor(), noise(5, 3, 8, 10)
    assert predictor.fit(frames, crops=10).shape == (2, 5, 3, 8, 10)
    both = (predictor(frames).probabilities + predictor(mirror(frames)).probabilities) / 2
    close(predictor.windows(frames, 8, crops=10).probabilities, both)


@pytest.mark.parametrize(
    ("frames", "keywords", "told"),
    [
        (noise(2, 3, 7, 10), {}, r"frames of 7x10 \(height x width\), smaller than 8x10: resize them"),
        (noise(2, 3, 9, 9), {"crops": 10}, "smaller than 8x10: resize them"),
        (noise(2, 8, 10, 3), {}, r"\(8, 10, 3\), but the model takes \(3, 8, 10\): channels come first"),
        (noise(2, 1, 8, 10), {}, "but the model takes"),
        (noise(2, 30), {}, "but the model takes"),
        (noise(2, 3, 8, 10), {"crops": 5}, "crops=5: expected 1 .* or 10"),
        (noise(2, 3, 8, 10), {"frames": 4, "stride": 5}, "stride=5: expected 1 to 4"),
        (noise(2, 3, 8, 10), {"stride": 0}, "stride=0"),
        (noise(2, 3, 8, 10), {"frames": 0}, "frames=0"),
        (noise(2, 3, 8, 10), {"frames": None, "stride": 3}, "has no windows"),
        (noise(2, 3, 8, 10), {"step": 0}, "step=0"),
        (noise(2, 3, 8, 10), {"resize": (0, 9)}, "size 0x9"),
        (noise(0, 3, 8, 10), {}, "has no frames"),
        (np.array([None]), {}, "frames must be an array"),
    ],
)
def test_windows_refuse(frames, keywords, told):
    with pytest.raises(SeqclfError, match=told):
        make_predictor().windows(frames, **keywords)


def test_features_are_taken_as_they_are():
    predictor, features = make_predictor(shape=(7,)), torch.randn(9, 7)
    close(predictor.windows(features, None).probabilities, predictor(features).probabilities)
    with pytest.raises(SeqclfError, match="only pictures"):
        predictor.windows(features, crops=10)


def test_arrays_as_opencv_loops_have_them_are_taken():
    predictor, frames = make_predictor(), noise(4, 3, 8, 10)
    flipped = frames.numpy()[:, ::-1]
    close(predictor(flipped).probabilities, predictor(frames.flip(1)).probabilities)
    read_only = frames.numpy().copy()
    read_only.flags.writeable = False
    close(predictor.stream()(read_only[0]), predictor(frames[:1]).probabilities[0])


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
    ("frames", "told"),
    [
        (np.zeros((2, 8, 10, 3), np.uint8), r"has frames \(8, 10, 3\), .* channels come first, frames.transpose.*BGR"),
        (noise(2, 3, 8, 9), r"has frames \(3, 8, 9\), but the model takes \(3, 8, 10\): resize or crop them"),
        (noise(3, 8, 10), r"has frames \(8, 10\), .*one frame is frame\[None\]"),
        (noise(1, 2, 3, 8, 10), "one clip is given at a time"),
        (noise(0, 3, 8, 10), "has no frames"),
        ([], "the list is empty"),
        ([noise(3, 8, 10), noise(3, 8, 9)], "of different shapes"),
        (noise(2, 3, 8, 10).numpy().astype(np.uint16) * 257, "run from 0 to 255, these from 0 to"),
        (noise(2, 3, 8, 10).to(torch.int16) - 200, "run from 0 to 255, these from -200"),
        (torch.ones(2, 3, 8, 10, dtype=torch.bool), "uint8 or float, not bool"),
        (torch.full((2, 3, 8, 10), torch.nan), "not finite"),
        ("video.mp4", "must be an array or a tensor"),
        (None, "must be an array or a tensor"),
    ],
)
def test_frames_that_are_none_of_the_models_are_told_with_what_to_do(frames, told):
    with pytest.raises(SeqclfError, match=told):
        make_predictor()(frames)


def test_a_stream_tells_a_wrong_frame_and_goes_on():
    predictor, frames = make_predictor(), noise(4, 3, 8, 10)
    stream = predictor.stream()
    stream(frames[0])
    with pytest.raises(SeqclfError, match=r"the frame: has frames \(8, 10, 3\).*channels come first"):
        stream(frames[1].permute(1, 2, 0))
    close(stream(frames[1]), predictor(frames[:2]).probabilities[1])


def test_uint8_frames_that_became_floats_are_warned_of():
    with pytest.warns(UserWarning, match="look like uint8"):
        make_predictor()(noise(4, 3, 8, 10).float())


# ---- streams, labels, fusion


@pytest.mark.parametrize("temporal", TEMPORALS, ids=lambda t: getattr(t, "func", t).__name__)
def test_streamed_frame_by_frame_is_the_whole_video(temporal):
    predictor, frames = make_predictor(temporal), noise(70, 3, 8, 10)
    stream = predictor.stream()
    streamed = torch.stack([stream(frame) for frame in frames])
    close(streamed, predictor(frames).probabilities)
    close(streamed, predictor.windows(frames, frames=None).probabilities)


def traced():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


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
        assert held() == before and traced() < first + 5_000
    finally:
        tracemalloc.stop()
    assert not p.requires_grad and p.shape == (3,)


def test_labels_and_segments():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.4, 0.0], [0.1, 0.7, 0.2]])
    prediction = Prediction(p, "abc")
    assert prediction.label() == ("b", pytest.approx(0.7)) and prediction.label("mean")[0] == "b"
    assert [name for name, _ in prediction.ranking("mean")] == ["b", "a", "c"]
    assert prediction.segments() == [("a", 0, 2), ("b", 2, 3)]


def test_late_fusion_is_the_weighted_mean():
    a, b = (torch.rand(5, 3, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    one, two = Prediction(a, "abc"), Prediction(b, "abc")
    close(fuse([one, two]).probabilities, (a + b) / 2)
    close(fuse([one, two], (1, 2)).probabilities, a / 3 + 2 * b / 3)
    close(fuse([one, two], (0, 3)).probabilities, b)


@pytest.mark.parametrize(
    ("other", "weights", "told"),
    [
        (Prediction(torch.rand(5, 3), "abd"), None, "same classes"),
        (Prediction(torch.rand(4, 3), "abc"), None, "not of 5 and 4 frames"),
        (Prediction(torch.rand(5, 3), "abc"), (1,), "2 models to fuse, but 1 weights"),
        (Prediction(torch.rand(5, 3), "abc"), (1, -1), "expected numbers from 0"),
        (Prediction(torch.rand(5, 3), "abc"), (0, 0), "not all 0"),
        (Prediction(torch.rand(5, 3), "abc"), (1, float("nan")), "expected numbers"),
    ],
)
def test_fusion_refuses(other, weights, told):
    with pytest.raises(SeqclfError, match=told):
        fuse([Prediction(torch.rand(5, 3), "abc"), other], weights)
    with pytest.raises(SeqclfError, match="no prediction"):
        fuse([])


# ---- the tool


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, of windows of 4; and one with other classes."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.py").write_text(CONFIG)
    for name, *settings in (("one",), ("two", "seed=1"), ("other", "data.classes=('x','y','z')")):
        write_run(folder / "tiny.py", folder / name, *settings)
    return folder


@pytest.fixture
def tool(tool, monkeypatch):
    """Runs tools/predict.py, as ``tool`` does; pictures, a second each, on request."""

    def run(*arguments, pictures=False):
        if not pictures:
            monkeypatch.setattr(
                "seqclf.prediction.videos.timeline", lambda p, classes, path, *_, **__: path.write_bytes(b"\x89PNG")
            )
        return tool("predict", *arguments, "--device", "cpu")

    return run


def write_folder(path, frames):
    path.mkdir(parents=True)
    for n, frame in enumerate(frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(path / f"f_{n}.png")
    return path


def write_video(path, frames, rate=10):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, width=frames.shape[3], height=frames.shape[2])
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def read_out(out, name):
    said = json.loads((out / "predictions.json").read_text())
    with (out / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return next(video for video in said["videos"] if video["name"] == name), rows, said


def write_run(config, folder, *settings):
    """A run of no steps, as training would have begun it."""
    experiment = load_experiment(config, settings)
    data = experiment.data()
    folder.mkdir()
    save_experiment(experiment, folder)
    torch.manual_seed(experiment.seed)
    model = experiment.model(frame_shape=data.train.frame_shape, num_classes=data.num_classes)
    content = {"model": model.state_dict(), "optimizer": {}, "scaler": {}, "window": {}, "best": None}
    save_checkpoint(content | {"data": data.identity()}, folder / "checkpoints", 0, 1)
    write_json(folder / "run.json", {"data": data.identity()})


def columns(rows):
    return torch.tensor([[float(row[name]) for name in ("run", "walk", "a, comma")] for row in rows])


def test_the_tool_writes_what_the_predictor_says(tool, runs, tmp_path):
    frames = noise(9, 3, 8, 10)
    write_folder(tmp_path / "videos" / "a[b]", frames)
    write_folder(tmp_path / "videos" / "second", frames[:2])
    code, printed, errors = tool(runs / "one", tmp_path / "videos", "--fps", 4, pictures=True)
    assert (code, errors) == (0, "")
    out = runs / "one" / "predictions"
    with Image.open(out / "second.png") as picture:
        assert picture.width > 1000
    video, rows, said = read_out(out, "a[b]")
    expected = loaded(runs / "one").windows(frames, frames=4, stride=2)  # as it was trained
    assert len(rows) == video["frames"] == 9 and video["fps"] == 4
    torch.testing.assert_close(columns(rows), expected.probabilities, atol=1e-5, rtol=0)
    assert [row["class"] for row in rows] == [expected.classes[k] for k in expected.probabilities.argmax(1)]
    assert [row["time"] for row in rows[:3]] == ["0.0000", "0.2500", "0.5000"] and rows[8]["frame"] == "8"
    assert (video["label"], video["probability"]) == (
        expected.label("mean")[0],
        pytest.approx(expected.label("mean")[1], abs=1e-5),
    )
    assert [entry["class"] for entry in video["top"]] == [name for name, _ in expected.ranking("mean")]
    assert [(s["class"], s["start"], s["end"]) for s in video["segments"]] == expected.segments()
    assert all(s["end_seconds"] == s["end"] / 4 for s in video["segments"])
    assert [v["name"] for v in said["videos"]] == ["a[b]", "second"] and said["failed"] == {}
    assert f"{video['label']} {video['probability']:.1%}" in printed and "second" in printed and "a[b]" in printed


def test_options_reach_the_predictor(tool, runs, tmp_path):
    frames, predictor = noise(9, 3, 16, 20), loaded(runs / "one")
    folder = write_folder(tmp_path / "v", frames)
    for options, expected in (
        (["--whole"], predictor.windows(frames, None)),
        (["--crops", 10, "--stride", 1], predictor.windows(frames, 4, 1, crops=10)),
        (["--frames", 3, "--resize", 9, 11], predictor.windows(frames, 3, resize=(9, 11))),
    ):
        out = tmp_path / "out"
        assert tool(runs / "one", folder, *options, "--out", out)[0] == 0
        video, rows, _ = read_out(out, "v")
        torch.testing.assert_close(columns(rows), expected.probabilities, atol=1e-5, rtol=0)
        assert rows[0]["time"] == "" and video["fps"] is None and "start_seconds" not in video["segments"][0]


def test_a_video_file_streamed_is_the_whole_one(tool, runs, tmp_path):
    path = write_video(tmp_path / "camera.mp4", noise(12, 3, 16, 32))
    assert tool(runs / "one", path, "--whole", "--out", tmp_path / "whole")[0] == 0
    code, printed, _ = tool(runs / "one", "--stream", path, "--out", tmp_path / "streamed")
    (whole, rows, _), (streamed, other, _) = (read_out(tmp_path / name, "camera") for name in ("whole", "streamed"))
    assert code == 0
    torch.testing.assert_close(columns(other), columns(rows), atol=1e-5, rtol=0)
    assert whole["segments"] == streamed["segments"] and whole["fps"] == 10 and rows[3]["time"] == "0.3000"
    lines = [line for line in printed.splitlines() if " s, frame " in line]
    assert len(lines) == len(whole["segments"]) and f"0.00 s, frame 0: {whole['segments'][0]['class']}" in lines[0]
    assert all("frames/s" in line for line in lines[1:]) and "the end, after 12 frames (" in printed
    assert whole["segments"][-1]["end_seconds"] == pytest.approx(1.2)


def test_two_runs_are_fused(tool, runs, tmp_path):
    frames = noise(7, 3, 8, 10)
    folder = write_folder(tmp_path / "v", frames)
    each = [loaded(runs / name).windows(frames, 4) for name in ("one", "two")]
    assert tool(runs / "one", runs / "two", "--weights", 1, 2, folder, "--out", tmp_path / "out")[0] == 0
    _, rows, said = read_out(tmp_path / "out", "v")
    torch.testing.assert_close(columns(rows), fuse(each, (1, 2)).probabilities, atol=1e-5, rtol=0)
    assert said["weights"] == pytest.approx([1 / 3, 2 / 3]) and len(said["runs"]) == 2
    assert tool(runs / "one", runs / "two", folder, "--stream", "--out", tmp_path / "out")[0] == 0
    whole = [loaded(runs / name)(frames) for name in ("one", "two")]
    _, rows, _ = read_out(tmp_path / "out", "v")
    torch.testing.assert_close(columns(rows), fuse(whole).probabilities, atol=1e-5, rtol=0)


def test_videos_of_one_name_are_numbered(tool, runs, tmp_path):
    for number in (1, 2):
        write_folder(tmp_path / str(number) / "v", noise(3, 3, 8, 10, seed=number))
    out = tmp_path / "out"
    assert tool(runs / "one", tmp_path / "1", tmp_path / "2", "--out", out)[0] == 0
    (one, *_), (two, *_) = read_out(out, "v"), read_out(out, "v_2")
    assert one["path"].endswith("1/v") and two["path"].endswith("2/v")


def test_a_bad_video_among_several_is_told_and_the_others_are_done(tool, runs, tmp_path):
    good = write_folder(tmp_path / "good", noise(3, 3, 8, 10))
    small = write_folder(tmp_path / "small", noise(3, 3, 4, 4))
    damaged = write_folder(tmp_path / "damaged", noise(3, 3, 8, 10))
    (damaged / "f_1.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    code, printed, errors = tool(runs / "one", small, tmp_path / "absent", damaged, good, "--out", out)
    assert code == 2 and "good" in printed and errors.count("error: ") == 3 and "Traceback" not in errors
    assert f"{small}: has frames of 4x4" in errors and "absent: no such file" in errors and "f_1.png" in errors
    _, rows, said = read_out(out, "good")
    assert len(rows) == 3 and len(said["videos"]) == 1
    assert set(said["failed"]) == {str(small), str(tmp_path / "absent"), str(damaged)}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{v}"], "is not a run folder, nor is any other argument"),
        (["{one}"], "there is no video"),
        (["{one}", "{other}", "{v}"], "has other classes than"),
        (["{one}", "{two}", "--weights", "1", "{v}"], "2 models to fuse, but 1 weights"),
        (["{one}", "{two}", "{v}", "--weights", "1", "-1"], "expected numbers from 0"),
        (["{one}", "--weights", "{v}"], "expected a number for each run"),
        (["{one}", "{v}", "--stream", "--crops", "10"], "--stream goes frame by frame"),
        (["{one}", "{v}", "--whole", "--stride", "2"], "--whole goes without"),
        (["{one}", "{v}", "--stride", "9"], "stride=9: expected 1 to 4"),
        (["{one}", "{v}", "--fps", "0"], "--fps 0.0: expected a positive number"),
        (["{one}", "{v}", "--checkpoint", "99"], "step_99.pt: no such file"),
        (["{one}", "{v}/f_0.png"], "is one picture"),
    ],
)
def test_the_tool_refuses(tool, runs, tmp_path, arguments, told):
    places = {name: runs / name for name in ("one", "two", "other")} | {"v": tmp_path / "v"}
    write_folder(tmp_path / "v", noise(3, 3, 8, 10))
    code, _, errors = tool(*(argument.format(**places) for argument in arguments))
    assert code == 2 and told in errors and errors.count("\n") == 1 and errors.startswith("error: ")


def test_a_config_says_how_its_frames_are_read(tool, runs, tmp_path):
    """Scaled first, and flow negated in the mirror, as the data's transform does it."""
    text = CONFIG.replace(
        "transform=None",
        "transform=partial(in_turn, steps=(partial(resize, size=(9, 11)), partial(flip, negate_x=True)))",
    )
    (tmp_path / "flow.py").write_text("from seqclf.data.transforms import flip, in_turn, resize\n" + text)
    write_run(tmp_path / "flow.py", tmp_path / "run")
    frames = noise(5, 3, 6, 7)
    folder = write_folder(tmp_path / "v", frames)
    code, _, errors = tool(tmp_path / "run", folder, "--crops", 10, "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    expected = load(tmp_path / "run").windows(frames, 4, crops=10, resize=(9, 11), negate_x=True)
    torch.testing.assert_close(columns(read_out(tmp_path / "out", "v")[1]), expected.probabilities, atol=1e-5, rtol=0)


def test_one_crop_is_that_of_the_runs_evaluation_whatever_its_transform_is(tool, tmp_path):
    """A step of the user's own, which the tool knows nothing of."""
    text = CONFIG.replace("transform=None", "transform=upside_down")
    text = text.replace(
        "def data(", "def upside_down(clip, generator):\n    return clip.flip(2)[..., :8, :10]\n\ndef data("
    )
    (tmp_path / "own.py").write_text(text)
    write_run(tmp_path / "own.py", tmp_path / "run")
    frames = noise(6, 3, 9, 12)
    folder = write_folder(tmp_path / "v", frames)
    predictor, seen = load(tmp_path / "run"), frames.flip(2)[..., :8, :10]
    for options, expected in (([], predictor.windows(seen, 4)), (["--stream"], predictor(seen))):
        assert tool(tmp_path / "run", folder, *options, "--out", tmp_path / "out")[0] == 0
        torch.testing.assert_close(
            columns(read_out(tmp_path / "out", "v")[1]), expected.probabilities, atol=1e-5, rtol=0
        )


def test_windows_that_were_spread_in_training_are_spread_here(tool, runs, tmp_path):
    write_run(runs / "tiny.py", tmp_path / "run", "data.sampling=seqclf.sampling.uniform")
    frames = noise(13, 3, 8, 10)
    folder = write_folder(tmp_path / "v", frames)
    predictor = load(tmp_path / "run")
    for options, expected in (
        ([], predictor.windows(frames, 4, step=3)),
        (["--frames", 4], predictor.windows(frames, 4)),
    ):
        assert tool(tmp_path / "run", folder, *options, "--out", tmp_path / "out")[0] == 0
        _, rows, _ = read_out(tmp_path / "out", "v")
        torch.testing.assert_close(columns(rows), expected.probabilities, atol=1e-5, rtol=0)


def test_runs_of_frames_and_of_flow_read_each_its_own(tool, tmp_path):
    """Where a video has the same name under their roots; flow, between two frames, has one less."""
    text = CONFIG.replace("transform=None", "transform=partial(flip, negate_x=False), root=None")
    (tmp_path / "rooted.py").write_text(f"from seqclf.data.transforms import flip\n{text}")
    frames, flow = noise(7, 3, 8, 10), noise(6, 3, 8, 10, seed=1)
    for name, pictures in (("rgb", frames), ("flow", flow)):
        write_folder(tmp_path / name / "v", pictures)
        settings = (f"data.root={tmp_path / name}", f"data.transform.negate_x={name == 'flow'}", f"seed={len(name)}")
        write_run(tmp_path / "rooted.py", tmp_path / f"run_{name}", *settings)
    runs = [tmp_path / "run_rgb", tmp_path / "run_flow"]
    each = [load(run).windows(pictures, 4) for run, pictures in zip(runs, (frames, flow), strict=True)]
    each = [Prediction(prediction.probabilities[:6], prediction.classes) for prediction in each]
    roots = ["--roots", tmp_path / "rgb", tmp_path / "flow"]
    for options in ([], roots):
        code, _, errors = tool(*runs, "--weights", 1, 2, tmp_path / "rgb", *options, "--out", tmp_path / "out")
        assert (code, errors) == (0, "")
        video, rows, _ = read_out(tmp_path / "out", "v")
        assert video["read"] == [str(tmp_path / "rgb/v"), str(tmp_path / "flow/v")] and video["frames"] == 6
        torch.testing.assert_close(columns(rows), fuse(each, (1, 2)).probabilities, atol=1e-5, rtol=0)
    assert tool(*runs, tmp_path / "rgb" / "v", "--stream", "--out", tmp_path / "out")[0] == 0
    alone = write_folder(tmp_path / "rgb" / "alone", frames)
    code, _, errors = tool(*runs, alone, "--out", tmp_path / "out")
    assert code == 0 and errors == f"note: runs on frames and on flow both read {alone}: --roots says where flow is\n"
    code, _, errors = tool(*runs, alone, *roots, "--out", tmp_path / "out")
    assert code == 2 and f"{tmp_path / 'flow' / 'alone'}: no such file or folder" in errors
    for frame in list((tmp_path / "flow" / "v").iterdir())[:2]:
        frame.unlink()
    code, _, errors = tool(*runs, tmp_path / "rgb" / "v", "--out", tmp_path / "out")
    assert code == 2 and "rgb/v: the runs read it as 7 and 4 frames" in errors


def test_true_segments_are_in_the_timeline_where_they_are_known(tool, runs, tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_folder(tmp_path / "videos" / name, noise(6, 3, 8, 10))
    seen = {}

    def draw(p, classes, path, truth, fps, **_):
        path.write_bytes(b"\x89PNG")
        seen[path.stem] = None if truth is None else truth.tolist()

    monkeypatch.setattr("seqclf.prediction.videos.timeline", draw)
    (tmp_path / "s.csv").write_text("video,start,end,label\nvideos/a.mp4,1,3,walk\n")
    arguments = (runs / "one", tmp_path / "videos", "--out", tmp_path / "out")
    code, _, errors = tool(*arguments, "--segments", tmp_path / "s.csv", pictures=True)
    assert code == 2 and errors.count("error: ") == 1 and "s.csv: no line is of video" in errors
    assert seen == {"a": [IGNORE, 1, 1, IGNORE, IGNORE, IGNORE], "b": None}, "b is predicted all the same"
    (tmp_path / "s.csv").write_text("video,start,end,label\na,0.5,1,walk\nb,0,0.25,run\n")
    assert tool(*arguments, "--segments", tmp_path / "s.csv", "--unit", "seconds", "--fps", 4, pictures=True)[0] == 0
    assert seen == {"a": [IGNORE, IGNORE, 1, 1, IGNORE, IGNORE], "b": [0, *[IGNORE] * 5]}
    (tmp_path / "truth").mkdir()
    for name in ("a", "b"):
        (tmp_path / "truth" / f"{name}.txt").write_text("run\nrun\nwalk\n")
    assert tool(*arguments, "--segments", tmp_path / "truth", pictures=True)[0] == 0
    assert seen["a"] == [0, 0, 1, IGNORE, IGNORE, IGNORE]
    code, _, errors = tool(*arguments, "--segments", tmp_path / "none.csv")
    assert code == 2 and errors == f"error: {tmp_path / 'none.csv'}: no such file\n"
