"""Lists and annotations as tools and data sets write them: several labels, groups, a file per video, other rates."""

from __future__ import annotations

from contextlib import nullcontext
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image

from seqclf import SeqclfError, annotated_set, video_set
from seqclf.batch import IGNORE
from seqclf.data.annotations.frame_labels import annotate
from seqclf.data.annotations.segments import read_segments
from seqclf.data.frames.times import at_rate
from seqclf.data.lists.splits import Selection
from seqclf.data.lists.video_list import read_list, read_paths

_ = IGNORE
CHARADES = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    'YSKX3,JGPW,Kitchen,6,7,Yes,"A person cooks, then eats.",food;pan,"One, two.",'
    "c092 11.90 21.20;c147 0.00 12.60,23.50\n"
    "46GP8,HR43,Living room,7,5,Yes,A person sits.,chair,Sits.,c059 0.00 5.00,31.00\n"
    "N11GT,JGPW,Kitchen,7,5,Yes,Nothing happens.,,Empty.,,11.00\n"
)
BORIS = (
    "Observation id,Observation date,Description,Media file name,Total length,FPS (frame/s),Subject,Behavior,"
    "Behavioral category,Behavior type,Start (s),Stop (s),Duration (s),Comment start,Comment stop\n"
    'o1,2024-05-01,"pen 3, dawn",media/a.mp4,4.8,25,cow 1,walk,Not defined,STATE,0.52,1.48,0.96,,\n'
    'o1,2024-05-01,"pen 3, dawn",media/a.mp4,4.8,25,cow 2,graze,Not defined,STATE,2.0,4.0,2.0,,\n'
)
EPIC = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3,['door'],[3]\n"
    "P02_01_1,P02,P02_01,00:00:02.629,00:00:04.37,00:00:06.17,262,370,turn on light,turn-on,6,light,113,"
    "\"['light', 'tap']\",\"[113, 0]\"\n"
)


@pytest.fixture
def root(tmp_path):
    """Files that are never opened."""
    names = (
        *("a.mp4", "b.mp4", "c.mp4", "YSKX3.mp4", "46GP8.mp4", "N11GT.mp4", "P01_01.MP4", "P02_01.MP4", "media/a.mp4"),
        *("78687.webm", "1.webm", "brush_hair/#20_Rhythm_clap.avi", "brush_hair/b.avi", "cart wheel/c.avi", "d/1.jpg"),
    )
    for name in names:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "videos"


def listed(root, text, name="l.csv", **keywords):
    """The list of this text: name and label of each video, classes, description."""
    path = root.parent / name
    path.write_text(text)
    found = read_list(path, root, **keywords)
    return [(video.path.name, video.label) for video in found.videos], found.classes, found.description


# ---- several labels per video


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("path,label\na.mp4,run|walk\nb.mp4,walk\nc.mp4,\n", {}),
        ("video,run,walk\na,True,True\nb,False,True\nc,False,False\n", {}),
        ('{"a": {"label": ["run", "walk"]}, "b": {"label": ["walk"]}, "c": {"label": []}}', {}),
        ("path;label\na.mp4;run, walk\nb.mp4;walk\nc.mp4;\n", {"separator": ","}),
        ("path,label\na.mp4,run\na.mp4,walk\nb.mp4,walk\nc.mp4,\n", {}),  # a row for each class
        ("path,run,walk\na.mp4,1,1\nb.mp4,0,1.0\nc.mp4,0,0\n", {}),
        (",path,split,run,walk\n0,a.mp4,x,1,1\n1,b.mp4,x,0,1\n2,c.mp4,x,0,0\n", {}),
        ("path,fps,run,walk\na.mp4,25,1,1\nb.mp4,25,0,1\nc.mp4,30,0,0\n", {"columns": {"labels": ["run", "walk"]}}),
        ('[{"path": "a", "label": ["run", "walk"]}, {"path": "b", "label": ["walk"]}, {"path": "c", "label": []}]', {}),
        ("path,label\na.mp4,\"['run', 'walk']\"\nb.mp4,['walk']\nc.mp4,[]\n", {}),
        ("a.mp4 run|walk\nb.mp4 walk\nc.mp4 walk\n", {"last": (0, 1)}),
    ],
)
def test_videos_with_several_labels(root, text, keywords):
    last = keywords.pop("last", (0, 0))
    videos, classes, description = listed(root, text, **{"separator": "|", **keywords})
    assert classes == ["run", "walk"]
    assert videos == [("a.mp4", (1, 1)), ("b.mp4", (0, 1)), ("c.mp4", last)]
    assert f"{3 + sum(last)} labels" in description


