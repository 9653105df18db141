"""Metrics for classes of unequal size equal scikit-learn's, and the user's metrics see every prediction once."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seqclf
from seqclf import Clips, Data, Experiment, FrameSequenceClassifier, SeqclfError
from seqclf.batch import IGNORE, Batch
from seqclf.evaluation.classification import classification_metrics
from seqclf.evaluation.evaluator import evaluate
from seqclf.evaluation.metrics import Metrics
from seqclf.reporting.comparison import comparison_rows, read_run
from seqclf.reporting.metrics import metric_text, metric_title, result_rows

SUPPORT = sklearn.metrics.precision_recall_fscore_support


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(2, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_metrics_equal_scikit_learns(K, pairs):
    """Classes that never occur, or are never predicted, among them."""
    truth, predicted = np.array(pairs).T % K
    confusion = torch.tensor(sklearn.metrics.confusion_matrix(truth, predicted, labels=range(K)))
    found = classification_metrics(confusion, "x")
    by_class = SUPPORT(truth, predicted, labels=range(K), zero_division=0)[:3]
    known = np.isin(np.arange(K), [truth, predicted])
    for name, values in zip(("precision", "recall", "f1"), by_class, strict=True):
        assert found[f"x_class_{name}"] == [pytest.approx(v) if k else None for v, k in zip(values, known, strict=True)]
    for mean in ("macro", "weighted"):
        values = SUPPORT(truth, predicted, average=mean, zero_division=0)[:3]
        assert [found[f"x_{mean}_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(list(values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that do not occur
        assert found["x_balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, predicted))
        kappa = sklearn.metrics.cohen_kappa_score(truth, predicted)
    one_class = len({*truth, *predicted}) == 1
    assert found["x_kappa"] == (None if one_class else pytest.approx(kappa))
    assert found["x_absent_classes"] == K - len(set(truth))


@pytest.mark.parametrize("decision", ["last", "mean"])
def test_clips_are_counted_by_the_decision_rule(decision):
    logits = torch.tensor([[[3.0, 0.0], [3.0, 0.0], [0.0, 1.0]]])  # class 0 by the mean, 1 by the last frame
    metrics = Metrics(2, decision=decision)
    for truth in (0, 1):
        labels = torch.tensor([[IGNORE, IGNORE, truth]])
        metrics.update(logits, Batch(torch.zeros(1, 3, 1), labels, indices=torch.tensor([truth])))
    (sample, true, predicted, p, _), *others = metrics.result()["most_wrong"]
    by_rule = [1, 0.7311] if decision == "last" else [0, (2 * 0.9526 + 0.2689) / 3]
    assert [predicted, p] == pytest.approx(by_rule, abs=1e-4) and sample == true == 1 - predicted and not others
    assert metrics.result()["clip_confusion"] == ([[0, 1], [0, 1]] if decision == "last" else [[1, 0], [1, 0]])


def test_no_top_k_accuracy_of_as_many_classes():
    found = {K: {name for name in Metrics(K).result() if name.startswith("top")} for K in (2, 5, 6)}
    assert found == {2: set(), 5: set(), 6: {"top5_accuracy"}}
    assert not any("top" in title for title, _ in result_rows({"test": Metrics(2).result()}))


# ----------------------------------------------------------------------------------------------------- the user's own


class Answers(torch.nn.Module):
    """Answers with the frames, which are logits."""

    def forward(self, frames, is_first=None, state=None, lengths=None):
        return frames, None


@pytest.mark.parametrize("decision", ["last", "mean"])
@pytest.mark.parametrize("batch_size", [3, 100])
def test_a_metric_sees_each_clip_once_in_order_by_the_decision_rule(decision, batch_size):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 4, 3, generator=rng)
    lengths = torch.tensor([4, 1, 2, 3, 4, 4, 1])
    labels = torch.tensor([0, 1, 2, 0, 1, IGNORE, 2])
    clips, seen = Clips(logits, labels, lengths), []
    metrics = {"mine": lambda *arrays: seen.extend(arrays) or 0.25}
    found = evaluate(Answers(), clips, 3, batch_size, decision=decision, metrics=metrics)
    truth, predicted, probabilities = seen
    known = [0, 1, 2, 3, 4, 6]
    p = logits.softmax(-1)
    expected = [p[i, n - 1] if decision == "last" else p[i, :n].mean(0) for i, n in enumerate(lengths.tolist())]
    assert truth.tolist() == labels[known].tolist()
    np.testing.assert_allclose(probabilities, torch.stack(expected)[known], rtol=1e-5)
    assert (predicted == probabilities.argmax(1)).all()
    assert found["mine"] == 0.25
    assert np.mean(predicted == truth) == pytest.approx(found[f"clip_{decision}"])


def test_a_metric_of_labels_per_frame_sees_each_labelled_frame():
    logits = torch.randn(4, 3, 2)
    labels = torch.tensor([[0, 1, IGNORE], [IGNORE] * 3, [1, 1, 0], [0, IGNORE, 1]])
    clips, seen = Clips(logits, labels, labelling=seqclf.labelling.given), []
    evaluate(Answers(), clips, 2, 2, metrics={"mine": lambda *arrays: seen.extend(arrays) or 1})
    assert seen[0].tolist() == labels[labels != IGNORE].tolist()
    np.testing.assert_allclose(seen[2], logits.softmax(-1)[labels != IGNORE], rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), "raises"])
def test_a_metric_without_a_value_is_null_with_a_warning_and_does_not_stop_the_run(value):
    def metric(truth, predicted, probabilities):
        if value == "raises":
            raise ValueError("one class only")
        return value

    with pytest.warns(UserWarning, match=r"metric mine.*(one class only|nan)"):
        found = evaluate(Answers(), Clips(torch.zeros(2, 1, 2), [0, 1]), 2, metrics={"mine": metric})
    assert found["mine"] is None


def test_a_metric_may_change_its_arrays():
    def changes(truth, predicted, probabilities):
        for array in (truth, predicted, probabilities):
            array[:] = 0
        return 1

    def first(truth, predicted, probabilities):
        return truth[0] + probabilities[0, 1]

    clips = Clips(torch.tensor([[[0.0, 9.0]]]).expand(2, 1, 2), [1, 0])
    found = evaluate(Answers(), clips, 2, metrics={"a": changes, "b": first})
    assert found["b"] > 1.9


def area(truth, predicted, probabilities):
    return sklearn.metrics.roc_auc_score(truth, probabilities[:, 1])


def experiment(metrics):
    rng = torch.Generator().manual_seed(1)
    clips = Clips(torch.randn(12, 3, 2, generator=rng), torch.arange(12) % 2)
    model = partial(FrameSequenceClassifier, temporal=partial(seqclf.GRU, hidden=2))
    return Experiment(Data(clips, clips, "ab", "toy"), model, torch.optim.SGD, steps=2, batch_size=4, metrics=metrics)


@pytest.mark.parametrize("name", ["top_speed", "my_kappa", "my_macro_f1", "topology", "error"])
def test_a_users_metric_is_shown_by_its_name_and_as_a_number(name):
    assert (metric_title(name), metric_text(name, 3.25)) == (name, "3.2500")
    part = {"frames": 1, "clips": 0, name: 3.25}
    assert (name, ["3.2500"]) in result_rows({"test": part}, [name])


def test_metrics_of_seqclf_are_shown_by_their_titles():
    assert metric_title("clip_macro_f1") == "macro F1 of clips" and metric_text("clip_macro_f1", 0.5) == "50.00 %"
    assert metric_text("frame_kappa", 0.5) == "0.5000" and metric_text("top5_accuracy", 0.5) == "50.00 %"
    assert ("top-5 accuracy", ["50.00 %"]) in result_rows({"test": {"frames": 1, "clips": 0, "top5_accuracy": 0.5}})


def test_a_users_metric_is_in_the_results_the_lines_the_report_and_the_comparison(tmp_path):
    results = seqclf.train(experiment({"area": area}), tmp_path / "run", "cpu")
    run = tmp_path / "run"
    value = results["parts"]["test"]["area"]
    assert 0 <= value <= 1
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["area"] for line in lines if line["part"] == "test"] == [value]
    assert json.loads((run / "run.json").read_text())["metrics"] == ["area"]
    page = seqclf.report(run).read_text()
    assert f"<td>area</td><td>{value:.4f}</td>" in page
    assert "macro F1 of clips" in page
    (row,) = comparison_rows([read_run(run, "run")])
    assert row["test.area"] == value
    assert row["test.clip_macro_f1"] == results["parts"]["test"]["clip_macro_f1"]


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ([area], "not a list"),
        ({5: area}, "5 is no string"),
        ({"loss": area}, "'loss'"),
        ({"step": area}, "'step'"),
        ({"part": area}, "'part'"),
        ({"mine": lambda truth, predicted: 0.0}, "mine.*TypeError"),
        ({"mine": lambda truth, predicted, probabilities: probabilities}, "mine.*TypeError"),
        ({"mine": lambda truth, predicted, probabilities: 1 / 0}, "mine.*ZeroDivisionError"),
    ],
)
def test_a_wrong_metric_is_refused_at_the_start(metrics, words, tmp_path):
    with pytest.raises(SeqclfError, match=f"setting metrics: .*{words}"):
        seqclf.train(experiment(metrics), tmp_path, "cpu")
    assert not list(tmp_path.iterdir())
