"""Frame folders, and lists of videos in the forms people have: what is read, told, and refused."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seqclf import SeqclfError
from seqclf.data import frame_folder
from seqclf.data.find import find_videos, open_video
from seqclf.data.frame_folder import FrameFolder, read_picture
from seqclf.data.frame_numbers import natural_key
from seqclf.data.lists import read_classes, read_list, read_paths
from seqclf.data.source import VIDEOS

TINY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def picture(shade: int = 0, size: tuple[int, int] = (12, 8)) -> Image.Image:
    """A smooth RGB picture of (W, H), different for each shade."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x * 8 + shade, y * 8, x + y + 2 * shade], -1).astype(np.uint8))


def frames(folder: Path, names, size=(12, 8)) -> Path:
    """A folder of pictures of these names, shades counting from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for shade, name in enumerate(names):
        picture(shade, size).save(folder / name)
    return folder


def stored(path: Path) -> torch.Tensor:
    """What PIL reads, (3, H, W)."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def refused(action, *arguments, **keywords) -> str:
    """The one sentence that this is refused with."""
    with pytest.raises(SeqclfError) as caught:
        action(*arguments, **keywords)
    told = str(caught.value)
    assert "\n" not in told
    return told


# natural order


@given(st.lists(st.integers(0, 10**30), min_size=1, unique=True), st.text("ab_-. ", max_size=4))
def test_numbers_order_names_however_they_are_padded(numbers, text):
    names = [f"{text}{number:0{width}}x" for number, width in zip(numbers, [0, 5, 12] * len(numbers), strict=False)]
    assert sorted(names, key=natural_key) == [name for _, name in sorted(zip(numbers, names, strict=True))]


@given(st.lists(st.text("a0129é٣_.", max_size=6), max_size=8))
def test_natural_order_is_total_and_tells_every_name_apart(names):
    keys = sorted(natural_key(name) for name in names)  # any two compare, whatever they begin with
    assert [key[1] for key in keys] == sorted(names, key=natural_key)
    assert len(set(keys)) == len(set(names))
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


# frame folders


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG", "png", "bmp", "webp"])
def test_a_folder_is_a_video_in_natural_order(tmp_path, suffix):
    names = [f"img_{i}.{suffix}" for i in (1, 2, 9, 10, 11, 100)]
    folder = FrameFolder(frames(tmp_path / "v", names))
    (tmp_path / "v" / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "v" / "notes.txt").write_text("no frame")
    (tmp_path / "v" / "._img_1.jpg").write_bytes(b"what macOS leaves")
    (tmp_path / "v" / "small").mkdir()
    assert (len(folder), folder.frame_shape, folder.names) == (6, (3, 8, 12), names)
    read = folder.read([5, 0, 3, 3, 5])
    assert read.shape == (5, 3, 8, 12) and read.dtype == torch.uint8
    for row, number in zip(read, [5, 0, 3, 3, 5], strict=True):
        assert torch.equal(row, stored(tmp_path / "v" / names[number]))
    assert folder.read([]).shape == (0, 3, 8, 12)


def test_the_layouts_of_lrcn_and_mmaction2(tmp_path):
    lrcn = frames(tmp_path / "v_X_g01_c01", [f"v_X_g01_c01.{i:04d}.jpg" for i in range(1, 13)])
    assert FrameFolder(lrcn).names[11] == "v_X_g01_c01.0012.jpg"
    kinds = ("img", "flow_x", "flow_y")
    both = frames(tmp_path / "both", [f"{kind}_{i:05d}.jpg" for i in (1, 2, 3) for kind in kinds])
    assert FrameFolder(both, "flow_x_*").names == [f"flow_x_0000{i}.jpg" for i in (1, 2, 3)]
    told = refused(len, FrameFolder(both))
    assert str(both) in told and "3 ways" in told and "'img_*'" in told
    assert len(FrameFolder(both, "*")) == 9


def test_making_one_opens_nothing_and_the_folder_is_listed_once(tmp_path):
    folder = FrameFolder(tmp_path / "v")
    frames(tmp_path / "v", ["1.png"])
    assert len(folder) == 1 and folder.path == str(tmp_path / "v")
    frames(tmp_path / "v", ["1.png", "2.png"])
    assert len(folder) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb_as_pil_has_it(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("RGB", "L", "CMYK") else "a.png")
    picture().convert(mode).save(path)
    assert torch.equal(torch.from_numpy(read_picture(path)).permute(2, 0, 1), stored(path))


