"""docs/files.md lists exactly the fields of the files of a run."""

import json
import re
from pathlib import Path

import pytest
from made_videos import noise, write_folder

import seqclf
from seqclf.evaluation.multi_label import MultiLabelMetrics
from seqclf.preparing.check_report import plain_values

DOC = (Path(__file__).resolve().parents[1] / "docs/files.md").read_text(encoding="utf-8")
ONLY_ANNOTATED_VIDEOS = {"edit", "f1_10", "f1_25", "f1_50"}


def documented(heading, table=0):
    """The field names in the first column of a table under a heading."""
    section = DOC.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    tables = re.findall(r"((?:^\|.*\n)+)", section, re.M)
    return {name for row in tables[table].splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files") / "run"
    settings = ["data.source=digits", "validation=0.04", "steps=2", "model.temporal.hidden=8", "eval_every=1"]
    seqclf.train(seqclf.load_experiment("mnist_perframe", settings), folder, "cpu")
    return folder


@pytest.mark.slow
def test_results(run):
    results = json.loads((run / "results.json").read_text())
    assert documented("results.json") == set(results)
    for figures in results["parts"].values():
        names = {re.sub(r"^top\d+_", "top<k>_", name) for name in figures}
        assert documented("results.json", 1) - ONLY_ANNOTATED_VIDEOS == names


def test_results_of_multi_label_data():
    assert documented("results.json", 2) == set(MultiLabelMetrics(2).result())


def test_metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["part"] for line in lines} == {"train", "validation"}
    assert documented("metrics.jsonl") - ONLY_ANNOTATED_VIDEOS == {name for line in lines for name in line}


def test_record(run):
    assert documented("run.json") == set(json.loads((run / "run.json").read_text()))


def test_check(tmp_path):
    write_folder(tmp_path / "a", noise(2, 3, 4, 4))
    (tmp_path / "l.csv").write_text("path,label\na,x\n")
    content = plain_values(seqclf.check_videos(tmp_path / "l.csv", tmp_path))
    for table, part in enumerate((content, content["parts"]["all"], content["files"][0], content["clips"][0])):
        assert documented("check.json", table) == set(part)
