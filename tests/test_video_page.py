"""The page of predicted videos: what it stores, how it shows videos, and what it does in a browser."""

import json
import re
from fractions import Fraction
from pathlib import Path

import browser
import numpy as np
import pytest
import torch
from made_videos import noise, write_folder, write_video
from test_video_file import copied, remake, write

from seqclf import IGNORE, SeqclfError
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.span import VideoSpan
from seqclf.data.video.file import VideoFile
from seqclf.prediction.clips import SourcePrediction
from seqclf.prediction.files.frames import file_frames, on_file
from seqclf.prediction.files.page import PredictionPage
from seqclf.reporting.style import class_colour

HOSTILE = "</script><b>x</b><!--"
CLASSES = ("walk", HOSTILE, "run")
GREY = 6  # per frame, so that the grey of a picture names its frame


def write_greys(path, times, codec="libx264"):
    """A video whose frame ``n`` has the grey ``n * GREY``, shown at ``times`` in seconds."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.time_base, stream.codec_context.thread_count = Fraction(1, 1000), 1
        for n, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), n * GREY, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def predicted(source, multi_label=False):
    """A prediction: class 0 in the first half of the frames, then class 1."""
    n = len(source)
    p = torch.zeros(n, 3)
    p[: n // 2, 0], p[n // 2 :, 1] = 0.9, 0.8
    seen = torch.ones(n, dtype=torch.int64)
    return on_file(SourcePrediction(p, CLASSES, "mean", seen=seen, multi_label=multi_label), file_frames(source))


def data_of(page, number=0):
    """The summary of the page, and the data of a video."""
    text = page.read_text(encoding="utf-8")
    blocks = (re.search(rf'id="{name}">(.*?)</script>', text).group(1) for name in ("page", f"video-{number}"))
    return tuple(map(json.loads, blocks))


IRREGULAR = np.cumsum([0, *np.random.default_rng(0).integers(30, 200, 29)]) / 1000


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of three videos: H.264 of a variable rate, MPEG-4 in AVI, and VP9 without true labels."""
    folder = tmp_path_factory.mktemp("page")
    regular = np.arange(30) / 10
    made = (("a.mp4", IRREGULAR, "libx264"), ("b.avi", regular, "mpeg4"), ("c.webm", regular, "libvpx-vp9"))
    page = PredictionPage(folder / "index.html", HOSTILE, CLASSES)
    truth = torch.tensor([IGNORE] * 4 + [0] * 6 + [1] * 20)
    ways = []
    for name, times, codec in made:
        source = VideoFile(write_greys(folder / name, times, codec))
        ways.append(page.add(name, name, predicted(source), source, None if name == "c.webm" else truth))
    assert [way.split(" (")[0] for way in ways] == ["embedded", "embedded small copy", "embedded"]
    return page.write("three videos")


def test_the_page_stores_spans_errors_and_times(page):
    summary, data = data_of(page)
    assert data["predicted"] == [[0, 0, 15], [1, 15, 30]] and data["truth"] == [[0, 4, 10], [1, 10, 30]]
    assert data["errors"] == [[10, 15, 1, 0]]
    assert data["times"][:-1] == pytest.approx(IRREGULAR.tolist(), abs=1e-6)
    assert data_of(page, 1)[1]["times"] == {"first": 0.0, "period": pytest.approx(0.1)}
    assert [video["score"] for video in summary["videos"]] == ["80.8 %", "80.8 %", ""]
    assert summary["classes"] == list(CLASSES)
    assert [light for light, _ in summary["colours"]] == [class_colour(k) for k in range(3)]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.read_text(encoding="utf-8"))  # works offline


