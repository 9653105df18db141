"""The law of prediction: ``predict`` on the files of the test set, without options, is what ``evaluate`` counted.

Per clip the probabilities are equal to 1e-5 and the labels are the same, so the accuracy is exactly the reported one.
"""

import csv
import json
import shutil
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_golden import Case
from made_videos import noise, write_folder, write_video
from PIL import Image
from sklearn.metrics import average_precision_score

from seqclf import (
    LSTM,
    Clips,
    Data,
    Experiment,
    FrameSequenceClassifier,
    SeqclfError,
    Video,
    Videos,
    caffe,
    load_experiment,
    video_set,
)
from seqclf.data.digits.optdigits import TEST_EVERY, read_digits
from seqclf.data.frames.folder import FrameFolder
from seqclf.prediction import evaluate, load, predict, predict_part
from seqclf.prediction.files.predict import Progress
from seqclf.preparing import prepare_shards
from seqclf.training.loop import train

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
from functools import partial, wraps
from pathlib import Path
import numpy as np
import torch
from torch import nn
from seqclf import *
from seqclf.data import *
from seqclf.data.labelling import *
from seqclf.data.sampling import *
from seqclf.data.transforms import center_crop, flip, in_turn, random_crop, resize

ROOT = Path(__file__).parent
if not (ROOT / "train.txt").exists():
    ROOT = ROOT.parents[1]  # this file is a copy in the run's folder
RESIZED = partial(in_turn, steps=(partial(resize, size=(10, 12)), partial(random_crop, size=8), flip))
VIDEOS = dict(root="{folder}", train="train.txt", test="test.txt", form="plain", workers=0)
model = partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8))
loss = losses.cross_entropy

{body}

def get_config():
    adam = partial(torch.optim.Adam, lr=0.02)
    return Experiment(data=data, model=model, optimizer=adam, loss=loss, steps=3, batch_size=4)
"""
ARRAYS = """
def arrays(T=9, D=5, dtype="float32", lengths=None, per_frame=False, labelling=last_frame, several=False):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, T, D, generator=g)
    shape = (12, T) if per_frame else (12,)
    y = torch.randint(0, 2, (*shape, 3), generator=g) if several else torch.randint(0, 3, shape, generator=g)
    shown = y[..., 0] if several else y
    x[..., 0] += shown if per_frame else shown[:, None]
    if several:
        y[0, ..., 1] = -100
    x = (x * 40 + 100).clamp(0, 255) if dtype == "uint8" else x
    x = x.to(getattr(torch, dtype))
    lengths = None if lengths is None else torch.arange(12) % T + 1
    clips = Clips(x, y, lengths, labelling=labelling, multi_label=several)
    return Data(train=clips, test=clips, classes=["a", "b", "c"], source="arrays")
