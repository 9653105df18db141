"""Comparison of runs: settings that differ, metrics, means over seeds."""

import csv
import io
import json
import re
import statistics
import sys

import pytest

import seqclf
from seqclf import SeqclfError
from seqclf.experiment.rendering import render
from seqclf.experiment.settings import setting_fields
from seqclf.reporting.compare_runs import curves_picture
from seqclf.reporting.comparison import read_run, settings_of_config
from seqclf.reporting.comparison_table import print_comparison, table_of

CONFIG = """
from functools import partial
from seqclf import Experiment

def get_config() -> Experiment:
    return Experiment(
        data=partial(video_set, root="{root}", steps=[partial(resize, size={size}), mirror]),
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden={hidden}{more})),
        seed={seed},
        {rest}
    )
"""
BASE = {"root": "here", "size": 64, "hidden": 8, "more": "", "seed": 0, "rest": ""}


def add_best(run, step, **parts):
    """Gives a run a best checkpoint; ``parts``: its accuracy of clips by part."""
    results = json.loads((run / "results.json").read_text())
    best = {"step": step, "parts": {part: {"clip_last": value} for part, value in parts.items()}}
    (run / "results.json").write_text(json.dumps({**results, "best": best}))


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


@pytest.mark.parametrize("mixed", [0, 1])
def test_metrics_of_clips_are_compared_only_if_each_clip_has_one_label(mixed, tmp_path):
    run = make_run(tmp_path / "a", 0.25)
    results = json.loads((run / "results.json").read_text())
    results["parts"]["test"] |= {"clips": 4, "mixed_clips": mixed, "clip_macro_f1": 0.2, "frame_macro_f1": 0.3}
    (run / "results.json").write_text(json.dumps(results))
    (row,) = seqclf.compare([run])
    of_clips, of_frames = {"test.clip_last", "test.clip_mean", "test.clip_macro_f1"}, {"test.frame_macro_f1"}
    shown, left_out = (of_frames, of_clips) if mixed else (of_clips, of_frames)
    assert shown <= row.keys() and not left_out & row.keys()


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


def test_each_setting_may_differ(tmp_path, tool):
    names = [f.name for f in setting_fields(seqclf.Experiment) if f.name not in ("data", "model", "seed")]
    rest = [", ".join(f"{name}={value}" for name in names) for value in ("0.125", "'text'")]
    runs = [make_run(tmp_path / f"r{n}", 0.5, rest=text) for n, text in enumerate(rest)]
    code, _, _ = tool("compare", *runs, "--out", tmp_path / "out")
    columns = table_of(seqclf.compare(runs))
    assert code == 0 and {name: columns[name] for name in names} == {name: ["0.125", "'text'"] for name in names}


def test_the_picture_shows_any_name_of_a_run_as_it_is(tmp_path):
    names = [r"$\frac{$", "_hidden", "plain"]
    runs = [make_run(tmp_path / name, 0.5, size=n) for n, name in enumerate(names)]
    figure = curves_picture([read_run(run, run.name) for run in runs])
    figure.savefig(io.BytesIO())
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.partition(":")[0] for text in shown] == names


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


def test_the_terminal_shows_the_columns_that_fit_and_counts_the_others(tmp_path, tool):
    long = "x" * 200
    more = [{"more": "", "root": long}, {"more": "".join(f", option_{n}=1" for n in range(20)), "hidden": 16}]
    runs = [make_run(tmp_path / f"r{n}", 0.125, **settings) for n, settings in enumerate(more)]
    code, out, _ = tool("compare", *runs, "--out", tmp_path / "out")
    assert code == 0 and max(map(len, out.splitlines()[:-1])) <= 160
    assert "12.50 %" in out and "hidden" in out and "option_" in out
    columns = table_of(seqclf.compare(runs))
    (line,) = (line for line in out.splitlines() if line.startswith("not shown"))
    settings, metrics = map(int, re.findall(r"\d+", line))
    (first,) = (line for line in out.splitlines() if line.startswith(" r0"))
    assert len(columns) - settings - metrics == len(re.split(r"\s{2,}", first.strip()))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "option_19" in page and long in page


