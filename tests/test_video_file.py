"""Video files: any frames equal those of a decoding of the whole file; damaged files are refused."""

import gc
import io
import os
import pickle
import re
import sys
import threading
import wave
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from seqclf import SeqclfError
from seqclf.data.find import find_videos, open_video
from seqclf.data.lists.video_list import read_list
from seqclf.data.video import decoder as video_decoder
from seqclf.data.video import file as video_file
from seqclf.data.video import index as video_index
from seqclf.data.video.container import Place, open_container
from seqclf.data.video.file import VideoFile
from seqclf.data.video.references import is_disposable, length_bytes

av = pytest.importorskip("av")

ENCODERS = av.codec.codecs_available  # encoders of this PyAV
UNEVEN = np.cumsum(np.random.default_rng(1).integers(1, 200, 40)).tolist()  # presentation times in milliseconds
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:scenecut=0"}
FIXED = {"x264-params": "scenecut=0"}
KINDS = {  # file name: (encoder, what is special)
    "h264.mp4": ("libx264", dict(b=3)),
    "h264_open.mp4": ("libx264", dict(b=3, options=OPEN_GOP)),
    "h264_open.mkv": ("libx264", dict(b=3, options=OPEN_GOP)),
    "h264_gop1.mp4": ("libx264", dict(gop=1)),
    "h264_gop2.mp4": ("libx264", dict(gop=2, b=1, options=FIXED)),
    "h264_gop250.mp4": ("libx264", dict(gop=250, b=2, options=FIXED)),
    "h264_refresh.mp4": ("libx264", dict(options={"x264-params": "intra-refresh=1:keyint=12:scenecut=0"})),
    "h264_66.mp4": ("libx264", dict(b=2, size=(66, 50))),
    "h264_444.mkv": ("libx264", dict(b=2, pixels="yuv444p")),
    "h264.flv": ("libx264", dict(b=2)),
    "h264.avi": ("libx264", dict(b=2)),
    "h264.ts": ("libx264", dict(b=2)),
    "raw.264": ("libx264", dict(b=2)),
    "uneven.mp4": ("libx264", dict(b=2, times=UNEVEN)),
    "uneven.mkv": ("libx264", dict(b=2, times=UNEVEN)),
    "late.mkv": ("libx264", dict(b=2, times=range(7000, 8600, 40))),
    "hevc_open.mp4": ("libx265", dict(b=3, options={"x265-params": "open-gop=1:keyint=12:log-level=none"})),
    "mpeg4.mp4": ("mpeg4", dict(b=2)),
    "mpeg4_gop1.mp4": ("mpeg4", dict(gop=1)),
    "mpeg4_uneven.mp4": ("mpeg4", dict(b=2, times=UNEVEN)),
    "mpeg4.avi": ("mpeg4", dict(b=0)),
    "mpeg4_b.avi": ("mpeg4", dict(b=2)),
    "mpeg4_one.avi": ("mpeg4", dict(frames=1)),
    "mpeg2.mpg": ("mpeg2video", dict(b=2)),
    "mpeg2.mkv": ("mpeg2video", dict(b=2)),
    "vp8.webm": ("libvpx", {}),
    "vp9.webm": ("libvpx-vp9", {}),
    "mjpeg.avi": ("mjpeg", dict(pixels="yuvj420p")),
    "mjpeg.mov": ("mjpeg", dict(pixels="yuvj420p")),
    "one.mp4": ("libx264", dict(frames=1)),
    "a.gif": ("gif", dict(pixels="rgb8")),
}
PLACE = b"\x00\x00\x01\xb6\x51\x00\x00\x7f"  # an MPEG-4 picture that is marked as not coded
MADE_OF = {  # files made from the packets of others
    "edited.mp4": "h264.mp4",
    "edited_open.mp4": "h264_open.mp4",
    "hidden.webm": "vp8.webm",
    "headless.mkv": "h264_open.mkv",
    "packed.avi": "mpeg4_b.avi",
    "all_keys.avi": "mpeg4_b.avi",
    "not_coded.avi": "mpeg4.avi",
    "copied.mp4": "h264.avi",
    "copied.mkv": "h264.avi",
    "copied_mpeg4.mp4": "mpeg4_b.avi",
    "copied_mpeg4.mov": "mpeg4_b.avi",
}
CHANGED = (
    "h264.mp4",
    "h264_open.mkv",
    "h264.ts",
    "h264.flv",
    "mpeg4.avi",
    "mpeg2.mpg",
    "vp9.webm",
    "mjpeg.mov",
    "a.gif",
)
DECODED = {  # where decoding gives their order
    *("h264.avi", "h264.ts", "raw.264", "mpeg2.mpg", "headless.mkv", "not_coded.avi"),
    *("copied.mp4", "copied.mkv", "copied_mpeg4.mp4", "copied_mpeg4.mov"),
}