@pytest.mark.parametrize("numbers", ["Unnamed: 0", "index", "id"])
def test_a_column_that_numbers_the_rows_is_no_class(root, numbers):
    assert listed(root, f"{numbers},path,walk,run\n0,a.mp4,1,0\n1,b.mp4,0,1\n", separator="|")[1] == ["walk", "run"]
    fingers = "path,index,thumb\na.mp4,0,1\nb.mp4,1,1\nc.mp4,1,0\n"
    assert listed(root, fingers, separator="|")[1] == ["index", "thumb"]


@pytest.mark.parametrize(("name", "purpose"), [("action", "label"), ("person", "group")])
def test_a_column_of_0_and_1_with_a_usual_name_may_be_a_class(root, name, purpose):
    text = f"path,{name},talk\na.mp4,1,0\nb.mp4,1,1\n"
    with pytest.raises(SeqclfError, match=rf"l\.csv: column '{name}' .*'labels'.*'{purpose}': '{name}'"):
        listed(root, text, separator="|")
    columns = {"labels": [name, "talk"]}
    assert listed(root, text, separator="|", columns=columns)[:2] == (
        [("a.mp4", (1, 0)), ("b.mp4", (1, 1))],
        [name, "talk"],
    )
    assert listed(root, text, separator="|", columns={purpose: name})[1] != [name, "talk"]
    table = root.parent / "s.csv"
    table.write_text(text.replace("path", "frame,video").replace("a.mp4", "0,a").replace("b.mp4", "1,a"))
    with pytest.raises(SeqclfError, match="'action'") if purpose == "label" else nullcontext():
        assert read_segments(table, separator="|").classes == [name, "talk"]


def test_several_numbers_in_a_cell(root):
    videos, classes, _d = listed(root, "path,label\na.mp4,1 3 5\nb.mp4,3\n", separator="|")
    assert classes == ["1", "3", "5"] and [label for _, label in videos] == [(1, 1, 1), (0, 1, 0)]
    with pytest.raises(SeqclfError, match=r"line 2.*'1 3 5'.*multi_label=True"):
        listed(root, "path,label\na.mp4,1 3 5\nb.mp4,3\n")


def test_purposes_of_columns_are_checked_and_path_is_video(root):
    for purpose in ("path", "video"):
        assert listed(root, "clip;name;what\na.mp4;n;x\n", columns={purpose: "clip", "label": "what"})[0] == [
            ("a.mp4", 0)
        ]
    with pytest.raises(SeqclfError, match="'paths'"):
        listed(root, "clip;what\na.mp4;x\n", columns={"paths": "clip", "label": "what"})


def test_several_numbers_per_line(root):
    videos, classes, _d = listed(root, "a.mp4 0 1 4\nb.mp4 4\nc.mp4\n", "l.txt", separator="|")
    assert classes == ["0", "1", "4"] and [label for _, label in videos] == [(1, 1, 1), (0, 0, 1), (0, 0, 0)]
    for form, first in (("rawframes", (0, 1)), ("plain", (1, 1))):
        videos, classes, _d = listed(
            root, "d 1 3\n", "l.txt", separator="|", form=form, classes=["w", "x", "y", "3"][:4]
        )
        assert len(videos) == 1, (form, first)
    with pytest.raises(SeqclfError, match=r"line 1.*form='plain' or form='rawframes'"):
        listed(root, "d 1 3\n", "l.txt", separator="|")
    videos, classes, _d = listed(root, "d 120 1 3\n", "l.txt", separator="|", form="rawframes")
    assert classes == ["1", "3"] and videos == [("d", (1, 1))]


