"""The report is one self-contained page that shows the metrics of results.json."""

from __future__ import annotations

import base64
import io
import json
import re
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seqclf.batch import Batch, SeqclfError
from seqclf.evaluation.metrics import Metrics
from seqclf.reporting.html import report
from seqclf.reporting.metrics import print_results
from seqclf.reporting.pictures import most_wrong_picture
from seqclf.runs.folder import RunFolder

ROWS = {
    "frame accuracy": "frame_accuracy",
    "clip accuracy, last frame": "clip_last",
    "clip accuracy, mean of frames": "clip_mean",
}


def make_run(
    folder: Path,
    classes: list[str],
    frame_shape: tuple[int, ...] = (5,),
    T: int = 6,
    *,
    right: bool = False,
    mixed: bool = False,
    warning: str | None = None,
    lines: int = 3,
) -> dict[str, Any]:
    """The folder of a finished run with the metrics of random logits; ``mixed``: every clip has several labels."""
    K, draw = len(classes), torch.Generator().manual_seed(0)
    parts = {}
    for name, clips in (("validation", 10), ("test", 30)):
        labels = torch.randint(K, (clips, 1), generator=draw).repeat(1, T)
        if mixed:
            labels[:, 0] = (labels[:, 0] + 1) % K
        logits = torch.randn(clips, T, K, generator=draw)
        if right:
            logits.scatter_(2, labels[..., None], 50.0)
        metrics = Metrics(K)
        metrics.update(logits, Batch(torch.zeros(clips, T, 1), labels, indices=torch.arange(clips)))
        parts[name] = metrics.result()
    results = {
        "step": 4,
        "decision": "last",
        "best": {"step": 2, "metric": "frame_accuracy" if mixed else "clip_last", "value": 0.4321, "parts": parts},
        "seconds": 1.5,
        "run": str(folder),
        "parts": parts,
    }
    wrong = [row[0] for row in parts["test"]["most_wrong"]]
    frames = np.random.default_rng(0).integers(0, 256, (len(wrong), T, *frame_shape), dtype=np.uint8)
    environment = {"torch": "2", "command": ["train.py", "a b"]}
    run = {
        "started": "2026-01-01T00:00:00+00:00",
        "resumed": [{"step": 2, "at": "2026-01-02T00:00:00+00:00"}],
        "finished": "2026-01-03T00:00:00+00:00",
        "environment": environment,
        "parameters": 1234,
        "data": {"source": "synthetic", "warning": warning, "classes": classes, "test": {"clips": 30}},
    }
    shown = {name: parts["validation"][name] for name in (*ROWS.values(), "loss")}
    metrics_lines = [
        {"step": 1, "part": "train", "loss": 2.0, "accuracy": 0.1, "lr": 0.1},
        {"step": 2, "part": "validation", **shown},
        {"step": 4, "part": "train", "loss": 1.0, "accuracy": 0.2, "lr": 0.1},
    ]
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.py").write_text("steps = 4  # <config> & co\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics_lines[:lines]))
    length, sample = np.full(len(wrong), T), np.array(wrong, dtype=np.int64)
    np.savez_compressed(folder / "most_wrong.npz", frames=frames, length=length, sample=sample)
    return results


def pictures(page: str) -> dict[str, bytes]:
    """The embedded pictures by alternative text."""
    found = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)">', page)
    assert len(found) == page.count("<img")
    return {alt: base64.b64decode(data, validate=True) for alt, data in found}


