"""Shards and features of a list have the clips, labels and groups that training on the list has."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from made_videos import noise, write_folder, write_video

from seqclf import SeqclfError, annotated_set, feature_set, prepare_features, prepare_shards, shard_set, video_set
from seqclf.cli.list_options import list_settings
from seqclf.preparing.encoders import Encoder

LENGTHS = {"x/a": 6, "y/a": 7, "y/b": 5, "z/c": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders of pictures and files in folders of classes; two have the same name."""
    root = tmp_path_factory.mktemp("set")
    for k, (name, length) in enumerate(LENGTHS.items()):
        frames = noise(length, 3, 16, 16, seed=k)
        if name == "z/c":
            (root / "z").mkdir()
            write_video(root / "z" / "c.mp4", frames)
        else:
            write_folder(root / name, frames)
    return root


ANNOTATED = {"train.txt": "x/a\ny/a\n", "test.txt": "y/b\nz/c.mp4\n"}
LISTS = {
    "names, groups": (
        {"l.csv": "path,label,split,subject\nx/a,u,train,s1\ny/a,v,train,\ny/b,u,test,s2\nz/c,u,validation,s3\n"},
        {"train": "l.csv", "test": "l.csv", "validation": "l.csv"},
    ),
    "numbers from 1 in folders, repeated, another rate": (
        {"a.txt": "x/a 1\ny/a 2\nx/a 1\nz/c 3\n", "b.txt": "y/b 2\n"},
        {"train": "a.txt", "test": "b.txt", "fps": 5},
    ),
    "several labels, an unknown one": (
        {"l.csv": "path,u,v,w,fold\nx/a,1,,0,1\ny/a,0,0,1,1\ny/b,1,1,0,2\nz/c,0,1,0,2\n"},
        {"train": "l.csv", "test": "l.csv", "test_split": "2", "multi_label": True},
    ),
    "clips in frames": (
        {"l.csv": "path;from;to;what;split\nx/a;0;3;u;train\nx/a;2;5;v;train\ny/a;1;4;u;test\nz/c;3;8;v;train\n"},
        {
            **{"train": "l.csv", "test": "l.csv", "unit": "frames"},
            "columns": {"path": "path", "start": "from", "end": "to", "label": "what"},
        },
    ),
    "clips in seconds, another rate": (
        {"l.csv": "path,start,end,label,split\nz/c,0.0,0.4,u,train\nz/c,0.4,0.9,v,train\nz/c,0.2,0.7,u,test\n"},
        {"train": "l.csv", "test": "l.csv", "fps": 5, "past_end": 0.2},
    ),
    "segments with a background": (
        {**ANNOTATED, "s.csv": "video,start,end,label\nx/a,0,2,u\ny/a,1,4,v\ny/b,0,1,u\nc,2,9,v\n"},
        {"segments": "s.csv", "classes": None, "background": "none"},
    ),
    "segments without a background": (
        {**ANNOTATED, "s.csv": "video,start,end,label\nx/a,0,2,1\ny/a,1,4,2\ny/b,0,1,2\nc,2,7,1\n"},
        {"segments": "s.csv", "classes": ["u", "v"], "first_label": 1, "inclusive": True},
    ),
    "segments that overlap": (
        {**ANNOTATED, "s.csv": "video,start,end,label\nx/a,0,4,u\nx/a,2,5,v+u\ny/a,1,4,v\ny/b,0,1,u\nc,2,7,v\n"},
        {"segments": "s.csv", "classes": None, "multi_label": True, "separator": "+"},
    ),
    "several labels of some frames": (
        {**ANNOTATED, "s.csv": "video,frame,u,v\nx/a,1,1,\nx/a,2,0,1\ny/a,1,0,0\ny/b,1,1,1\nc,4,0,1\nc,5,,1\n"},
        {"segments": "s.csv", "classes": None, "multi_label": True, "first_frame": 1},
    ),
    "another rate of the annotation": (
        {
            "train.txt": "z/c.mp4\n",
            "test.csv": "path,subject\nx/a,s1\n",
            **{"s.csv": "video,frame,label\nc,0,u\nc,1,v\nc,2,u\nx/a,0,u\nx/a,1,v\n"},
        },
        {"test": "test.csv", "segments": "s.csv", "classes": None, "annotation_fps": 4, "fps": 10, "past_end": 1},
    ),
}


@pytest.fixture(params=LISTS)
def listed(request, root, tmp_path):
    """The arguments of a list, and the data set that trains on it."""
    files, settings = LISTS[request.param]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    lists = ("train", "test", "validation", "segments")
    settings = {"root": str(root), "train": "train.txt", "test": "test.txt", **settings}
    settings |= {name: str(tmp_path / settings[name]) for name in lists if name in settings}
    return settings, (annotated_set if "segments" in settings else video_set)(**settings)


def content(data, part):
    """Labels and group of each clip of a part, sorted; with the position in the part."""
    clips = data.parts()[part]
    groups = clips.groups or [None] * len(clips.videos)
    rows = zip(clips.videos, groups, range(len(groups)), strict=True)
    return sorted(
        (torch.as_tensor(video.labels).tolist(), group, len(video.source), float(video.source.read([0, 1]).sum()), k)
        for video, group, k in rows
    )


