"""Video files that are joined, damaged in the middle, or have several video streams."""

import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from seqclf import SeqclfError
from seqclf.data import Video, Videos, open_video
from seqclf.data.sampling import whole
from seqclf.data.transforms import resize
from seqclf.data.video.file import VideoFile

ENCODERS = {
    "h264": ["-c:v", "libx264", "-bf", "3", "-g", "12"],
    "mpeg4": ["-c:v", "mpeg4", "-bf", "2", "-g", "12", "-qscale:v", "3"],
    "vp8": ["-c:v", "libvpx", "-b:v", "2M", "-threads", "1"],
    "mpeg2": ["-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-qscale:v", "3"],
}


def make(path, encoder, frames=40, size="160x120", start=0):
    path.write_bytes(content_of(path.suffix, encoder, frames, size, start))
    return path


@cache
def content_of(suffix, encoder, frames, size, start):
    source = f"testsrc2=s={size}:r=25:d=9,trim=start_frame={start}:end_frame={start + frames},setpts=PTS-STARTPTS"
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        args = ["-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", *ENCODERS[encoder], file.name]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *args], check=True)
        return Path(file.name).read_bytes()


def joined(folder, encoder, suffix, *pieces):
    """Pieces of a video as one file, end to end."""
    path = folder / f"joined.{suffix}"
    content = [make(folder / f"{k}.{suffix}", encoder, **piece).read_bytes() for k, piece in enumerate(pieces)]
    path.write_bytes(b"".join(content))
    return path


def decoded(path):
    """All frames that PyAV decodes one after the other, ``(n, 3, H, W)``."""
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def count(path):
    """How many frames the program ffmpeg decodes."""
    command = ["ffmpeg", "-v", "quiet", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    lines = subprocess.run([*command, "-f", "framemd5", "-"], capture_output=True, text=True, check=True).stdout
    return sum(not line.startswith("#") for line in lines.splitlines())


PIECES = [{"frames": 25}, {"frames": 31, "start": 60}, {"frames": 17, "start": 120}]


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [PIECES[:2], PIECES], ids=["two", "three"])
@pytest.mark.parametrize(
    ("encoder", "suffix"), [("h264", "ts"), ("mpeg2", "ts"), ("mpeg4", "ts"), ("h264", "264"), ("h264", "mkv")]
)
def test_every_frame_of_a_joined_file_is_read_in_display_order(encoder, suffix, pieces, tmp_path):
    path = joined(tmp_path, encoder, suffix, *pieces)
    if suffix == "mkv" and len(pieces) > 2:
        with pytest.raises(SeqclfError, match=r"joined\.mkv: 3 "):
            len(VideoFile(path))
        return
    expected = torch.cat([decoded(tmp_path / f"{k}.{suffix}") for k in range(len(pieces))])
    source = VideoFile(path)
    assert len(source) == len(expected) == sum(piece["frames"] for piece in pieces)
    assert len(source) == count(path)
    assert torch.equal(source.read(range(len(source))), expected)
    for numbers in ([24, 25, 26], [55, 3], [30], [len(source) - 1, 0]):
        assert torch.equal(source.read(numbers), expected[numbers])
    seconds = source.seconds - source.seconds[0]
    assert seconds.tolist() == pytest.approx([k / 25 for k in range(len(source))])
    skipping = VideoFile(path, on_error="skip_frames")
    assert len(skipping) == len(source) and skipping.lost() is None