def cells(page: str, first: str) -> list[str]:
    """The cells after ``first`` in its table row."""
    found = re.search(rf"<tr><td>{re.escape(escape(first))}</td>(.*?)</tr>", page)
    assert found, f"no row {first}"
    return re.findall(r"<td[^>]*>(.*?)</td>", found[1])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of eight classes with its report."""
    folder = tmp_path_factory.mktemp("plain")
    make_run(folder, [f"k{k}" for k in range(8)])
    assert report(folder) == folder / "report" / "index.html"
    return folder


def page_of(run: Path) -> str:
    return (run / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_needs_no_other_file(plain: Path) -> None:
    page = page_of(plain)
    assert not re.search(r"https?://|url\(|@import|<link|<script", page)
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', page))
    embedded = pictures(page)
    assert set(embedded) == {"Learning curves", "Accuracy by frame seen", "Confusion matrix", "Highest loss"}
    assert sorted(embedded.values()) == sorted(file.read_bytes() for file in plain.glob("report/*.png"))
    for data in embedded.values():
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert np.asarray(image.convert("L")).std() > 1  # not blank


@pytest.mark.slow
def test_the_same_run_gives_the_same_page_and_an_incomplete_line_of_metrics_is_skipped(plain: Path) -> None:
    page = page_of(plain)
    with (plain / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "pa')
    report(plain)
    assert page_of(plain) == page


@pytest.mark.slow
def test_the_metrics_are_those_of_results_json(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = [f"k{k}" for k in range(8)]
    results, page = json.loads((plain / "results.json").read_text()), page_of(plain)
    print_results(results)
    text = capsys.readouterr().out
    parts = [*results["parts"].values(), *results["best"]["parts"].values()]
    rows = {**ROWS, "macro F1 of clips": "clip_macro_f1", "balanced accuracy of clips": "clip_balanced_accuracy"}
    for title, name in rows.items():
        expected = [f"{100 * part[name]:.2f} %" for part in parts]
        assert cells(page, title) == expected
        assert re.search(rf"{title} +{' +'.join(expected)}", text)
    for title, name in (("clips", "clips"), ("frames (labelled)", "frames")):
        assert cells(page, title) == [f"{part[name]:,}" for part in parts]
    assert cells(page, "loss") == [f"{part['loss']:.4f}" for part in parts]
    test = results["parts"]["test"]
    for name, counts, accuracy in zip(classes, test["confusion"], test["class_accuracy"], strict=True):
        assert cells(page, name)[:2] == [str(sum(counts)), f"{100 * accuracy:.2f} %"]
    assert "validation, step 2" in page and "test, step 2" in page
    assert "\x1b" not in text


@pytest.mark.slow
def test_classes_are_ranked_by_accuracy(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((plain / "results.json").read_text())
    print_results(results)
    ranked = re.findall(r"<tr><td>k(\d)</td>", page_of(plain))
    shares = [results["parts"]["test"]["class_accuracy"][int(k)] for k in ranked]
    assert len(ranked) == 8
    assert shares == sorted(shares)
    printed = re.findall(r"k(\d) ([\d.]+) %", capsys.readouterr().out)
    assert printed == [(k, f"{100 * share:.2f}") for k, share in list(zip(ranked, shares, strict=True))[:5]]


def test_a_narrow_terminal_cuts_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = make_run(tmp_path, ["[red]one[/red]", "x" * 100])
    monkeypatch.setenv("COLUMNS", "20")
    print_results(results)
    text = capsys.readouterr().out
    assert "clip accuracy, mean of frames" in text and "…" not in text
    assert "[red]one[/red]" in text and "x" * 100 in text


def test_text_is_escaped(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "$\\frac{", 'a"&b']
    make_run(tmp_path, names, warning="<i>warning</i>")
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page and "<i>" not in page and "<config>" not in page
    assert all(escape(text) in page for text in (*names, "<i>warning</i>", "# <config> & co", "train.py 'a b'"))


@pytest.mark.slow
def test_the_warning_is_shown_if_there_is_one(plain: Path, tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b"], warning="NOT MNIST")
    assert 'class="warning"' not in page_of(plain)
    assert '<p class="warning">NOT MNIST</p>' in report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, set()),
        ({"classes": [f"class_{k} of a long name" for k in range(60)]}, set()),
        ({"classes": ["日本", "\n", "é"]}, set()),  # the picture's font lacks two of them
        ({"T": 1}, {"Accuracy by frame seen"}),
        ({"right": True}, {"Highest loss"}),
        ({"mixed": True}, {"Accuracy by frame seen", "Highest loss"}),
        ({"lines": 1}, set()),
        ({"lines": 0}, {"Learning curves"}),
        ({"frame_shape": (3, 16, 16), "T": 20}, set()),
        ({"frame_shape": (1, 8, 12)}, set()),
    ],
)
def test_pictures_are_left_out_only_if_there_is_nothing_to_draw(
    tmp_path: Path, change: dict[str, Any], missing: set[str]
) -> None:
    make_run(tmp_path, **{"classes": ["yes", "no"], **change})
    drawn = set(pictures(report(tmp_path).read_text(encoding="utf-8")))
    usual = {"Learning curves", "Accuracy by frame seen", "Confusion matrix", "Highest loss"}
    assert usual - drawn == missing
    assert drawn - usual == ({"Accuracy by frame"} if change.get("mixed") else set())


def test_runs_on_frame_labels_show_no_clip_metrics_and_missing_metrics_are_dashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = make_run(tmp_path, ["a", "b"], mixed=True)
    assert results["parts"]["test"]["clip_last"] is None
    page = report(tmp_path).read_text(encoding="utf-8")
    print_results(results)
    assert "clip accuracy, last frame" not in page + capsys.readouterr().out
    results["parts"]["validation"] |= {"clips": 3, "clip_last": 1.0, "clip_mean": 1.0}  # other clips are mixed
    print_results(results)
    assert "clip" not in capsys.readouterr().out
    print_results(results | {"best": results["best"] | {"step": 4, "metric": "clip_last"}})
    assert re.search(r"clip accuracy, last frame +100.00 % +–", capsys.readouterr().out)
    assert "None" not in re.sub(r"base64,[^\"]*", "", page)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "missing") for name in ("results.json", "run.json", "config.py", "most_wrong.npz")),
        *((name, "damaged") for name in ("results.json", "run.json", "most_wrong.npz")),  # a config is any text
    ],
)
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str, how: str) -> None:
    make_run(tmp_path, ["a", "b"])
    path = tmp_path / name
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SeqclfError, match=name.replace(".", r"\.")):
        report(tmp_path)


@pytest.mark.parametrize(("frame_shape", "across"), [((5,), False), ((1, 4, 4), True)])
def test_clips_of_the_highest_loss_are_drawn_without_padding(tmp_path: Path, frame_shape, across) -> None:
    metrics = make_run(tmp_path, ["a", "b"], frame_shape)["parts"]["test"]
    with np.load(tmp_path / "most_wrong.npz") as file:
        content = {**file}
    content["length"][1] = 2  # of 6 frames
    np.savez(tmp_path / "most_wrong.npz", **content)
    for decision, words in (("last", "last frame"), ("mean", "mean over frames")):
        _, caption, figure = most_wrong_picture(RunFolder(tmp_path), metrics, decision, ["a", "b"])
        assert words in caption
    whole, short = (image.get_extent() for image in figure.axes[0].images[:2])
    sizes = [(right - left, top - bottom) for left, right, bottom, top in (whole, short)]
    ratios = np.divide(sizes[1], sizes[0])
    frames = 9 / 29 if across else 1 / 3  # pictures are 4 columns wide, with a white column between them
    assert ratios == pytest.approx([frames, 1] if across else [1, frames])


def test_frames_of_other_samples_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b"])
    with np.load(tmp_path / "most_wrong.npz") as file:
        np.savez(tmp_path / "most_wrong.npz", **{**file, "sample": file["sample"] + 1})
    with pytest.raises(SeqclfError, match=r"most_wrong\.npz"):
        report(tmp_path)
