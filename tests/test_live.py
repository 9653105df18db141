"""Live video gives the labels of the whole video, whatever it comes through; drops, reconnects, memory, recordings."""

import gc
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_videos import noise, write_video
from rtsp_server import RtspServer
from test_predict_files import CONFIG, write_run
from test_video_file import copied, remake, write

import seqclf
from seqclf import SeqclfError, load
from seqclf.data.live import reader as live_reader
from seqclf.data.live.frame_queue import FrameQueue
from seqclf.data.live.frames import FrameClock, LiveFrame
from seqclf.data.live.input import LiveInput
from seqclf.data.live.reader import LiveReader
from seqclf.data.transforms import resize
from seqclf.data.video.file import ROUNDING, VideoFile
from seqclf.prediction.streams.output import _Seconds

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")
SIZE = (8, 10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of pictures 8x10."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "tiny.py").write_text(CONFIG)
    return write_run(folder / "tiny.py", folder / "run")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "camera.mkv", noise(30, 3, 16, 32))


def whole(run, video, fps=None):
    """The probabilities at each frame of a video as one clip."""
    source = VideoFile(video, fps)
    return load(run)(resize(source.read(range(len(source))), None, size=SIZE)).probabilities


def through_fifo(folder, content):
    """A named pipe to which a thread writes."""
    path = folder / "pipe"
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
    return path


# ---- the same as the whole video


WAYS = [*((way, fps) for way in ("fifo", "file") for fps in (None, 4, 25)), ("stdin", 4), ("growing", 25)]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "fps"), WAYS)
def test_a_video_read_live_is_the_whole_one(request, run, video, tmp_path, monkeypatch, way, fps):
    if way == "fifo":
        source = through_fifo(tmp_path, video.read_bytes())
    elif way == "stdin":
        source, stdin = "-", video.open("rb")
        monkeypatch.setattr("sys.stdin", stdin)
        request.addfinalizer(stdin.close)
    elif way == "growing":
        content, source = video.read_bytes(), tmp_path / "growing.mkv"
        source.write_bytes(content[:5000])

        def grow():
            with source.open("ab", buffering=0) as file:
                for start in range(5000, len(content), 5000):
                    time.sleep(0.02)
                    file.write(content[start : start + 5000])

        threading.Thread(target=grow, daemon=True).start()
    else:
        source = video
    live = {"follow": True, "timeout": 1} if way == "growing" else {}
    with seqclf.stream(run, source, resize=SIZE, fps=fps, device="cpu", **live) as frames:
        found = list(frames)
    expected = whole(run, video, fps)
    torch.testing.assert_close(torch.stack([frame.probabilities for frame in found]), expected, atol=1e-5, rtol=0)
    assert [frame.number for frame in found] == list(range(len(expected)))
    assert frames.summary.frames == len(expected) and frames.summary.dropped == 0
    labels = [frame.labels[0][0] for frame in found]
    assert [frame.changed for frame in found] == [k == 0 or labels[k] != labels[k - 1] for k in range(len(labels))]


@pytest.mark.parametrize(("codec", "form"), [("libx264", "avi"), ("mpeg4", "avi"), ("libx264", "mkv")])
def test_frames_in_another_order_than_their_times_are_one_sequence(run, tmp_path, codec, form):
    """AVI has no times of showing, and of a copy they may be those of decoding."""
    path = write(tmp_path / "a.avi", codec, b=2)
    path = path if form == "avi" else remake(path, tmp_path / "a.mkv", copied)
    pipe, notes = through_fifo(tmp_path, path.read_bytes()), []
    with seqclf.stream(run, pipe, resize=SIZE, device="cpu", note=notes.append) as frames:
        found = list(frames)
    expected, seconds = whole(run, path), [frame.seconds for frame in found]
    torch.testing.assert_close(torch.stack([frame.probabilities for frame in found]), expected, atol=1e-5, rtol=0)
    assert "new sequence" not in "".join(notes) and seconds == sorted(seconds)
    assert seconds == pytest.approx(VideoFile(path).seconds.tolist(), abs=0.001 if form == "avi" else 0.1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 300), min_size=0, max_size=30),
    st.sampled_from([None, 3, 5, 10, 12.5, 25, 30]),
    st.integers(1, 3),
)
def test_frames_are_resampled_as_those_of_a_file(gaps, fps, step):
    seconds = np.cumsum([1.4, *(gap / 1000 for gap in gaps)])
    clock = FrameClock(fps, step)
    frames = [LiveFrame(float(t), 0.0, k) for k, t in enumerate(seconds)]
    found = [pair for frame in frames for pair in clock.push(frame)] + list(clock.end())
    expected = np.arange(len(seconds))
    if fps is not None:
        own = seconds - seconds[0]
        times = np.arange(math.floor((own[-1] + ROUNDING) * fps) + 1) / fps
        expected = np.searchsorted(own, times + ROUNDING, side="right") - 1
    assert [(k, frame.picture) for k, frame in found] == list(enumerate(expected.tolist()))[::step]