def test_jpegs_are_the_same_pixels_as_by_pil(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8))
    for i, keys in enumerate(({"quality": 30}, {"quality": 95, "subsampling": 0}, {"progressive": True})):
        noise.save(tmp_path / f"{i}.jpg", **keys)
        assert torch.equal(FrameFolder(tmp_path).read([i])[0], stored(tmp_path / f"{i}.jpg"))
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by a quarter, which is not done
    noise.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (33, 47, 3)


def test_jpegs_are_read_by_pil_where_there_is_no_torchcodec(tmp_path, monkeypatch):
    frames(tmp_path, ["1.jpg", "2.jpg"])
    whole = FrameFolder(tmp_path).read([0, 1])
    monkeypatch.setattr(frame_folder, "_jpeg_decoder", lambda: None)
    assert torch.equal(FrameFolder(tmp_path).read([0, 1]), whole)


def test_a_palette_with_transparency_warns_of_nothing(tmp_path):
    picture().convert("P").save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert FrameFolder(tmp_path).read([0]).shape == (1, 3, 8, 12)


def test_one_picture_is_a_video_of_one_frame(tmp_path):
    folder = FrameFolder(frames(tmp_path / "v", ["only.png"]))
    assert len(folder) == 1 and folder.read([0, 0]).shape == (2, 3, 8, 12)


def test_bad_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").write_text("")
    (tmp_path / "file").write_text("")
    assert refused(len, FrameFolder(tmp_path / "none")) == f"{tmp_path / 'none'}: no such folder"
    assert "holds no picture (jpg" in refused(len, FrameFolder(tmp_path / "empty"))
    assert "holds no picture (jpg" in refused(len, FrameFolder(tmp_path / "text"))
    assert "a folder of pictures was expected" in refused(len, FrameFolder(tmp_path / "file"))
    good = frames(tmp_path / "good", ["1.png", "2.png"])
    assert "like 'img_*'" in refused(len, FrameFolder(good, "img_*"))
    for number in (-1, 2):
        assert f"no frame {number}: it has 2" in refused(FrameFolder(good).read, [0, number])
    double = frames(tmp_path / "double", ["a.jpg", "a.png", "b.png"])
    assert "a.jpg and a.png" in refused(len, FrameFolder(double))
    other = frames(tmp_path / "other", ["1.jpg", "2.tif"])
    assert "2.tif" in refused(len, FrameFolder(other))
    covered = frames(tmp_path / "covered", ["cover.jpg", "f_1.jpg", "f_2.jpg"])
    assert "named in 2 ways (f_*, cover)" in refused(len, FrameFolder(covered))
    assert FrameFolder(covered, "f_*").names == ["f_1.jpg", "f_2.jpg"] and len(FrameFolder(covered, "*")) == 3
    assert FrameFolder(frames(tmp_path / "words", ["b.png", "a.png"])).names == ["a.png", "b.png"]


def test_a_frame_of_another_size_is_named(tmp_path):
    folder = frames(tmp_path / "v", ["1.jpg", "2.jpg"])
    picture(size=(14, 8)).save(folder / "3.jpg")
    assert FrameFolder(folder).read([0, 1]).shape == (2, 3, 8, 12)
    told = refused(FrameFolder(folder).read, [1, 2])
    assert told == f"{folder / '3.jpg'}: is 14x8, but the folder's first frame, 1.jpg, is 12x8"


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_a_damaged_frame_is_named(tmp_path, suffix):
    folder = frames(tmp_path, [f"{i}.{suffix}" for i in range(4)], size=(64, 48))
    whole = (folder / f"1.{suffix}").read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2], whole[:20]):
        (folder / f"1.{suffix}").write_bytes(content)
        assert refused(FrameFolder(folder).read, [0, 1]).startswith(f"{folder}/1.{suffix}: not a picture")
        assert FrameFolder(folder).read([0, 2]).shape == (2, 3, 48, 64)
    listed = FrameFolder(folder)
    listed.read([0])
    (folder / f"2.{suffix}").unlink()
    assert refused(listed.read, [2]) == f"{folder}/2.{suffix}: no such file"


