"""Lists of videos in the forms people have: what is read, which class a label means, and what is refused."""

from functools import partial
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seqclf import SeqclfError
from seqclf.data.frames.source import VIDEOS
from seqclf.data.lists.class_index import read_classes
from seqclf.data.lists.splits import Selection
from seqclf.data.lists.video_list import read_list, read_paths
from seqclf.data.tables.json_tables import cell_text

TINY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLASSES = ["Archery", "Bowling", "CleanAndJerk"]
VIDEO_NAMES = [f"v_{name}_g{g:02d}_c01" for name in CLASSES for g in (1, 2)]
PATHS = [f"{name.split('_')[1]}/{name}" for name in VIDEO_NAMES]
LABELS = [0, 0, 1, 1, 2, 2]
KINETICS = "label,youtube_id,time_start,time_end,split,is_cc"


@pytest.fixture
def root(tmp_path) -> Path:
    """Videos (empty files, never opened) in folders of their classes."""
    for path in PATHS:
        (tmp_path / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / f"{path}.avi").touch()
    return tmp_path / "videos"


def refused(action, *arguments, **keywords) -> str:
    """The message of the SeqclfError that this raises, which is one line."""
    with pytest.raises(SeqclfError) as caught:
        action(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(path: Path, lines, end: str = "\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())
    return path


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def labels_of(found) -> list[int]:
    return [video.label for video in found.videos]


def class_index(folder: Path, base: int = 1) -> Path:
    return write(folder / "classInd.txt", [f"{i} {name}" for i, name in enumerate(CLASSES, base)], "\r\n")


def numbered(base: int = 0, suffix: str = "") -> list[str]:
    return [f"{path}{suffix} {label + base}" for path, label in zip(PATHS, LABELS, strict=True)]


# ---- the forms


@pytest.mark.parametrize("suffix", ["", ".avi"])
def test_lrcn_lists_count_from_zero(tmp_path, root, suffix):
    path = write(tmp_path / "train.txt", numbered(suffix=suffix))
    for form in ("auto", "lrcn"):
        found = read_list(path, root, form)
        assert (found.classes, labels_of(found), found.missing) == (CLASSES, LABELS, [])
        assert [video.path for video in found.videos] == [root / f"{p}.avi" for p in PATHS]
        assert [(video.name, video.line) for video in found.videos][1] == (PATHS[1] + suffix, 2)
        assert all(word in found.description for word in ("train.txt", "6 videos", "3 classes", "0 to 2"))


def test_the_folder_of_the_class_may_be_missing_on_disk(tmp_path):
    touch(tmp_path / "frames", *(f"{name}/{name}.0001.jpg" for name in VIDEO_NAMES))
    path = write(tmp_path / "train.txt", numbered(suffix=".avi"))
    found = read_list(path, tmp_path / "frames")
    assert [video.path for video in found.videos] == [tmp_path / "frames" / name for name in VIDEO_NAMES]


def test_ucf101_lists_count_from_one_and_test_lists_have_no_labels(tmp_path, root):
    class_index(tmp_path / "lists")
    train = write(tmp_path / "lists/train.txt", numbered(1, ".avi"), "\r\n")
    test = write(tmp_path / "lists/test.txt", [f"{p}.avi" for p in PATHS[::-1]], "\r\n")
    for form in ("auto", "ucf101"):
        found = read_list(train, root, form)
        assert (found.classes, labels_of(found)) == (CLASSES, LABELS)
        assert "classInd.txt" in found.description and "labels from 1" in found.description
        found = read_list(test, root, form)
        assert (found.classes, labels_of(found)) == (CLASSES, LABELS[::-1])
    alone = write(tmp_path / "alone.txt", train.read_text().splitlines())
    for keywords in ({"class_index": tmp_path / "lists/classInd.txt"}, {"classes": CLASSES}, {"form": "ucf101"}, {}):
        assert labels_of(read_list(alone, root, **keywords)) == LABELS


def test_rawframes_lists_of_mmaction2_give_the_frames(tmp_path, root):
    path = write(tmp_path / "r.txt", [f"{p} {90 + k} {k}" for p, k in zip(PATHS, LABELS, strict=True)])
    for form in ("auto", "rawframes"):
        found = read_list(path, root, form)
        assert (found.form, found.classes, labels_of(found)) == ("rawframes", CLASSES, LABELS)
        assert [video.frames for video in found.videos] == [90 + k for k in LABELS]
        assert "546 frames" in found.description


@pytest.mark.parametrize("gap", [" ", "\t", ",", ", ", "  "])
def test_plain_lists_have_names_or_numbers(tmp_path, root, gap):
    touch(root, "a b.mp4", "c,d.mp4", "e.mkv")
    numbers = write(tmp_path / "n.txt", [f"{n}{gap}{k}" for n, k in (("a b.mp4", 2), ("c,d.mp4", 0), ("e.mkv", 0))])
    found = read_list(numbers, root)
    assert (found.form, found.classes, labels_of(found)) == ("plain", ["0", "2"], [1, 0, 0])
    names = write(tmp_path / "t.txt", [f"e.mkv{gap}run", f"Bowling/v_Bowling_g01_c01{gap}walk"])
    found = read_list(names, root)
    assert (found.form, found.classes, labels_of(found)) == ("plain", ["run", "walk"], [0, 1])
    if gap.strip(" "):
        spaced = write(tmp_path / "s.txt", [f"a b.mp4{gap}playing guitar", f"e.mkv{gap}run"])
        assert read_list(spaced, root).classes == ["playing guitar", "run"]


@pytest.mark.parametrize("gap", [",", ";", "\t", " "])
def test_a_first_line_with_numbers_is_no_header(tmp_path, gap):
    touch(tmp_path, "video/1.jpg", "clip/1.jpg")
    for numbers in (("1", "0"), ("120", "0")):
        lines = [gap.join(("video", *numbers)), gap.join(("clip", *numbers))]
        assert len(read_list(write(tmp_path / "l.txt", lines), tmp_path).videos) == 2


def test_lists_without_labels_take_the_names_of_folders(tmp_path, root):
    found = read_list(write(tmp_path / "l.txt", PATHS), root)
    assert (found.classes, labels_of(found)) == (CLASSES, LABELS) and "folder" in found.description
    message = refused(read_list, write(tmp_path / "f.txt", [PATHS[0], "v1.avi"]), root)
    assert message.startswith(f"{tmp_path / 'f.txt'}, line 2: 'v1.avi'")


def test_lists_as_other_programs_write_them(tmp_path, root):
    """Names after a path with spaces, semicolons, quotes, a Windows path, comments."""
    touch(root, "my videos/one, two.mp4", "123.webm")
    for lines in (
        ["my videos/one, two.mp4 jump high", "123.webm walk"],
        ["my videos/one, two.mp4;jump high", "123.webm;walk"],
        ['"my videos/one, two.mp4","jump high"', '"123.webm","walk"'],
        ["my videos\\one, two.mp4,jump high", "123.webm,walk"],
        ["# by hand", "my videos/one, two.mp4;jump high", "# and", "123.webm;walk"],
    ):
        found = read_list(write(tmp_path / "l.txt", lines), root)
        assert ([v.path.name for v in found.videos], labels_of(found)) == (["one, two.mp4", "123.webm"], [0, 1])
        assert found.classes == ["jump high", "walk"]
    assert "2 comment lines" in found.description
    found = read_list(write(tmp_path / "l.txt", ["123;walk", f"{PATHS[0]};Pushing something to the left"]), root)
    assert found.classes == ["Pushing something to the left", "walk"]  # Something-Something, Jester


# ---- tables with a header


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nw/0.mp4,walk\nr/1.mp4,run\n",
        "\ufeffpath,label\r\nw/0.mp4,walk\r\nr/1.mp4,run\r\n",
        ",path,label\n0,w/0.mp4,walk\n1,r/1.mp4,run\n",
        "VideoPath;Label\nw/0.mp4;walk\nr/1.mp4;run\n",
        "tag\tvideo_name\nwalk\tw/0.mp4\nrun\tr/1.mp4\n",
        "sep=;\npath;label\nw/0.mp4;walk\nr/1.mp4;run\n",
        "# list\npath,label\nw/0.mp4,walk\n# more\nr/1.mp4,run\n",
        "path,label,label_name\nw/0.mp4,4,walk\nr/1.mp4,2,run\n",
        '[{"id": "w/0", "label": "walk"}, {"id": "r/1", "label": "run"}]',
        '{"id": "w/0", "label": "walk"}\n{"id": "r/1", "label": "run"}\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_any_program_are_read(tmp_path, text, encoding):
    touch(tmp_path, "w/0.mp4", "r/1.mp4")
    (tmp_path / "l.csv").write_bytes((text.removeprefix("\ufeff") if encoding == "utf-16" else text).encode(encoding))
    found = read_list(tmp_path / "l.csv", tmp_path)
    assert (found.classes, [found.classes[k] for k in labels_of(found)]) == (["run", "walk"], ["walk", "run"])
    assert [video.path.name for video in found.videos] == ["0.mp4", "1.mp4"]


def test_columns_may_be_mapped_by_name_and_by_number(tmp_path, root):
    path = write(tmp_path / "l.csv", ["clip of;what", f"{PATHS[0]};a", f"{PATHS[2]};b"])
    assert labels_of(read_list(path, root, columns={"path": "clip of", "label": "what"})) == [0, 1]
    write(path, [f"x;a;{PATHS[0]}", f"y;b;{PATHS[2]}"])
    assert labels_of(read_list(path, root, columns={"path": 2, "label": 1})) == [0, 1]
    assert "'label': 'which'" in refused(read_list, path, root, columns={"path": 2, "label": "which"})


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["path,walk,run", "a.avi,1,0"], "label.*columns="),
        (["path,label", "a.avi,walk|run", "b.avi,run"], r"line 2.*'walk\|run'"),
        (["path,label", "a.avi,0.5", "b.avi,2.7"], r"line 2.*'0\.5'"),
        (["path,label", "", "c"], "line 3"),
        (["path,label", "a.avi,"], "line 2.*'label'"),
        (["path,label", "a.avi,x,y"], "line 2.* 3 "),
        (["path,label,label", "a.avi,x,y"], "'label'"),
        (["path,label"], "no row"),
        (["a.avi 1 1 3 5"], "line 1.*one label"),
        (["a.avi 10 50 0"], "line 1.*start,end"),
        (["VideoFile,What", "a.avi,walk"], r"line 1.*columns="),
        (["label,youtube_id,time_start,time_end", "walk,a,one,2"], "line 2.*time_start"),
        ([KINETICS, "walk,a,nan,inf,train,0"], "line 2"),
        ([KINETICS, "walk,a,1,2,train"], "line 2.* 5 "),
        ([KINETICS, ",a,1,2,train,0"], "line 2"),
        ([KINETICS], "no row"),
        (["youtube_id,time_start,time_end", "a,1,2"], "label"),
        (["path,label", "a.avi,Walk", "b.avi,walk"], "line 3.*'walk'.*'Walk'.*classes="),
        (["path,label", "a.avi,run fast", "b.avi,run  fast"], "line 3.*'run  fast'.*'run fast'.*classes="),
        (["path,label", "a.avi,caf\u00e9", "b.avi,cafe\u0301"], r"line 3.*u0301.*xe9.*classes="),
        (["path,label", "a.avi,walk", "b.avi,NaN"], "line 3.*'label'"),
        (["path,label,class_name", "a.avi,3,walk", "b.avi,3,run"], "line 3.*class 3.*'run'.*'walk'.*class_name"),
        (["path,start,duration,label", "a.avi,1.5,2,x"], "'start'.*'end'"),
        (["a.avi,walk,train", "b.avi,run,train"], r"line 1.*columns="),
        (["a.avi\twalk\t3.5"], r"line 1.*columns="),
        (["a.avi,nan"], "line 1.*no label"),
        (["a.avi,,"], "line 1"),
        (['<?xml version="1.0"?>', "<annotations/>"], "XML.*CSV"),
    ],
)
def test_tables_that_cannot_be_a_label_per_video_are_refused(tmp_path, lines, names):
    touch(tmp_path, "a.avi", "b.avi")
    path = write(tmp_path / "l.csv", lines)
    with pytest.raises(SeqclfError, match=f"^{path}.*{names}"):
        read_list(path, tmp_path)