def write(path, encoder, frames=40, size=(64, 48), gop=12, b=0, times=None, pixels="yuv420p", options=None, **stream):
    """Different frames that move and flicker, at 25 per second or at ``times`` in milliseconds."""
    rng = np.random.default_rng(0)
    tick = Fraction(1, 25) if times is None else Fraction(1, 1000)
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}) as file:
        out = file.add_stream(encoder, rate=25)
        out.width, out.height = size
        out.pix_fmt, out.gop_size, out.options = pixels, gop, options or {}
        out.codec_context.time_base = tick
        if b:
            out.max_b_frames = b
        for name, value in stream.items():
            getattr(out, name)(value)
        still = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        for k in range(frames):
            picture = np.roll(still, 3 * k, 1)
            picture[10:20, 10:30] = rng.integers(0, 256, 3)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k if times is None else times[k], tick
            file.mux(out.encode(frame))
        file.mux(out.encode())
    return path


def remake(source, path, packets):
    """A file of the packets of another, changed by ``packets(list of (bytes, pts, dts, is key))``."""
    with av.open(str(source)) as file, av.open(str(path), "w") as out:
        stream = file.streams.video[0]
        to = out.add_stream_from_template(stream)
        out.start_encoding()
        old = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in file.demux(stream) if p.size]
        for data, pts, dts, key in packets(old):
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.is_keyframe = pts, dts, key
            packet.stream, packet.time_base = to, stream.time_base
            out.mux(packet)
    return path


def earlier(packets):
    """Nine frames earlier: an edit list removes the frames before 0."""
    return [(data, pts - 9 * 512, dts - 9 * 512, key) for data, pts, dts, key in packets]


def hide(packets):
    """Hides every seventh frame of VP8, as encoders do with frames that are only references."""
    return [(bytes([d[0] & ~0x10 if k % 7 == 3 else d[0]]) + d[1:], *rest) for k, (d, *rest) in enumerate(packets)]


def pack(packets):
    """Packed as by DivX: a B-picture is in the packet before it, and a small packet takes its place."""
    parts, out = [data for data, *_ in packets], []
    parts[0] = re.sub(b"\x00\x00\x01\xb2Lavc[0-9.]*", b"\x00\x00\x01\xb2DivX503b1393p", parts[0])
    kinds = [data[data.find(b"\x00\x00\x01\xb6") + 4] >> 6 for data in parts]
    while parts:
        size = 1
        while size < len(parts) and kinds[size] == 2:
            size += 1
        group = [parts[0] + parts[1], *parts[2:size], PLACE] if size > 1 else parts[:1]
        out += [(data, k == 0 and kinds[0] == 0) for k, data in enumerate(group)]
        parts, kinds = parts[size:], kinds[size:]
    return [(data, k, k, key) for k, (data, key) in enumerate(out)]


def in_avi(packets):
    """Unchanged packets, all marked as keyframes."""
    return [(data, k, k, True) for k, (data, *_) in enumerate(packets)]


def not_coded(packets):
    """With a packet at position 11 that holds no picture."""
    parts = [(data, key) for data, _, _, key in packets]
    parts.insert(11, (PLACE, False))
    return [(data, k, k, key) for k, (data, key) in enumerate(parts)]


def copied(packets):
    """Shown at the times of decoding, as in an MP4 file that FFmpeg copied from AVI."""
    return [(data, dts, dts, key) for data, _, dts, key in packets]


