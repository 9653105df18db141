"""Tables as annotation tools and public data sets export them, such as VIA, Label Studio and ActivityNet."""

import json

import numpy as np
import pytest
from made_videos import noise, write_folder

from seqclf import SeqclfError, annotated_set
from seqclf.batch import IGNORE
from seqclf.data.annotations.frame_labels import annotate
from seqclf.data.annotations.segments import read_segments
from seqclf.data.frames.times import at_rate
from seqclf.data.lists.class_index import read_classes
from seqclf.data.lists.video_list import read_list

_ = IGNORE


@pytest.fixture
def two_videos(tmp_path):
    """Folders of 6 and 4 pictures, a list of them, and a folder for their annotations."""
    for name, count in (("video1", 6), ("video10", 4)):
        write_folder(tmp_path / name, noise(count, 3, 4, 4))
    (tmp_path / "phases").mkdir()
    (tmp_path / "l.txt").write_text("video1\nvideo10\n")
    return tmp_path


def on_all(root, segments, **keywords):
    """All videos in both parts, with the labels in the table."""
    return annotated_set(root, "l.txt", "l.txt", segments, None, split="l.txt", **keywords)


def exported(path, text, first_frame=0, **keywords):
    """The classes of the frames of two videos of 40 frames, at 10 per second."""
    path.write_text(text)
    table, times = read_segments(path, **keywords), at_rate(np.arange(40), 40, 10)
    labels = [annotate(table, video, times, first_frame=first_frame).labels for video in ("a.mp4", "b.mp4")]
    return [[table.classes[k] if k >= 0 else "-" for k in y.tolist()] for y in labels]


WALK_RUN = [["walk"] * 15 + ["-"] * 5 + ["run"] * 20, ["-"] * 10 + ["walk"] * 20 + ["-"] * 10]
SECONDS = [("a", 0, 1.5, "walk"), ("a", 2, 4, "run"), ("b", 1, 3, "walk")]


def activitynet(rows):
    of = {
        name: [{"segment": [s, e], "label": label} for v, s, e, label in rows if v == name] for name in ("a", "b", "c")
    }
    database = {name: {"duration": 4.0, "subset": "training", "annotations": found} for name, found in of.items()}
    return {"version": "VERSION 1.3", "taxonomy": [{"nodeName": "walk"}], "database": database}


BY_VIDEO = {name: found["annotations"] for name, found in activitynet(SECONDS)["database"].items()}


def label_studio(rows):
    entries = {name: {"video": f"videos/{name}.mp4", "id": 1, "timeline": [], "annotator": 1} for name in ("a", "b")}
    for name, start, end, label in rows:
        ranges = [{"start": round(10 * start) + 1, "end": round(10 * end)}]
        entries[name]["timeline"].append({"ranges": ranges, "timelinelabels": [label]})
    return list(entries.values())


VIA = """# Exported using VGG Image Annotator
# CSV_HEADER = metadata_id,file_list,temporal_coordinates,spatial_coordinates,metadata
""" + "".join(
    f'"1_{k}","[""{v}.mp4""]","[{s}, {e}]","[]","{{""1"":""{label}""}}"\n' for k, (v, s, e, label) in enumerate(SECONDS)
)


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        (json.dumps(activitynet(SECONDS)), {"unit": "seconds"}),
        (json.dumps(activitynet(SECONDS)["database"]), {"unit": "seconds"}),
        (json.dumps(label_studio(SECONDS)), {"inclusive": True, "first_frame": 1}),
        (json.dumps({f"{name}.mp4": rows for name, rows in BY_VIDEO.items()}),
         {"unit": "seconds"}),
        (json.dumps({"x": 1, "v": BY_VIDEO}),
         {"unit": "seconds"}),
        ("file,start,end,label\nx/a.eaf,0,15,walk\nx/a.eaf,20,40,run\nx/b.eaf,10,30,walk\n", {}),
        (VIA, {"unit": "seconds", "columns": {"video": 1, "start": 2, "end": 2, "label": 4}}),
        ("a 0 15 walk\na 20 40 run\nb 10 30 walk\n", {"columns": {"video": 0, "start": 1, "end": 2, "label": 3}}),
        ("a\t0-14\twalk\na\t20-39\trun\nb\t10-29\twalk\n",
         {"inclusive": True, "columns": {"video": 0, "start": 1, "end": 1, "label": 2}}),
        ("walk a (0-14) [2]\nrun a (20-39)\nwalk b (10-29)\n",
         {"inclusive": True, "columns": {"video": 1, "start": 2, "end": 2, "label": 0}}),
    ],
)  # fmt: skip
def test_exports_of_annotation_tools_give_their_labels(tmp_path, text, keywords):
    assert exported(tmp_path / "s.csv", text, **keywords) == WALK_RUN


@pytest.mark.parametrize("label", ["walk", {"annotations": {"label": "walk"}, "object": {"name": "cup"}}])
def test_a_json_object_may_have_an_item_for_each_video(two_videos, label):
    other = {"label": "run", "object": {"label": "cup"}} if isinstance(label, dict) else "run"
    (two_videos / "l.json").write_text(json.dumps({"video1.mp4": label, "video10.mp4": other}))
    assert [video.label for video in read_list(two_videos / "l.json", two_videos).videos] == [1, 0]