def test_files_over_the_limit_are_linked_or_copied(tmp_path):
    playable = write_greys(tmp_path / "own videos#1.mp4", np.arange(5) / 10)
    pictures = write_folder(tmp_path / "pictures", noise(5, 3, 20, 30))
    page = PredictionPage(tmp_path / "out" / "page.html", "t", CLASSES, embed=0)
    sources = VideoFile(playable), FrameFolder(pictures)
    ways = [page.add(f"v{k}", "v", predicted(source), source) for k, source in enumerate(sources)]
    page.write("")
    assert [way.split(" (")[0] for way in ways] == ["link to the file", "small copy"] and "no frame rate" in ways[1]
    urls = [data_of(page.path, k)[1]["media"]["url"] for k in (0, 1)]
    assert urls == ["../own%20videos%231.mp4", "page_copies/v1.mp4"]
    copy_path = page.path.parent / urls[1]
    copy = VideoFile(copy_path)
    assert copy.seconds.tolist() == pytest.approx([k / 25 for k in range(5)]) and copy.frame_shape == (3, 120, 180)
    PredictionPage(page.path, "t", CLASSES).write("")
    assert not copy_path.parent.exists()  # a new page does not need the copies of an earlier one
    with pytest.raises(SeqclfError, match="embed=-1"):
        PredictionPage("p.html", "t", CLASSES, embed=-1)


def test_a_page_removes_copies_of_an_earlier_page_and_no_other_file(tmp_path):
    one, two = (VideoFile(write_video(tmp_path / f"{name}.avi", noise(8, 3, 32, 32))) for name in ("one", "two"))
    path, folder = tmp_path / "p.html", tmp_path / "p_copies"
    for source, name in ((one, "a #1"), (two, "b")):
        page = PredictionPage(path, "t", CLASSES, embed=0)
        page.add(name, name, predicted(source), source)
        page.write("")
        assert [copy.stem for copy in folder.iterdir()] == [name]
    (folder / "own.mp4").write_bytes(b"mine")
    with pytest.raises(SeqclfError, match=r"own\.mp4"):
        PredictionPage(path, "t", CLASSES)
    assert sorted(copy.stem for copy in folder.iterdir()) == ["b", "own"]


@pytest.mark.parametrize("name", ["a.mp4", "page", "", "folder.html"])
def test_a_page_does_not_replace_a_video_or_a_folder(tmp_path, name):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"a video")
    with pytest.raises(SeqclfError, match=f"html=.*{name}"):
        PredictionPage(tmp_path / name, "t", CLASSES)


def test_a_video_with_one_label_is_right_or_wrong_as_a_whole(tmp_path):
    source = VideoFile(write_video(tmp_path / "a.mp4", noise(8, 3, 32, 32)))
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES)
    for truth in (0, 1):
        page.add("a", "a", predicted(source), source, truth)
    page.write("")
    assert [video["score"] for video in data_of(page.path)[0]["videos"]] == ["right", "wrong"]
    assert data_of(page.path, 0)[1]["errors"] == [] and data_of(page.path, 1)[1]["errors"] == [[0, 8, 1, 0]]


def test_classes_of_a_multi_label_page_are_missed_or_predicted_wrongly(tmp_path):
    source = VideoFile(write_video(tmp_path / "a.mp4", noise(8, 3, 32, 32)))
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES, multi_label=True)
    truth = torch.zeros(8, 3, dtype=torch.int64)
    truth[:4, 0] = truth[2:6, 2] = 1
    truth[:, 1] = IGNORE
    page.add("a", "a", predicted(source, multi_label=True), source, truth)
    page.add("a", "a", predicted(source, multi_label=True), source, torch.tensor([1, 0, IGNORE]))
    page.write("")
    assert data_of(page.path)[1]["errors"] == [[2, 6, 2, -1]] and data_of(page.path)[1]["truth"] == [
        [0, 0, 4],
        [2, 2, 6],
    ]
    assert data_of(page.path, 1)[1]["errors"] == [[0, 8, 0, -1]]  # of the mean of the probabilities, none is 0.5


@pytest.mark.parametrize("begin", [0.0, 0.7])
def test_a_copy_has_all_frames_at_their_times_where_the_run_reads_some(tmp_path, begin):
    times = begin + IRREGULAR
    path = write_greys(tmp_path / "a.mkv", times)
    source = VideoFile(path, fps=2)
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES, embed=0)
    page.add("a", "a", predicted(source), source)
    page.write("")
    data = data_of(page.path)[1]
    copy = VideoFile(tmp_path / data["media"]["url"])
    assert (copy.seconds + data["media"]["offset"]).tolist() == pytest.approx(data["times"][:-1], abs=1e-4)
    assert (copy.read(range(30))[:, 0, 5, 5] / GREY).tolist() == pytest.approx(list(range(30)), abs=0.9)


