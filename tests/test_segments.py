"""Tables of segments, and the labels that they give to the frames of a video."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqclf import SeqclfError
from seqclf.batch import IGNORE
from seqclf.data.annotations.frame_labels import annotate
from seqclf.data.annotations.segments import name_of, read_segments
from seqclf.data.frames.times import FrameTimes, at_rate, at_seconds

quick = partial(settings, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
_ = IGNORE
HEADER = "video,start,end,label\n"


def frames(count: int, fps: float | None = None, numbers=None) -> FrameTimes:
    """The times of ``count`` frames, numbered from 0 or as given."""
    numbers = np.arange(count) if numbers is None else np.array(numbers)
    end = int(numbers[-1]) + 1
    return FrameTimes(numbers, end) if fps is None else at_rate(numbers, end, fps)


def at(*seconds: float) -> FrameTimes:
    """The times of frames that are shown at these seconds."""
    return at_seconds(np.arange(len(seconds)), np.array(seconds, np.float64))


def labels(segments, name, times, **keywords) -> list[int]:
    return annotate(segments, name, times, **keywords).labels.tolist()


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "segments.csv"
        path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return path

    return write


# ---- reading


def test_a_segment_is_half_open_unless_its_end_is_inclusive(csv):
    path = csv(HEADER + "a,1,3,run\nb,0,2,walk\na,4,5,walk\n")
    segments = read_segments(path)
    assert segments.classes == ["run", "walk"]
    assert annotate(segments, "a", frames(6)).labels.dtype == torch.int64
    assert labels(segments, "a", frames(6)) == [_, 0, 0, _, 1, _]
    assert labels(segments, "b", frames(2)) == [1, 1]
    assert labels(read_segments(path, inclusive=True), "a", frames(6)) == [_, 0, 0, 0, 1, 1]
    one = csv(HEADER + "a,2,2,x\n")
    assert labels(read_segments(one, inclusive=True), "a", frames(4)) == [_, _, 0, _]
    with pytest.raises(SeqclfError, match=r"line 2.*inclusive=True"):
        read_segments(one)


@pytest.mark.parametrize(
    "text",
    [
        "label,end,video,start\nrun,3,a,1\n",
        "Video;Start;End;Label\na;1;3;run\n",
        "VIDEO,START,END,LABEL\na,1.0,3.0,run\n",
        "video\tstart\tend\tlabel\tnote\na\t1\t3.0\trun\tby hand\n",
        '\ufeff"video","start","end","label"\r\n\r\n a , 1 , 3 ,run\r\n',
        "video,start,end,label\ra,1,3,run\r",
        "# by hand\nvideo,start,end,label\n# the first\na,1,3,run\n",
        ",video,start,end,label\n0,a,1,3,run\n",
        HEADER + "\na,1,2,run\na,2,3,run\n\n",
        HEADER + "a,1,3,run\na,2,3,run\n",  # says the same twice
        "video_id,start_frame,stop_frame,start_timestamp,stop_timestamp,verb\na,1,3,00:00:09,00:00:10,run\n",
        "video,frame,label\na,1,run\na,2,run\n",
        '[{"video": "a", "start": 1, "end": 3, "label": "run"}]',
        '{"video": "a", "start": 1, "end": 2, "label": "run"}\n{"video": "a", "start": 2, "end": 3, "label": "run"}\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_any_usual_table_gives_the_same_labels(csv, text, encoding):
    if encoding == "utf-16":
        text = text.removeprefix("\ufeff")
    assert labels(read_segments(csv(text, encoding)), "a", frames(4)) == [_, 0, 0, _]


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "a,1,3.5,run\n",
        HEADER + "a,0:01,00:00:03.500,run\n",
        HEADER + 'a,"00:00:01,000","00:00:03,500",run\n',
        "video;start;end;label\na;1,0;3,5;run\n",
        "Media file name,Behavior,Start (s),Stop (s)\na,run,1,3.5\n",
        "video_id,start_frame,stop_frame,start_timestamp,stop_timestamp,verb\na,9,10,00:00:01,00:00:03.5,run\n",
    ],
)
def test_times_in_seconds_are_read_in_any_usual_form(csv, text):
    assert labels(read_segments(csv(text), "seconds"), "a", frames(5, fps=1)) == [_, 0, 0, _, _]


def test_columns_may_be_mapped_by_name_and_by_number(csv):
    named = csv("which;from_here;to_here;what\na;1;3;run\n")
    columns = {"video": "which", "start": "from_here", "end": "to_here", "label": "what"}
    assert labels(read_segments(named, columns=columns), "a", frames(4)) == [_, 0, 0, _]
    with pytest.raises(SeqclfError, match=r"'label': 'nothing'"):
        read_segments(named, columns={**columns, "label": "nothing"})
    without_header = csv("a\t1.0\t3.0\t2.0\trun\n")
    columns = {"video": 0, "start": 1, "end": 2, "label": 4}
    assert labels(read_segments(without_header, columns=columns), "a", frames(4)) == [_, 0, 0, _]


@pytest.mark.parametrize(
    ("text", "unit", "way_out"),
    [
        ("video start end label\na 0 1 x\n", "frames", "commas"),
        ("Begin Time - msec\tEnd Time - msec\tlabel\n0\t1\tx\n", "frames", "annotation_fps=1000"),
        ("Media file name,Behavior,Behavior type,Time\na,x,START,0.5\n", "seconds", "start and end"),
        (HEADER + "a,0,1,Walk\nb,0,1,walk\n", "frames", "line 3.*'walk'.*'Walk'.*classes="),
        ("Frame\tPhase\n0\twalk\n", "frames", r"video, start, end, label.*columns="),
        ("tier\t0.5\t1.5\t1.0\twalk\n", "seconds", r"columns="),
        ("Track,Start time,End time,Value,File\nact,0.5,1.2,x,a\n", "seconds", r"columns=\{'label': <name>\}"),
        ("video,t0,end,what\na,0.5,1.2,x\n", "seconds", r"columns=\{'start': <name>, 'label': <name>\}"),
        ("video,onset,duration (s),label\na,0.5,1.5,x\n", "seconds", r"end of each segment.*duration"),
        (HEADER + "a,00:00:00:12,00:00:01:05,x\n", "frames", r"line 2.*'00:00:00:12'.*time codes.*seconds"),
        ("video,start_frame,end_frame,label\na,1,2,x\n", "seconds", r"unit="),
        ("video,Start (s),Stop (s),label\na,1,2,x\n", "frames", r"unit="),
        (HEADER + "a,0:01,0:02,x\n", "frames", r"line 2.*unit='seconds'"),
        (HEADER + "a,0:99,2:00,x\n", "seconds", r"line 2.*'0:99'"),
        ('video,start,end,label\na,"1,500","2,500",x\n', "seconds", r"line 2.*'1,500'"),
        ("video\tstart\tend\tlabel\na\t1,500\t2,500\tx\n", "seconds", r"line 2.*'1,500'"),
    ],
)
def test_a_table_that_could_mean_several_things_is_refused_with_the_way_out(csv, text, unit, way_out):
    with pytest.raises(SeqclfError, match=way_out):
        read_segments(csv(text), unit)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "empty"),
        ("video,start,halt,label\na,0,1,x\n", "halt"),
        ("video,video,start,end,label\na,a,0,1,x\n", "video"),
        ("a,0,1,x\n", "header"),
        (HEADER, "no row"),
        (HEADER + "a,0,1\n", "line 2.* 3 "),
        (HEADER + "a,0,1,x,\n", "line 2.* 5 "),
        (HEADER + ",0,1,x\n", "line 2"),
        (HEADER + "a,0,1,x\na,zero,1,x\n", "line 3.*'zero'"),
        (HEADER + "a,-1,1,x\n", "line 2.*'-1'"),
        (HEADER + "a,0,1.5,x\n", "line 2.*'1.5'"),
        (HEADER + "a,0,nan,x\n", "line 2.*''"),
        (HEADER + "a,0,1e999999999,x\n", "line 2.*'1e999999999'"),
        (HEADER + "a,0,,x\n", "line 2.*''"),
        (HEADER + "a,3,2,x\n", "line 2.*2.*3"),
        (HEADER + "a,0,1,\n", "line 2.*''"),
        (HEADER + 'a,0,1,"x\n', "line 2"),
        (b"video,start,end,label\na,0,1,\xff\n", "UTF-8"),
        (b"PK\x03\x04xl/workbook", "CSV"),
        ("<?xml version='1.0'?>\n<annotation>\n", "XML.*CSV"),
        ('[["a", 0, 1, "x"]]', "entry 1"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(csv, text, names):
    with pytest.raises(SeqclfError, match=rf"segments\.csv.*{names}"):
        read_segments(csv(text))


def test_missing_files_and_wrong_settings_are_refused(tmp_path):
    with pytest.raises(SeqclfError, match=r"none\.csv"):
        read_segments(tmp_path / "none.csv")
    with pytest.raises(SeqclfError, match="minutes"):
        read_segments(tmp_path / "none.csv", unit="minutes")
    with pytest.raises(SeqclfError, match="inclusive"):
        read_segments(tmp_path / "none.csv", unit="seconds", inclusive=True)


def test_a_wrong_row_costs_only_its_video_where_errors_are_skipped(csv):
    segments = read_segments(csv(HEADER + "a,0,1,x\nb,5,2,x\nb,0,1,x\nc,0,1,z\n"), classes=["x"], on_error="skip")
    assert labels(segments, "a", frames(2)) == [0, _]
    for name, line in (("b", "line 3"), ("c", "line 5")):
        with pytest.raises(SeqclfError, match=line):
            annotate(segments, name, frames(9))


# ---- classes


def test_labels_are_names_or_numbers(csv):
    names = csv(HEADER + "a,0,1,walk\na,1,2,run\n")
    assert labels(read_segments(names, classes=["stand", "walk", "run"]), "a", frames(2)) == [1, 2]
    numbers = csv(HEADER + "a,0,1,2\na,1,2,0\n")
    assert read_segments(numbers).classes == ["0", "2"]  # no class 1, which no frame has
    assert labels(read_segments(numbers, classes=["stand", "walk", "run"]), "a", frames(2)) == [2, 0]
    assert labels(read_segments(numbers, classes=["2", "1", "0"]), "a", frames(2)) == [0, 2]  # the name goes first
    floats = csv(HEADER + "a,0,1,2.0\na,1,2,0.0\n")
    assert labels(read_segments(floats, classes=["stand", "walk", "run"]), "a", frames(2)) == [2, 0]


def test_numbers_count_from_0_or_1_by_evidence_or_setting_and_are_refused_without(csv):
    three = csv(HEADER + "a,0,1,1\na,1,2,3\n")
    assert labels(read_segments(three, classes=["stand", "walk", "run"]), "a", frames(2)) == [0, 2]
    two = csv(HEADER + "a,0,1,1\na,1,2,2\n")
    with pytest.raises(SeqclfError, match=r"line 2.*first_label"):
        read_segments(two, classes=["stand", "walk", "run"])
    for first in (0, 1):
        known = read_segments(two, classes=["stand", "walk", "run"], first_label=first)
        assert labels(known, "a", frames(2)) == [1 - first, 2 - first]


def test_frames_outside_all_segments_have_the_background(csv):
    path = csv(HEADER + "a,1,2,walk\na,2,3,run\nb,,,\n")
    segments = read_segments(path, background="none")
    assert segments.classes == ["none", "run", "walk"]
    assert labels(segments, "a", frames(4)) == [0, 2, 1, 0]
    assert labels(segments, "b", frames(3)) == [0, 0, 0]
    assert labels(read_segments(path), "b", frames(2)) == [_, _]
    assert labels(read_segments(path, background="walk"), "a", frames(4)) == [1, 1, 0, 1]
    assert labels(read_segments(csv(HEADER + "a,1,2,1\n"), background="0"), "a", frames(3)) == [0, 1, 0]
    with pytest.raises(SeqclfError, match=r"'rest'.*walk, run"):
        read_segments(path, classes=["walk", "run"], background="rest")


def test_a_background_in_other_letters_than_the_table_has_is_refused(csv):
    with pytest.raises(SeqclfError, match=r"line 2: .*'Background'.*'background'"):
        read_segments(csv(HEADER + "a,1,3,Background\na,4,5,run\n"), background="background")


def test_a_label_outside_the_classes_is_named_by_line(csv):
    for label in ("jump", "7", "-1", "0.5"):
        path = csv(HEADER + f"a,0,1,run\na,1,2,{label}\n")
        with pytest.raises(SeqclfError, match=rf"line 3.*'{label}'.*run, walk"):
            read_segments(path, classes=["run", "walk"])
    with pytest.raises(SeqclfError, match=r"line 2.*'Run'.*'run'"):
        read_segments(csv(HEADER + "a,0,1,Run\n"), classes=["run", "walk"])


# ---- names of videos


def test_videos_are_named_by_paths_with_suffix_and_folders_or_without(csv):
    segments = read_segments(csv(HEADER + "x/one.mp4,0,1,k\ntwo,0,1,k\nx/3.b,,,\ny/3.b.avi,,,\n"))
    for path, name in (
        *(("x/one.mp4", "x/one.mp4"), ("x/one", "x/one.mp4"), ("one.avi", "x/one.mp4"), ("z/one", "x/one.mp4")),
        *(("some/where/two.webm", "two"), ("x/3.b.mp4", "x/3.b"), ("/data/y/3.b", "y/3.b.avi")),
    ):
        assert name_of(segments, path) == name
    with pytest.raises(SeqclfError, match=r"x/3\.b, y/3\.b\.avi"):
        name_of(segments, "3.b")
    with pytest.raises(SeqclfError, match="video 3 "):
        name_of(segments, "3")  # other dots belong to the name


def test_paths_written_on_windows_or_macos_name_the_same_video(csv):
    for name in (r"C:\data\walks\Übung.mp4", "walks/U\u0308bung.mp4", r"walks\Übung"):
        assert name_of(read_segments(csv(f"{HEADER}{name},0,1,run\nother.mp4,0,1,run\n")), "walks/Übung.mp4") == name


def test_a_video_without_a_row_is_refused_with_the_nearest_name(csv):
    with pytest.raises(SeqclfError, match=r"video_1.*video1"):
        annotate(read_segments(csv(HEADER + "video1,0,1,x\n")), "video_1", frames(5))


# ---- frames in segments


@quick(max_examples=60)
@given(st.sampled_from([1, 10, 24, 25, 29.97, 30, 60, 120, Fraction(30000, 1001)]), st.data())
def test_seconds_with_three_decimals_mean_the_frames_that_were_meant(tmp_path, fps, data):
    edges = sorted(data.draw(st.sets(st.integers(0, 5000), min_size=2, max_size=6)))
    expected = torch.full((5000,), _)
    lines = [HEADER.strip()]
    for k, (start, end) in enumerate(pairwise(edges)):
        expected[start:end] = k
        lines.append(f"a,{float(start / fps):.3f},{float(end / fps):.3f},{k}")
    (tmp_path / "s.csv").write_text("\n".join(lines))
    segments = read_segments(tmp_path / "s.csv", unit="seconds")
    assert torch.equal(annotate(segments, "a", frames(5000, float(fps))).labels, expected)


@quick(max_examples=60)
@given(st.sampled_from([1, 10, 24, 25, 29.97, 30]), st.integers(2, 40), st.data())
def test_times_of_frames_give_the_labels_that_their_rate_gives(tmp_path, fps, count, data):
    moments = st.integers(0, round(1000 * count / fps)).map(lambda ms: ms / 1000)
    edges = sorted(data.draw(st.sets(moments, min_size=2, max_size=4)))
    lines = [f"a,{a},{b},{k}" for k, (a, b) in enumerate(pairwise(edges))]
    (tmp_path / "s.csv").write_text("\n".join(["video,start,end,label", *lines, "a,0,1e-5,0"]))
    segments = read_segments(tmp_path / "s.csv", unit="seconds")
    found = []
    for times in (frames(count, fps), at(*(k / fps for k in range(count)))):
        try:
            found.append(labels(segments, "a", times))
        except SeqclfError as error:  # segments so short that none contains a frame
            found.append(str(error))
    assert found[0] == found[1]


def test_seconds_need_a_frame_rate_and_are_half_open(csv):
    segments = read_segments(csv(HEADER + "a,0.1,0.3,x\na,0.3,.5,y\n"), unit="seconds")
    assert labels(segments, "a", frames(6, fps=10)) == [_, 0, 0, 1, 1, _]
    assert labels(segments, "a", frames(2, fps=2)) == [0, _]  # the middle of frame 0 is at 0.25 s
    with pytest.raises(SeqclfError, match="fps="):
        annotate(segments, "a", frames(6))


def test_where_the_rate_varies_a_frame_is_in_the_segment_of_its_middle(csv):
    segments = read_segments(csv(HEADER + "a,0.15,1.04,x\n"), unit="seconds")
    assert labels(segments, "a", at(0, 0.1, 0.2, 1.0, 1.1)) == [_, 0, 0, _, _]  # middles 0.05, 0.15, 0.6, 1.05
    assert labels(read_segments(csv(HEADER + "a,0,0.04,x\n"), unit="seconds"), "a", at(0)) == [0]


def test_frames_of_another_rate_than_the_file_keep_their_labels(csv):
    by_number = read_segments(csv(HEADER + "a,25,75,x\n"))
    fifth = frames(0, 25, numbers=range(0, 100, 5))  # every fifth frame of a file at 25 frames per second
    expected = [0 if 25 <= n < 75 else _ for n in range(0, 100, 5)]
    assert labels(by_number, "a", fifth) == expected
    assert labels(read_segments(csv(HEADER + "a,1,3,x\n"), "seconds"), "a", fifth) == expected


@pytest.mark.parametrize(
    "numbers",
    [range(40), [n for n in range(40) if n not in (5, 6, 27)], range(10, 50), range(1, 41), range(0, 100, 2)],
)
def test_the_labelled_frames_are_those_whose_numbers_are_in_the_segment(csv, numbers):
    found = labels(read_segments(csv(HEADER + "a,20,30,x\n")), "a", frames(0, numbers=numbers))
    assert [n for n, label in zip(numbers, found, strict=True) if label == 0] == [n for n in numbers if 20 <= n < 30]


# ---- segments that reach too far


@pytest.mark.parametrize(
    ("unit", "fine", "beyond"), [("frames", 121, 122), ("seconds", 4.84, 4.85), ("seconds", 4.841, 5.1)]
)
def test_a_segment_may_end_one_frame_after_the_video_and_is_counted(csv, unit, fine, beyond):
    start = 100 if unit == "frames" else 4
    found = annotate(read_segments(csv(HEADER + f"a,{start},{fine},x\n"), unit), "a", frames(120, 25))
    assert (found.labels == 0).sum() == 20 and found.clipped == 1
    too_long = read_segments(csv(HEADER + f"a,{start},{beyond},x\n"), unit)
    with pytest.raises(SeqclfError, match=r"line 2.*past_end="):
        annotate(too_long, "a", frames(120, 25))
    assert annotate(too_long, "a", frames(120, 25), past_end=2).clipped == 1
    with pytest.raises(SeqclfError, match="line 2"):
        annotate(read_segments(csv(HEADER + f"a,{start},{fine},x\n"), unit), "a", frames(119, 25), past_end=0)


def test_a_segment_that_starts_after_the_video_is_refused(csv):
    for line in ("a,120,121,x\n", "a,300,301,x\n"):
        with pytest.raises(SeqclfError, match="line 2"):
            annotate(read_segments(csv(HEADER + line)), "a", frames(120), past_end=1000)


def test_segments_may_overlap_by_one_frame_and_the_later_start_counts(csv):
    for unit, lines in (("seconds", "a,0,2.03,x\na,2,4,y\n"), ("frames", "a,0,51,x\na,50,100,y\n")):
        found = annotate(read_segments(csv(HEADER + lines), unit), "a", frames(120, 25))
        assert found.labels.tolist() == [0] * 50 + [1] * 50 + [_] * 20 and found.trimmed == 1
    rounded = annotate(read_segments(csv(HEADER + "a,0,2.001,x\na,2,4,y\n"), "seconds"), "a", frames(120, 25))
    assert rounded.labels.tolist() == [0] * 50 + [1] * 50 + [_] * 20


@pytest.mark.parametrize(
    ("lines", "frame", "before"),
    [
        ("a,0,3,x\na,1,4,y\n", 1, 2),
        ("a,2,4,x\na,0,4,y\n", 2, 3),
        ("a,0,4,x\na,2,3,y\n", 2, 2),  # one inside the other
        ("a,0,1,x\na,0,4,y\n", 0, 2),  # which start together
    ],
)
def test_segments_of_two_classes_that_overlap_are_refused(csv, lines, frame, before):
    with pytest.raises(SeqclfError, match=rf"frame {frame} .*line {before}"):
        annotate(read_segments(csv(HEADER + lines)), "a", frames(5))


def test_segments_without_a_frame_are_counted_and_refused_where_all_are(csv):
    gap = frames(0, numbers=[0, 1, 2, 6, 7, 8])
    found = annotate(read_segments(csv(HEADER + "a,3,5,x\na,6,8,x\n")), "a", gap)
    assert found.labels.tolist() == [_, _, _, 0, 0, _] and found.empty == 1
    with pytest.raises(SeqclfError, match="frame_numbers"):
        annotate(read_segments(csv(HEADER + "a,3,5,x\n")), "a", gap)