def test_an_empty_cell_of_a_class_column_is_unknown_and_a_missing_column_too(root):
    videos, classes, _d = listed(root, "path,run,walk\na.mp4,1,\nb.mp4,0,1\n", separator="|")
    assert [label for _, label in videos] == [(1, _), (0, 1)]
    videos, _c, _d = listed(root, "path,walk\na.mp4,1\n", separator="|", classes=classes)
    assert videos == [("a.mp4", (_, 1))]
    with pytest.raises(SeqclfError, match=r"line 2.*'seconds'.*columns="):
        listed(root, "path,seconds,walk\na.mp4,4.8,1\n", separator="|")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.mp4,walk|run\nb.mp4,run\n",
        "path,walk,run\na.mp4,1,1\n",
        '[{"path": "a", "label": ["run", "walk"]}]',
        "a.mp4 1 2 3\n",
        "b.mp4 2\na.mp4 0 3\n",
        "a.mp4,0,3\nb.mp4,2,4\n",  # not the number of frames and a label
        "b 2\na 1 3\n",
        "a 0 3\nb 0 1\n",
        "b.mp4 run\na.mp4 run|walk\n",
        "a.mp4\t['run', 'walk']\nb.mp4\t['run']\n",
        "path,label\na.mp4,run\na.mp4,walk\n",
        CHARADES,
    ],
)
def test_several_labels_without_the_setting_are_refused_with_the_way_out(root, text):
    with pytest.raises(SeqclfError, match=r"l\.csv.*multi_label=True"):
        listed(root, text)


@pytest.mark.parametrize(
    "text", ["path,label\na.mp4,walk;talk\n", "a.mp4 walk;talk\n", 'path,label\na.mp4,"walk,talk"\n']
)
def test_another_separator_than_the_set_one_is_asked_for(root, text):
    with pytest.raises(SeqclfError, match=r"line \d: 'walk.talk'.*separator="):
        listed(root, text, separator="|")
    mark = ";" if ";" in text else ","
    assert listed(root, text, separator=mark)[0] == [("a.mp4", (1, 1))]
    assert listed(root, text, separator="|", classes=[f"walk{mark}talk"])[0] == [("a.mp4", (1,))]


def test_a_set_with_several_labels(tmp_path):
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
    (tmp_path / "l.csv").write_text("path,label,split\na,run|walk,train\nb,walk,train\nc,run,test\n")
    data = video_set(str(tmp_path), "l.csv", "l.csv", multi_label=True)
    assert data.multi_label and data.classes == ["run", "walk"]
    labels = data.train.batch(torch.arange(2)).labels
    assert labels.shape == (2, 5, 2) and sorted(labels[:, 0].tolist()) == [[0, 1], [1, 1]]
    assert data.test.batch(torch.arange(1)).labels[0, -1].tolist() == [1, 0]
    assert data.input_spec().root == str(tmp_path)  # though the list leaves out suffixes


# ---- tables of data sets and tools


def test_charades(root):
    videos, classes, description = listed(root, CHARADES, separator="|")
    assert classes == ["c059", "c092", "c147"] and "Charades" in description and "2 groups" in description
    assert [label for _, label in videos] == [(0, 1, 1), (1, 0, 0), (0, 0, 0)]
    table = read_segments(root.parent / "l.csv", "seconds", separator="|")
    labels = annotate(table, "YSKX3.mp4", at_rate(np.arange(47), 47, 2)).labels
    assert labels.shape == (47, 3) and labels[:24, 2].all() and not labels[26:, 2].any()
    assert labels[:, 1].nonzero()[:, 0].tolist() == list(range(24, 42))  # c092 and c147 overlap at 12 s
    assert not annotate(table, "N11GT", at_rate(np.arange(22), 22, 2)).labels.any()


def test_boris_and_epic_kitchens_name_their_columns(root):
    path = root.parent / "l.csv"
    path.write_text(BORIS)
    table = read_segments(path, "seconds")
    labels = annotate(table, "media/a.mp4", at_rate(np.arange(120), 120, 25)).labels
    assert table.classes == ["graze", "walk"] and (labels == 1).sum() == 24 and (labels == 0).sum() == 50
    assert table.header.startswith("Media file name, Start (s), Stop (s), Behavior") and "BORIS" in table.header
    assert read_paths(path, root).groups() is None  # two subjects in one video
    _videos, classes, description = listed(root, EPIC, clips="auto")
    assert classes == ["open", "turn-on"] and "EPIC-KITCHENS" in description and "2 groups" in description
    assert all(name in description for name in ("video_id", "verb", "start_timestamp", "participant_id"))