def test_kinetics_lists_and_the_names_of_their_videos(tmp_path):
    root = touch(
        *(tmp_path / "videos", "-a1_000012_000022.mp4", "air drumming/b2_000000_000010.mkv"),
        *("tango_dancing/c3.webm", "d4.mp4"),
    )
    lines = [
        'label,"youtube_id",time_start,time_end,split,is_cc',
        '"air drumming",-a1,12,22,train,0',
        "air drumming,b2,0.0,10.0,train,0",
        "tango dancing,c3,5,15,train,0",
        "abseiling,d4,5,15,train,0",
    ]
    path = write(tmp_path / "train.csv", lines)
    for form in ("auto", "kinetics"):
        found = read_list(path, root, form)
        assert (found.form, found.classes) == ("kinetics", ["abseiling", "air drumming", "tango dancing"])
        assert labels_of(found) == [1, 1, 2, 0]
        assert [video.name for video in found.videos][:2] == ["-a1_000012_000022", "b2_000000_000010"]
        assert [video.path.name for video in found.videos][2:] == ["c3.webm", "d4.mp4"]
        assert "4 videos (2 of them without times in their names, read whole)" in found.description
    assert [video.path for video in read_paths(path, root).videos] == [video.path for video in found.videos]
    short = write(tmp_path / "short.csv", ["youtube_id,label", "d4,abseiling"])
    assert labels_of(read_list(short, root, classes=found.classes)) == [0]