"""


def read_csv(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def make_folders(folder, lengths=(7, 12, 20, 26), size=(8, 8)):
    """Folders of frames and lists: as many in train as in test."""
    return _make_list(folder, lengths, lambda path, frames: write_folder(path, frames), size)


def make_videos(folder, lengths=(12, 21, 40)):
    return _make_list(folder, lengths, lambda path, frames: write_video(path.with_suffix(".mp4"), frames), (16, 16))


def make_npy(folder):
    def write(path, frames):
        np.save(path.with_suffix(".npy"), frames[:, 0, 0].float().numpy() / 255)  # (T, D)
        return path.with_suffix(".npy")

    return _make_list(folder, (12, 21, 40), write, (4, 6))


def _make_list(folder, lengths, write, size):
    found = {}
    for part, seed in (("train", 1), ("test", 2)):
        paths = [
            write(folder / f"{part}_{k}", noise(length, 3, *size, seed=10 * seed + k))
            for k, length in enumerate(lengths)
        ]
        lines = [f"{path.name} {k % 2}\n" for k, path in enumerate(paths)]
        (folder / f"{part}.txt").write_text("".join(lines))
        found[part] = paths
    return found["test"]


def make_annotated(folder):
    files = make_folders(folder)
    rows = [f"{part}_{k},{2 * k},{2 * k + 4},walk\n" for part in ("train", "test") for k in range(4) if k]
    (folder / "segments.csv").write_text("video,start,end,label\ntrain_0,0,3,walk\ntest_0,1,2,walk\n" + "".join(rows))
    (folder / "classes.txt").write_text("stand\nwalk\n")
    return files


def several_in_list(files):
    """The lists with zero to two classes per folder."""
    for part in ("train", "test"):
        rows = "".join(f"{part}_{k},{label}\n" for k, label in enumerate(("walk|run", "run", "", "walk")))
        (files[0].parent / f"{part}.txt").write_text(f"path,label\n{rows}")
    return files


def overlapping(files):
    """The segments with a second class over the first ones."""
    with (files[0].parent / "segments.csv").open("a") as table:
        table.writelines(f"{part}_{k},1,5,stand\n" for part in ("train", "test") for k in range(4))
    return files


def make_annotated_arrays(folder):
    files = make_annotated(folder)
    for path in [*files, *(folder / f"train_{k}" for k in range(len(files)))]:
        length = len(list(path.iterdir()))
        np.save(path.with_suffix(".npy"), np.random.default_rng(length).normal(size=(5, length)).astype("f4"))
        shutil.rmtree(path)
    return [path.with_suffix(".npy") for path in files]


def make_shards(folder, make=make_folders):
    files = make(folder)
    prepare_shards(folder / "shards", root=folder, train="train.txt", test="test.txt", seed=None, workers=1)
    return files


def make_features(folder):
    rng = np.random.default_rng(0)
    for name in ("features", "groundTruth", "splits"):
        (folder / name).mkdir()
    (folder / "mapping.txt").write_text("0 a\n1 b\n")
    files = []
    for part in ("train", "test"):
        names = [f"{part}{k}" for k in range(3)]
        for k, name in enumerate(names):
            y = np.arange(40 + 7 * k) // 9 % 2
            x = rng.normal(size=(6, len(y))).astype("f4")
            x[0] += 3 * y
            np.save(folder / "features" / f"{name}.npy", x)
            (folder / "groundTruth" / f"{name}.txt").write_text("\n".join("ab"[v] for v in y) + "\n")
        (folder / "splits" / f"{part}.split1.bundle").write_text("".join(f"{name}.txt\n" for name in names))
        files = [folder / "features" / f"{name}.npy" for name in names]
    return files


@dataclass
class Row:
    """A data set: the config's lines, what makes its files, the rule that labels its clips, and overrides."""

    body: str
    make: object = None
    decision: str = "last"
    settings: tuple[str, ...] = ()


def videos(*settings):
    return f"data = partial(video_set, **VIDEOS, {', '.join(settings)})"