def test_something_something_has_its_classes_in_the_template(root):
    text = (
        '[{"id": "78687", "label": "holding a potato", "template": "Holding [something]", "placeholders": ["it"]},'
        ' {"id": "1", "label": "holding tape", "template": "Holding [something]", "placeholders": ["tape"]}]'
    )
    videos, classes, description = listed(root, text)
    assert classes == ["Holding [something]"] and "Something-Something" in description and len(videos) == 2
    (root / "labels.json").write_text('{"Dropping something": "0", "Holding something": "1"}')
    assert listed(root, text, class_index="labels.json")[0] == [("78687.webm", 1), ("1.webm", 1)]


def test_hmdb51_is_read_from_the_files_of_its_classes(root):
    splits = root.parent / "splits"
    splits.mkdir()
    (splits / "brush_hair_test_split1.txt").write_text("#20_Rhythm_clap.avi 1 \nb.avi 2 \n")
    (splits / "cart wheel_test_split1.txt").write_text("c.avi 1 \nmissing.avi 0 \n")
    (splits / "brush_hair_test_split2.txt").write_text("b.avi 1 \n")
    found = read_list(splits / "*_test_split1.txt", root)
    assert found.classes == ["brush_hair", "cart wheel"] and "1 unused" in found.description
    with pytest.raises(SeqclfError, match=r"\*_test_split1\.txt"):
        read_list(splits / "brush_hair_test_split1.txt", root)
    for part, names in (
        ("train", ["brush_hair/#20_Rhythm_clap.avi", "cart wheel/c.avi"]),
        ("test", ["brush_hair/b.avi"]),
    ):
        found = read_list(splits / "*_test_split1.txt", root, select=Selection(part, shared=True))
        assert [video.name for video in found.videos] == names
    for several in ("*_test_split*.txt", "*.txt"):  # splits overlap: a video is in training of one and test of another
        with pytest.raises(SeqclfError, match=r"brush_hair_test_split1\.txt and brush_hair_test_split2\.txt"):
            read_list(splits / several, root)


# ---- groups


@pytest.mark.parametrize("column", ["group", "Subject", "participant_id", "session", "whose"])
def test_a_group_column_is_understood(root, column):
    keywords = {"columns": {"group": "whose"}} if column == "whose" else {}
    if keywords:
        keywords["columns"] |= {"path": "path", "label": "label"}
    text = f"path,label,{column}\na.mp4,x,s1\nb.mp4,y,s2\nc.mp4,x,s1\n"
    path = root.parent / "l.csv"
    path.write_text(text)
    for read in (read_list, read_paths):
        found = read(path, root, **keywords)
        assert [video.group for video in found.videos] == ["s1", "s2", "s1"]
        assert f"2 groups by column {column}" in found.description


@pytest.fixture
def three_arrays(tmp_path):
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.zeros((5, 3), np.float32))
    (tmp_path / "s.csv").write_text("video,start,end,label\na,0,5,x\nb,0,5,y\nc,0,5,x\n")
    return tmp_path


def both_sets(root, train="l.csv", test="l.csv", **keywords):
    """The same lists with a label per video, and with a label per frame."""
    yield lambda: video_set(str(root), train, test, **keywords)
    yield lambda: annotated_set(str(root), train, test, "s.csv", None, **keywords)


def test_sets_have_the_groups_of_their_lists(three_arrays):
    (three_arrays / "l.csv").write_text("path,label,split,subject\na,x,train,s1\nb,y,train,\nc,x,test,s3\n")
    for data, unnamed in zip(both_sets(three_arrays), ("b", "b.npy"), strict=True):
        assert data().train.groups == ["s1", unnamed] and data().test.groups == ["s3"]
        assert data().warning is None