# ---- classes


@pytest.mark.parametrize("labels", [(0, 1), (1, 2), (0, 5), ("0.0", "1.0"), ("01", "02"), (3, 7)])
def test_numbers_in_a_training_list_are_its_classes_and_no_others(tmp_path, labels):
    touch(tmp_path, "walk/0.avi", "walk/1.avi", "run/2.avi", "run/3.avi")
    paths = ("walk/0.avi", "walk/1.avi", "run/2.avi")
    which = (labels[0], labels[0], labels[1])
    for lines in (
        [f"{path} {label}" for path, label in zip(paths, which, strict=True)],
        ["path,label", *(f"{path},{label}" for path, label in zip(paths, which, strict=True))],
    ):
        train = read_list(write(tmp_path / "train.csv", lines), tmp_path)
        assert (train.classes, labels_of(train)) == (["walk", "run"], [0, 0, 1])
        write(tmp_path / "test.csv", [f"run/3.avi {labels[1]}"])
        test = read_list(tmp_path / "test.csv", tmp_path, classes=train.classes, numbers=train.numbers)
        assert labels_of(test) == [1]


def test_a_number_that_training_does_not_have_is_refused(tmp_path):
    touch(tmp_path, "a.avi", "b.avi", "c.avi")
    train = read_list(write(tmp_path / "train.txt", ["a.avi 1", "b.avi 3"]), tmp_path)
    assert train.classes == ["1", "3"] and "without 2" in train.description
    read_test = partial(read_list, root=tmp_path, classes=train.classes, numbers=train.numbers)
    assert labels_of(read_test(write(tmp_path / "t.txt", ["c.avi 3"]))) == [1]
    for label in (0, 2, 4):
        message = refused(read_test, write(tmp_path / "t.txt", [f"c.avi {label}"]))
        assert f"t.txt, line 1: label {label}" in message
    names = read_list(write(tmp_path / "train.txt", ["a.avi walk", "b.avi run"]), tmp_path)
    message = refused(read_list, tmp_path / "t.txt", tmp_path, classes=names.classes, numbers=names.numbers)
    assert "line 1: label 4" in message