BILSTM = """
class BiLSTM(nn.Module):
    def __init__(self, input_size):
        super().__init__()
        self.rnn = nn.LSTM(input_size, 4, batch_first=True, bidirectional=True)
        self.out_features = 8
    def forward(self, x, is_first=None, state=None, lengths=None):
        n = torch.full((len(x),), x.shape[1]) if lengths is None else lengths.cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return out, None
model = partial(FrameSequenceClassifier, temporal=BiLSTM)
"""
OWN_TRANSFORM = """
def by_clip(clip, generator):
    return (clip - clip.amin((0, 2, 3), keepdim=True))[..., :8, :8]
"""
SEVERAL = "loss = losses.binary_cross_entropy\n"
ROWS = {
    "arrays": Row(ARRAYS + "data = arrays"),
    "arrays as many frames as values": Row(ARRAYS + "data = partial(arrays, T=6, D=6)"),
    "arrays of float64": Row(ARRAYS + "data = partial(arrays, dtype='float64')"),
    "arrays of uint8": Row(ARRAYS + "data = partial(arrays, dtype='uint8')"),
    "arrays of unequal lengths": Row(ARRAYS + "data = partial(arrays, lengths=True)"),
    "arrays labelled at every frame": Row(ARRAYS + "data = partial(arrays, labelling=every_frame)", decision="mean"),
    "arrays per frame": Row(ARRAYS + "data = partial(arrays, per_frame=True, labelling=given)", None, "mean"),
    "several classes per clip": Row(SEVERAL + ARRAYS + "data = partial(arrays, lengths=True, several=True)"),
    "several classes at every frame": Row(
        SEVERAL + ARRAYS + "data = partial(arrays, several=True, labelling=every_frame)", decision="mean"
    ),
    "several classes per frame": Row(
        SEVERAL + ARRAYS + "data = partial(arrays, several=True, per_frame=True, labelling=given)", decision="mean"
    ),
    "several classes in a list": Row(
        SEVERAL + "VIDEOS['form'] = 'auto'\n" + videos("multi_label=True", "labelling=last_frame"),
        lambda d: several_in_list(make_folders(d)),
    ),
    "several classes in overlapping segments": Row(
        SEVERAL + 'data = partial(annotated_set, "{folder}", "train.txt", "test.txt", multi_label=True, workers=0)',
        lambda d: overlapping(make_annotated(d)),
        "mean",
    ),
    "folders whole": Row(videos(), make_folders, "mean"),
    "folders whole, last frame": Row(videos("labelling=last_frame"), make_folders),
    "folders, window": Row(videos("test_sampling=partial(window, frames=5, step=2)"), make_folders, "mean"),
    "folders, dense": Row(videos("test_sampling=partial(dense, frames=6, stride=4)"), make_folders, "mean"),
    "folders, dense, last frame": Row(
        videos("labelling=last_frame", "test_sampling=partial(dense, frames=6, stride=4)"), make_folders
    ),
    "folders, uniform": Row(videos("test_sampling=partial(uniform, frames=6)"), make_folders, "mean"),
    "folders, every second frame": Row(videos("test_sampling=partial(whole, step=2)"), make_folders, "mean"),
    "folders resized": Row(videos("transform=RESIZED"), lambda d: make_folders(d, size=(14, 11)), "mean"),
    "folders resized, uniform": Row(
        videos("transform=RESIZED", "test_sampling=partial(uniform, frames=5)"),
        lambda d: make_folders(d, size=(14, 11)),
        "mean",
    ),
    "another transform in evaluation": Row(
        videos("transform=RESIZED", "test_transform=partial(resize, size=(8, 8))"),
        lambda d: make_folders(d, size=(14, 11)),
        "mean",
    ),
    "a transform of whole clips": Row(
        OWN_TRANSFORM + videos("transform=by_clip"), lambda d: make_folders(d, size=(14, 11)), "mean"
    ),
    "a pattern": Row(videos('pattern="f_*[02468].png"'), make_folders, "mean"),
    "data in a function": Row(
        "def data(): return video_set(**VIDEOS, transform=RESIZED, test_sampling=partial(dense, frames=6, stride=4))",
        lambda d: make_folders(d, size=(14, 11)),
        "mean",
    ),
    "data wrapped": Row(
        "def logged(f):\n    @wraps(f)\n    def inner(*a, **k): return f(*a, **k)\n    return inner\n"
        "@logged\ndef data(): return video_set(**VIDEOS, test_sampling=partial(uniform, frames=6))",
        make_folders,
        "mean",
    ),
    "data of the user's own Videos": Row(
        "def data():\n"
        "    def part(name, training):\n"
        "        paths = [VIDEOS['root'] + f'/{name}_{k}' for k in range(4)]\n"
        "        found = [Video(path, open_video(path), k % 2) for k, path in enumerate(paths)]\n"
        "        return Videos(found, partial(window, frames=6), training=training, labelling=last_frame, workers=0)\n"
        "    return Data(part('train', True), part('test', False), ['x', 'y'], 'own')",
        make_folders,
    ),
    "decision as a setting": Row(
        "def data():\n    from dataclasses import replace\n    return replace(video_set(**VIDEOS), decision='last')",
        make_folders,
    ),
    "video files": Row(videos("test_sampling=partial(dense, frames=8, stride=4)"), make_videos, "mean"),
    "video files at another rate": Row(videos("fps=4"), make_videos, "mean"),
    "video files at a higher rate, resized": Row(videos("fps=15", "transform=RESIZED"), make_videos, "mean"),
    "features in a list": Row(videos(), make_npy, "mean"),
    "annotated frames": Row(
        'data = partial(annotated_set, "{folder}", "train.txt", "test.txt", background="stand", workers=0)',
        make_annotated,
        "mean",
    ),
    "features": Row('data = partial(feature_set, "{folder}", workers=0)', make_features, "mean"),
    "annotated features, features first": Row(
        'data = partial(annotated_set, "{folder}", "train.txt", "test.txt", background="stand", workers=0, '
        'layout="features_first")',
        make_annotated_arrays,
        "mean",
    ),
    "shards of folders": Row('data = partial(shard_set, "{folder}/shards", workers=0)', make_shards, "mean"),
    "shards of video files": Row(
        'data = partial(shard_set, "{folder}/shards", workers=0)', lambda d: make_shards(d, make_videos), "mean"
    ),
    "features at a lower rate": Row(
        'data = partial(feature_set, "{folder}", sample_rate=3, workers=0)', make_features, "mean"
    ),
    "a bidirectional model": Row(BILSTM + videos("labelling=last_frame"), make_folders),
    "a bidirectional LSTM with all options": Row(
        "options = dict(bidirectional=True, residual=True, layer_norm=True, projection=True)\n"
        "model = partial(model, temporal=partial(LSTM, hidden=4, layers=2, **options))\n"
        + ARRAYS
        + "data = partial(arrays, lengths=True)"
    ),
    "FCN": Row(
        "parts = {'fcn': partial(TCN, channels=(8, 8), block='conv', causal=False, norm='batch'), 'pool': Pool}\n"
        "model = partial(model, temporal=partial(TemporalChain, parts=parts))\n"
        + ARRAYS
        + "data = partial(arrays, lengths=True)"
    ),
    "attention pooling": Row(
        "parts = {'gru': partial(GRU, hidden=8), 'pool': partial(Pool, kind='attention')}\n"
        "model = partial(model, temporal=partial(TemporalChain, parts=parts))\n" + ARRAYS + "data = arrays"
    ),
    "attention": Row(
        "from seqclf import Attention\n"
        "model = partial(model, temporal=partial(Attention, hidden=8, heads=2, window=4))\n"
        + ARRAYS
        + "data = partial(arrays, lengths=True)"
    ),
    "stages": Row(
        "stage = partial(TCN, channels=(8, 8), block='dilated_residual', causal=False)\n"
        "model = partial(model, temporal=stage, refine=[stage])\n"
        + videos("test_sampling=partial(dense, frames=8, stride=4)"),
        make_folders,
        "mean",
    ),
    "arrays in bfloat16": Row(ARRAYS + "data = arrays", settings=("precision=bf16",)),
    "folders in bfloat16, dense": Row(
        videos("test_sampling=partial(dense, frames=6, stride=4)"), make_folders, "mean", ("precision=bf16",)
    ),
    "a transform with a list": Row(
        "def divide(clip, generator, by): return clip // (by + [1])[0]\n" + videos("transform=partial(divide, by=[3])"),
        make_folders,
        "mean",
    ),
    "MNIST rows": Row('data = partial(mnist, source="digits")'),
    "MNIST columns": Row('data = partial(mnist, source="digits", axis="columns", labelling=every_frame)', None, "mean"),
}