def test_a_group_in_two_parts_is_refused_unless_the_column_is_ignored(three_arrays):
    (three_arrays / "l.csv").write_text("path,label,split,subject\na,x,train,s1\nb,y,train,\nc,x,test,s1\n")
    for data in both_sets(three_arrays):
        with pytest.raises(SeqclfError, match=r"l\.csv.*'s1'.*train.*test.*columns="):
            data()
    columns = {"group": None}
    assert video_set(str(three_arrays), "l.csv", "l.csv", columns=columns).train.groups is None
    lists = {part: read_paths(three_arrays / "l.csv", three_arrays, columns=columns) for part in ("train", "test")}
    assert lists["train"].groups() is None


def test_a_video_in_two_parts_is_refused_unless_a_list_is_measured_again(three_arrays):
    (three_arrays / "l.csv").write_text("path,label\na,x\nb,y\n")
    (three_arrays / "m.csv").write_text("path,label\nb.npy,y\nc,x\n")  # the same file by another name
    for data in both_sets(three_arrays, test="m.csv"):
        with pytest.raises(SeqclfError, match=r"l\.csv.*m\.csv.*'b(\.npy)?'.*train.*test.*split="):
            data()
    for data in both_sets(three_arrays, test="m.csv", split="n.csv"):
        (three_arrays / "n.csv").write_text("path,label\nb,y\n")
        assert "'b" in data().warning and "train" in data().warning
    for data in both_sets(three_arrays, split="l.csv"):
        assert "the same" in data().warning


def test_one_list_for_two_parts_needs_a_column_that_divides_it_or_causes_a_warning(three_arrays):
    (three_arrays / "l.csv").write_text("path,label\na,x\nb,y\n")
    labelled, annotated = both_sets(three_arrays)
    with pytest.raises(SeqclfError, match=r"l\.csv"):
        labelled()
    assert "the same" in annotated().warning


def test_different_clips_of_a_video_in_two_parts_are_warned_of(three_arrays):
    text = "path,label,split,start_frame,end_frame\na,x,train,0,2\nb,y,train,0,2\na,x,test,{},4\n"
    (three_arrays / "l.csv").write_text(text.format(2))
    data = video_set(str(three_arrays), "l.csv", "l.csv")
    assert "a.npy" in data.warning
    (three_arrays / "l.csv").write_text(text.format(0).replace(",4", ",2"))
    with pytest.raises(SeqclfError, match=r"l\.csv.*'a, frames 0 to 1'"):
        video_set(str(three_arrays), "l.csv", "l.csv")


# ---- a file per video, and other rates


def on_all(root, segments, classes=None, **keywords):
    """All videos in both parts."""
    return annotated_set(root, "l.txt", "l.txt", segments, classes, split="l.txt", **keywords)


def folder_of_frames(path, count):
    path.mkdir(parents=True)
    for n in range(count):
        Image.new("RGB", (4, 4)).save(path / f"{n:03}.png")


@pytest.fixture
def two_videos(tmp_path):
    for name, count in (("video1", 6), ("video10", 4)):
        folder_of_frames(tmp_path / name, count)
        words = ["prepare", "cut", "close"]
        rows = [f"{n}\t{words[n // 2]}\n" for n in range(count)]
        (tmp_path / "phases").mkdir(exist_ok=True)
        (tmp_path / "phases" / f"{name}-phase.txt").write_text("Frame\tPhase\n" + "".join(rows))
    (tmp_path / "l.txt").write_text("video1\nvideo10\n")
    return tmp_path


@pytest.mark.parametrize("segments", ["phases", "phases/*-phase.txt"])
@pytest.mark.parametrize("classes", [["prepare", "cut", "close"], None])
def test_each_video_may_have_a_file_of_its_own(two_videos, segments, classes):
    data = on_all(str(two_videos), segments, classes)
    assert [[data.classes[k] for k in video.labels] for video in data.test.videos] == [
        ["prepare", "prepare", "cut", "cut", "close", "close"],
        ["prepare", "prepare", "cut", "cut"],
    ]
    assert "Frame, Phase" in data.source and "Cholec80" in data.source