def test_where_numbers_count_from_is_decided_by_evidence_or_refused(tmp_path, root):
    lines = numbered()[2:]  # from 0, without a video of the first class
    path = write(tmp_path / "test.txt", lines)
    assert labels_of(read_list(path, root, classes=CLASSES)) == [1, 1, 2, 2]  # by the folders
    assert read_list(path, root, "lrcn").classes == CLASSES[1:]  # no class without a video
    wrong = write(tmp_path / "wrong.txt", [*lines, "Archery/v_Archery_g01_c01 1"])
    message = refused(read_list, wrong, root, classes=CLASSES)
    assert message.startswith(f"{wrong}, line 5: ") and "'Bowling'" in message and "'Archery'" in message
    assert labels_of(read_list(wrong, root, "plain", classes=CLASSES)) == [1, 1, 2, 2, 1]
    touch(root, "x.avi", "y.avi")
    flat = write(tmp_path / "flat.txt", ["x.avi 1", "y.avi 2"])
    message = refused(read_list, flat, root, classes=CLASSES)
    assert message.startswith(f"{flat}, line 1: ") and "first_label" in message
    for first in (0, 1):
        assert labels_of(read_list(flat, root, classes=CLASSES, first_label=first)) == [1 - first, 2 - first]
    assert labels_of(read_list(flat, root, classes=["1", "2"])) == [0, 1]  # names that are the numbers
    assert labels_of(read_list(write(flat, ["x.avi 1", "y.avi 3"]), root, classes=CLASSES)) == [0, 2]
    assert labels_of(read_list(write(flat, ["x.avi 0", "y.avi 2"]), root, classes=CLASSES)) == [0, 2]
    assert "first_label" in refused(read_list, flat, root, first_label=2)


@pytest.mark.parametrize("base", [0, 1])
def test_a_numbered_class_index_decides_it(tmp_path, root, base):
    touch(root, "x.avi", "y.avi")
    path = write(tmp_path / "l.txt", [f"x.avi {base + 1}", f"y.avi {base + 1}"])
    index = write(tmp_path / "names.txt", [f"{i} {name}" for i, name in enumerate("abcd", base)])
    assert labels_of(read_list(path, root, class_index=index)) == [1, 1]


def test_the_class_index_is_found_beside_the_list_and_under_root(tmp_path, root):
    path = write(tmp_path / "l.txt", [f"{PATHS[2]} 1"])
    write(root / "names.txt", CLASSES)
    assert read_list(path, root, "plain", class_index="names.txt").classes == CLASSES
    assert "none.txt" in refused(read_list, path, root, class_index="none.txt")
    class_index(tmp_path, base=0)
    assert read_list(path, root).classes == CLASSES


def test_classes_of_a_training_list_serve_its_test_list(tmp_path, root):
    names = ["c10", "c10", "c9", "c9", "x", "x"]
    train = write(tmp_path / "train.txt", [f"{p} {k}" for p, k in zip(PATHS, names, strict=True)])
    classes = read_list(train, root).classes
    assert classes == ["c9", "c10", "x"]  # natural order
    test = write(tmp_path / "test.txt", [f"{PATHS[0]} x", f"{PATHS[1]} c10"])
    assert labels_of(read_list(test, root, classes=classes)) == [2, 1]
    bad = write(tmp_path / "bad.txt", [f"{PATHS[0]} x", f"{PATHS[1]} c11"])
    message = refused(read_list, bad, root, classes=classes)
    assert message.startswith(f"{bad}, line 2: ") and "'c11'" in message and "'c10'" in message