def trained(folder, row):
    """Trains a row's config for three steps; returns the run and the files of its test clips."""
    files = row.make(folder) if row.make else None
    body = row.body.replace("{folder}", str(folder))
    (folder / "config_of_row.py").write_text(CONFIG.replace("{body}", body).replace("{folder}", str(folder)))
    experiment = load_experiment(folder / "config_of_row.py", row.settings)
    train(experiment, folder / "run", "cpu")
    if files is None:
        files = digit_files(folder) if "mnist" in row.body else array_files(folder, experiment.data().test)
    return folder / "run", files


def array_files(folder, clips):
    for k in range(len(clips)):
        length = clips.num_frames if clips.lengths is None else int(clips.lengths[k])
        np.save(folder / f"clip_{k:03}.npy", clips.frames[k, :length].numpy())
    return sorted(folder.glob("clip_*.npy"))


def digit_files(folder, most=40):
    images = read_digits()[0]
    images = images[torch.arange(len(images)) % TEST_EVERY == TEST_EVERY - 1][:most]
    for k, image in enumerate(images):
        Image.fromarray(image.numpy()).save(folder / f"digit_{k:03}.png")
    return sorted(folder.glob("digit_*.png"))


def hold(run, files, part_of_all=None, experiment=None):
    """Asserts the law for a run and the files of its test clips, in order; returns what ``predict`` returned.

    Args:
        part_of_all: how many of the test clips have files; None for all.
        experiment: in place of the run's config.
    """
    expected = predict_part(run, device="cpu", experiment=experiment)
    found = predict(run, files, device="cpu", experiment=experiment)
    assert found["failed"] == {} and len(found["videos"]) == len(files)
    clips = [clip for video in found["videos"] for clip in video["clips"]]
    if part_of_all is None:
        assert len(clips) == len(expected)
    for clip, row in zip(clips, expected, strict=part_of_all is None):
        for rule in ("last", "mean"):
            assert np.allclose(clip["probabilities"][rule], row.by_rule[rule], atol=1e-5), (row.video, row.clip, rule)
        p = row.by_rule[found["decision"]]
        if "threshold" in found:
            over = {found["classes"][k] for k in (p >= found["threshold"]).nonzero()[:, 0].tolist()}
            assert {entry["class"] for entry in clip["labels"]} == over
        else:
            assert clip["label"] == found["classes"][int(p.argmax())]
    if "threshold" in found:
        return hold_average_precision(run, found, clips, expected)
    for video in found["videos"]:
        if len(video["clips"]) == 1:
            assert video["label"] == video["clips"][0]["label"]
    known = [(clip, row) for clip, row in zip(clips, expected, strict=False) if row.truth is not None]
    if part_of_all is None and known:
        right = sum(clip["label"] == found["classes"][row.truth] for clip, row in known)
        reported = json.loads((run / "results.json").read_text())["parts"]["test"]
        assert right / len(known) == reported[f"clip_{found['decision']}"]
    return found