@given(st.data())
@TINY
def test_a_cut_or_changed_file_is_read_or_refused_in_a_sentence(tmp_path, data):
    stream = io.BytesIO()
    picture(size=(24, 16)).save(stream, data.draw(st.sampled_from(["jpeg", "png", "bmp", "webp"])))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.png"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert read_picture(path).dtype == np.uint8
    except SeqclfError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def png_of_16_bits(pixels):
    """Which PIL does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_and_animations_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    assert "8 bits" in refused(read_picture, tmp_path / "deep.png")
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(np.zeros((4, 4, 3), np.uint16)))
    assert "8 bits" in refused(read_picture, tmp_path / "deep.png")
    picture(0).save(tmp_path / "moving.webp", save_all=True, append_images=[picture(90)])
    assert "2 pictures in one file" in refused(read_picture, tmp_path / "moving.webp")


# lists


CLASSES = ["Archery", "Bowling", "CleanAndJerk"]
VIDEO_NAMES = [f"v_{name}_g{g:02d}_c01" for name in CLASSES for g in (1, 2)]
PATHS = [f"{name.split('_')[1]}/{name}" for name in VIDEO_NAMES]
LABELS = [0, 0, 1, 1, 2, 2]


@pytest.fixture
def root(tmp_path) -> Path:
    """Videos (empty files, never opened) in folders of their classes."""
    for path in PATHS:
        (tmp_path / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / f"{path}.avi").touch()
    return tmp_path / "videos"


def write(path: Path, lines, end: str = "\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())
    return path


def labels_of(found) -> list[int]:
    return [video.label for video in found.videos]


def class_index(folder: Path, base: int = 1) -> Path:
    return write(folder / "classInd.txt", [f"{i} {name}" for i, name in enumerate(CLASSES, base)], "\r\n")


@pytest.mark.parametrize("suffix", ["", ".avi"])
def test_lrcn_lists_count_from_zero(tmp_path, root, suffix):
    path = write(tmp_path / "train.txt", [f"{p}{suffix} {k}" for p, k in zip(PATHS, LABELS, strict=True)])
    for form in ("auto", "lrcn"):
        found = read_list(path, root, form)
        assert (found.form, found.classes, labels_of(found), found.missing) == ("lrcn", CLASSES, LABELS, [])
        assert [video.path for video in found.videos] == [root / f"{p}.avi" for p in PATHS]
        assert [(video.name, video.line) for video in found.videos][1] == (PATHS[1] + suffix, 2)
        assert found.told == "train.txt: form lrcn, 6 videos, 3 classes by the folders' names, labels from 0"


def test_lrcn_frames_lie_without_the_folder_of_the_class(tmp_path):
    for name in VIDEO_NAMES:
        frames(tmp_path / "frames" / name, [f"{name}.0001.jpg"])
    path = write(tmp_path / "train.txt", [f"{p}.avi {k}" for p, k in zip(PATHS, LABELS, strict=True)])
    found = read_list(path, tmp_path / "frames")
    assert [video.path for video in found.videos] == [tmp_path / "frames" / name for name in VIDEO_NAMES]
    assert len(open_video(found.videos[0].path)) == 1


def test_ucf101_lists_count_from_one_and_test_lists_have_no_labels(tmp_path, root):
    class_index(tmp_path / "lists")
    train = write(
        tmp_path / "lists/train.txt", [f"{p}.avi {k + 1}" for p, k in zip(PATHS, LABELS, strict=True)], "\r\n"
    )
    test = write(tmp_path / "lists/test.txt", [f"{p}.avi" for p in PATHS[::-1]], "\r\n")
    for form in ("auto", "ucf101"):
        found = read_list(train, root, form)
        assert (found.form, found.classes, labels_of(found)) == ("ucf101", CLASSES, LABELS)
        assert found.told == "train.txt: form ucf101, 6 videos, 3 classes by classInd.txt, labels from 1"
        found = read_list(test, root, form)
        assert (found.form, found.classes, labels_of(found)) == ("ucf101", CLASSES, LABELS[::-1])
    alone = write(tmp_path / "alone.txt", train.read_text().splitlines())
    assert labels_of(read_list(alone, root, class_index=tmp_path / "lists/classInd.txt")) == LABELS
    assert labels_of(read_list(alone, root, classes=CLASSES)) == LABELS
    assert labels_of(read_list(alone, root, "ucf101")) == LABELS
    told = refused(read_list, alone, root)
    assert told.startswith(f"{alone}, line 1: labels are 1 to 3") and "form=ucf101" in told


def test_the_base_is_told_by_the_folders_even_where_no_label_is_zero(tmp_path, root):
    lines = [f"{p} {k}" for p, k in zip(PATHS, LABELS, strict=True)][2:]  # from 0, its first class not there
    path = write(tmp_path / "test.txt", lines)
    assert labels_of(read_list(path, root, classes=CLASSES)) == [1, 1, 2, 2]
    assert "from 0 or from 1" in refused(read_list, path, root)
    assert labels_of(read_list(path, root, "plain")) == [1, 1, 2, 2]
    assert read_list(path, root, "lrcn").classes == ["0", "Bowling", "CleanAndJerk"]
    wrong = write(tmp_path / "wrong.txt", [*lines, "Archery/v_Archery_g01_c01 1"])
    told = refused(read_list, wrong, root, classes=CLASSES)
    assert told.startswith(f"{wrong}, line 5: label 1 is class 'Bowling'") and "folder is 'Archery'" in told
    assert labels_of(read_list(wrong, root, "plain", classes=CLASSES)) == [1, 1, 2, 2, 1]


def test_rawframes_lists_of_mmaction2(tmp_path, root):
    path = write(tmp_path / "r.txt", [f"{p} {90 + k} {k}" for p, k in zip(PATHS, LABELS, strict=True)])
    for form in ("auto", "rawframes"):
        found = read_list(path, root, form)
        assert (found.form, found.classes, labels_of(found)) == ("rawframes", CLASSES, LABELS)
        assert [video.frames for video in found.videos] == [90 + k for k in LABELS]
        assert "6 videos of 546 frames, 3 classes" in found.told
    one = write(tmp_path / "one.txt", [f"{PATHS[2]} 91 1"])  # these lists count from 0
    assert labels_of(read_list(one, root)) == [1]


@pytest.mark.parametrize("gap", [" ", "\t", ",", ", ", "  "])
def test_plain_lists(tmp_path, root, gap):
    for name in ("a b.mp4", "c,d.mp4", "e.mkv"):
        (root / name).touch()
    numbers = write(tmp_path / "n.txt", [f"{n}{gap}{k}" for n, k in (("a b.mp4", 2), ("c,d.mp4", 0), ("e.mkv", 0))])
    found = read_list(numbers, root)
    assert (found.form, found.classes, labels_of(found)) == ("plain", ["0", "1", "2"], [2, 0, 0])
    assert found.told == "n.txt: form plain, 3 videos, 3 classes numbered, labels from 0"
    names = write(tmp_path / "t.txt", [f"e.mkv{gap}run", f"Bowling/v_Bowling_g01_c01{gap}walk"])
    found = read_list(names, root)
    assert (found.form, found.classes, labels_of(found)) == ("plain", ["run", "walk"], [0, 1])
    assert found.told == "t.txt: form plain, 2 videos, 2 classes by their names"
    if gap.strip(" "):
        spaced = write(tmp_path / "s.txt", [f"a b.mp4{gap}playing guitar", f"e.mkv{gap}run"])
        assert read_list(spaced, root).classes == ["playing guitar", "run"]


def test_csv_lists_name_their_columns(tmp_path, root):
    names = [PATHS[0], PATHS[2]]
    for lines, classes in (
        (["path,label", f"{names[0]}.avi,walk slowly", f'{names[1]}.avi,"run, fast"'], ["run, fast", "walk slowly"]),
        (["Label;Video", f"walk slowly;{names[0]}", f"run, fast;{names[1]}"], ["run, fast", "walk slowly"]),
        (["clip_name\tclip_path\ttag", f"x\t{names[0]}.avi\t1", f"y\t{names[1]}.avi\t0"], ["Bowling", "Archery"]),
    ):
        path = write(tmp_path / "l.csv", lines)
        for form in ("auto", "csv"):
            found = read_list(path, root, form)
            assert (found.form, found.classes, labels_of(found)) == ("csv", classes, [1, 0])
            assert [video.path.stem for video in found.videos] == [Path(name).name for name in names]
    assert "line 1: expected the columns path and label" in refused(read_list, write(path, ["a,b", "c,d"]), root, "csv")
    assert "line 3: 'c': expected path, label" in refused(read_list, write(path, ["path,label", "", "c"]), root)


def test_lists_as_other_programs_write_them(tmp_path, root):
    """Names after a path with spaces, semicolons, quotes, a Windows path."""
    (root / "my videos").mkdir()
    (root / "my videos" / "one, two.mp4").touch()
    (root / "123.webm").touch()
    for lines in (
        ["my videos/one, two.mp4 jump high", "123.webm walk"],
        ["my videos/one, two.mp4;jump high", "123.webm;walk"],
        ['"my videos/one, two.mp4","jump high"', '"123.webm","walk"'],
        ["my videos\\one, two.mp4,jump high", "123.webm,walk"],
    ):
        found = read_list(write(tmp_path / "l.txt", lines), root)
        assert ([v.path.name for v in found.videos], labels_of(found)) == (["one, two.mp4", "123.webm"], [0, 1])
        assert found.classes == ["jump high", "walk"]
    found = read_list(write(tmp_path / "l.txt", ["123;walk", f"{PATHS[0]};Pushing something to the left"]), root)
    assert found.classes == ["Pushing something to the left", "walk"]  # Something-Something, Jester


def test_lists_of_paths_alone(tmp_path, root):
    (root / "a video.mp4").touch()
    lines = ["a video.mp4", f"{PATHS[0]} 0", f"{PATHS[1]}.avi,100,3", f"{PATHS[0]}.avi"]
    found = read_paths(write(tmp_path / "l.txt", lines), root)
    assert [v.name for v in found.videos] == ["a video.mp4", f"{PATHS[0]}.avi", f"{PATHS[1]}.avi"]
    assert found.told == "l.txt: 3 videos"
    path = write(tmp_path / "l.txt", ["a video.mp4", "none 3"])
    assert "line 2: video 'none 3' is not in" in refused(read_paths, path, root)
    assert read_paths(path, root, "skip").missing == [(2, "none 3")]


def test_classes_of_a_training_list_serve_its_test_list(tmp_path, root):
    names = ["c10", "c10", "c9", "c9", "x", "x"]
    train = write(tmp_path / "train.txt", [f"{p} {k}" for p, k in zip(PATHS, names, strict=True)])
    test = write(tmp_path / "test.txt", [f"{PATHS[0]} x", f"{PATHS[1]} c10"])
    classes = read_list(train, root).classes
    assert classes == ["c9", "c10", "x"]  # natural order
    assert labels_of(read_list(test, root, classes=classes)) == [2, 1]
    bad = write(tmp_path / "bad.txt", [f"{PATHS[0]} x", f"{PATHS[1]} c11"])
    told = refused(read_list, bad, root, classes=classes)
    assert told == f"{bad}, line 2: class 'c11' is none of the 3 classes; did you mean 'c10'?"


def test_lists_without_labels_take_the_folders_names(tmp_path, root):
    path = write(tmp_path / "l.txt", PATHS)
    found = read_list(path, root)
    assert (found.classes, labels_of(found)) == (CLASSES, LABELS) and "by the folders' names" in found.told
    told = refused(read_list, write(tmp_path / "f.txt", [PATHS[0], "v1.avi"]), root)
    assert told == f"{tmp_path / 'f.txt'}, line 2: 'v1.avi' has no label, and no folder to tell its class"


HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def test_kinetics_lists_and_how_their_videos_are_named(tmp_path):
    root = tmp_path / "videos"
    for name in ("-a1_000012_000022.mp4", "air drumming/b2_000000_000010.mkv", "tango_dancing/c3.webm", "d4.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
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
        assert found.told == "train.csv: form kinetics, 4 videos, 3 classes by their names"
    short = write(tmp_path / "short.csv", ["youtube_id,label", "d4,abseiling"])
    assert labels_of(read_list(short, root, classes=found.classes)) == [0]


@pytest.mark.parametrize(
    "lines, why",
    [
        (["youtube_id,time_start,time_end,split", "a,1,2,test"], "line 1: expected the columns label and youtube_id"),
        ([HEADER, "walk,a,1,2,train"], "line 2: 'walk,a,1,2,train': expected label, youtube_id"),
        ([HEADER, "walk,a,1,2,train,0", ",a,1,2,train,0"], "line 3"),
        ([HEADER, "walk,a,one,2,train,0"], "line 2: 'walk,a,one,2,train,0': times are numbers"),
        ([HEADER, "walk,a,nan,inf,train,0"], "times are numbers"),
        ([HEADER], "names no video"),
    ],
)
def test_bad_kinetics_lists(tmp_path, lines, why):
    path = write(tmp_path / "k.csv", lines)
    told = refused(read_list, path, tmp_path)
    assert told.startswith(str(path)) and why in told


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
        (root / path).parent.mkdir(exist_ok=True)
        (root / f"{path}{suffix}").touch()
        paths.append(root / f"{path}{suffix}")
        written = path + suffix * data.draw(st.booleans())
        lines.append(
            {
                "lrcn": f"{written}{gap}{label}",
                "ucf101": f"{written}{gap}{label + 1}",
                "rawframes": f"{written}{gap}{i}{gap}{label}",
                "plain": f"{written}{gap}{label}",
                "kinetics": f'"{classes[label]}",{name},{i},{i + 10},train',
            }[form]
        )
    if form == "kinetics":
        lines.insert(0, HEADER.removesuffix(",is_cc"))
    path = write(root / "list.lst", lines, end)
    said = read_list(path, root, form, classes=classes)
    assert (labels_of(said), [video.path for video in said.videos]) == (labels, paths)
    assert [video.frames for video in said.videos] == (
        list(range(len(names))) if form == "rawframes" else [None] * len(names)
    )
    assert said.classes == classes and said.form == form
    text = path.read_text().split("\n")
    assert all(video.name.split("_000")[0] in text[video.line - 1] for video in said.videos)
    if form != "plain" or 0 in labels or max(labels) == 0:
        found = read_list(path, root, classes=classes)
        assert (labels_of(found), found.told.split(", ", 1)[1]) == (labels, said.told.split(", ", 1)[1])


@pytest.mark.parametrize(
    "lines, form, why",
    [
        (["a.avi 0", "b.avi"], "auto", "line 2: 'b.avi' reads as a path with no label, but line 1 has a number"),
        (["a.avi 0", "", "b.avi walk"], "auto", "line 3: 'b.avi walk' reads as a path with a name"),
        (["a.avi 0", "b.avi 12 0"], "auto", "line 2: 'b.avi 12 0' reads as a path with frames and a number"),
        (["a.avi 0", "b c d e"], "auto", "line 2: 'b c d e' can't be read in the form auto"),
        (["a.avi 0"], "rawframes", "line 1: 'a.avi 0' can't be read in the form rawframes"),
        (["a.avi -1"], "auto", "line 1: label -1, expected from 0"),
        (["a.avi 0"], "ucf101", "line 1: label 0, expected from 1"),
        (["a.avi 0", "b.avi 20240131"], "auto", "line 2: label 20240131, expected from 0 to 1,000,000"),
        (["a.avi 0", "c.avi 1"], "auto", "line 2: video 'c.avi' is not in "),
        (["a.avi 0", "a.avi 1"], "auto", "line 2: 'a.avi' with label 1 is"),
        (["a.avi 0", "x/a.avi 0"], "auto", "which line 1 has as 'a.avi'"),
        (["two 0"], "auto", "line 1: 'two' may be two.avi or two.mp4"),
        (
            ["a.avi 0", "one.jpg 1"],
            "auto",
            "line 2: 'one.jpg' is one picture: a folder of pictures or a video is meant",
        ),
        (["read.me 0"], "auto", "line 1: 'read.me' is no video by its name"),
        ([], "auto", "is empty"),
        (["  ", ""], "plain", "is empty"),
    ],
)
def test_bad_lists_are_refused_with_file_and_line(tmp_path, lines, form, why):
    for name in ("a.avi", "b.avi", "two.avi", "two.mp4", "one.jpg", "read.me"):
        (tmp_path / name).touch()
    path = write(tmp_path / "bad.txt", lines)
    told = refused(read_list, path, tmp_path, form)
    assert told.startswith(str(path)) and why.replace("two.avi or two.mp4", "") in told
    if "may be" in why:
        assert "two.avi" in told and "two.mp4" in told


@given(st.lists(st.text('ab/.,-01 9\t"\ré', max_size=12), max_size=5), st.sampled_from(["auto", "plain", "kinetics"]))
@TINY
def test_any_text_is_read_or_refused_in_a_sentence(tmp_path, lines, form):
    for name in ("a.avi", "b.avi", "b/a.avi", "a,b.avi"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / name).touch()
    path = write(tmp_path / "any.txt", ["label,youtube_id"] * (form == "kinetics") + lines)
    for action in (lambda: read_list(path, tmp_path / "v", form, missing="skip"), lambda: read_classes(path)):
        try:
            action()
        except SeqclfError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_labels_beyond_the_classes_are_refused(tmp_path, root):
    path = write(tmp_path / "l.txt", [f"{PATHS[0]} 0", f"{PATHS[1]} 3"])
    assert refused(read_list, path, root, "plain", CLASSES).endswith(
        "line 2: label 3, expected from 0 to 2, for 3 classes (a file of all: class_index=)"
    )


def test_what_is_no_list_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    assert refused(read_list, tmp_path / "none", tmp_path) == f"{tmp_path / 'none'}: no such file"
    assert "not a list that can be read" in refused(read_list, tmp_path / "binary", tmp_path)
    assert "not a list that can be read" in refused(read_list, tmp_path, tmp_path)
    path = write(tmp_path / "long", ["a 1", "a" + " " * 100_000 + "b"])
    assert refused(read_list, path, tmp_path).startswith(f"{path}, line 2: is 100,002 characters long")
    assert "no such folder" in refused(read_list, tmp_path / "binary", tmp_path / "nowhere")
    assert "expected one of auto, lrcn" in refused(read_list, tmp_path / "none", tmp_path, "ucf")
    assert 'expected "raise" or "skip"' in refused(read_list, tmp_path / "none", tmp_path, missing="ignore")


def test_missing_videos_are_told_when_they_are_left_out(tmp_path, root):
    (root / f"{PATHS[1]}.avi").unlink()
    path = write(tmp_path / "l.txt", [f"{p} {k}" for p, k in zip(PATHS, LABELS, strict=True)])
    assert refused(read_list, path, root) == f"{path}, line 2: video {PATHS[1]!r} is not in {root}"
    found = read_list(path, root, missing="skip")
    assert found.missing == [(2, PATHS[1])] and labels_of(found) == [0, 1, 1, 2, 2]
    assert found.told.endswith(", labels from 0; left out as they are not there: 1, from line 2 on")
    (tmp_path / "other").mkdir()
    assert "none of its 6 videos" in refused(read_list, path, tmp_path / "other", missing="skip")


def test_the_name_as_it_stands_goes_before_others_of_its_stem(tmp_path):
    frames(tmp_path / "v1", ["1.png"])
    (tmp_path / "v1.avi").touch()
    path = write(tmp_path / "l.txt", ["v1.avi 0"])
    assert read_list(path, tmp_path).videos[0].path == tmp_path / "v1.avi"
    assert read_list(write(path, ["v1 0"]), tmp_path).videos[0].path == tmp_path / "v1"
    assert "may be" in refused(read_list, write(path, ["v1.mp4 0"]), tmp_path)
    assert read_list(write(path, [f"{tmp_path}/v1.avi 0"]), "/").videos[0].path == tmp_path / "v1.avi"
    assert read_list(write(path, ["v1/ 3 0"]), tmp_path).videos[0].path == tmp_path / "v1"
    (tmp_path / "f.g.npy").touch()
    assert read_list(write(path, ["f.g 0"]), tmp_path).videos[0].path == tmp_path / "f.g.npy"


@pytest.mark.parametrize(
    "lines, classes",
    [
        (["1 Walk", "2 Run fast"], ["Walk", "Run fast"]),
        (["1 Run", "0 Walk"], ["Walk", "Run"]),
        (["2 Run", "0 Walk", "1 Sit"], ["Walk", "Sit", "Run"]),
        (["walk", "run fast"], ["walk", "run fast"]),
        (["0", "1", "10"], ["0", "1", "10"]),
        (["100 m", "walk"], ["100 m", "walk"]),
        (["0,walk", "1,run"], ["walk", "run"]),
    ],
)
def test_files_of_classes(tmp_path, lines, classes):
    assert read_classes(write(tmp_path / "c.txt", lines)) == classes


@pytest.mark.parametrize(
    "lines, why",
    [
        (["1 a", "3 b"], "line 2: class 'b' has number 3, expected 2"),
        (["1 a", "1 b"], "line 2: class 'b' has number 1, expected 2"),
        (["1 a", "2 a"], "line 2: class 'a' is there already, in line 1"),
        (["a", "", "a"], "line 3: class 'a' is there already, in line 1"),
        (["0 a", "b"], "line 2: 'b': expected a class's number"),
        ([], "is empty"),
    ],
)
def test_bad_files_of_classes(tmp_path, lines, why):
    path = write(tmp_path / "c.txt", lines)
    told = refused(read_classes, path)
    assert told.startswith(str(path)) and why in told


def test_the_class_index_is_found_beside_the_list_and_under_root(tmp_path, root):
    path = write(tmp_path / "l.txt", [f"{PATHS[2]} 1"])
    write(root / "names.txt", CLASSES)
    assert read_list(path, root, "plain", class_index="names.txt").classes == CLASSES
    assert "no such file" in refused(read_list, path, root, class_index="none.txt")
    class_index(tmp_path, base=0)
    assert read_list(path, root).classes == CLASSES


# paths


def test_videos_are_found_in_natural_order(tmp_path):
    for name in ("b/v10.mp4", "b/v2.MKV", "b/notes.txt", "b/deep/er/x.avi", "f/seq.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    frames(tmp_path / "b" / "v3", ["1.jpg", "2.jpg"])
    (tmp_path / "b" / "v3" / "junk").mkdir()
    (tmp_path / "b" / "empty").mkdir()
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    inside = [tmp_path / "b" / name for name in ("deep/er/x.avi", "v2.MKV", "v3", "v10.mp4")]
    assert find_videos([tmp_path / "b"]) == inside
    assert find_videos([str(tmp_path / "f"), inside[3], tmp_path / "b"]) == [
        tmp_path / "f/seq.npy",
        inside[3],
        *inside[:3],
    ]
    assert find_videos([tmp_path / "b" / "v3"]) == [inside[2]]
    assert find_videos([]) == []


def test_paths_that_lead_to_no_video(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").touch()
    picture().save(tmp_path / "one.jpg")
    for action in (open_video, lambda path: find_videos([path])):
        assert "no such file or folder" in refused(action, tmp_path / "none.mp4")
        assert "is one picture; a folder of pictures or a video was expected" in refused(action, tmp_path / "one.jpg")
        assert "no video by its name" in refused(action, tmp_path / "text.txt")
    assert "holds no video and no pictures" in refused(find_videos, [tmp_path / "empty"])
    (tmp_path / "clip.mp4").touch()
    told = refused(find_videos, [tmp_path])
    assert told.startswith(f"{tmp_path}: holds pictures") and "clip.mp4" in told


def test_sources_by_their_kind(tmp_path):
    frames(tmp_path / "v", ["img_1.png", "flow_1.png"])
    assert open_video(tmp_path / "v", pattern="img_*").read([0]).shape == (1, 3, 8, 12)
    np.save(tmp_path / "x.npy", np.zeros((4, 9), np.float32))
    assert type(open_video(tmp_path / "x.npy")).__name__ == "FeatureFile"
    (tmp_path / "x.MP4").touch()
    video = open_video(str(tmp_path / "x.MP4"), 12.5)
    assert type(video).__name__ == "VideoFile" and re.fullmatch(r".*x\.MP4", video.path)