def test_labels_beyond_the_classes_are_refused(tmp_path, root):
    path = write(tmp_path / "l.txt", [f"{PATHS[0]} 0", f"{PATHS[1]} 3"])
    message = refused(read_list, path, root, "plain", CLASSES)
    assert message.startswith(f"{path}, line 2: label 3") and "0 to 2" in message
    touch(root, "x.avi", "y.avi", "z.avi")
    flat = write(tmp_path / "flat.txt", ["x.avi 1", "y.avi 4", "z.avi 2"])  # too many from 0 and from 1
    assert refused(read_list, flat, root, classes=CLASSES).startswith(f"{flat}, line 2: label 4, ")


@pytest.mark.parametrize(
    "lines, classes",
    [
        (["1 Walk", "2 Run fast"], ["Walk", "Run fast"]),
        (["1 Run", "0 Walk"], ["Walk", "Run"]),
        (["2 Run", "0 Walk", "1 Sit"], ["Walk", "Sit", "Run"]),
        (["# classes", "walk", "run fast"], ["walk", "run fast"]),
        (["0", "1", "10"], ["0", "1", "10"]),
        (["100 m", "walk"], ["100 m", "walk"]),
        (["0,walk", "1;run"], ["walk", "run"]),
    ],
)
def test_files_of_classes(tmp_path, lines, classes):
    assert read_classes(write(tmp_path / "c.txt", lines)) == classes


@pytest.mark.parametrize(
    "lines, names",
    [
        (["1 a", "3 b"], "line 2: class 'b'"),
        (["1 a", "1 b"], "line 2: class 'b'"),
        (["1 a", "2 a"], "line 2: class 'a'"),
        (["a", "", "a"], "line 3: class 'a'"),
        (["0 a", "b"], "line 2: "),
        ([], "empty"),
        (["# nothing"], "comments"),
    ],
)
def test_wrong_files_of_classes_are_refused(tmp_path, lines, names):
    path = write(tmp_path / "c.txt", lines)
    message = refused(read_classes, path)
    assert message.startswith(str(path)) and names in message


# ---- splits


def select(part, shared=True, **keywords):
    return Selection(part, shared, **keywords)


@pytest.mark.parametrize("column", ["split", "Subset", "fold", "part of"])
@pytest.mark.parametrize("values", [("train", "val", "test"), ("Training", "validation", "Testing")])
def test_a_split_column_assigns_rows_to_parts(tmp_path, root, column, values):
    rows = [f"{path},{k},{value}" for path, k, value in zip(PATHS, LABELS, values * 2, strict=True)]
    path = write(tmp_path / "l.csv", [f"path,label,{column}", *rows])
    named = {} if column != "part of" else {"column": column}
    for at, part in enumerate(("train", "validation", "test")):
        for read in (read_list, read_paths):
            found = read(path, root, select=select(part, **named))
            assert [video.path.stem for video in found.videos] == [Path(p).name for p in (PATHS[at], PATHS[at + 3])]
            assert part in found.description and column in found.description


def test_a_list_for_several_parts_without_the_column_is_refused(tmp_path, root):
    path = write(tmp_path / "l.csv", numbered())
    message = refused(read_list, path, root, select=select("train"))
    assert message.startswith(str(path)) and "split_column" in message
    assert len(read_list(path, root, select=select("train", shared=False)).videos) == 6


def test_folds_need_the_one_for_testing(tmp_path, root):
    rows = [f"{path},{k},{1 + i % 3}" for i, (path, k) in enumerate(zip(PATHS, LABELS, strict=True))]
    path = write(tmp_path / "l.csv", ["path,label,fold", *rows])
    assert "test_split" in refused(read_list, path, root, select=select("train"))
    assert "'9'" in refused(read_list, path, root, select=select("train", test_split="9"))
    train = read_list(path, root, select=select("train", test_split="2"))
    test = read_list(path, root, select=select("test", test_split="2"))
    assert [len(found.videos) for found in (train, test)] == [4, 2]
    assert not {v.path for v in train.videos} & {v.path for v in test.videos}


def test_a_list_of_one_part_is_taken_whole(tmp_path, root):
    path = write(tmp_path / "l.csv", ["path,label,split", f"{PATHS[0]},a,validate", f"{PATHS[1]},b,validate"])
    assert len(read_list(path, root, select=select("test", shared=False)).videos) == 2
    assert "'validate'" in refused(read_list, path, root, select=select("test"))


# ---- clips inside videos


