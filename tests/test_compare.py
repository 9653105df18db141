"""Comparison of runs: settings that differ, metrics, means over seeds."""

import csv
import json
import re
import statistics

import pytest

import seqclf
from seqclf import SeqclfError
from seqclf.experiment.rendering import render
from seqclf.reporting.comparison import settings_of_config

CONFIG = """
from functools import partial
from seqclf import Experiment

def get_config() -> Experiment:
    return Experiment(
        data=partial(video_set, root="{root}", steps=[partial(resize, size={size}), mirror]),
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden={hidden}{more})),
        seed={seed},
    )
"""
BASE = {"root": "here", "size": 64, "hidden": 8, "more": "", "seed": 0}


def make_run(folder, accuracy, finished=True, **settings):
    """A run folder with one evaluation; ``accuracy``: of clips by the last frame, None for labels per frame."""
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(CONFIG.format(**{**BASE, **settings}))
    (folder / "run.json").write_text('{"data": {}}')
    figures = {"clip_last": accuracy, "clip_mean": accuracy, "frame_accuracy": 0.5, "loss": 1.0, "edit": 70.0}
    lines = [{"step": 5, "part": "train", "loss": 2.0}, {"step": 10, "part": "test", **figures}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (folder / "results.json").write_text(json.dumps({"step": 10, "parts": {"test": figures}}))
    return folder


def test_a_row_holds_the_settings_that_differ_and_the_metrics_of_results_json(tmp_path):
    runs = [make_run(tmp_path / "a", 0.25, hidden=8), make_run(tmp_path / "b", 0.5, hidden=16, more=", layers=2")]
    first, second = seqclf.compare(runs)
    assert first == {
        **{"run": "a", "runs": 1, "step": 10, "finished": True},
        **{"model.temporal.hidden": "8", "model.temporal.layers": None},
        **{"test.frame_accuracy": 0.5, "test.clip_last": 0.25, "test.clip_mean": 0.25},
        **{"test.edit": 70.0, "test.loss": 1.0},
    }
    assert (second["model.temporal.hidden"], second["model.temporal.layers"]) == ("16", "2")


def test_runs_that_differ_only_in_their_seed_have_a_mean_and_a_standard_deviation(tmp_path):
    values = [0.25, 0.5, 0.625]
    runs = [make_run(tmp_path / f"s{seed}", value, seed=seed) for seed, value in enumerate(values)]
    runs.insert(1, make_run(tmp_path / "other", 0.9, size=32))
    rows = seqclf.compare(runs)
    assert [row["run"] for row in rows] == ["s0", "s1", "s2", "mean of 3", "other"]
    mean = rows[3]
    assert (mean["runs"], mean["seed"], mean["data.steps.0.size"]) == (3, "0, 1, 2", "64")
    assert mean["test.clip_last"] == pytest.approx(statistics.mean(values))
    assert mean["test.clip_last_sd"] == pytest.approx(statistics.stdev(values))


def test_other_differences_than_the_seed_are_not_averaged(tmp_path):
    runs = [make_run(tmp_path / f"{n}", 0.5, seed=n, root=f"r{n}") for n in range(2)]
    assert [row["runs"] for row in seqclf.compare(runs)] == [1, 1]


def test_an_unfinished_run_counts_with_its_last_evaluation_and_is_not_averaged_with_finished_ones(tmp_path):
    rows = seqclf.compare([make_run(tmp_path / "a", 0.5), make_run(tmp_path / "b", 0.25, finished=False, seed=1)])
    assert [(row["run"], row["finished"], row["test.clip_last"]) for row in rows] == [
        ("a", True, 0.5),
        ("b", False, 0.25),
    ]


def test_the_files_show_the_rows(tmp_path, tool):
    runs = [make_run(tmp_path / "runs" / f"<{n}>", (n + 1) / 8, seed=n) for n in range(3)]
    (tmp_path / "runs" / "other.txt").touch()
    early = make_run(tmp_path / "runs" / "early", 0.5, finished=False)
    (early / "metrics.jsonl").unlink()
    code, out, err = tool("compare", *runs, early, tmp_path / "runs" / "other.txt", "--out", tmp_path / "out")
    assert code == 0 and "other.txt" in err and "early" in err
    rows = seqclf.compare(runs)
    with (tmp_path / "out" / "comparison.csv").open() as stream:
        read = list(csv.DictReader(stream))
    assert [float(row["test.clip_last"]) for row in read] == [row["test.clip_last"] for row in rows]
    assert float(read[-1]["test.clip_last_sd"]) == rows[-1]["test.clip_last_sd"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;0&gt;" in page and "<0>" not in page and "25.00 % ± 12.50" in page and "25.00 % ±" in out
    assert not re.search(r"https?://|url\(|@import|<link|<script", page)
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_many_settings_are_left_to_the_files(tmp_path, tool):
    more = [{"more": "", "size": 8}, {"more": "".join(f", option_{n}=1" for n in range(9)), "size": 9}]
    runs = [make_run(tmp_path / f"r{n}", None, **settings) for n, settings in enumerate(more)]
    code, out, _ = tool("compare", *runs, "--out", tmp_path / "out")
    assert code == 0 and max(map(len, out.splitlines())) <= 160
    assert "option_8" in (tmp_path / "out" / "index.html").read_text()


def test_the_printed_test_metrics_are_those_of_the_best_checkpoint(tmp_path, tool):
    runs = [make_run(tmp_path / name, 0.5) for name in "ab"]
    results = json.loads((runs[0] / "results.json").read_text())
    best = {"step": 5, "metric": "clip_last", "value": 0.75, "parts": {"test": {"clip_last": 0.375}}}
    (runs[0] / "results.json").write_text(json.dumps({**results, "best": best}))
    _, out, _ = tool("compare", *runs, "--out", tmp_path / "out")
    first, second = (line for line in out.splitlines() if line[1:3] in ("a ", "b "))
    assert ("37.50 %" in first, "50.00 %" in second) == (True, True) and "best" not in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_lastframe", "lrcn_rgb", "features_lstm", "resnet_lstm"])
def test_settings_are_those_of_the_resolved_config(name):
    experiment = seqclf.load_experiment(name, ["seed=7"])
    settings = settings_of_config(render(experiment))
    assert settings["seed"] == "7" and settings["steps"] == str(experiment.steps)
    assert settings["model"] == "FrameSequenceClassifier" or name == "lrcn_rgb"
    assert settings["model.temporal"] == "LSTM" and int(settings["model.temporal.hidden"]) > 0


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    run = make_run(tmp_path / "a", 0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SeqclfError, match="empty"):
        seqclf.compare([run, tmp_path / "empty"])
    with pytest.raises(SeqclfError):
        seqclf.compare([])
    (run / "results.json").unlink()
    (run / "metrics.jsonl").unlink()
    with pytest.raises(SeqclfError, match=str(run)):
        seqclf.compare([run])
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "part": "test", "loss": 1.0}) + "\n")
    (run / "config.py").write_text("x = (\n")
    with pytest.raises(SeqclfError, match=r"config\.py, line 1"):
        seqclf.compare([run])