def hold_average_precision(run, found, clips, expected):
    """Asserts that the predicted probabilities of clips have the reported mAP."""
    known = [(clip, row) for clip, row in zip(clips, expected, strict=True) if row.truth is not None]
    reported = json.loads((run / "results.json").read_text())["parts"]["test"]
    assert len(known) == reported["clips"]
    aps = []
    for k in range(len(found["classes"])):
        pairs = [(c["probabilities"][found["decision"]][k], row.truth[k]) for c, row in known if row.truth[k] >= 0]
        if any(truth for _, truth in pairs):
            aps.append(average_precision_score([truth for _, truth in pairs], [p for p, _ in pairs]))
    assert not known or np.mean(aps) == pytest.approx(reported[f"clip_{found['decision']}_map"], abs=1e-9)
    return found


@pytest.mark.parametrize("name", ROWS)
def test_prediction_equals_evaluation(tmp_path, name):
    row = ROWS[name]
    run, files = trained(tmp_path, row)
    found = hold(run, files, 40 if "mnist" in row.body else None)
    assert found["decision"] == row.decision


@pytest.mark.parametrize("name", ["attention", "attention pooling", "FCN"])
def test_a_run_streams_if_its_model_is_causal(tmp_path, tool, name):
    """The stream ends with the prediction for the whole clip; other models are refused by name."""
    run, files = trained(tmp_path, ROWS[name])
    code, _, message = tool("stream", run, files[-1], "--out", tmp_path / "stream.csv", "--device", "cpu")
    if name == "FCN":
        assert code == 2 and len(message.splitlines()) == 1
        assert "TemporalChain" in message and "causal = False" in message
        return
    assert code == 0
    found = predict(run, files[-1:], device="cpu")
    expected = found["videos"][0]["clips"][0]["probabilities"]["last"]
    last = read_csv(tmp_path / "stream.csv")[-1]
    assert np.allclose([float(last[name]) for name in found["classes"]], expected, atol=1e-4)