@pytest.mark.parametrize(
    ("lines", "unit", "spans"),
    [
        (
            ["path,start,end,label", "{0},0.0,1.5,a", "{0},1.5,3,b", "{1},2,3,a"],
            "seconds",
            [(0, 1.5), (1.5, 3), (2, 3)],
        ),
        (["path,start_frame,end_frame,label", "{0},0,15,a", "{0},15,30,b"], "frames", [(0, 15), (15, 30)]),
        (
            ["path;label;Start (s);Stop (s)", "{0};a;0,5;1", "{0};b;00:01:00;00:01:02,5"],
            "seconds",
            [(0.5, 1), (60, 62.5)],
        ),
        (['[{{"path": "{0}", "begin": 0, "end": 2.5, "label": "a"}}]'], "seconds", [(0, 2.5)]),
    ],
)
def test_rows_with_start_and_end_are_clips(tmp_path, root, lines, unit, spans):
    path = write(tmp_path / "l.csv", [line.format(*PATHS) for line in lines])
    found = read_list(path, root, clips="auto")
    assert found.unit == unit and [video.span for video in found.videos] == spans
    assert found.classes == sorted({"ab"[label] for label in labels_of(found)})
    message = refused(read_list, path, root)  # where whole videos are expected
    assert message.startswith(str(path)) and "whole videos" in message
    other = "frames" if unit == "seconds" else "seconds"
    assert str(path) in refused(read_list, path, root, clips=other)


@pytest.mark.parametrize("start", ["start_ms", "Clip Start", "begin (msec)", "t_start_time"])
def test_columns_like_times_are_not_ignored(tmp_path, root, start):
    path = write(tmp_path / "l.csv", [f"path,label,{start},stop_x", f"{PATHS[0]},walk,500,1500"])
    message = refused(read_list, path, root, clips="auto")
    assert message.startswith(f"{path}: column {start!r}") and "'start': None" in message
    assert read_list(path, root, clips="auto", columns={"start": None}).unit is None


def test_a_decimal_comma_may_be_quoted_between_commas(tmp_path, root):
    lines = ["path,label,start,end", f'{PATHS[0]},walk,"0,500","1,5"', f'{PATHS[0]},walk,"1,5","2,250"']
    message = refused(read_list, write(tmp_path / "l.csv", lines), root, clips="auto")
    assert ", line 3: end is '2,250'" in message
    lines[2] = lines[2].replace("2,250", "2,25")
    found = read_list(write(tmp_path / "l.csv", lines), root, clips="auto")
    assert [video.span for video in found.videos] == [(0.5, 1.5), (1.5, 2.25)]


def test_ends_of_clips_that_seem_to_be_inclusive_are_asked_for(tmp_path, root):
    rows = [f"{PATHS[0]},{start},{start + 9},a" for start in (20, 0, 10)]
    path = write(tmp_path / "l.csv", ["path,start_frame,end_frame,label", *rows])
    with pytest.raises(SeqclfError, match=r"line 4: starts at 10, and line 3 ends at 9: set inclusive="):
        read_list(path, root, clips="auto")
    for inclusive, length in ((True, 10), (False, 9)):
        spans = [video.span for video in read_list(path, root, clips="auto", inclusive=inclusive).videos]
        assert spans == [(start, start + length) for start in (20, 0, 10)]
    with pytest.raises(SeqclfError, match="inclusive=True"):
        write(path, ["path,start,end,label", f"{PATHS[0]},0.5,1.5,a"])
        read_list(path, root, clips="auto", inclusive=True)