CHANGES = {
    "edited.mp4": earlier,
    "edited_open.mp4": earlier,
    "hidden.webm": hide,
    "headless.mkv": lambda packets: packets[5:],
    "packed.avi": pack,
    "all_keys.avi": in_avi,
    "not_coded.avi": not_coded,
    "copied.mp4": copied,
    "copied.mkv": copied,
    "copied_mpeg4.mp4": copied,
    "copied_mpeg4.mov": copied,
}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A function that returns the path of a kind of video, written on first use."""
    folder = tmp_path_factory.mktemp("videos")

    @cache
    def get(name):
        if name in CHANGES:
            return remake(get(MADE_OF[name]), folder / name, CHANGES[name])
        encoder, special = KINDS[name]
        return write(folder / name, encoder, **special)

    return get


@cache
def decoded(path):
    """All frames of a file in order, ``(n, 3, H, W)``, and their times in seconds from the first."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = [(frame.to_ndarray(format="rgb24", threads=1), frame.pts) for frame in file.decode(stream)]
        tick = stream.time_base
    pictures = torch.from_numpy(np.stack([picture for picture, _ in frames])).permute(0, 3, 1, 2)
    return pictures, [
        None if pts is None or frames[0][1] is None else float((pts - frames[0][1]) * tick) for _, pts in frames
    ]


ALL = [name for name in [*KINDS, *MADE_OF] if KINDS[MADE_OF.get(name, name)][0] in ENCODERS]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_all_frames_are_those_of_a_decoding_of_the_whole_file(name, video, monkeypatch):
    whole, _ = decoded(video(name))
    assert len(whole.flatten(1).unique(dim=0)) == len(whole)  # the pixels identify a frame
    orders = []
    decode_all = video_index._order_of_decoding
    monkeypatch.setattr(video_index, "_order_of_decoding", lambda *args: orders.append(args) or decode_all(*args))
    source = VideoFile(video(name))
    assert len(source) == len(whole) and bool(orders) == (name in DECODED)
    assert source.frame_shape == whole.shape[1:] and source.read([]).shape == (0, *whole.shape[1:])
    for order in (range(len(whole)), range(len(whole) - 1, -1, -1)):
        frames = source.read(order)
        assert frames.dtype == torch.uint8 and frames.is_contiguous() and torch.equal(frames, whole[list(order)])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_frames_are_those_of_a_decoding_of_the_whole_file(video, data):
    path = video(data.draw(st.sampled_from(ALL), "file"))
    whole, _ = decoded(path)
    number = st.integers(0, len(whole) - 1)
    in_a_row = st.builds(lambda first, n: list(range(first, min(first + n, len(whole)))), number, st.integers(1, 16))
    source = VideoFile(path)
    for wanted in data.draw(st.lists(st.lists(number, min_size=1, max_size=8) | in_a_row, min_size=1, max_size=4)):
        assert torch.equal(source.read(wanted), whole[wanted])


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv", "mpeg4_uneven.mp4", "late.mkv", "edited.mp4", "vp9.webm"])
def test_seconds_are_the_times_of_the_frames(name, video):
    assert VideoFile(video(name)).seconds.tolist() == pytest.approx(decoded(video(name))[1], abs=1e-9)


def test_a_file_without_times_has_those_of_its_rate(video):
    for name in ("raw.264", "h264.avi", "packed.avi", "copied.mp4", "copied_mpeg4.mp4"):
        assert VideoFile(video(name)).seconds.tolist() == pytest.approx([k / 25 for k in range(40)])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["uneven.mp4", "uneven.mkv", "h264.mp4", "late.mkv"]), st.floats(0.3, 240) | st.integers(1, 120))
def test_resampling_takes_the_frame_shown_at_each_time(video, name, fps):
    source, times = VideoFile(video(name), fps), decoded(video(name))[1]
    moments = [k / fps + 0.001 for k in range(int((times[-1] + 0.001) * fps) + 1)]
    shown = [max(n for n, time in enumerate(times) if time <= moment) for moment in moments]
    assert source._numbers().tolist() == shown and shown[0] == 0
    assert moments[-1] <= times[-1] + 0.002 < moments[-1] + 1 / fps + 0.001
    assert source.seconds.tolist() == [k / fps for k in range(len(source))]


def test_resampling_to_the_same_rate_changes_nothing_and_to_half_takes_every_second_frame(video):
    for name in ("h264.mp4", "h264_open.mkv", "mpeg4_b.avi", "late.mkv"):
        whole, _ = decoded(video(name))
        assert torch.equal(VideoFile(video(name), 25).read(range(40)), whole)
        half = VideoFile(video(name), 12.5)
        assert len(half) == 20 and torch.equal(half.read([3, 19, 3]), whole[[6, 38, 6]])
        double = VideoFile(video(name), fps=50)
        assert len(double) == 79 and torch.equal(double.read([4, 5, 78]), whole[[2, 2, 39]])