def expect_equal(ours, theirs):
    assert list(ours.classes) == list(theirs.classes) and ours.background == theirs.background
    assert ours.parts().keys() == theirs.parts().keys() and ours.multi_label == theirs.multi_label
    for part in ours.parts():
        rows, others = content(ours, part), content(theirs, part)
        assert [row[:-1] for row in rows] == [other[:-1] for other in others]
        for (*_, k), (*_, other) in zip(rows, others, strict=True):
            source, expected = (data.parts()[part].videos[n].source for data, n in ((ours, k), (theirs, other)))
            assert torch.equal(source.read(range(len(source))), expected.read(range(len(expected))))


@pytest.mark.parametrize("without_index", [False, True])
def test_shards_have_the_clips_of_the_list(listed, tmp_path, without_index):
    settings, expected = listed
    done = prepare_shards(tmp_path / "out", lanes=2, workers=1, **settings)
    assert done.failed == {}
    if without_index:
        for index in (tmp_path / "out").glob("*.index.json"):
            index.unlink()
    keywords = {"classes": expected.classes, "background": settings.get("background")} if without_index else {}
    keywords["validation"] = "validation" if expected.validation is not None else None
    expect_equal(shard_set(str(tmp_path / "out"), **keywords), expected)


def test_features_have_the_clips_of_the_list(listed, tmp_path, monkeypatch):
    settings, expected = listed
    encoder = Encoder(lambda frames: frames.flatten(1).float(), settings.pop("fps", None), None, {})
    monkeypatch.setattr("seqclf.preparing.features._encoder", lambda *_: encoder)
    done = prepare_features([], tmp_path / "out", workers=1, **settings)
    assert done.failed == {}
    for part in expected.parts().values():
        part.transform = None
        for video in part.videos:
            read, video.source = video.source.read, Flat(video.source)
            assert read([0]).shape[1:] == (3, 16, 16)
    background = [expected.classes[k] for k in expected.background or ()]
    data = feature_set(str(tmp_path / "out"), multi_label=expected.multi_label, background=background)
    expect_equal(data, expected)


class Flat:
    """The frames of a source as vectors."""

    def __init__(self, source):
        self.source, self.path, self.frame_shape = source, source.path, (3 * 16 * 16,)

    def __len__(self):
        return len(self.source)

    def read(self, numbers):
        return self.source.read(numbers).flatten(1).float()


@pytest.mark.parametrize("prepared", [prepare_shards, lambda out, **settings: prepare_features([], out, **settings)])
def test_arguments_that_the_data_set_does_not_have_are_refused(prepared, root, tmp_path, monkeypatch):
    encoder = Encoder(lambda frames: frames.flatten(1).float(), None, None, {})
    monkeypatch.setattr("seqclf.preparing.features._encoder", lambda *_: encoder)
    lists = {"root": root, "train": "a.csv", "test": "a.csv"}
    with pytest.raises(SeqclfError, match=r"annotation_fps=1\.0.*segments="):
        prepared(tmp_path / "out", **lists, annotation_fps=1.0)
    with pytest.raises(SeqclfError, match=r"form='csv'.*segments="):
        prepared(tmp_path / "out", **lists, form="csv", segments="s.csv")
    with pytest.raises(SeqclfError, match=r"colums=.*columns"):
        prepared(tmp_path / "out", **lists, colums={})


def feature_files(root, labels):
    for name in ("features", "groundTruth", "splits"):
        (root / name).mkdir()
    (root / "mapping.txt").write_text("0 u\n1 v\n")
    for name, part in (("a", "train"), ("b", "test")):
        np.save(root / "features" / f"{name}.npy", np.zeros((3, 4), np.float32))
        np.save(root / "groundTruth" / f"{name}.npy", labels)
        (root / "splits" / f"{part}.split1.bundle").write_text(f"{name}.txt\n")
    return str(root)


@pytest.mark.parametrize(
    ("labels", "multi_label", "words"),
    [
        (np.zeros((4, 2), int), False, r"a\.npy.*\(4, 2\).*multi_label=False"),
        (np.array(1), True, r"a\.npy.*multi_label=True"),
        (np.zeros(4), False, r"a\.npy.*float64"),
        (np.array([0, 1, 2, 0]), False, "label 2 of a "),
        (np.zeros((4, 3), int), True, "3 columns.*2 classes"),
        (np.zeros(4, object), False, r"a\.npy.*damaged"),
    ],
)
def test_wrong_labels_of_features_are_refused_by_name(tmp_path, labels, multi_label, words):
    with pytest.raises(SeqclfError, match=words):
        feature_set(feature_files(tmp_path, labels), multi_label=multi_label)


def test_labels_of_features_are_in_one_file_and_of_the_kind_that_is_set(tmp_path):
    root = feature_files(tmp_path, np.array([0, 1, 1, -100]))
    assert feature_set(root).train.videos[0].labels.tolist() == [0, 1, 1, -100]
    (tmp_path / "groundTruth" / "a.txt").write_text("u\n" * 4)
    with pytest.raises(SeqclfError, match=r"a\.txt.*a\.npy"):
        feature_set(root)
    (tmp_path / "groundTruth" / "a.npy").unlink()
    with pytest.raises(SeqclfError, match=r"a\.txt.*multi_label"):
        feature_set(root, multi_label=True)
    with pytest.raises(SeqclfError, match="background='u'"):
        np.save(tmp_path / "groundTruth" / "b.npy", np.array(1))
        feature_set(root, background=["u"])


@pytest.mark.parametrize("word", ["none", "None"])
def test_classes_none_on_the_command_line_is_none(word):
    assert list_settings(Namespace(classes=word)) == {"classes": None}