@pytest.mark.parametrize("step", [1, 3])
def test_frames_are_those_of_the_runs_step(tmp_path, video, step):
    config = CONFIG.replace("partial(dense, frames=4, stride=2)", f"partial(whole, step={step})")
    (tmp_path / "tiny.py").write_text(config)
    run = write_run(tmp_path / "tiny.py", tmp_path / "run")
    found = {}
    for way in (video, through_fifo(tmp_path, video.read_bytes())):
        frames = list(seqclf.stream(run, way, resize=SIZE, device="cpu", out=None))
        assert [frame.number for frame in frames] == list(range(0, 30, step))
        found[way] = torch.stack([frame.probabilities for frame in frames])
    expected = load(run)(resize(VideoFile(video).read(range(0, 30, step)), None, size=SIZE)).probabilities
    for probabilities in found.values():
        torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=0)


# ---- network


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Program:
    """The program ffmpeg, which sends a video in real time."""

    def __init__(self, words):
        self.process = subprocess.Popen(f"ffmpeg -v error -re {words}".split())

    def kill(self):
        self.process.kill()
        self.process.wait()


@needs_ffmpeg
@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["udp", "rtsp"])
def test_labels_go_on_after_the_server_is_killed_and_started_again(run, protocol):
    port = free_port(socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)
    picture = "-f lavfi -i color=c=red:s=32x16:r=25"
    if protocol == "udp":
        address = f"udp://127.0.0.1:{port}"
        start = lambda: Program(f"{picture} -c:v mpeg4 -g 5 -f mpegts {address}")  # noqa: E731
    else:
        address = f"rtsp://127.0.0.1:{port}/live"
        start = lambda: RtspServer(port, picture)  # noqa: E731
    lost, notes, servers = threading.Event(), [], [start()]

    def note(text):
        notes.append(text)
        if "connecting again" in text:
            lost.set()

    def start_again():
        lost.wait()
        servers.append(start())

    again, found = threading.Thread(target=start_again, daemon=True), []
    try:
        with seqclf.stream(
            run, address, resize=SIZE, device="cpu", timeout=3, retries=None, queue=100, note=note
        ) as frames:
            for frame in frames:
                found.append(frame)
                if len(found) == 10:
                    servers[0].kill()
                    again.start()
                if frame.reconnects and sum(one.reconnects for one in found) == 10:
                    break
    finally:
        lost.set()
        for server in servers:
            server.kill()
    before, after = ([frame for frame in found if frame.reconnects == n] for n in (0, 1))
    assert len(before) >= 10 and len(after) == 10 and frames.summary.reconnects == 1
    assert after[0].changed and after[0].number > before[-1].number
    assert any("new sequence" in text and address in text for text in notes)
    # a picture of one colour: the frames of a new sequence have the probabilities of the first ones
    if frames.summary.dropped == 0:
        for old, new in zip(before[:10], after, strict=True):
            torch.testing.assert_close(new.probabilities, old.probabilities, atol=2e-3, rtol=0)
    assert (before[9].probabilities - before[0].probabilities).abs().max() > 5e-3


def test_a_source_that_never_answers_is_an_error(tool, run):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (
            f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
            f"http://127.0.0.1:{silent.getsockname()[1]}/live",
            f"rtsp://127.0.0.1:{free_port()}/live",
        ):
            code, printed, errors = tool("stream", run, address, "--timeout", 0.3, "--device", "cpu")
            assert code == 2 and printed == "" and errors.splitlines()[-1].startswith(f"error: {address}: ")