def test_no_heading_and_no_value_is_broken_in_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    runs = [make_run(tmp_path / ("name" * 20), 0.125), make_run(tmp_path / "b", 0.5, finished=False)]
    rows = seqclf.compare(runs)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for width in (40, 60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        print_comparison(rows)
        out = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
        assert "12.50 %" in out and "clip accuracy" in out
        assert max(map(len, out.splitlines()[:-1])) <= width


def test_a_row_shows_one_checkpoint_the_best_if_there_is_one(tmp_path, tool):
    runs = [make_run(tmp_path / name, 0.5, size=size) for size, name in enumerate("ab")]
    add_best(runs[0], 5, validation=0.75, test=0.375)
    _, out, _ = tool("compare", *runs, "--out", tmp_path / "out")
    first, second = (line for line in out.splitlines() if line[1:3] in ("a ", "b "))
    assert "5 (best)" in first and "37.50 %" in first and "50.00 %" not in first
    assert "best" not in second and "50.00 %" in second
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<td>5 (best)</td>" in page and "37.50 %" in page and "best_" not in page
    with (tmp_path / "out" / "comparison.csv").open() as stream:
        row, other = csv.DictReader(stream)
    assert (row["step"], row["test.clip_last"]) == ("10", "0.5")
    assert (row["best_step"], row["best_validation.clip_last"], row["best_test.clip_last"]) == ("5", "0.75", "0.375")
    assert (other["best_step"], other["best_test.clip_last"]) == ("", "")


def test_the_mean_of_best_checkpoints_is_marked_as_such(tmp_path):
    runs = [make_run(tmp_path / f"{seed}", 0.5, seed=seed) for seed in range(2)]
    for seed, run in enumerate(runs):
        add_best(run, 5 + seed, test=0.25 + seed / 2)
    columns = table_of(rows := seqclf.compare(runs))
    assert columns["step"] == ["5 (best)", "6 (best)", "best"]
    assert columns["test.clip_last"][2].startswith("50.00 % ± 35")
    assert (rows[2]["step"], rows[2]["best_step"], rows[2]["test.clip_last_sd"]) == (10, None, 0)


def test_a_run_that_is_given_twice_counts_once(tmp_path):
    run = make_run(tmp_path / "a", 0.5)
    (row,) = seqclf.compare([run, tmp_path / "." / "a", str(run)])
    assert row["runs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_lastframe", "lrcn_rgb", "features_lstm", "resnet_lstm"])
def test_settings_are_those_of_the_resolved_config(name):
    experiment = seqclf.load_experiment(name, ["seed=7"])
    settings = settings_of_config(render(experiment))
    assert settings["seed"] == "7" and settings["steps"] == str(experiment.steps)
    assert settings["model"] == "FrameSequenceClassifier" or name == "lrcn_rgb"
    assert settings["model.temporal"] == "LSTM" and int(settings["model.temporal.hidden"]) > 0


def test_a_folder_of_runs_is_skipped_with_the_way_to_compare_them(tmp_path, tool):
    make_run(tmp_path / "a", 0.5)
    code, _, err = tool("compare", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and f"write {tmp_path}/*" in err


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    run = make_run(tmp_path / "a", 0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SeqclfError, match="empty"):
        seqclf.compare([run, tmp_path / "empty"])
    with pytest.raises(SeqclfError, match="no run"):
        seqclf.compare([])
    (run / "results.json").unlink()
    (run / "metrics.jsonl").unlink()
    with pytest.raises(SeqclfError, match=str(run)):
        seqclf.compare([run])
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "part": "test", "loss": 1.0}) + "\n")
    (run / "config.py").write_text("x = (\n")
    with pytest.raises(SeqclfError, match=r"config\.py, line 1"):
        seqclf.compare([run])
