"""The timeline picture is legible for any number of frames and classes, and each class has one colour."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from seqclf.batch import IGNORE, SeqclfError
from seqclf.reporting.style import PALETTE, class_colour, class_line, picture_style
from seqclf.reporting.timeline import OTHERS, draw_timeline, timeline
from seqclf.reporting.timeline_axes import BACKGROUND


def random_video(T, K, seed=0):
    """Probabilities and labels of a video with several segments; a tenth of the frames have no label."""
    draw = torch.Generator().manual_seed(seed)
    lengths = max(1, T // 12)
    labels = torch.randint(K, (T // lengths + 1,), generator=draw).repeat_interleave(lengths)[:T]
    logits = torch.randn(T, K, generator=draw) + 5 * torch.nn.functional.one_hot(labels, K)
    labels[T // 3 : T // 3 + T // 10] = IGNORE
    return logits.softmax(-1), labels


def names(K):
    return [f"class_{k}" for k in range(K)]


def drawn(*arguments, **settings):
    """The figure in the style of all pictures."""
    with picture_style():
        return draw_timeline(*arguments, **settings)


def spans(axes):
    """The segments of a bar: (start, end, colour)."""
    bars = axes.collections[0]
    colours = [to_hex(colour) for colour in bars.get_facecolors()]
    edges = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in bars.get_paths()]
    return [(float(a), float(b), colour) for (a, b), colour in zip(edges, colours, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".PNG", ".svg"])
def test_the_file_is_a_picture_and_reproducible(tmp_path, suffix):
    p, labels = random_video(40, 3)
    path = timeline(p, names(3), tmp_path / f"a{suffix}", labels, fps=25, title="a clip")
    again = timeline(p.numpy(), names(3), tmp_path / f"b{suffix}", labels.tolist(), fps=25, title="a clip")
    assert path.read_bytes() == again.read_bytes()
    if suffix == ".svg":
        assert path.read_text().count("<svg") == 1
        return
    with Image.open(path) as image:
        assert image.width == 1500 and 400 < image.height < 900
        assert np.asarray(image.convert("L")).std() > 5  # not blank


@pytest.mark.slow
@pytest.mark.parametrize(
    ("T", "K", "settings"),
    [
        (1, 2, {}),
        (16, 2, {"fps": 25}),
        (16, 101, {"top": 8}),
        (2001, 5, {"fps": 29.97, "background": [0]}),
        (100_000, 19, {"fps": 30}),
        (300, 11, {"fps": 0.01, "top": 1}),
    ],
)
def test_no_texts_overlap_and_all_are_inside_the_picture(T, K, settings):
    p, labels = random_video(T, K)
    figure = drawn(p, names(K), labels, title="t", **settings)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text, renderer) for text in axes.texts if text.get_text()]  # without the line
        assert all(not a.overlaps(b) for a, b in combinations(boxes, 2))
        tight = axes.get_tightbbox(renderer)
        assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= figure.bbox.x1 and tight.y1 <= figure.bbox.y1
    places = sorted((axes.get_tightbbox(renderer).y0, axes.get_tightbbox(renderer).y1) for axes in figure.axes)
    assert all(below[1] <= above[0] + 1 for below, above in pairwise(places))


def test_bars_show_the_segments_and_unlabelled_frames_are_blank():
    predicted, truth = [0, 0, 1, 1, 1, 2], [0, 0, IGNORE, IGNORE, 1, 1]
    figure = drawn(torch.eye(3)[predicted], ["a", "b", "c"], truth)
    _, first, second = figure.axes
    predicted, true = spans(first), spans(second)
    assert [span[:2] for span in predicted] == [(-0.5, 1.5), (1.5, 4.5), (4.5, 5.5)]
    assert [span[:2] for span in true] == [(-0.5, 1.5), (3.5, 5.5)]
    assert predicted[0][2] == true[0][2] and predicted[1][2] == true[1][2]
    assert len({colour for _, _, colour in predicted}) == 3


def test_a_class_has_one_colour_in_curves_names_and_bars():
    p, labels = random_video(60, 6)
    figure = drawn(p, names(6), labels, top=6)
    above, predicted, _ = figure.axes
    curves = {to_hex(line.get_color()): 0.01 * line.get_ydata() for line in above.lines}
    by_class = {k: c for c, y in curves.items() for k in range(6) if np.allclose(y, p[:, k].numpy(), atol=1e-6)}
    assert len(by_class) == 6 and set(by_class.values()) == set(PALETTE[:6])
    for start, _, colour in spans(predicted):
        assert colour == by_class[int(p[round(start + 0.5)].argmax())]
    named = {text.get_text(): to_hex(text.arrow_patch.get_edgecolor()) for text in above.texts}
    assert named == {f"class_{k}": colour for k, colour in by_class.items()}


def test_a_class_has_the_colour_of_its_index_in_every_video_and_in_the_page():
    for p in (torch.eye(20)[[3, 3, 9]], torch.eye(20)[[9, 9, 9, 3]]):
        figure = drawn(p, names(20), top=2)
        named = {text.get_text(): to_hex(text.arrow_patch.get_edgecolor()) for text in figure.axes[0].texts}
        assert named == {"class_3": class_colour(3), "class_9": class_colour(9)}
    assert len({(class_colour(k), class_line(k)) for k in range(96)}) == 96


def test_classes_without_a_curve_are_grey_and_the_background_is_lightest():
    p = torch.eye(4)[[0] * 9 + [1] * 6 + [2] * 3 + [3]]
    figure = drawn(p, names(4), top=1, background=[0])
    assert [colour for _, _, colour in spans(figure.axes[1])] == [BACKGROUND, PALETTE[1], OTHERS[0], OTHERS[1]]
    assert "grey: other classes\nlightest: background" in {text.get_text() for text in figure.axes[1].texts}


def test_a_true_class_that_is_never_predicted_has_a_curve():
    p = torch.eye(30)[torch.arange(30) % 10]
    figure = drawn(p, names(30), torch.full((30,), 29), top=2)
    assert "class_29" in {text.get_text() for text in figure.axes[0].texts}


def test_long_videos_keep_the_range_in_the_band_and_the_most_frequent_class_in_the_bar():
    p = torch.full((100_000, 2), 0.5)
    p[70_000] = torch.tensor([0.9, 0.1])
    p[20_000:40_000] = torch.tensor([1.0, 0.0])
    figure = drawn(p, ["a", "b"], predicted=p[:, 1].gt(0.4).long())
    above, bar = figure.axes
    for band, line in zip(above.collections, above.lines, strict=True):
        heights = band.get_paths()[0].vertices
        near = heights[np.abs(heights[:, 0] - 70_000) < 100, 1]
        assert {round(near.min()), round(near.max())} in ({50, 90}, {10, 50})
        assert len(line.get_xdata()) == 1000
    assert [span[:2] for span in spans(bar)] == [(-0.5, 19999.5), (19999.5, 39999.5), (39999.5, 99999.5)]


def test_seconds_are_shown_if_the_frame_rate_is_known():
    p, _ = random_video(100, 2)
    for fps, words in ((None, None), (25, "seconds"), (0.5, "minutes:seconds"), (0.01, "hours:minutes:seconds")):
        figure = drawn(p, ["a", "b"], fps=fps)
        figure.draw_without_rendering()  # the upper scale takes its limits from the lower one when drawn
        scales = figure.axes[0].child_axes
        assert [scale.get_xlabel() for scale in scales] == [words] * (fps is not None)
        if fps == 25:
            low, high = scales[0].get_xlim()
            assert (low, high) == pytest.approx((-0.5 / 25, 99.5 / 25))
        ticks = {label.get_text() for scale in scales for label in scale.get_xticklabels()}
        assert {None: set(), 25: {"2.4"}, 0.5: {"0:00", "3:00"}, 0.01: {"1:00:00", "2:45:00"}}[fps] <= ticks


@pytest.mark.slow
@pytest.mark.parametrize("classes", [["日本", "a\nb"], ["$\\frac{", ""]])
def test_any_name_and_title_can_be_drawn(tmp_path, classes):
    p, labels = random_video(30, 2)
    for suffix in ("png", "svg"):
        path = tmp_path / f"x.{suffix}"
        timeline(p, classes, path, labels, title=f"{classes[0]} $\\frac{{ {'long ' * 50}")
        assert path.stat().st_size > 1000


def test_videos_without_labels_or_with_background_only_can_be_drawn(tmp_path):
    p, _ = random_video(30, 2)
    timeline(p, ["a", "b"], tmp_path / "a.png", [IGNORE] * 30, background=[0, 1])
    timeline(p, ["a", "b"], tmp_path / "b.png", background=[0, 1])
    assert not np.array_equal(*(np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"p": torch.zeros(0, 2)}, r"\(0, 2\)"),
        ({"p": torch.zeros(5)}, r"\(5,\)"),
        ({"p": torch.zeros(5, 3)}, r"\(5, 3\).*K = 2"),
        ({"p": torch.tensor([[0.5, 0.5], [np.nan, 0.5]])}, "frame 1.*nan"),
        ({"p": torch.tensor([[0.5, 4.0]])}, "frame 0.* 4"),
        ({"truth": [0] * 4}, r"truth.*int64 \(4,\).*\(5,\)"),
        ({"truth": [0.5] * 5}, "truth.*float64"),
        ({"truth": [0, 1, 2, 0, 0]}, "truth.*frame 2.*class 2.*0 to 1"),
        ({"predicted": [0, -1, 0, 0, 0]}, "predicted.*frame 1.*class -1"),
        ({"fps": 0}, "fps=0"),
        ({"top": 0}, "top=0"),
        ({"path": "a.jpg"}, r"a\.jpg.*\.png or \.svg"),
        ({"path": "/dev/null/a.png"}, r"a\.png"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_no_file(tmp_path, change, named):
    settings = {"p": torch.full((5, 2), 0.5), "path": "a.png", **change}
    p, path = settings.pop("p"), settings.pop("path")
    with pytest.raises(SeqclfError, match=named):
        timeline(p, ["a", "b"], tmp_path / path, **settings)
    assert not list(tmp_path.iterdir())