def test_objects_without_times_are_no_rows(two_videos):
    entry = {"path": "video1", "label": "walk", "objects": [{"label": "cup", "box": [0, 1]}, {"label": "pan"}]}
    (two_videos / "l.json").write_text(json.dumps([entry]))
    found = read_list(two_videos / "l.json", two_videos)
    assert found.classes == ["walk"] and len(found.videos) == 1
    events = [{"t0": 0, "t1": 2, "what": "x"}, {"t0": 2, "t1": 3, "what": "y"}]
    columns = {"video": "clip", "start": "t0", "end": "t1", "label": "what"}
    (two_videos / "s.json").write_text(json.dumps([{"clip": "a", "events": events}, {"clip": "b", "events": []}]))
    assert [len(rows) for rows in read_segments(two_videos / "s.json", columns=columns).videos.values()] == [2, 0]


@pytest.mark.parametrize(
    ("text", "unit", "way_out"),
    [
        ("Media file name,Start (s),Stop (s),Behavior\na.mp4;b.mp4,0,1,walk\n", "seconds", r"line 2: 'a.*b.mp4' .*2 v"),
        ("Time,Media file path,Subject,Behavior,Status\n0.5,a.mp4,s,walk,START\n", "seconds", "Status.*start and end"),
        ("Observation id\to1\n\nPlayer 1\ta.mp4\tx\nTime\tBehavior\n", "seconds", "line 3.*first line.*header"),
        ("behaviour\t\t00:00:00.000\t0.000\t00:00:01.500\t1.500\twalk\n", "seconds", "columns= to numbers"),
        ("a,0902,0.077,0.151,0.283,0.811,80,1\n", "seconds", "columns= to numbers"),
        (VIA, "seconds", "columns= to numbers"),
        ("video,start,end,label\na,0,14,walk\na,15,29,run\na,30,39,walk\n", "frames", r"line 3: .*15.*2.*14.*inclus"),
        ('[{"video": "a", "start": 0, "end": 3, "label": {"choices": ["x", "y"]}}]', "frames", "entry 1.*multi_label"),
    ],
)  # fmt: skip
def test_exports_that_need_a_setting_or_a_change_are_refused_with_the_way_out(tmp_path, text, unit, way_out):
    with pytest.raises(SeqclfError, match=way_out):
        exported(tmp_path / "s.csv", text, unit=unit)


def test_a_line_of_a_segment_is_not_the_class_of_a_frame(two_videos):
    for name, count in (("video1", 6), ("video10", 4)):
        (two_videos / "phases" / f"{name}-phase.txt").write_text(f"1-2 SIL  \n3-{count} pour milk  \n")
    with pytest.raises(SeqclfError, match=r"video1-phase\.txt, line 1: '1-2 SIL'.*columns=.*'end': 0"):
        on_all(str(two_videos), "phases")
    columns = {"start": 0, "end": 0, "label": 1}
    with pytest.raises(SeqclfError, match="inclusive="):
        on_all(str(two_videos), "phases", columns=columns)
    data = on_all(str(two_videos), "phases", columns=columns, inclusive=True, frame_numbers="order", background=None)
    assert data.classes == ["SIL", "pour milk"]


def test_segments_that_count_from_1_are_recognised_by_the_end_of_a_video(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 2), np.float32))
    (tmp_path / "l.txt").write_text("a.npy\nb.npy\n")
    (tmp_path / "s.csv").write_text("video,start,end,label\na,1,2,x\na,3,4,y\nb,1,3,x\n")
    data = on_all(str(tmp_path), "s.csv", inclusive=True)
    assert [video.labels.tolist() for video in data.test.videos] == [[0, 0, 1, 1], [0, 0, 0, _]]
    assert "numbered from 1" in data.source
    (tmp_path / "s.csv").write_text("video,start,end,label\na,1,2,x\na,3,4,y\nb,2,3,x\n")  # b starts later
    assert on_all(str(tmp_path), "s.csv", inclusive=True).test.videos[0].labels.tolist() == [_, 0, 0, 1]


def test_every_25th_row_at_25_fps_labels_a_frame_of_a_video_at_1_fps(two_videos):
    for name in ("video1", "video10"):
        rows = "".join(f"{n}\t{int(n < 75)}\t{int(n >= 50)}\n" for n in range(0, 150, 25))
        (two_videos / "phases" / f"{name}-phase.txt").write_text("Frame\tGrasper\tHook\n" + rows)
    data = on_all(str(two_videos), "phases", fps=1, annotation_fps=25, multi_label=True, past_end=100)
    assert data.test.videos[0].labels.tolist() == [[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 1]]


def test_classes_may_be_a_json_file_of_names_or_numbers(tmp_path):
    for text in ('{"x": "0", "y": "1"}', '{"1": "y", "0": "x"}', '["x", "y"]'):
        (tmp_path / "classes.json").write_text(text)
        assert read_classes(tmp_path / "classes.json") == ["x", "y"]
    (tmp_path / "classes.json").write_text('[{"name": "x"}]')
    with pytest.raises(SeqclfError, match=r"classes\.json"):
        read_classes(tmp_path / "classes.json")