def test_a_converted_caffe_net_predicts_as_evaluate(tmp_path, monkeypatch):
    case = Case("mnist_like_clip", tmp_path)
    monkeypatch.chdir(tmp_path)
    net = caffe.load_net("test.prototxt")
    with torch.no_grad():
        for key, value in case.part("end.").items():
            layer, _, j = key.rpartition(".")
            net.params[layer][int(j)].copy_(torch.from_numpy(value))
    caffe.write_run(net, "run", load_experiment(ROOT / "configs/mnist_lastframe.py", ["data.source=digits"]))
    found = hold("run", digit_files(tmp_path), 40)
    assert found["decision"] == "last"


@pytest.mark.parametrize("unit", ["frames", "seconds"])
@pytest.mark.parametrize("fps", [None, 4])
def test_clips_inside_videos_are_predicted_from_their_list(tmp_path, unit, fps):
    make_videos(tmp_path, (40, 33))
    scale = 1 if unit == "frames" else 0.1
    for part in ("train", "test"):
        rows = [(k, start * scale, (start + 9) * scale, k % 2) for k in (0, 1) for start in (0, 7, 21)]
        lines = "".join(f"{part}_{k}.mp4,{start},{end},{label}\n" for k, start, end, label in rows)
        (tmp_path / f"{part}.csv").write_text(f"path,start,end,label\n{lines}")
    settings = f"root='{tmp_path}', train='train.csv', test='test.csv', unit='{unit}', fps={fps}, workers=0"
    body = f"data = partial(video_set, {settings})"
    run, _ = trained(tmp_path, Row(body, lambda folder: []))
    out = tmp_path / "out"
    found = predict(run, [], device="cpu", list_file=tmp_path / "test.csv", list_unit=unit, out=out, timelines=False)
    assert found["failed"] == {} and len(found["videos"]) == 6
    expected = predict_part(run, device="cpu")
    for video, row, start in zip(found["videos"], expected, (0, 7, 21) * 2, strict=True):
        assert np.allclose(video["clips"][0]["probabilities"]["mean"], row.by_rule["mean"], atol=1e-5)
        assert video["span"] == {"start": start * scale, "end": (start + 9) * scale, "unit": unit}
        numbers = [int(line["frame"]) for line in read_csv(out / f"{video['name']}.csv")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) and abs(numbers[0] - start) <= (2 if fps else 0)


def test_a_list_for_prediction_needs_no_labels_and_is_read_as_those_of_the_run(tmp_path):
    make_videos(tmp_path, (40, 33))
    rows = [(0, 0, 9), (0, 10, 19), (1, 0, 14)]
    for part in ("train", "test"):
        lines = "".join(f"{part}_{k}.mp4;{start};{end};{k}\n" for k, start, end in rows)
        (tmp_path / f"{part}.csv").write_text(f"clip;a;b;what\n{lines}")
    columns = {"path": "clip", "start": "a", "end": "b", "label": "what"}
    settings = f"root='{tmp_path}', train='train.csv', test='test.csv', unit='frames', inclusive=True, workers=0"
    run, _ = trained(tmp_path, Row(f"data = partial(video_set, {settings}, columns={columns})", lambda folder: []))
    (tmp_path / "new.csv").write_text("clip;a;b\n" + "".join(f"test_{k}.mp4;{a};{b}\n" for k, a, b in rows))
    found = predict(run, [], device="cpu", list_file=tmp_path / "new.csv")
    assert [video["span"] for video in found["videos"]] == [
        {"start": a, "end": b + 1, "unit": "frames"} for _, a, b in rows
    ]
    (tmp_path / "paths.txt").write_text("test_0.mp4\ntest_1.mp4\n")
    assert len(predict(run, [], device="cpu", list_file=tmp_path / "paths.txt")["videos"]) == 2
    (tmp_path / "split.csv").write_text("path,fold,split\ntest_0.mp4,1,train\ntest_1.mp4,2,test\n")
    notes = []
    found = predict(run, [], device="cpu", list_file=tmp_path / "split.csv", progress=Progress(note=notes.append))
    assert [Path(video["path"]).name for video in found["videos"]] == ["test_1.mp4"]
    assert "split.csv" in notes[0] and "1 video" in notes[0] and "test rows by column split" in notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["annotated frames", "features"])