def test_a_file_that_does_not_begin_at_0_is_copied(tmp_path):
    source = VideoFile(write_greys(tmp_path / "a.mp4", 0.7 + IRREGULAR))
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES)
    assert page.add("a", "a", predicted(source), source).startswith("embedded small copy")


def test_a_file_with_times_in_another_order_than_its_frames_is_copied(tmp_path):
    path = write(tmp_path / "own.mp4", "libx264", b=2)
    for file, way in ((path, "embedded ("), (remake(path, tmp_path / "a.mp4", copied), "embedded small copy")):
        source = VideoFile(file)
        assert (
            PredictionPage(tmp_path / "p.html", "t", CLASSES).add("a", "a", predicted(source), source).startswith(way)
        )


def test_a_file_of_another_container_than_its_name_says_is_copied(tmp_path):
    matroska = write_greys(tmp_path / "a.mkv", IRREGULAR).rename(tmp_path / "a.mp4")
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES)
    source = VideoFile(matroska)
    assert page.add("a", "a", predicted(source), source).startswith("embedded small copy")


def test_a_clip_of_a_longer_video_starts_at_its_own_time(tmp_path):
    path = write_greys(tmp_path / "a.mp4", np.arange(30) / 10)
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES)
    for start in (0, 10):
        source = VideoSpan(VideoFile(path), start, start + 8, "frames")
        page.add("a", "a", predicted(source), source)
    page.write("")
    _, data = data_of(page.path, 1)
    assert data["first"] == 10 and data["times"]["first"] == pytest.approx(1.0)
    assert page.path.read_text(encoding="utf-8").count('id="media-') == 1  # both show the same file


# --- in a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.PROGRAM is None:
        pytest.skip("no chromium on this machine")
    with browser.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(chromium, page):
    """The page, with its first video loaded."""
    chromium.open(page.as_uri())
    chromium.wait("video.readyState >= 2 && !video.seeking")
    return chromium


def frame_of(chromium):
    return chromium.run("Number($('now').dataset.frame)")


def wait_for_picture(chromium, n):
    """Waits until the video shows frame ``n``, by its grey."""
    grey = "(pen => (pen.drawImage(video, 0, 0), pen.getImageData(5, 5, 1, 1).data[0]))"
    pen = "document.createElement('canvas').getContext('2d')"
    chromium.wait(f"video.readyState >= 2 && !video.seeking && Math.abs({grey}({pen}) / {GREY} - {n}) < 0.7")


@pytest.mark.slow
@pytest.mark.parametrize("video", [0, 1, 2])
def test_every_frame_is_shown_at_its_time(opened, page, video):
    times = data_of(page, video)[1]["times"]
    for n in (0, 1, 7, 14, 29):
        time = times[n] if isinstance(times, list) else times["first"] + n * times["period"]
        opened.run(f"location.hash = '#video={video}&t={time}'")
        opened.wait(f"current.number === {video} && $('now').dataset.frame === '{n}'")
        wait_for_picture(opened, n)
        label = "walk" if n < 15 else HOSTILE
        assert opened.run("$('predicted').textContent") == f"predicted: {label}"


@pytest.mark.slow
def test_the_video_plays_to_its_end_and_the_playhead_follows(opened):
    opened.run("$('speed').value = 4; $('speed').onchange()")
    opened.press(" ", "Space")
    opened.wait("current.frame > 2")
    assert opened.run("$('play').textContent") == "Pause" and opened.run("!video.paused && video.playbackRate === 4")
    places = [opened.run("parseFloat($('playhead').style.left)")]
    opened.wait("video.ended && $('play').textContent === 'Play'")
    places.append(opened.run("parseFloat($('playhead').style.left)"))
    assert places[0] < places[1] and frame_of(opened) >= 28


@pytest.mark.slow
def test_clicks_and_keys_move_to_frames_errors_and_videos(opened):
    opened.click("#errors button")
    assert frame_of(opened) == 10
    wait_for_picture(opened, 10)
    opened.press("ArrowRight")
    assert frame_of(opened) == 11
    opened.press("ArrowLeft", shift=True)
    assert frame_of(opened) == 1
    opened.press("e")
    assert frame_of(opened) == 10
    opened.press("e")  # the next one is in the next video
    assert opened.run("current.number") == 1 and frame_of(opened) == 10
    opened.press("n")
    assert opened.run("current.number") == 2 and opened.run("$('title').textContent") == "No true labels are known"
    opened.press("p")
    opened.press("End")
    assert opened.run("current.number") == 1 and frame_of(opened) == 29
    opened.click("#chart")  # its middle is right of the middle of the timeline, which has names to its left
    assert 11 <= frame_of(opened) <= 14