def test_files_of_videos_that_are_missing_or_ambiguous_are_named(two_videos):
    (two_videos / "phases" / "video1-tool.txt").write_text("Frame\tGrasper\n0\t1\n")
    with pytest.raises(SeqclfError, match=r"video1-phase.txt and video1-tool.txt.*\*-phase.txt"):
        on_all(str(two_videos), "phases", None)
    (two_videos / "phases" / "video10-phase.txt").unlink()
    with pytest.raises(SeqclfError, match=r"video10"):
        on_all(str(two_videos), "phases/*-phase.txt", None)
    data = on_all(str(two_videos), "phases/*-phase.txt", None, on_error="skip")
    assert "video10" in data.skipped() and len(data.test.videos) == 1


@pytest.mark.parametrize("first", ["Phase", "# exported"])
def test_a_header_above_a_class_per_line_is_no_class(two_videos, first):
    (two_videos / "phases" / "video1.txt").write_text(f"{first}\n" + "x\n" * 6)
    (two_videos / "phases" / "video10.txt").write_text("x\n" * 4)
    with pytest.raises(SeqclfError, match=rf"video1\.txt, line 1: '{first}'"):
        on_all(str(two_videos), "phases/*.txt")
    (two_videos / "phases" / "video1.txt").write_text(f"{first}\n" * 3 + "x\n" * 3)  # a class of several frames
    assert on_all(str(two_videos), "phases/*.txt").classes == [first, "x"]


def test_a_file_of_a_video_may_have_no_suffix_and_any_form_of_its_letters(tmp_path):
    for name in ("Übung", "b"):
        np.save(tmp_path / f"{name}.npy", np.zeros((3, 2), np.float32))
    (tmp_path / "l.txt").write_text("Übung.npy\nb.npy\n")
    (tmp_path / "phases").mkdir()
    for name in (normalize("NFD", "Übung"), "b"):
        (tmp_path / "phases" / name).write_text("x\nx\ny\n")
    for segments in ("phases", "phases/*"):
        assert on_all(str(tmp_path), segments).test.videos[0].labels.tolist() == [0, 0, 1]


def test_a_file_per_video_may_be_a_class_per_line_or_a_table_without_a_header(two_videos):
    for name, lines in (("video1", "x x x y y y"), ("video10", "y y y y")):
        (two_videos / "phases" / f"{name}-phase.txt").write_text(lines.replace(" ", "\n") + "\n")
    data = on_all(str(two_videos), "phases", None)
    assert [video.labels.tolist() for video in data.test.videos] == [[0, 0, 0, 1, 1, 1], [1] * 4]
    for name in ("video1", "video10"):  # ELAN: tier, begin, end, duration, value
        (two_videos / "phases" / f"{name}-phase.txt").write_text("tier\t0\t0.08\t0.08\tx\ntier\t0.08\t0.16\t0.08\ty\n")
    columns = {"start": 1, "end": 2, "label": 4}
    data = on_all(str(two_videos), "phases", None, columns=columns, unit="seconds", fps=25, background="none")
    assert data.classes == ["none", "x", "y"]
    assert data.test.videos[0].labels.tolist() == [1, 1, 2, 2, 0, 0]


def test_tools_of_cholec80_are_several_labels_of_every_25th_frame(two_videos):
    for name in ("video1", "video10"):
        (two_videos / "phases" / f"{name}-tool.txt").write_text("Frame\tGrasper\tHook\n0\t1\t0\n2\t1\t1\n")
    data = on_all(str(two_videos), "phases/*-tool.txt", None, multi_label=True)
    assert data.classes == ["Grasper", "Hook"]
    assert data.test.videos[1].labels.tolist() == [[1, 0], [_, _], [1, 1], [_, _]]