def test_at_a_rate_with_rounded_times_every_frame_is_taken_once(tmp_path):
    path = write(tmp_path / "a.mkv", "mpeg4", times=[round(1000 * k / 30) for k in range(40)])
    assert VideoFile(path, fps=30)._numbers().tolist() == list(range(40))


def test_a_video_of_one_frame(video):
    for name in ("one.mp4", "mpeg4_one.avi"):
        for fps in (None, 1, 30):
            source = VideoFile(video(name), fps)
            assert len(source) == 1 and source.seconds.tolist() == [0]
            assert torch.equal(source.read([0, 0]), decoded(video(name))[0][[0, 0]])


def test_reading_forward_needs_no_seek(video, monkeypatch):
    sought = []
    seek = video_decoder.Decoder._seek
    monkeypatch.setattr(video_decoder.Decoder, "_seek", lambda self, start: sought.append(start) or seek(self, start))
    source = VideoFile(video("h264.mp4"))
    for first in range(0, 40, 8):
        source.read(range(first, first + 8))
    assert sought == []
    source.read([3])
    assert sought == [0]
    source.read([30])  # no frame between is decoded
    assert sought == [0, 24]


TABLED = {  # files whose header says everything about their packets
    *("h264.mp4", "h264_open.mp4", "h264_gop1.mp4", "h264_gop2.mp4", "h264_gop250.mp4", "h264_refresh.mp4"),
    *("h264_66.mp4", "uneven.mp4", "hevc_open.mp4", "mpeg4.mp4", "mpeg4_gop1.mp4", "mpeg4_uneven.mp4", "one.mp4"),
}


def test_the_header_of_a_file_gives_the_index_that_its_packets_give(video):
    for name in ALL:
        place = Place(str(video(name)))
        opened = open_container(place)
        index = video_index.index_of_table(place, opened)
        opened[0].close()
        assert (index is not None) == (name in TABLED), name
        if index is not None:
            of_packets = video_index.index_frames(place)
            for field in ("packet", "seconds", "names", "seeks"):
                assert np.array_equal(getattr(index, field), getattr(of_packets, field)), (name, field)
            assert set(index.start) <= set(of_packets.start) and (index.start <= index.packet).all()


def test_packets_lie_where_the_header_says(video):
    for name in TABLED:
        place = Place(str(video(name)))
        opened = open_container(place)
        places = video_index.index_of_table(place, opened).places.T.tolist()
        content = Path(place.file).read_bytes()
        packets = [bytes(packet) for packet in opened[0].demux(opened[1]) if packet.size]
        assert [content[first : first + size] for first, size in places] == packets
        source = VideoFile(place.file)
        source.read(range(len(source) - 1, -1, -1))
        assert source._indexed().places is not None  # no frame needed a search for packets


@pytest.mark.parametrize("field, wrong", [("packet", np.arange(40)), ("places", np.arange(80).reshape(2, 40) + 50)])
def test_a_header_that_does_not_fit_the_packets_is_not_used(field, wrong, video, monkeypatch):
    whole, right = decoded(video("h264.mp4"))[0], video_file.index_of_table
    monkeypatch.setattr(video_file, "index_of_table", lambda *file: replace(right(*file), **{field: wrong}))
    source = VideoFile(video("h264.mp4"))
    assert len(source) == 40 and source._indexed().places is not None
    assert torch.equal(source.read([30, 3]), whole[[30, 3]]) and source._indexed().places is None


def test_the_file_of_an_unused_decoder_is_closed(video):
    source = VideoFile(video("h264.mp4"))
    source.read([3, 1])
    decoder = video_file._OPEN.pop(source)
    file = decoder.file
    del decoder
    gc.collect()  # its generators refer to it
    assert file.closed


COLOURS = {
    "mpeg4.mp4": ("mpeg4", {}),
    "bt709.mp4": ("libx264", dict(options={"x264-params": "colormatrix=bt709"})),
    "full.mp4": ("libx264", dict(options={"x264-params": "colormatrix=smpte170m:fullrange=on"})),
    "bt2020.mkv": ("libx264", dict(options={"x264-params": "colormatrix=bt2020nc"}, pixels="yuv444p")),
    "mjpeg.avi": ("mjpeg", dict(pixels="yuvj420p")),
    "interlaced.mp4": ("libx264", dict(options={"x264-params": "tff=1"})),
}