@pytest.mark.slow
def test_the_filter_leaves_videos_and_errors_of_a_class(opened):
    assert opened.run("[...$('filter').options].map(o => o.text)") == ["all classes", "walk", HOSTILE]
    assert opened.run("document.querySelectorAll('b').length") == 0  # the name of a class is text
    opened.run("$('only').click()")
    assert opened.run("$('count').textContent") == "2 of 3 videos"
    opened.run("$('filter').value = '1'; $('filter').onchange()")
    assert opened.run("document.querySelectorAll('#errors button').length") == 1
    opened.run("page.videos[0].wrong = page.videos[1].wrong = [[2, 2]]; listVideos()")
    assert opened.run("$('count').textContent") == "0 of 3 videos"


@pytest.mark.slow
def test_a_page_without_true_labels_has_no_buttons_for_errors(chromium, tmp_path):
    source = VideoFile(write_video(tmp_path / "a.mp4", noise(8, 3, 32, 32)))
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES, multi_label=True)
    page.add("a", "a", predicted(source, multi_label=True), source)
    page.write("")
    chromium.open(page.path.as_uri())
    shown = "['play', 'before', 'after', 'only'].map(id => $(id).offsetParent !== null)"
    assert chromium.run(shown) == [True, False, False, False]
    assert chromium.run("$('canvas').clientHeight") > 3 * 60  # three classes have high rows


@pytest.mark.slow
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_page_of_long_names_is_as_wide_as_the_screen(chromium, tmp_path, multi_label):
    long = "PretendingToOpenSomethingWithoutActuallyOpeningIt"
    classes = (long, "pushing something from left to right " * 4, "run")
    source = VideoFile(write_video(tmp_path / "a.mp4", noise(8, 3, 32, 32)))
    found, truth = predicted(source, multi_label), torch.ones(8, dtype=torch.int64)
    found.prediction.classes = classes
    page = PredictionPage(tmp_path / "p.html", long * 2, classes, multi_label)
    page.add("a", long * 2, found, source, torch.eye(3, dtype=torch.int64)[truth] if multi_label else truth)
    page.write(long * 2)
    chromium.open(page.path.as_uri())
    for width in (320, 360, 380, 768, 810):
        for mobile in (False, True):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": mobile}
            chromium.call("Emulation.setDeviceMetricsOverride", **size)
            chromium.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            whole, shown = chromium.run("(e => [e.scrollWidth, e.clientWidth])(document.documentElement)")
            assert whole <= shown <= width and shown > width - 20
    chromium.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.slow
def test_a_page_of_200_videos_opens_quickly_and_reads_one(chromium, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2000, 4), np.float32))
    from seqclf.data.frames.array_file import ArrayFile

    source = ArrayFile(tmp_path / "a.npy", (4,), None)
    page = PredictionPage(tmp_path / "p.html", "t", CLASSES)
    found = predicted(source)
    for k in range(200):
        page.add(f"v{k}", f"v{k}", found, source, torch.arange(2000) % 2)
    page.write("")
    assert Path(page.path).stat().st_size < 30e6
    chromium.open(page.path.as_uri())
    assert chromium.run("$('count').textContent") == "200 of 200 videos"
    in_view = "((a, b) => a.top >= b.top - 1 && a.bottom <= b.bottom + 1)"
    chosen = "$('videos').querySelector('[aria-current=true]').getBoundingClientRect()"
    chromium.run("location.hash = '#video=150'")
    chromium.wait(f"current.number === 150 && {in_view}({chosen}, $('videos').getBoundingClientRect())")
    for _ in range(3):
        chromium.press("p")
    assert chromium.run("current.number") == 147
    assert chromium.run(f"{in_view}({chosen}, $('videos').getBoundingClientRect())")
    chromium.press("End")
    assert frame_of(chromium) == 1999 and chromium.run("video.hidden")