def test_cells_may_be_quoted_or_end_with_a_separator(tmp_path):
    touch(tmp_path, "a.avi", "b.avi")
    path = write(tmp_path / "l.csv", ["a.avi,walk,,", 'b.avi,"run, fast"'])
    assert read_list(path, tmp_path).classes == ["run, fast", "walk"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_letters_may_be_composed_or_decomposed(tmp_path, form, other):
    name = "übung/ä.mp4"
    touch(tmp_path, normalize(form, name))
    path = write(tmp_path / "l.csv", ["path,label", f"{normalize(other, name)},walk"])
    assert read_list(path, tmp_path).videos[0].path == tmp_path / normalize(form, name)


def test_a_header_with_an_unusual_column_of_paths_can_be_named(tmp_path, root):
    path = write(tmp_path / "l.csv", ["clip_no,class,split", f"{PATHS[0]}.avi,x,train"])
    message = refused(read_list, path, root)
    assert "l.csv, line 1" in message and "columns={'path': 'clip_no'}" in message
    assert read_list(path, root, columns={"path": "clip_no"}).classes == ["x"]


def test_the_nearest_name_of_a_missing_video_is_shown(tmp_path, root):
    for wrong in (PATHS[0].replace("Archery/v", "archery/V"), PATHS[0].replace("Archery_", "Achery_")):
        path = write(tmp_path / "l.csv", ["path,label", f"{wrong}.avi,x"])
        assert f"did you mean '{PATHS[0]}.avi'" in refused(read_list, path, root)


def test_clips_in_whole_numbers_need_their_unit(tmp_path, root):
    path = write(tmp_path / "l.csv", ["path,start,end,label", f"{PATHS[0]},0,15,a"])
    assert "unit=" in refused(read_list, path, root, clips="auto")
    for unit in ("frames", "seconds"):
        assert read_list(path, root, clips=unit).unit == unit
    write(path, ["path,start,end,label", f"{PATHS[0]},15,15,a"])
    assert "line 2" in refused(read_list, path, root, clips="frames")


# ---- paths, places and files


def test_lists_of_paths_alone(tmp_path, root):
    touch(root, "a video.mp4")
    lines = ["# diary", "a video.mp4", f"{PATHS[0]} 0", f"{PATHS[1]}.avi,100,3", f"{PATHS[0]}.avi"]
    found = read_paths(write(tmp_path / "l.txt", lines), root)
    assert [v.name for v in found.videos] == ["a video.mp4", f"{PATHS[0]}.avi", f"{PATHS[1]}.avi"]
    path = write(tmp_path / "l.txt", ["a video.mp4", "none 3"])
    assert f"{path}, line 2: video 'none 3'" in refused(read_paths, path, root)
    assert read_paths(path, root, "skip").missing == [(2, "none 3")]
    table = write(tmp_path / "t.csv", ["label,path,start", f"x,{PATHS[0]},3", f"y,{PATHS[0]},5", f"y,{PATHS[1]},5"])
    assert [v.name for v in read_paths(table, root).videos] == [f"{PATHS[0]}.avi", f"{PATHS[1]}.avi"]


NAME = st.text("ab1.-é_", min_size=1, max_size=6).filter(lambda name: name.strip(".") and name[0] != ".")


@given(st.data())
@TINY
def test_what_is_written_in_a_form_is_read_back(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("lists")
    form = data.draw(st.sampled_from(["lrcn", "ucf101", "rawframes", "plain", "kinetics"]))
    names = data.draw(st.lists(NAME, min_size=1, max_size=6, unique=True))
    classes = [f"C {k}" if form == "kinetics" else f"C{k}" for k in range(data.draw(st.integers(1, 4)))]
    labels = data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=len(names), max_size=len(names)))
    suffix = data.draw(st.sampled_from(VIDEOS))
    gap, end = data.draw(st.sampled_from([" ", "\t", ", ", ","])), data.draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    lines, paths = [], []
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        path = f"{classes[label]}/{name}" if form in ("lrcn", "ucf101") else name
        touch(root, f"{path}{suffix}")
        paths.append(root / f"{path}{suffix}")
        written = path + suffix * data.draw(st.booleans())
        lines.append(
            {
                "lrcn": f"{written}{gap}{label}",
                "ucf101": f"{written}{gap}{label + 1}",
                "rawframes": f"{written}{gap}{i + 1}{gap}{label}",
                "plain": f"{written}{gap}{label}",
                "kinetics": f'"{classes[label]}",{name},{i},{i + 10},train',
            }[form]
        )
    if form == "kinetics":
        lines.insert(0, KINETICS.removesuffix(",is_cc"))
    path = write(root / "list.lst", lines, end)
    found = read_list(path, root, form, classes=classes)
    assert (labels_of(found), [video.path for video in found.videos]) == (labels, paths)
    assert [video.frames for video in found.videos] == (
        list(range(1, len(names) + 1)) if form == "rawframes" else [None] * len(names)
    )
    assert found.classes == classes and found.form == form
    text = path.read_text().split("\n")
    assert all(video.name.split("_000")[0] in text[video.line - 1] for video in found.videos)
    if form == "rawframes" and any(suffix in line for line in text):  # or files with two labels
        assert "multi_label=True" in refused(read_list, path, root, classes=classes)
    elif form in ("lrcn", "ucf101", "kinetics") or 0 in labels:
        assert labels_of(read_list(path, root, classes=classes)) == labels