def test_the_frames_of_the_files_equal_those_of_evaluate(tmp_path, name):
    """The class in each row of the CSVs gives the frame accuracy of the evaluation."""
    run, files = trained(tmp_path, ROWS[name])
    accuracy = evaluate(run, device="cpu")["parts"]["test"]["frame_accuracy"]
    out = tmp_path / "out"
    found = predict(run, files, device="cpu", out=out, timelines=False)
    videos = load_experiment(run / "config.py").data().test.videos
    right = total = 0
    for video, known in zip(found["videos"], videos, strict=True):
        rows = read_csv(out / f"{video['name']}.csv")
        assert [int(row["frame"]) for row in rows] == list(range(len(known.labels)))
        for row, label in zip(rows, known.labels.tolist(), strict=True):
            if label >= 0:
                total += 1
                right += row["class"] == found["classes"][label]
    assert right / total == accuracy


@pytest.mark.slow
def test_a_function_without_an_importable_name_is_refused_with_the_solution(tmp_path):
    body = "def data():\n    return video_set(**VIDEOS, transform=lambda clip, generator: clip[..., :8, :8])"
    row = Row(body, lambda d: make_folders(d, size=(14, 11)))
    run, files = trained(tmp_path, row)
    with pytest.raises(SeqclfError, match="transform=") as error:
        predict(run, files, device="cpu")
    assert "lambda" in str(error.value)
    rows = predict_part(run, device="cpu")
    found = predict(run, files, device="cpu", transform=lambda clip, generator: clip[..., :8, :8])
    for video, expected in zip(found["videos"], rows, strict=True):
        assert np.allclose(video["clips"][0]["probabilities"]["mean"], expected.by_rule["mean"], atol=1e-5)


def test_an_experiment_replaces_what_a_record_cannot_name(tmp_path):
    files = make_folders(tmp_path, size=(14, 11))

    def cut(clip, generator):
        return clip[..., :8, :8]

    def data():
        found = video_set(str(tmp_path), "train.txt", "test.txt", form="plain", workers=0, transform=cut)
        found.test.sampling = lambda length, generator: [list(range(0, length, 2))]
        for part in (found.train, found.test):
            part.videos = [replace(video, source=OwnSource(video.source.path)) for video in part.videos]
        return found

    class OwnSource(FrameFolder):
        def reader(self):
            return OwnSource

    model = partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8))
    experiment = Experiment(data, model, partial(torch.optim.SGD, lr=0.1), steps=2, batch_size=4)
    run = tmp_path / "run"
    train(experiment, run, "cpu")
    for call in (lambda: evaluate(run), lambda: predict_part(run), lambda: predict(run, files)):
        with pytest.raises(SeqclfError, match="experiment="):
            call()
    accuracy = evaluate(run, device="cpu", experiment=experiment)["accuracy"]
    hold(run, files, experiment=experiment)
    assert accuracy == json.loads((run / "results.json").read_text())["parts"]["test"]["clip_mean"]
    with pytest.raises(SeqclfError, match="experiment="):
        predict([run, run], files, experiment=experiment)