def test_the_rate_of_the_annotation_may_differ_from_that_of_the_video(two_videos):
    for name in ("video1", "video10"):
        (two_videos / "phases" / f"{name}-phase.txt").write_text("Frame\tPhase\n0\tx\n1\ty\n")
    arguments = (str(two_videos), "phases", ["x", "y"])
    data = on_all(*arguments, fps=3, annotation_fps=1)
    assert "Frame, Phase; the header of Cholec80; 1 frames/s" in data.source
    assert data.test.videos[0].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.videos[1].labels.tolist() == [0, 0, 0, 1]  # the last row reaches two thirds of a second too far
    assert "2 segments clipped" in data.source  # the list serves training and test
    with pytest.raises(SeqclfError, match=r"phases.*2 of 6 frames of video1.*annotation_fps"):
        on_all(*arguments, fps=3)
    data = on_all(*arguments, fps=3, annotation_fps=3)  # the other frames have no label
    assert data.test.videos[0].labels.tolist() == [0, 1, _, _, _, _]
    with pytest.raises(SeqclfError, match=r"video10-phase\.txt, line 3.*past_end"):
        on_all(*arguments, fps=3, annotation_fps=1, past_end=0)


def test_rows_of_frames_that_count_from_1_are_recognised(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 2), np.float32))
    (tmp_path / "l.txt").write_text("a.npy\nb.npy\n")
    rows = [f"a,{n},{'xy'[n > 2]}\n" for n in range(1, 5)] + ["b,1,x\n", "b,2,y\n"]
    (tmp_path / "s.csv").write_text("video,frame,label\n" + "".join(rows))
    data = on_all(str(tmp_path), "s.csv", None)
    assert [video.labels.tolist() for video in data.test.videos] == [[0, 0, 1, 1], [0, 1, _, _]]
    assert "numbered from 1" in data.source
    (tmp_path / "s.csv").write_text("video,frame,label\nb,1,x\nb,2,y\na,3,x\n")  # no evidence
    data = on_all(str(tmp_path), "s.csv", None)
    assert data.test.videos[1].labels.tolist() == [_, 0, 1, _]
    data = on_all(str(tmp_path), "s.csv", None, first_frame=1)
    assert data.test.videos[1].labels.tolist() == [0, 1, _, _]


# ---- segments of several classes


def test_segments_that_overlap_give_frames_several_labels(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("video,start,end,label\na,0,4,walk\na,2,6,talk|walk\na,5,6,walk\n")
    found = annotate(read_segments(path, separator="|"), "a", at_rate(np.arange(8), 8, 25))
    assert read_segments(path, separator="|").classes == ["talk", "walk"]
    assert found.labels.tolist() == [[0, 1]] * 2 + [[1, 1]] * 4 + [[0, 0]] * 2
    with pytest.raises(SeqclfError, match="background"):
        read_segments(path, separator="|", background="none")
    with pytest.raises(SeqclfError, match="multi_label=True"):
        read_segments(path)


@pytest.mark.parametrize("rows", ["a,0,3,x\na,3,6,y\n", "a,0:00,0:03,x\na,0:03,0:06,y\n", "a,0.0,3.0,x\na,3.0,6.0,y\n"])
def test_times_in_whole_seconds_may_end_up_to_a_second_late(tmp_path, rows):
    path = tmp_path / "s.csv"
    path.write_text("video,start,end,label\n" + rows)
    table = read_segments(path, "seconds")
    assert annotate(table, "a", at_rate(np.arange(52), 52, 10)).clipped == 1
    for frames, past_end in ((48, None), (52, 0)):
        with pytest.raises(SeqclfError, match=r"line 3.*past_end"):
            annotate(table, "a", at_rate(np.arange(frames), frames, 10), past_end=past_end)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"annotation_fps": 0}, "annotation_fps=0"), ({"annotation_fps": -1}, "=-1"), ({"past_end": -1}, "past_end=-1")],
)
def test_rates_and_tolerances_out_of_range_are_refused(two_videos, wrong, named):
    with pytest.raises(SeqclfError, match=named):
        on_all(two_videos, "phases", **wrong)