@pytest.mark.parametrize(
    "lines, form, names",
    [
        (["a.avi 0", "b.avi"], "auto", "line 2: 'b.avi'"),
        (["a.avi 0", "", "b.avi walk"], "auto", "line 3: 'b.avi walk'"),
        (["a.avi 0", "b.avi 12 0"], "auto", "line 2: 'b.avi 12 0'"),
        (["a.avi 0", "b c d e"], "auto", "line 2: 'b c d e'"),
        (["a.avi 0"], "rawframes", "line 1: 'a.avi 0'"),
        (["a.avi -1"], "auto", "line 1: label -1"),
        (["a.avi 0"], "ucf101", "line 1: label 0"),
        (["a.avi 0", "b.avi 20240131"], "auto", "line 2: label 20240131"),
        (["a.avi 0", "c.avi 1"], "auto", "line 2: video 'c.avi'"),
        (["a.avi 0", "a.avi 1"], "auto", "line 2: 'a.avi'"),
        (["a.avi 0", "x/a.avi 0"], "auto", "line 2: 'x/a.avi'"),
        (["C:/data/x.avi 0", "b.avi 1"], "auto", "line 1: video 'C:/data/x.avi'"),
        (["two 0"], "auto", "line 1: 'two'"),
        (["a.avi 0", "one.jpg 1"], "auto", "line 2: 'one.jpg'"),
        ([], "auto", "empty"),
        (["  ", ""], "plain", "empty"),
    ],
)
def test_a_wrong_line_is_refused_with_file_and_line(tmp_path, lines, form, names):
    touch(tmp_path, "a.avi", "b.avi", "two.avi", "two.mp4", "one.jpg")
    path = write(tmp_path / "bad.txt", lines)
    message = refused(read_list, path, tmp_path, form)
    assert message.startswith(str(path)) and names in message


def test_splits_of_hmdb51_are_no_classes(tmp_path):
    touch(tmp_path, "a.avi", "b.avi")
    path = write(tmp_path / "wave_test_split1.txt", ["a.avi 1", "b.avi 2"])
    assert "HMDB51" in refused(read_list, path, tmp_path)


@given(st.lists(st.text('ab/.,-01 9\t"\ré#{', max_size=12), max_size=5), st.sampled_from(["auto", "plain", "kinetics"]))
@TINY
def test_any_text_is_read_or_refused_by_name(tmp_path, lines, form):
    touch(tmp_path / "v", "a.avi", "b.avi", "b/a.avi", "a,b.avi")
    path = write(tmp_path / "any.txt", ["label,youtube_id"] * (form == "kinetics") + lines)
    for action in (lambda: read_list(path, tmp_path / "v", form, missing="skip"), lambda: read_classes(path)):
        try:
            action()
        except SeqclfError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_a_file_that_is_not_a_list_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for name in ("none", "binary"):
        assert refused(read_list, tmp_path / name, tmp_path).startswith(f"{tmp_path / name}: ")
    assert refused(read_list, tmp_path, tmp_path).startswith(f"{tmp_path}: ")
    path = write(tmp_path / "long", ["a 1", "a" + " " * 100_000 + "b"])
    assert refused(read_list, path, tmp_path).startswith(f"{path}, line 2: ")
    assert "nowhere" in refused(read_list, tmp_path / "binary", tmp_path / "nowhere")
    assert "'ucf'" in refused(read_list, tmp_path / "none", tmp_path, "ucf")
    assert "'ignore'" in refused(read_list, tmp_path / "none", tmp_path, missing="ignore")


def test_missing_videos_are_reported_when_they_are_left_out(tmp_path, root):
    (root / f"{PATHS[1]}.avi").unlink()
    path = write(tmp_path / "l.txt", numbered())
    assert refused(read_list, path, root).startswith(f"{path}, line 2: video {PATHS[1]!r}")
    found = read_list(path, root, missing="skip")
    assert found.missing == [(2, PATHS[1])] and labels_of(found) == [0, 1, 1, 2, 2]
    assert "line 2" in found.description
    (tmp_path / "other").mkdir()
    assert "6 videos" in refused(read_list, path, tmp_path / "other", missing="skip")


def test_repeated_videos_are_counted(tmp_path, root):
    found = read_list(write(tmp_path / "l.txt", [*numbered(), numbered()[0]]), root)
    assert len(found.videos) == 7 and "1 of them repeated" in found.description


def test_an_exact_name_takes_precedence_over_others_of_its_stem(tmp_path):
    touch(tmp_path, "v1/1.png", "v1.avi", "f.g.npy", "camera", "dump.bin")
    Image.new("RGB", (8, 8)).save(tmp_path / "v1" / "1.png")
    path = tmp_path / "l.txt"
    for line, place in (
        *(("v1.avi 0", "v1.avi"), ("v1 0", "v1"), (f"{tmp_path}/v1.avi 0", "v1.avi"), ("v1/ 3 0", "v1")),
        *(("f.g 0", "f.g.npy"), ("camera 0", "camera"), ("dump.bin 0", "dump.bin")),  # named in full: any suffix
    ):
        assert read_list(write(path, [line]), tmp_path).videos[0].path == tmp_path / place
    message = refused(read_list, write(path, ["v1.mp4 0"]), tmp_path)
    assert "v1.avi" in message and "line 1" in message


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (float("nan"), ""), (" a ", "a"), (0, "0"), (1.5, "1.5"), (["ä", None], '["ä", null]'), ({}, "{}")],
)
def test_values_of_json_files_become_the_cells_of_a_table(value, text):
    assert cell_text(value) == text