def test_a_source_without_a_reader_is_refused_by_prediction(tmp_path):
    body = (
        "from seqclf.data.frames.folder import FrameFolder\n"
        "class Own(FrameFolder):\n    reader = property()\n"
        "def data():\n    found = video_set(**VIDEOS)\n"
        "    for video in found.test.videos: video.source = Own(video.source.path)\n    return found"
    )
    run, files = trained(tmp_path, Row(body, make_folders))
    with pytest.raises(SeqclfError, match=rf"{len(files)} files .*{files[0]}.*Own.*reader\(\)"):
        predict(run, files, device="cpu")


def test_data_with_other_classes_is_refused(tmp_path):
    run, _ = trained(tmp_path, ROWS["arrays"])
    data = load_experiment(run / "config.py").data()
    with pytest.raises(SeqclfError, match="b, a, c"):
        evaluate(run, device="cpu", data=replace(data, classes=["b", "a", "c"]))


def test_data_that_changed_since_training_is_warned_of(tmp_path):
    def data():
        frames = np.random.randn(8, 4, 3)  # the global state of NumPy is not seeded by a run
        clips = Clips(frames, np.arange(8) % 2)
        return Data(clips, clips, ["a", "b"], "drawn again")

    experiment = Experiment(data, FrameSequenceClassifier, partial(torch.optim.SGD, lr=0.1), steps=1, batch_size=4)
    train(experiment, tmp_path / "run", "cpu")
    with pytest.warns(UserWarning, match="test data.*drawn again"):
        evaluate(tmp_path / "run", device="cpu", experiment=experiment)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(tmp_path / "run", device="cpu", experiment=experiment, data=data())
    byte = Clips(np.zeros((8, 4, 3), np.uint8), np.arange(8) % 2)
    with pytest.raises(SeqclfError, match=r"bytes: .*uint8.*float32"):
        evaluate(tmp_path / "run", device="cpu", experiment=experiment, data=Data(byte, byte, ["a", "b"], "bytes"))


@pytest.mark.parametrize("clips", [[[0, 99]], [[-1]], [], [[]]])
def test_a_sampling_that_leaves_the_video_is_refused(tmp_path, clips):
    run, files = trained(tmp_path, ROWS["folders whole"])
    with pytest.raises(SeqclfError, match=str(files[0])):
        predict(run, files[:1], device="cpu", sampling=lambda length, generator: clips)
    with pytest.raises(SeqclfError, match="sampling"):
        len(Videos([Video("a", FrameFolder(files[0]), 0)], lambda length, generator: clips))


@pytest.mark.slow
def test_a_run_without_a_record_of_its_input_is_refused(tmp_path):
    run, files = trained(tmp_path, ROWS["arrays"])
    record = json.loads((run / "run.json").read_text())
    del record["input"]
    (run / "run.json").write_text(json.dumps(record))
    for call in (lambda: predict(run, files), lambda: evaluate(run), lambda: load(run)):
        with pytest.raises(SeqclfError, match=r"run\.json"):
            call()


@pytest.mark.slow
def test_the_decision_can_be_changed(tmp_path):
    run, files = trained(tmp_path, ROWS["folders, dense"])
    rows = predict_part(run, device="cpu")
    assert evaluate(run, device="cpu")["decision"] == load(run).decision == "mean"
    results = evaluate(run, device="cpu", decision="last", predictions=tmp_path / "clips.csv")
    assert results["accuracy"] == results["parts"]["test"]["clip_last"] and results["decision"] == "last"
    found = predict(run, files, device="cpu", decision="last")
    clips = [clip for video in found["videos"] for clip in video["clips"]]
    written = read_csv(tmp_path / "clips.csv")
    assert len(written) == len(clips) == len(rows)
    for clip, row, line in zip(clips, rows, written, strict=True):
        assert clip["label"] == line["label"] == found["classes"][int(row.by_rule["last"].argmax())]
        assert float(line["probability"]) == pytest.approx(clip["probability"], abs=1e-5)
        assert line["truth"] == found["classes"][row.truth]
    assert [line["clip"] for line in written[:2]] == ["0", "1"] and written[0]["video"] == "test_0"
    with pytest.raises(SeqclfError, match="decision='first'"):
        predict(run, files, decision="first")