def test_segments_in_seconds_are_not_taken_for_frames(two_videos):
    """At 2 frames per second, the videos have 6 and 4 frames in 3 and 2 seconds."""

    def labels(**keywords):
        return [video.labels.tolist() for video in on_all(two_videos, "s.csv", **keywords).test.videos]

    header = "video,start,end,label\n"
    whole = "video1,0,2,x\nvideo1,2,3,y\nvideo10,0,2,y\n"
    for rows in (whole, "video1,0,1,x\nvideo10,,,\n", "video1,0,6,x\nvideo10,0,1,x\n"):
        (two_videos / "s.csv").write_text(header + rows)
        with pytest.raises(SeqclfError, match=r"s\.csv: .*video10? end at \d, .* frames in \d s.*unit='seconds'"):
            labels(fps=2)
        assert labels(fps=2, unit="frames") == labels(fps=2, annotation_fps=2) == labels()
    (two_videos / "s.csv").write_text(header + whole)
    assert labels(fps=2, unit="seconds") == [[0, 0, 0, 0, 1, 1], [1] * 4]
    assert labels(fps=2, unit="frames") == [[0, 0, 1, IGNORE, IGNORE, IGNORE], [1, 1, IGNORE, IGNORE]]
    assert labels(fps=1) == labels(fps=1, unit="frames") == labels(fps=1, unit="seconds")  # the same in both units


@pytest.mark.parametrize(
    ("rows", "unit"),
    [
        ("start,end,label,video\n0,5,x,video1\n0,4,y,video10\n", "frames"),  # after the end if these were seconds
        ("start_frame,end_frame,label,video\n0,2,x,video1\n0,2,y,video10\n", "frames"),
        ("start_time,end_time,label,video\n0,2,x,video1\n0,2,y,video10\n", "seconds"),
        ("start,end,label,video\n0,2,x,video1\n0,1.5,y,video10\n", "seconds"),
        ("start,end,label,video\n0:00,0:02,x,video1\n0:00,0:01,y,video10\n", "seconds"),
        ("t,label,video\n[0; 2],x,video1\n[0; 1.5],y,video10\n", "seconds"),
        ("start_frame,end_frame,start,end,label,video\n0,9,0,2,x,video1\n0,9,0.5,2,y,video10\n", "seconds"),
    ],
)
def test_the_unit_of_segments_is_decided_by_evidence_and_reported(two_videos, rows, unit):
    (two_videos / "s.csv").write_text(rows.replace("; ", "-"))
    columns = {"start": "t", "end": "t"} if rows.startswith("t,") else None
    data = on_all(two_videos, "s.csv", fps=2, columns=columns)
    expected = on_all(two_videos, "s.csv", fps=2, columns=columns, unit=unit)
    assert [v.labels.tolist() for v in data.test.videos] == [v.labels.tolist() for v in expected.test.videos]
    assert f"; in {unit}" in data.source and data.details["annotation"]["unit"] == unit


def test_a_clip_of_a_list_may_end_a_little_late_and_is_counted(two_videos):
    (two_videos / "c.csv").write_text(
        "path,start_frame,end_frame,label,split\nvideo1,0,3,a,train\nvideo10,2,5,a,test\n"
    )
    data = video_set(str(two_videos), "c.csv", "c.csv")
    assert len(data.test.videos[0].source) == 2 and "1 clip cut" in data.source
    for past_end in (0, -1):
        with pytest.raises(SeqclfError, match=f"past_end={'' if past_end == 0 else past_end}"):
            video_set(str(two_videos), "c.csv", "c.csv", past_end=past_end)


def test_classes_are_those_of_the_usual_file_or_of_the_table(two_videos):
    found = on_all(str(two_videos), "phases", "auto")
    assert found.classes == ["close", "cut", "prepare"] and "3 classes of the table" in found.source
    assert found.classes == annotated_set(str(two_videos), "l.txt", "l.txt", "phases", split="l.txt").classes
    (two_videos / "classes.txt").write_text("prepare\ncut\nclean\nclose\n")
    found = on_all(str(two_videos), "phases", "auto")
    assert found.classes == ["prepare", "cut", "clean", "close"] and "4 classes" in found.source
    assert "of the table" not in found.source
    (two_videos / "classes.txt").write_text("prepare\ncut\n")
    with pytest.raises(SeqclfError, match="'close' is not one of the 2 classes"):
        on_all(str(two_videos), "phases", "auto")


def test_missing_class_names_are_asked_for(two_videos):
    with pytest.raises(SeqclfError, match=r"classes\.txt.*classes="):
        on_all(str(two_videos), "phases", "classes.txt")
    with pytest.raises(SeqclfError, match=r"classes=\{.*order"):
        on_all(str(two_videos), "phases", {"walk", "run"})