def test_files_of_different_colours_in_turn_have_the_pixels_that_each_has_alone(tmp_path):
    files = [
        write(tmp_path / name, encoder, 2, **special)
        for name, (encoder, special) in COLOURS.items()
        if encoder in ENCODERS
    ]
    alone = [decoded(path)[0] for path in files]
    kinds = set()
    for path in files:
        with av.open(str(path)) as file:
            frame = next(file.decode(video=0))
            kinds.add((frame.format.name, int(frame.colorspace), int(frame.color_range), frame.interlaced_frame))
    assert len(kinds) == len(files)
    sources = [VideoFile(path) for path in files]
    for pair in permutations(range(len(files)), 2):
        for k in pair:
            assert torch.equal(sources[k].read([0, 1]), alone[k])


@pytest.mark.skipif("qtrle" not in ENCODERS, reason="this FFmpeg has no encoder for QuickTime Animation")
def test_a_palette_of_the_first_packet_is_used_wherever_reading_begins(tmp_path):
    path = write(tmp_path / "palette.mov", "qtrle", pixels="gray")
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        assert packets[0].has_sidedata("palette") and packets[24].is_keyframe
    whole = decoded(path)[0]
    source = VideoFile(path)
    for numbers in ([30, 25], [3], [39]):
        assert torch.equal(source.read(numbers), whole[numbers])


B_FRAMES = ["h264.mp4", "h264_open.mkv", "h264.flv", "h264_66.mp4", "uneven.mkv", "raw.264", "h264.ts"]


@pytest.mark.parametrize("name", B_FRAMES)
def test_frames_that_no_other_needs_are_not_decoded(name, video, monkeypatch):
    whole, decoders = decoded(video(name))[0], []
    opened = video_decoder.Decoder._open
    monkeypatch.setattr(
        video_decoder.Decoder, "_open", lambda self, *file: decoders.append(self) or opened(self, *file)
    )
    source = VideoFile(video(name))
    assert torch.equal(source.read([11, 23, 35]), whole[[11, 23, 35]])
    assert decoders[-1].skipped and not decoders[-1].skipped & {11, 23, 35}
    assert torch.equal(source.read(range(10, 40)), whole[10:])


def test_damage_in_a_frame_that_no_other_needs_affects_no_other(video, tmp_path):
    with av.open(str(video("h264.mp4"))) as file:
        stream = file.streams.video[0]
        width = length_bytes(stream.codec_context.extradata)
        packets = [packet for packet in file.demux(stream) if packet.size]
        number = next(k for k in range(15, 40) if is_disposable(width, packets[k]))
    source = VideoFile(overwrite(video("h264.mp4"), tmp_path / "damaged.mp4", number, keep=8))
    frame = int(source._indexed().number_of[number])
    with pytest.raises(SeqclfError, match=rf"damaged.mp4: frame {frame} "):
        source.read([frame])
    others = [k for k in range(40) if k != frame]
    assert torch.equal(source.read(others), decoded(video("h264.mp4"))[0][others])


def test_many_videos_keep_few_files_open(tmp_path):
    if not Path("/proc/self/fd").exists():
        pytest.skip("counts the open files in /proc")
    first = write(tmp_path / "0.mp4", "mpeg4", frames=3)
    paths = [first, *(tmp_path / f"{k}.mp4" for k in range(1, 50))]
    for path in paths[1:]:
        path.write_bytes(first.read_bytes())
    sources = [VideoFile(path) for path in paths]
    whole, _ = decoded(first)
    for source in [*sources, *sources[::-1]]:
        assert torch.equal(source.read([2]), whole[[2]])
        open_now = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
        assert sum(name.startswith(str(tmp_path)) for name in open_now) <= video_file.MAX_OPEN


@pytest.mark.parametrize("name", ["mpeg4.mp4", "mpeg4_gop1.mp4", "mpeg4_uneven.mp4"])
def test_mpeg4_that_was_read_and_closed_is_read_without_its_container(name, video, monkeypatch):
    monkeypatch.setattr(video_file, "MAX_OPEN", 0)
    whole, _ = decoded(video(name))
    source = VideoFile(video(name))
    source.read([0])
    monkeypatch.setattr(video_decoder, "open_container", None)
    again = pickle.loads(pickle.dumps(source))
    for wanted in ([39], [13, 14, 2], list(range(40))):
        assert torch.equal(source.read(wanted), whole[wanted]) and torch.equal(again.read(wanted), whole[wanted])