def test_pieces_of_different_sizes_are_refused(tmp_path):
    path = joined(tmp_path, "h264", "ts", {"frames": 10}, {"frames": 10, "size": "80x64"})
    for on_error in ("raise", "skip_frames"):
        with pytest.raises(SeqclfError, match=r"joined\.ts: frame 10 .*80x64.*160x120"):
            len(VideoFile(path, on_error=on_error))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pieces_of_different_sizes_in_one_container_are_never_mixed(suffix, tmp_path):
    pieces = [{"frames": 30}, {"frames": 30, "size": "80x64"}]
    files = [make(tmp_path / f"{k}.{suffix}", "h264", **piece) for k, piece in enumerate(pieces)]
    (tmp_path / "list.txt").write_text("".join(f"file {file.name}\n" for file in files))
    path = tmp_path / f"both.{suffix}"
    command = ["ffmpeg", "-v", "error", "-f", "concat", "-i", str(tmp_path / "list.txt"), "-c", "copy", str(path)]
    subprocess.run(command, check=True)
    source = VideoFile(path)
    assert len(source) == 60 and torch.equal(source.read([29]), decoded(files[0])[29:])
    for numbers in ([30], [59], [3, 45]):
        with pytest.raises(SeqclfError, match=r"both\.\w+: frame \d+ .*80x64.*160x120"):
            VideoFile(path).read(numbers)
    clip = Videos([Video("v", VideoFile(path), 0)], sampling=whole, transform=partial(resize, size=32), training=False)
    with pytest.raises(SeqclfError, match=r"80x64.*160x120"):
        clip.batch(torch.tensor([0]))
    with pytest.raises(SeqclfError, match=r"80x64.*160x120"):
        len(VideoFile(path, on_error="skip_frames"))


