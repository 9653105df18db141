"""Videos as folders of pictures: which files are frames, their order, numbers and pixels; finding videos."""

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
from seqclf.data.find import find_videos, open_video
from seqclf.data.frames import pictures
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.numbers import natural_key
from seqclf.data.frames.pictures import read_picture

TINY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def picture(shade: int = 0, size: tuple[int, int] = (12, 8)) -> Image.Image:
    """A smooth RGB picture of (W, H), different for each shade."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x * 8 + shade, y * 8, x + y + 2 * shade], -1).astype(np.uint8))


def frames(folder: Path, names, size=(12, 8)) -> Path:
    """A folder of pictures with these names, in shades counted from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for shade, name in enumerate(names):
        picture(shade, size).save(folder / name)
    return folder


def stored(path: Path) -> torch.Tensor:
    """The picture as PIL reads it, (3, H, W)."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def refused(action, *arguments, **keywords) -> str:
    """The message of the SeqclfError that this raises, which is one line."""
    with pytest.raises(SeqclfError) as caught:
        action(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- natural order


@given(st.lists(st.integers(0, 10**30), min_size=1, unique=True), st.text("ab_-. ", max_size=4))
def test_numbers_order_names_whatever_their_padding(numbers, text):
    names = [f"{text}{number:0{width}}x" for number, width in zip(numbers, [0, 5, 12] * len(numbers), strict=False)]
    assert sorted(names, key=natural_key) == [name for _, name in sorted(zip(numbers, names, strict=True))]


@given(st.lists(st.text("a0129é٣_.", max_size=6), max_size=8))
def test_natural_order_is_total_and_distinguishes_all_names(names):
    keys = sorted(natural_key(name) for name in names)  # any two compare, whatever they begin with
    assert [key[1] for key in keys] == sorted(names, key=natural_key)
    assert len(set(keys)) == len(set(names))
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


# ---- which files are frames


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG", "png", "bmp", "webp"])
def test_a_folder_is_a_video_in_natural_order(tmp_path, suffix):
    names = [f"img_{i}.{suffix}" for i in (1, 2, 9, 10, 11, 100)]
    folder = FrameFolder(frames(tmp_path / "v", names))
    (tmp_path / "v" / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "v" / "notes.txt").write_text("no frame")
    (tmp_path / "v" / "._img_1.jpg").write_bytes(b"left by macOS")
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
    message = refused(len, FrameFolder(both))
    assert str(both) in message and "'img_[0-9]*'" in message
    assert len(FrameFolder(both, "*")) == 9
    cover = frames(tmp_path / "cover", ["0001.jpg", "0002.jpg", "cover.jpg"])
    advised = re.search(r"pattern='(.*?)'", refused(len, FrameFolder(cover)))[1]
    assert FrameFolder(cover, advised).names == ["0001.jpg", "0002.jpg"]


def test_a_folder_is_listed_once_and_not_before_it_is_used(tmp_path):
    folder = FrameFolder(tmp_path / "v")
    frames(tmp_path / "v", ["1.png"])
    assert len(folder) == 1 and folder.path == str(tmp_path / "v")
    frames(tmp_path / "v", ["1.png", "2.png"])
    assert len(folder) == 1


def test_folders_that_are_not_a_video_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").write_text("")
    (tmp_path / "file").write_text("")
    for name in ("none", "empty", "text", "file"):
        assert refused(len, FrameFolder(tmp_path / name)).startswith(f"{tmp_path / name}: ")
    good = frames(tmp_path / "good", ["1.png", "2.png"])
    assert "'img_*'" in refused(len, FrameFolder(good, "img_*"))
    for number in (-1, 2):
        assert f"no frame {number}" in refused(FrameFolder(good).read, [0, number])
    double = frames(tmp_path / "double", ["a.jpg", "a.png", "b.png"])
    assert "a.jpg and a.png" in refused(len, FrameFolder(double))
    other = frames(tmp_path / "other", ["1.jpg", "2.tif"])
    assert "2.tif" in refused(len, FrameFolder(other))
    covered = frames(tmp_path / "covered", ["cover.jpg", "f_1.jpg", "f_2.jpg"])
    assert "(f_*, cover)" in refused(len, FrameFolder(covered))
    assert FrameFolder(covered, "f_*").names == ["f_1.jpg", "f_2.jpg"] and len(FrameFolder(covered, "*")) == 3
    assert FrameFolder(frames(tmp_path / "words", ["b.png", "a.png"])).names == ["a.png", "b.png"]
    for wrong in ({"frame_numbers": "name"}, {"fps": 0}):
        assert next(iter(wrong)) in refused(FrameFolder, good, **wrong)


# ---- numbers


@pytest.mark.parametrize(
    ("names", "numbers", "end", "missing"),
    [
        ([f"img_{k:05}" for k in range(6)], range(6), 6, 0),
        ([f"{k}" for k in range(1, 7)], range(1, 7), 7, 0),
        ([f"v_X_g01_c02.{k:04}" for k in (8, 9, 10, 12)], [8, 9, 10, 12], 13, 1),
        ([f"f{k}" for k in (0, 25, 50, 100)], [0, 25, 50, 100], 125, 1),
        (["only_7"], [7], 8, 0),
        (["a1_b2", "a2_b1"], range(2), 2, 0),  # two numbers vary: neither counts the frames
        (["1", "01"], range(2), 2, 0),  # one number twice
        (["a", "b"], range(2), 2, 0),
        ([f"{10**20 + k}" for k in range(3)], range(3), 3, 0),  # too large for a frame number
    ],
)
def test_frames_are_numbered_as_in_their_names(tmp_path, names, numbers, end, missing):
    folder = FrameFolder(frames(tmp_path / "v", [f"{name}.png" for name in names]))
    times = folder.frame_times()
    assert times.numbers.tolist() == list(numbers) and times.end == end and times.middles is None
    assert folder.seconds is None and folder.numbering().missing == missing
    in_order = FrameFolder(tmp_path / "v", frame_numbers="order")
    assert in_order.frame_times().numbers.tolist() == list(range(len(names)))


def test_times_follow_the_numbers(tmp_path):
    frames(tmp_path / "from1", [f"{k}.png" for k in (1, 2, 3, 5)])
    folder = FrameFolder(tmp_path / "from1", fps=10)
    times = folder.frame_times()
    assert folder.seconds.tolist() == pytest.approx([0, 0.1, 0.2, 0.4])
    assert times.middles.tolist() == pytest.approx([0.05, 0.15, 0.25, 0.45]) and times.end_seconds == pytest.approx(0.5)
    frames(tmp_path / "from0", [f"{k}.png" for k in (0, 25, 50)])
    assert FrameFolder(tmp_path / "from0", fps=25).seconds.tolist() == [0, 1, 2]


def test_a_folder_describes_how_it_is_read_and_opens_others_alike(tmp_path):
    frames(tmp_path / "v", [f"img_{k}.png" for k in (2, 4, 8)])
    frames(tmp_path / "w", ["img_1.png", "other_1.png"])
    folder = FrameFolder(tmp_path / "v", "img_*", "order", 5)
    assert folder.describe() == {
        **{"kind": "folder", "pattern": "img_*", "frame_numbers": "order", "fps": 5},
        **{"first": 0, "last": 2, "step": 1, "missing": 0},
    }
    other = folder.reader()(tmp_path / "w")
    assert (len(other), other.frame_numbers, other.fps) == (1, "order", 5)


# ---- pixels


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb_as_in_pil(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("RGB", "L", "CMYK") else "a.png")
    picture().convert(mode).save(path)
    assert torch.equal(torch.tensor(read_picture(path)).permute(2, 0, 1), stored(path))


def test_jpegs_have_the_pixels_of_pil(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8))
    for i, keys in enumerate(({"quality": 30}, {"quality": 95, "subsampling": 0}, {"progressive": True})):
        noise.save(tmp_path / f"{i}.jpg", **keys)
        assert torch.equal(FrameFolder(tmp_path).read([i])[0], stored(tmp_path / f"{i}.jpg"))
    exif = Image.Exif()
    exif[0x112] = 6  # a quarter turn, which is not applied
    noise.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (33, 47, 3)


def test_jpegs_are_read_by_pil_without_torchcodec(tmp_path, monkeypatch):
    frames(tmp_path, ["1.jpg", "2.jpg"])
    whole = FrameFolder(tmp_path).read([0, 1])
    monkeypatch.setattr(pictures, "_jpeg_decoder", lambda: None)
    assert torch.equal(FrameFolder(tmp_path).read([0, 1]), whole)


def test_a_palette_with_transparency_gives_no_warning(tmp_path):
    picture().convert("P").save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert FrameFolder(tmp_path).read([0]).shape == (1, 3, 8, 12)


def test_one_picture_is_a_video_of_one_frame(tmp_path):
    folder = FrameFolder(frames(tmp_path / "v", ["only.png"]))
    assert len(folder) == 1 and folder.read([0, 0]).shape == (2, 3, 8, 12)


def test_a_frame_of_another_size_is_named(tmp_path):
    folder = frames(tmp_path / "v", ["1.jpg", "2.jpg"])
    picture(size=(14, 8)).save(folder / "3.jpg")
    assert FrameFolder(folder).read([0, 1]).shape == (2, 3, 8, 12)
    message = refused(FrameFolder(folder).read, [1, 2])
    assert message.startswith(f"{folder / '3.jpg'}: ") and "14x8" in message and "12x8" in message


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_a_damaged_frame_is_named(tmp_path, suffix):
    folder = frames(tmp_path, [f"{i}.{suffix}" for i in range(4)], size=(64, 48))
    whole = (folder / f"1.{suffix}").read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2], whole[:20]):
        (folder / f"1.{suffix}").write_bytes(content)
        assert refused(FrameFolder(folder).read, [0, 1]).startswith(f"{folder}/1.{suffix}: ")
        assert FrameFolder(folder).read([0, 2]).shape == (2, 3, 48, 64)
    listed = FrameFolder(folder)
    listed.read([0])
    (folder / f"2.{suffix}").unlink()
    assert refused(listed.read, [2]).startswith(f"{folder}/2.{suffix}: ")


@given(st.data())
@TINY
def test_a_cut_or_changed_file_is_read_or_refused_by_name(tmp_path, data):
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
    """A 16-bit RGB PNG, which PIL does not write."""

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
    assert "2 pictures" in refused(read_picture, tmp_path / "moving.webp")


# ---- finding and opening videos


def test_videos_are_found_in_natural_order(tmp_path):
    for name in ("b/v10.mp4", "b/v2.MKV", "b/notes.txt", "b/deep/er/x.MTS", "f/seq.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    frames(tmp_path / "b" / "v3", ["1.jpg", "2.jpg"])
    (tmp_path / "b" / "v3" / "junk").mkdir()
    (tmp_path / "b" / "empty").mkdir()
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    inside = [tmp_path / "b" / name for name in ("deep/er/x.MTS", "v2.MKV", "v3", "v10.mp4")]
    assert find_videos([tmp_path / "b"]) == inside
    assert find_videos([str(tmp_path / "f"), inside[3], tmp_path / "b"]) == [
        tmp_path / "f/seq.npy",
        inside[3],
        *inside[:3],
    ]
    assert find_videos([tmp_path / "b" / "v3"]) == [inside[2]]
    assert find_videos([tmp_path / "b" / "notes.txt"]) == [tmp_path / "b" / "notes.txt"]  # named, so any suffix
    assert find_videos([]) == []


def test_paths_that_lead_to_no_video_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("not a video")
    picture().save(tmp_path / "one.jpg")
    for action in (open_video, lambda path: find_videos([path])):
        for name in ("none.mp4", "one.jpg"):
            assert refused(action, tmp_path / name).startswith(f"{tmp_path / name}: ")
    assert refused(len, open_video(tmp_path / "text.txt")).startswith(f"{tmp_path / 'text.txt'}: ")
    assert str(tmp_path / "empty") in refused(find_videos, [tmp_path / "empty"])
    (tmp_path / "clip.mp4").touch()
    message = refused(find_videos, [tmp_path])
    assert message.startswith(f"{tmp_path}: ") and "clip.mp4" in message


def test_open_video_chooses_the_source_by_its_path(tmp_path):
    frames(tmp_path / "v", ["img_1.png", "flow_1.png"])
    assert open_video(tmp_path / "v", pattern="img_*").read([0]).shape == (1, 3, 8, 12)
    np.save(tmp_path / "x.npy", np.zeros((4, 9), np.float32))
    assert type(open_video(tmp_path / "x.npy")).__name__ == "FeatureFile"
    for name in ("x.MP4", "x.h264", "x"):
        (tmp_path / name).touch()
        video = open_video(str(tmp_path / name), 12.5)
        assert type(video).__name__ == "VideoFile" and re.fullmatch(rf".*{re.escape(name)}", video.path)