def test_a_pipe_that_stays_empty_is_an_error_if_a_time_is_set(tool, run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, errors = tool("stream", run, tmp_path / "pipe", "--timeout", 0.2, "--device", "cpu")
    assert code == 2 and "pipe: no data for 0.2 s" in errors


@pytest.fixture
def feed(monkeypatch, tmp_path):
    """A function that replaces standard input with a content."""
    path, opened = tmp_path / "stdin", []

    def replace(content):
        path.write_bytes(content)
        opened.append(path.open("rb"))
        monkeypatch.setattr("sys.stdin", opened[-1])

    yield replace
    for file in opened:
        file.close()


def test_a_pipe_without_a_frame_is_an_error(tool, run, video, tmp_path, monkeypatch, feed):
    """An empty pipe, and MPEG-4 without its header, because it was copied from another container."""
    import av

    write_video(tmp_path / "whole.mp4", noise(5, 3, 16, 32))
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(str(tmp_path / "copy.ts"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    out = tmp_path / "seen.mp4"
    for content, named in (
        (b"", "without any data"),
        ((tmp_path / "copy.ts").read_bytes(), "5 could not be decoded"),
        (write_video(tmp_path / "large.mp4", noise(20, 3, 96, 128)).read_bytes(), "fragmented MP4"),
    ):
        feed(content)
        code, printed, errors = tool("stream", run, "-", "--record", out, "--resize", *SIZE, "--device", "cpu")
        assert code == 2 and printed == "" and "error: -: " in errors and named in errors
        assert not out.exists()
    monkeypatch.setattr("sys.stdin", None)
    code, _, errors = tool("stream", run, "-", "--device", "cpu")
    assert code == 2 and "error: -: " in errors and "closed" in errors


@pytest.mark.parametrize("form", ["matroska", "mpegts"])
def test_a_stream_that_is_cut_ends_at_its_last_frame(run, tmp_path, feed, form):
    content = in_form(tmp_path, noise(20, 3, 16, 32), form)
    feed(content[: len(content) // 2])
    found = list(seqclf.stream(run, "-", resize=SIZE, device="cpu"))
    assert 5 <= len(found) < 15 and [frame.number for frame in found] == list(range(len(found)))


def in_form(folder, frames, form):
    """The bytes of an H.264 video."""
    import av

    with av.open(str(folder / form), "w", format=form) as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[2:], "yuv420p"
        for frame in frames.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return (folder / form).read_bytes()


@pytest.mark.parametrize("form", ["mpegts", "h264"])
def test_a_stream_whose_size_changes_is_resized_or_refused(tool, run, tmp_path, feed, form):
    """MPEG-TS has timestamps that start again. Raw H.264 has none, and is read at its nominal rate."""
    content = in_form(tmp_path, noise(6, 3, *SIZE), form) + in_form(tmp_path, noise(6, 3, 16, 32), form)
    out = tmp_path / "seen.mkv"
    for words, seen in (([], 6), (["--resize", *SIZE], 12)):
        feed(content)
        code, printed, errors = tool("stream", run, "-", *words, "--every-frame", "--record", out, "--device", "cpu")
        lines = list(map(json.loads, printed.splitlines()))
        assert [line["frame"] for line in lines] == list(range(seen)) and len(VideoFile(out)) == seen
        assert (code, "16x32" in errors) == ((2, True) if seen == 6 else (0, False))
        if form == "h264":
            assert [line["time"] for line in lines] == pytest.approx([k / 25 for k in range(seen)])


def test_attempts_to_reconnect_are_limited_and_counted(run, video, monkeypatch):
    """A source that is lost for good, without a network: each attempt after the first fails."""
    opened, notes = [], []

    def open_once(self, stopped):
        opened.append(time.monotonic())
        if len(opened) > 1:
            raise SeqclfError(f"{self.name}: gone")
        return REAL_OPEN(LiveInput(self.name, "pipe", str(video)), stopped)

    REAL_OPEN = LiveInput.open
    monkeypatch.setattr(LiveInput, "open", open_once)
    monkeypatch.setattr(live_reader, "FIRST_DELAY", 0.01)
    # the file has a duration, as a recording on a server has; a live stream has none
    monkeypatch.setattr(live_reader, "is_recording", lambda container: False)
    reader = LiveReader(LiveInput("rtsp://camera", "network", ""), drop=False, retries=3, note=notes.append)
    found = []
    with pytest.raises(SeqclfError, match=r"rtsp://camera: gone; attempts to connect again: 3"):
        for item in reader.frames():
            found.append(item.number)
    assert found == list(range(30)) and len(opened) == 4
    assert [note.rpartition(" in ")[2] for note in notes] == ["0.01 s", "0.02 s", "0.04 s"]


# ---- drops and memory


@pytest.mark.slow
def test_no_frame_of_a_live_hls_stream_is_dropped(run, tmp_path):
    """A playlist without an end mark, which a server would extend; here it stays as it is."""
    import av

    live, options = tmp_path / "live.m3u8", {"hls_time": "1", "hls_flags": "omit_endlist", "hls_list_size": "0"}
    with av.open(str(live), "w", format="hls", options=options) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 32, 16, "yuv420p", 25
        for frame in noise(100, 16, 32, 3).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    start = {"live_start_index": "0"}
    frames = seqclf.stream(
        run, f"file://{live}", resize=SIZE, device="cpu", timeout=1, retries=0, queue=1, options=start
    )
    with pytest.raises(SeqclfError, match=r"live\.m3u8"):
        list(frames)
    assert frames.summary.dropped == 0 and frames.summary.frames == 100


def test_a_full_queue_drops_the_oldest_items_and_counts_them():
    queue = FrameQueue(3)
    queue.drops = True
    assert all(queue.put(n) for n in range(10))
    queue.end()
    assert [queue.get(lambda: False, 0.01) for _ in range(4)] == [7, 8, 9, None]
    assert queue.dropped == 7


def test_a_full_queue_that_does_not_drop_waits_for_the_reader():
    queue = FrameQueue(2)
    writer = threading.Thread(target=lambda: [queue.put(n) for n in range(50)] and queue.end())
    writer.start()
    found = []
    while (item := queue.get(lambda: False, 0.01)) is not None:
        found.append(item)
        assert len(queue) <= 2
    writer.join()
    assert found == list(range(50)) and queue.dropped == 0


def test_a_slow_model_gets_the_newest_frames(run, video, tmp_path):
    source = LiveInput("pipe", "pipe", str(through_fifo(tmp_path, video.read_bytes())))
    reader = LiveReader(source, drop=True, size=4)
    numbers = []
    for item in reader.frames():
        numbers.append(item.number)
        while not reader.queue.ended:  # the model takes as long as all other frames
            time.sleep(0.01)
    assert numbers[-4:] == [26, 27, 28, 29]
    assert reader.dropped == 30 - len(numbers) and len(numbers) <= 5


@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream(run, monkeypatch):
    """The number of frames that are alive, and of the summary's bins, after 100 and after 600 frames."""
    from av import VideoFrame

    def simulated(source, container, stream, damaged):
        for k in range(600):
            yield LiveFrame(k / 25, time.perf_counter(), VideoFrame(16, 8, "rgb24"))

    class Container:
        duration, streams, format = None, SimpleNamespace(video=[]), SimpleNamespace(name="mpegts")
        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(live_reader, "decode_live", simulated)
    monkeypatch.setattr(LiveInput, "open", lambda self, stopped: (Container(), None))
    alive = {}
    with seqclf.stream(run, "udp://127.0.0.1:1", resize=SIZE, device="cpu", drop=False, retries=0) as frames:
        for frame in frames:
            if frame.number in (100, 599):
                gc.collect()
                alive[frame.number] = sum(type(one) is LiveFrame for one in gc.get_objects())
            if frame.number == 599:
                break
    assert alive[599] <= alive[100] + 8 and alive[599] < 20
    assert len(frames.summary._latencies) < 1000 and frames.summary.frames >= 599


# ---- what is written


def test_a_signal_ends_the_stream_with_complete_files(tool, run, video, tmp_path):
    """SIGINT while a pipe stays open: a summary, exit code 130, and a video of what was seen."""
    os.mkfifo(tmp_path / "pipe")
    out = tmp_path / "seen.mkv"

    def write():
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            pipe.write(video.read_bytes())
            while not any(tmp_path.glob(".seen.mkv.*.part")):  # until the first frame is there
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)
            ended.wait()

    ended, writer = threading.Event(), threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        words = ("--record", out, "--every-frame", "--resize", *SIZE, "--device", "cpu")
        code, printed, errors = tool("stream", run, tmp_path / "pipe", *words)
    finally:
        ended.set()
    assert code == 130
    lines = list(map(json.loads, printed.splitlines()))
    assert f"{len(lines)} frame" in errors and "latency p50" in errors
    assert not list(tmp_path.glob(".seen*"))
    if lines:
        assert len(VideoFile(out)) == len(lines)


def test_the_time_of_a_recording_starts_at_0_and_goes_on_in_a_new_sequence():
    seconds = _Seconds()
    frames = [(0, 7.0, 0), (1, 7.5, 0), (2, 7.6, 0), (3, 2.0, 1), (4, 2.25, 1), (5, None, 2)]
    found = [seconds.of(SimpleNamespace(number=n, seconds=t, sequence=k)) for n, t, k in frames]
    assert found == pytest.approx([0, 0.5, 0.6, 0.64, 0.89, 0.93])


def test_a_recording_shows_the_label_at_the_times_of_the_source(tool, run, video, tmp_path):
    out = tmp_path / "seen.mp4"
    code, printed, errors = tool("stream", run, video, "--record", out, "--resize", *SIZE, "--device", "cpu")
    seen, source = VideoFile(out), VideoFile(video)
    assert code == 0 and "30 frames, 0 dropped, 0 reconnects" in errors
    torch.testing.assert_close(seen.seconds, source.seconds - source.seconds[0], atol=2e-3, rtol=0)
    assert set(json.loads(printed.splitlines()[0])) == {
        *("frame", "time", "clock", "label", "probability", "dropped", "reconnects")
    }


@pytest.mark.parametrize(
    ("pressed", "visible"),
    [([-1, -1, ord("q")], "111"), ([-1, -1, 27], "000"), ([-1, -1, -1], "010"), ([-1, -1, -1], "01-")],
    ids=["q", "a toolkit without the property", "closed", "closed, as Qt reports it"],
)
def test_a_window_shows_the_labels_until_q_is_pressed_or_it_is_closed(run, video, monkeypatch, pressed, visible):
    shown, keys, states = [], iter(pressed), iter(visible)
    fake = SimpleNamespace(
        WINDOW_NORMAL=0,
        error=ValueError,
        namedWindow=lambda *_: None,
        imshow=lambda title, picture: shown.append(picture),
        waitKey=lambda _: next(keys),
        WND_PROP_VISIBLE=4,
        getWindowProperty=lambda *_: int(next(states)),
        destroyAllWindows=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setenv("DISPLAY", ":0")
    assert len(list(seqclf.stream(run, video, resize=SIZE, device="cpu", display=True))) == len(shown) == 3
    plain = VideoFile(video).read([0])[0].permute(1, 2, 0).numpy()[..., ::-1]  # OpenCV's order
    assert shown[0].shape == plain.shape and (shown[0] == plain).any() and (shown[0] != plain).any()


def test_refusals(tool, run, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "0").write_bytes(b"")
    (tmp_path / "text").write_text("no video\n" * 500)
    own = Path(shutil.copy(video, "own.mp4"))
    for words, named in (
        (["0"], "./0"),
        (["99"], "99"),
        (["udp://127.0.0.1:1", "--follow"], "--follow"),
        (["-", "--out", "a.csv"], "--out"),
        (["-", "--timeout", 0], "timeout=0"),
        (["-", "--queue", 0], "queue=0"),
        (["-", "--retries", -2], "retries=-2"),
        ([video, "--display"], "--display"),
        ([video, "--record", "seen.gif"], ".mp4"),
        ([video, "--video-stream", 3], "stream=3"),
        (["text", "--follow", "--timeout", 0.1], "text"),
        (["absent.mp4"], "absent.mp4"),
        (["absent.mp4", "--follow"], "absent.mp4: does not exist"),
        ([tmp_path, "--follow"], "folder"),
        ([video, "--option", "framerate=5"], "--option"),
        (["-", "--retries", "many"], "'many'"),
        (["-", "--option", "size"], "KEY=VALUE"),
        (["own.mp4", "--record", "./own.mp4"], "own.mp4: record="),
        (["own.mp4", "--out", "own.mp4"], "own.mp4: out="),
    ):
        code, _, errors = tool("stream", run, *words, "--resize", *SIZE, "--device", "cpu")
        *notes, error = errors.splitlines()
        assert code == 2 and error.startswith("error: ") and named in error and len(notes) < 2, (words, errors)
    assert own.read_bytes() == Path(video).read_bytes()