def test_a_file_that_is_gone_is_named_when_it_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "MAX_OPEN", 0)
    source = VideoFile(write(tmp_path / "gone.mp4", "mpeg4", frames=2))
    source.read([0])
    (tmp_path / "gone.mp4").unlink()
    with pytest.raises(SeqclfError, match=r"gone\.mp4"):
        source.read([1])


def test_a_colour_in_the_header_alone_holds_when_a_file_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "MAX_OPEN", 0)
    plain = write(tmp_path / "plain.mp4", "mpeg4", frames=2)
    data = bytearray(plain.read_bytes())
    colour = b"\x00\x00\x00\x13colrnclx" + bytes([0, 1, 0, 1, 0, 1, 0x80])  # BT.709 with the full range
    for kind in (b"mp4v", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = data.find(kind) - 4
        size = int.from_bytes(data[at : at + 4], "big")
        if kind == b"mp4v":
            end = at + size
        data[at : at + 4] = (size + len(colour)).to_bytes(4, "big")
    at = data.find(b"stco")  # the header comes first, so that the pictures move
    for k in range(int.from_bytes(data[at + 8 : at + 12], "big")):
        place = slice(at + 12 + 4 * k, at + 16 + 4 * k)
        data[place] = (int.from_bytes(data[place], "big") + len(colour)).to_bytes(4, "big")
    coloured = tmp_path / "coloured.mp4"
    coloured.write_bytes(data[:end] + colour + data[end:])
    source, expected = VideoFile(coloured), decoded(coloured)[0]
    assert not torch.equal(expected, decoded(plain)[0])
    assert torch.equal(source.read([0, 1]), expected) and torch.equal(source.read([0, 1]), expected)


def _is_link(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_a_pickled_video_keeps_its_index_and_reads_the_same(video, monkeypatch):
    source = VideoFile(video("h264.mp4"), fps=10)
    frames = source.read([3, 1])
    copy = pickle.loads(pickle.dumps(source))
    monkeypatch.setattr(video_file, "index_frames", None)
    assert torch.equal(copy.read([3, 1]), frames) and copy.path == source.path and len(copy) == len(source)


class _Frames(torch.utils.data.Dataset):
    def __init__(self, sources):
        self.sources = sources

    def __len__(self):
        return 120

    def __getitem__(self, k):
        return self.sources[k % len(self.sources)].read([k * 7 % 40, k * 3 % 40])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_workers_and_threads_read_the_same(video):
    names = ["h264.mp4", "mpeg4_b.avi", "vp9.webm"]
    dataset = _Frames([VideoFile(video(name)) for name in names])
    expected = [dataset[k] for k in range(len(dataset))]  # these files are open when the workers start
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert all(torch.equal(a, b) for a, b in zip(loader, expected, strict=True))
    assert all(torch.equal(dataset[k], expected[k]) for k in range(len(dataset)))

    wrong = []

    def work(first):
        wrong.extend(k for k in range(first, len(dataset), 4) if not torch.equal(dataset[k], expected[k]))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_wrong_number_of_frames_in_the_header_is_ignored(video, tmp_path):
    data = bytearray(video("mpeg4_b.avi").read_bytes())
    for chunk, at in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.find(chunk) + at
        assert int.from_bytes(data[place : place + 4], "little") == 40
        data[place : place + 4] = (70).to_bytes(4, "little")
    (tmp_path / "a.avi").write_bytes(data)
    source = VideoFile(tmp_path / "a.avi")
    assert len(source) == 40 and torch.equal(source.read(range(40)), decoded(video("mpeg4_b.avi"))[0])


@pytest.mark.parametrize("angle", [90, 180, -90, 0])
def test_the_rotation_in_a_file_is_applied(angle, tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "MAX_OPEN", 0)
    plain = write(tmp_path / "plain.mp4", "mpeg4", frames=2)
    data = plain.read_bytes()
    place = data.find(b"tkhd") + 44  # the matrix: a b u c d v x y w
    sine, cosine = {90: (1, 0), 180: (0, -1), -90: (-1, 0), 0: (0, 1)}[angle]
    matrix = [cosine << 16, -sine << 16, 0, sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    packed = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data[:place] + packed + data[place + 36 :])
    source, expected = VideoFile(turned), torch.rot90(VideoFile(plain).read([1, 0]), angle // 90, (2, 3))
    assert source.frame_shape == expected.shape[1:]
    assert torch.equal(source.read([1, 0]), expected) and torch.equal(source.read([1, 0]), expected)


def test_a_gif_file_is_a_video(video, tmp_path):
    (tmp_path / "a.gif").write_bytes(video("a.gif").read_bytes())
    (tmp_path / "l.csv").write_text("path,label\na,walk\n")
    assert find_videos([tmp_path]) == [tmp_path / "a.gif"] == [read_list(tmp_path / "l.csv", tmp_path).videos[0].path]
    assert len(open_video(tmp_path / "a.gif")) == 40


def test_the_first_video_stream_is_read_if_there_are_sound_and_a_cover(tmp_path, video):
    path = tmp_path / "a.mp4"
    with av.open(str(video("mpeg4.mp4"))) as file, av.open(str(path), "w") as out:
        stream = file.streams.video[0]
        sound, to = out.add_stream("aac", rate=8000), out.add_stream_from_template(stream)
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        for packet in file.demux(stream):
            if packet.size:
                packet.stream = to
                out.mux(packet)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        out.mux(sound.encode(samples))
        out.mux(sound.encode())
        out.mux(cover.encode(av.VideoFrame(16, 16, "yuvj420p")))
        out.mux(cover.encode())
    assert torch.equal(VideoFile(path).read([30, 2]), decoded(video("mpeg4.mp4"))[0][[30, 2]])


def overwrite(path, to, packet, keep=0):
    """The file with noise in place of one packet, except for its first byte."""
    with av.open(str(path)) as file:
        found = [p for p in file.demux(video=0) if p.size][packet]
        data = bytearray(path.read_bytes())
        start = data.find(bytes(found)) + keep
    data[start : start + found.size - keep] = np.random.default_rng(0).bytes(found.size - keep)
    to.write_bytes(data)
    return to


def test_a_damaged_frame_and_those_that_depend_on_it_are_named_and_no_others(video, tmp_path):
    path = overwrite(video("h264.mp4"), tmp_path / "damaged.mp4", 20)
    whole, _ = decoded(video("h264.mp4"))
    source, readable = VideoFile(path), []
    assert len(source) == 40
    for number in range(40):
        try:
            assert torch.equal(source.read([number]), whole[[number]])
            readable.append(number)
        except SeqclfError as error:
            assert re.fullmatch(
                rf"{re.escape(str(path))}: frame {number} can't be decoded, (.* damaged|FFmpeg gives none)", str(error)
            )
    assert set(range(16)) | set(range(24, 40)) <= set(readable) and len(readable) < 40
    with pytest.raises(SeqclfError, match="can't be decoded"):
        source.read(range(40))
    assert torch.equal(source.read(readable), whole[readable])


def test_a_damaged_picture_of_motion_jpeg_affects_no_other(video, tmp_path):
    source = VideoFile(overwrite(video("mjpeg.avi"), tmp_path / "damaged.avi", 7))
    with pytest.raises(SeqclfError, match=r"damaged.avi: frame 7 "):
        source.read([6, 7])
    others = [k for k in range(40) if k != 7]
    assert torch.equal(source.read(others), decoded(video("mjpeg.avi"))[0][others])


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.mp4", "mpeg4_b.avi", "h264_open.mkv", "vp9.webm", "mjpeg.mov"])
@pytest.mark.parametrize("part", [0.05, 0.4, 0.61, 0.9])
def test_a_truncated_file_is_reported(name, part, video, tmp_path):
    data = video(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(
        SeqclfError,
        match=rf"{path}: ",
    ):
        len(VideoFile(path))


@settings(derandomize=True, deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_file_with_changed_bytes_is_read_or_refused_by_name(video, tmp_path, data):
    name = data.draw(st.sampled_from([name for name in ALL if name in CHANGED]))
    content = bytearray(video(name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(content)
    try:
        changed = VideoFile(tmp_path / name)
        for number in {0, len(changed) // 2, len(changed) - 1}:
            assert changed.read([number]).shape[:2] == (1, 3)
    except SeqclfError as error:
        assert str(error).startswith(f"{tmp_path / name}: ") and "\n" not in str(error)


def test_metadata_that_is_not_utf8_is_accepted(video, tmp_path):
    place = tmp_path / "a.mp4"
    content = video("h264.mp4").read_bytes()
    assert b"Lavf" in content
    place.write_bytes(content.replace(b"Lavf", b"L\xe4vf"))
    assert len(VideoFile(place)) == len(VideoFile(video("h264.mp4")))


def test_an_unknown_codec_is_refused_by_name(video, tmp_path):
    content = Path(video("mpeg4.avi")).read_bytes()
    (tmp_path / "unknown.avi").write_bytes(content.replace(b"FMP4", b"ZZZZ"))
    with pytest.raises(SeqclfError, match=r"unknown\.avi: "):
        len(VideoFile(tmp_path / "unknown.avi"))


def test_a_stream_without_its_beginning_is_damaged(video, tmp_path):
    content = video("h264.ts").read_bytes()
    starts = [at for at in range(0, len(content), 188) if content[at : at + 3] == b"\x47\x41\x00"]  # of frames
    (tmp_path / "late.ts").write_bytes(content[: starts[-1] + 1] + b"\x47" + content[starts[-1] + 2 :])
    with pytest.raises(SeqclfError, match=r"late\.ts: .*damaged"):  # PyAV 19 continues after a new stream
        VideoFile(tmp_path / "late.ts").read(range(39))
    assert re.search("35, 37 to 38", VideoFile(tmp_path / "late.ts", on_error="skip_frames").lost())


def test_frames_of_different_sizes_are_refused(tmp_path, video):
    small, large = video("vp8.webm"), write(tmp_path / "large.webm", "libvpx", size=(80, 64), frames=10)
    with av.open(str(large)) as file:
        more = [(bytes(p), 1600 + p.pts, 1600 + p.dts, p.is_keyframe) for p in file.demux(video=0) if p.size]
    source = VideoFile(remake(small, tmp_path / "both.webm", lambda packets: packets + more))
    assert len(source) == 50 and source.frame_shape == (3, 48, 64)
    for numbers in ([45], [3, 45]):
        with pytest.raises(SeqclfError, match=r"both.webm: frame 4\d .*80x64.*64x48"):
            source.read(numbers)


def picture(form):
    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, form)
    return file.getvalue()


def sound():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(8000))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.mp4", None, "no such file"),
        ("folder", "folder", "not a file"),
        ("empty.mp4", b"", "the file is empty"),
        ("noise.mp4", np.random.default_rng(0).bytes(3000), "can't be read as a video"),
        ("text.mp4", b"this is text\n" * 30, "can't be read as a video"),
        ("text.txt", b"hello, this is text\n" * 50, "(is text|can't be read)"),
        ("a.png", picture("PNG"), r"is a picture \(png\)"),
        ("a.mp4", picture("JPEG"), r"is a picture \(jpeg\)"),
        ("a:b.bmp", picture("BMP"), r"is a picture \(bmp\)"),
        ("sound.wav", sound(), r"has no video stream \(wav\)"),
    ],
)
def test_a_file_that_is_not_a_video_is_refused(name, content, says, tmp_path):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    source = VideoFile(path)  # opens nothing
    for ask in (lambda: len(source), lambda: source.frame_shape, lambda: source.read([0])):
        with pytest.raises(SeqclfError, match=f"^{path}: {says}"):
            ask()


def test_a_video_without_frames(tmp_path, video):
    path = remake(video("h264_open.mkv"), tmp_path / "none.mkv", lambda packets: [])
    with pytest.raises(SeqclfError, match=r"none.mkv: "):
        len(VideoFile(path))


def test_frame_numbers_and_rates_out_of_range_are_refused(video):
    source = VideoFile(video("mpeg4.mp4"))
    for number in (40, -1):
        with pytest.raises(SeqclfError, match=rf"mpeg4.mp4: .*{number}.* 0 to 39"):
            source.read([0, number])
    for fps in (0, -3, float("nan"), float("inf")):
        with pytest.raises(SeqclfError, match=rf"a.mp4: fps={fps}"):
            VideoFile("a.mp4", fps)


def test_without_pyav_the_extra_is_named(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SeqclfError, match=r"PyAV: pip install 'seqclf\[video\]'"):
        len(VideoFile(video("mpeg4.mp4")))