def damage(path, part, size):
    """The file with bytes overwritten, from a part of its length on."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * part)
    content[at : at + size] = np.random.default_rng(1).bytes(size)
    damaged = path.with_name("damaged" + path.suffix)
    damaged.write_bytes(content)
    return damaged


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.35, 0.6])
@pytest.mark.parametrize(
    ("encoder", "suffix"), [("h264", "mp4"), ("h264", "mkv"), ("mpeg4", "mp4"), ("mpeg4", "mkv"), ("mpeg4", "avi")]
)
def test_a_damaged_file_is_refused_or_read_around_its_damage_and_reported(encoder, suffix, part, tmp_path):
    whole = make(tmp_path / f"a.{suffix}", encoder, frames=60)
    path, expected = damage(whole, part, 300), decoded(whole)
    with pytest.raises(SeqclfError, match=r"damaged\.\w+: "):
        VideoFile(path).read(range(len(VideoFile(path))))
    source = VideoFile(path, on_error="skip_frames")
    numbers = source.frame_times().numbers.tolist()
    assert 20 < len(source) == len(numbers) < 60 and source.lost() is not None
    assert str(next(k for k in range(60) if k not in numbers)) in source.lost()
    assert torch.equal(source.read(range(len(source))), expected[numbers])
    for k in (0, len(source) // 2, len(source) - 1):
        assert torch.equal(source.read([k]), expected[numbers[k] : numbers[k] + 1])
    assert source.seconds.tolist() == [float(VideoFile(whole).seconds[k]) for k in numbers]
    resampled = VideoFile(path, fps=12.5, on_error="skip_frames")
    assert set(resampled.frame_times().numbers.tolist()) <= set(numbers)
    assert source.reader()(path).lost() == source.lost()


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
@pytest.mark.parametrize("back", [4, 6, 7], ids=["track", "size", "id"])
def test_a_matroska_file_with_a_damaged_block_header_is_refused(suffix, back, tmp_path):
    """FFmpeg reads such a file without an error, and leaves frames out."""
    path = make(tmp_path / f"a.{suffix}", "mpeg4" if suffix == "mkv" else "vp8", frames=60)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        payload = [bytes(packet) for packet in file.demux(video=0)][30]
    begin = content.index(payload) - back  # before a payload: id (1), size (2), track (1), time (2), flags (1)
    assert content[begin + back - 7] == 0xA3
    content[begin] = 0xFF if back == 4 else 0x7F
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes(content)
    assert len(VideoFile(path)) == 60
    for on_error in ("raise", "skip_frames"):
        with pytest.raises(SeqclfError, match=rf"damaged\.{suffix}: .*damaged"):
            len(VideoFile(damaged, on_error=on_error))


def chunks(avi):
    """The place and size of each packet in an AVI file."""
    at, found = avi.index(b"movi") + 4, []
    while avi[at : at + 4] == b"00dc":
        found.append((at, int.from_bytes(avi[at + 4 : at + 8], "little")))
        at += 8 + found[-1][1] + found[-1][1] % 2
    return found


@pytest.mark.parametrize("encoder", ["h264", "mpeg4"])
@pytest.mark.parametrize("loss", ["headers", "headers and index", "removed"])
def test_an_avi_file_that_lost_packets_is_refused(encoder, loss, tmp_path):
    whole = bytearray(make(tmp_path / "a.avi", encoder, frames=60).read_bytes())
    places = chunks(whole)
    assert len(places) == 60
    if loss == "removed":
        whole = whole[: places[31][0]] + whole[places[34][0] :]
    else:
        for at, _ in places[31:34]:
            whole[at : at + 8] = b"\x11\x22\x33\x44\x55\x66\x77\x88"
    if loss == "headers and index":
        at = whole.rindex(b"idx1")
        whole[at : at + 4] = b"JUNK"
    path = tmp_path / "lost.avi"
    path.write_bytes(whole)
    for on_error in ("raise", "skip_frames"):
        with pytest.raises(SeqclfError, match=r"lost\.avi: .*3 of 60 "):
            len(VideoFile(path, on_error=on_error))


def test_frames_near_damage_are_left_out_where_their_order_is_not_known(tmp_path):
    whole = make(tmp_path / "a.avi", "h264", frames=60)
    content, expected = bytearray(whole.read_bytes()), decoded(whole)
    for at, size in chunks(content)[31:34]:
        content[at + 8 : at + 8 + size] = bytes(size)
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    source = VideoFile(path, on_error="skip_frames")
    numbers = source.file_numbers.tolist()
    assert numbers == [*range(24), *range(36, 60)] and "24 to 35" in source.lost()
    assert torch.equal(source.read(range(len(source))), expected[numbers])
    strict = VideoFile(path)
    assert torch.equal(strict.read(numbers), expected[numbers])
    for number in range(24, 36):
        with pytest.raises(SeqclfError, match=rf"damaged\.avi: frame {number} "):
            strict.read([number])


def test_a_truncated_file_is_read_up_to_its_end(tmp_path):
    whole = make(tmp_path / "a.mkv", "h264", frames=60)
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SeqclfError, match=r"cut\.mkv: .*skip_frames"):
        len(VideoFile(path))
    source = VideoFile(path, on_error="skip_frames")
    assert 10 < len(source) < 60 and "cut off" in source.lost()
    numbers = [round(25 * seconds) for seconds in (source.seconds - source.seconds[0]).tolist()]
    assert torch.equal(source.read(range(len(source))), decoded(whole)[numbers])


@pytest.mark.slow
@pytest.mark.parametrize(
    "marks",
    [
        ["-disposition:v:0", "default"],
        ["-disposition:v:0", "0", "-disposition:v:1", "default"],
        ["-disposition:v:0", "0", "-disposition:v:1", "0"],
    ],
    ids=["first is default", "second is default", "none is default"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_one_of_several_video_streams_is_chosen(suffix, marks, tmp_path):
    path = tmp_path / f"two.{suffix}"
    inputs = ["-f", "lavfi", "-i", "color=red:s=64x48:r=25:d=1", "-f", "lavfi", "-i", "testsrc=s=320x240:r=25:d=1"]
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        *inputs,
        "-map",
        "0",
        "-map",
        "1",
        "-pix_fmt",
        "yuv420p",
        *marks,
        str(path),
    ]
    subprocess.run(command, check=True)
    sizes = [VideoFile(path, stream=stream).frame_shape for stream in (0, 1)]
    assert sizes == [(3, 48, 64), (3, 240, 320)]
    still = tmp_path / "ffmpeg.png"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", str(still)], check=True)
    with Image.open(still) as picture:
        assert (
            open_video(path).frame_shape == (3, picture.height, picture.width) and open_video(path).frame_shape in sizes
        )
    assert open_video(path, stream=0).frame_shape == (3, 48, 64)
    count, chosen = VideoFile(path).streams()
    assert count == 2 and open_video(path).frame_shape == sizes[chosen]
    assert VideoFile(path, stream=0).reader()(path).frame_shape == (3, 48, 64)
    with pytest.raises(SeqclfError, match=r"two\.\w+: stream=2: .* 2 "):
        len(VideoFile(path, stream=2))
