"""Video files that are joined, damaged in the middle, or have several video streams."""

import subprocess

import av
import numpy as np
import pytest
import torch
from PIL import Image

from seqclf import SeqclfError
from seqclf.data import open_video
from seqclf.data.video_file import VideoFile

ENCODERS = {
    "h264": ["-c:v", "libx264", "-bf", "3", "-g", "12"],
    "mpeg4": ["-c:v", "mpeg4", "-bf", "2", "-g", "12", "-qscale:v", "3"],
    "mpeg2": ["-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-qscale:v", "3"],
}


def make(path, encoder, frames=40, size="160x120", start=0):
    source = f"testsrc2=s={size}:r=25:d=9,trim=start_frame={start}:end_frame={start + frames},setpts=PTS-STARTPTS"
    args = ["-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", *ENCODERS[encoder], str(path)]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *args], check=True)
    return path


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


@pytest.mark.parametrize("pieces", [PIECES[:2], PIECES], ids=["two", "three"])
@pytest.mark.parametrize(("encoder", "suffix"), [("h264", "ts"), ("mpeg2", "ts"), ("mpeg4", "ts"), ("h264", "264")])
def test_every_frame_of_a_joined_file_is_read_in_display_order(encoder, suffix, pieces, tmp_path):
    path = joined(tmp_path, encoder, suffix, *pieces)
    source, expected = VideoFile(path), decoded(path)
    assert len(source) == len(expected) == count(path) == sum(piece["frames"] for piece in pieces)
    assert torch.equal(source.read(range(len(source))), expected)
    for numbers in ([24, 25, 26], [55, 3], [30], [len(source) - 1, 0]):
        assert torch.equal(source.read(numbers), expected[numbers])
    seconds = source.seconds - source.seconds[0]
    assert seconds.tolist() == pytest.approx([k / 25 for k in range(len(source))])
    skipping = VideoFile(path, on_error="skip_frames")
    assert len(skipping) == len(source) and skipping.lost() is None


def test_pieces_of_different_sizes_are_refused(tmp_path):
    path = joined(tmp_path, "h264", "ts", {"frames": 10}, {"frames": 10, "size": "80x64"})
    with pytest.raises(SeqclfError, match=r"joined\.ts: frame 10 is 80 x 64, and another 160 x 120"):
        VideoFile(path).read(range(20))


def damage(path, part, size):
    """The file with bytes overwritten, from a part of its length on."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * part)
    content[at : at + size] = np.random.default_rng(1).bytes(size)
    damaged = path.with_name("damaged" + path.suffix)
    damaged.write_bytes(content)
    return damaged


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


def test_a_file_that_is_cut_off_is_read_up_to_there(tmp_path):
    whole = make(tmp_path / "a.mkv", "h264", frames=60)
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SeqclfError, match=r"cut\.mkv: .*skip_frames"):
        len(VideoFile(path))
    source = VideoFile(path, on_error="skip_frames")
    assert 10 < len(source) < 60 and "cut off" in source.lost()
    numbers = [round(25 * seconds) for seconds in (source.seconds - source.seconds[0]).tolist()]
    assert torch.equal(source.read(range(len(source))), decoded(whole)[numbers])


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
    assert VideoFile(path).streams() == 2
    assert VideoFile(path, stream=0).reader()(path).frame_shape == (3, 48, 64)
    with pytest.raises(SeqclfError, match=r"two\.\w+: stream=2: the file has 2 video streams"):
        len(VideoFile(path, stream=2))
