"""Training: equivalence with a hand-written loop, metrics, checkpoints and the files of a run."""

import json
import math
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import seqclf
from seqclf import LSTM, Clips, Data, Experiment, FrameSequenceClassifier, SeqclfError, mnist
from seqclf.data import sample_order
from seqclf.data.labelling import last_frame
from seqclf.evaluation.evaluator import evaluate
from seqclf.experiment.config import build_data, build_model
from seqclf.experiment.loading import load_experiment
from seqclf.experiment.rendering import render
from seqclf.experiment.schedules import one_cycle
from seqclf.experiment.settings import change
from seqclf.prediction import load_run
from seqclf.runtime.determinism import deterministic
from seqclf.runtime.profiling import covered
from seqclf.runtime.progress import Display
from seqclf.training.loop import train
from seqclf.training.state import PENDING, Window

ROOT = Path(__file__).resolve().parents[1]
DIGITS = mnist(source="digits")


def digits() -> Data:
    """The built-in digits: 1,388 to train, 50 to validate, 60 to test."""
    x, y = DIGITS.train.frames, DIGITS.train.labels
    test = Clips(DIGITS.test.frames[:60], DIGITS.test.labels[:60])
    return Data(Clips(x[:-50], y[:-50]), test, DIGITS.classes, "digits", Clips(x[-50:], y[-50:]))


TINY = Experiment(
    data=digits,
    model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8)),
    optimizer=partial(torch.optim.SGD, lr=0.1),
    steps=6,
    batch_size=8,
    log_every=1,
)


def lines_of(run: Path, part: str = "train") -> list[dict]:
    """The lines of metrics.jsonl of one part of the data."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["part"] == part]


def checkpoint_of(run: Path, step: int) -> dict:
    return torch.load(run / "checkpoints" / f"step_{step}.pt", weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small run of mnist_lastframe on digits with a validation part, evaluated every 5 of 23 steps."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shrink = "data.source=digits validation=0.028 model.temporal.hidden=16 steps=23 batch_size=32 log_every=7 keep=2"
    more = "eval_every=5 checkpoint_every=4 eval_batch=100"
    experiment = load_experiment(ROOT / "configs" / "mnist_lastframe.py", [*shrink.split(), *more.split()])
    train(experiment, folder, "cpu")
    return folder


def test_the_seed_config_follows_a_hand_written_pytorch_loop(tmp_path):
    shrink = "data.source=digits model.temporal.hidden=32 steps=20 batch_size=16 log_every=1"
    experiment = load_experiment(ROOT / "configs" / "mnist_seed.py", shrink.split())
    train(experiment, tmp_path / "run", "cpu")
    ours = lines_of(tmp_path / "run")

    initial = build_model(experiment, DIGITS)
    net, head = nn.LSTM(28, 32, 3, batch_first=True), nn.Linear(32, 10)
    net.load_state_dict(initial.temporal.state_dict())
    head.load_state_dict(initial.head.state_dict())
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
    for step in range(20):
        rows = sample_order(len(DIGITS.train), 16, 0, step)
        images, labels = DIGITS.train.frames[rows].float() / 255, DIGITS.train.labels[rows]
        logits = head(net(images)[0][:, -1])
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert abs(ours[step]["loss"] - loss.item()) < 1e-5, f"step {step}"
        assert ours[step]["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert [line["step"] for line in ours] == list(range(1, 21))
    trained = checkpoint_of(tmp_path / "run", 20)["model"]
    for name, weight in net.state_dict().items():
        torch.testing.assert_close(trained[f"temporal.{name}"], weight, atol=1e-5, rtol=0)
    assert (trained["head.weight"] - initial.head.weight).abs().max() > 1e-2, "20 steps change the weights"


@pytest.mark.parametrize("parts", [4, 3, 50])
def test_accumulation_changes_neither_losses_nor_weights(tmp_path, parts):
    train(TINY, tmp_path / "whole", "cpu")
    train(replace(TINY, accumulate=parts), tmp_path / "parts", "cpu")
    for one, many in zip(lines_of(tmp_path / "whole"), lines_of(tmp_path / "parts"), strict=True):
        assert one == pytest.approx(many, abs=1e-6)
    ours, theirs = (checkpoint_of(tmp_path / name, 6)["model"] for name in ("whole", "parts"))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)


def test_clip_norm_bounds_the_update_and_the_logged_norm_is_unclipped(tmp_path):
    experiment = replace(TINY, steps=1, optimizer=partial(torch.optim.SGD, lr=1.0))
    start = build_model(experiment, DIGITS).state_dict()
    norm, moved = {}, {}
    for clip in (None, 1e-2, 1e3):
        train(replace(experiment, clip_norm=clip), tmp_path / str(clip), "cpu")
        after = checkpoint_of(tmp_path / str(clip), 1)["model"]
        moved[clip] = math.sqrt(sum(float((after[name] - start[name]).double().square().sum()) for name in start))
        norm[clip] = lines_of(tmp_path / str(clip))[0]["grad_norm"]
    assert norm[None] == norm[1e-2] == norm[1e3] > 0.1
    assert moved[None] == moved[1e3] == pytest.approx(norm[None], rel=1e-3)
    assert moved[1e-2] == pytest.approx(1e-2, rel=1e-3)


def test_the_logged_learning_rate_follows_the_schedule(tmp_path):
    schedule = partial(one_cycle, warmup=0.5)
    train(replace(TINY, schedule=schedule), tmp_path / "run", "cpu")
    rates = [line["lr"] for line in lines_of(tmp_path / "run")]
    assert rates == pytest.approx([0.1 * schedule(step, 6) for step in range(6)], rel=1e-9)
    assert len(set(rates)) == 6


def test_the_schedule_scales_the_update(tmp_path):
    train(replace(TINY, steps=2, schedule=_first_step_only), tmp_path / "two", "cpu")
    train(replace(TINY, steps=1), tmp_path / "one", "cpu")
    one, two = checkpoint_of(tmp_path / "one", 1)["model"], checkpoint_of(tmp_path / "two", 2)["model"]
    assert all(torch.equal(one[name], two[name]) for name in one)


def _first_step_only(step: int, steps: int) -> float:
    return 1.0 if step == 0 else 0.0


def test_every_group_of_the_optimizer_keeps_its_own_rate(tmp_path):
    train(replace(TINY, steps=2, schedule=_half, optimizer=_head_faster), tmp_path / "run", "cpu")
    groups = checkpoint_of(tmp_path / "run", 2)["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == [0.05, 0.5]


def _half(step: int, steps: int) -> float:
    return 0.5


def _head_faster(parameters: list) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": parameters[:-2], "lr": 0.1}, {"params": parameters[-2:], "lr": 1.0}])


def test_parameters_that_no_group_trains_are_named(tmp_path, capsys):
    train(replace(TINY, steps=1, groups=lambda model: [{"params": model.head.parameters()}]), tmp_path / "run", "cpu")
    assert "temporal.weight_ih_l0" in capsys.readouterr().out


def test_bf16_learns_as_fp32_does_and_keeps_weights_in_fp32(tmp_path):
    experiment = replace(
        change(TINY, "model.temporal.hidden=32"), optimizer=partial(torch.optim.Adam, lr=0.01), steps=40, batch_size=64
    )
    losses = {}
    for precision in ("fp32", "bf16"):
        train(replace(experiment, precision=precision), tmp_path / precision, "cpu")
        losses[precision] = [line["loss"] for line in lines_of(tmp_path / precision)]
    ends = {precision: sum(x[-5:]) / 5 for precision, x in losses.items()}
    assert ends["fp32"] < losses["fp32"][0] - 0.7 and ends["bf16"] < losses["bf16"][0] - 0.7
    assert losses["bf16"] != losses["fp32"], "the precision has no effect"
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], abs=0.02)
    assert {x.dtype for x in checkpoint_of(tmp_path / "bf16", 40)["model"].values()} == {torch.float32}


@pytest.mark.parametrize("clips", [4, 8])
def test_a_batch_of_more_clips_than_there_are_is_noted(clips, tmp_path, capsys):
    train(
        replace(TINY, data=replace(DIGITS, train=DIGITS.train.subset(range(clips))), steps=1), tmp_path / "run", "cpu"
    )
    assert ("batch_size=8" in capsys.readouterr().out) == (clips < 8)


@pytest.mark.parametrize(
    ("setting", "function", "words"),
    [
        ("schedule", lambda step, steps: None, "None at step 0"),
        ("schedule", lambda step, steps: -1.0, "-1.0 at step 0"),
        ("schedule", lambda step, steps: float("nan"), "nan at step 0"),
        ("augment", lambda frames: frames, "TypeError"),
        ("augment", lambda frames, generator: None, "NoneType"),
        ("augment", lambda frames, generator: frames[:1], r"\(8, 28, 28\), not \(1, 28, 28\)"),
        ("augment", lambda frames, generator: frames[:, 1:], r"not \(8, 27, 28\)"),
        ("augment", lambda frames, generator: frames + 0.5, r"floats up to \d+, expected 0 to 1"),
        ("loss", lambda logits, labels, total: torch.zeros(()), "without a gradient"),
        ("loss", lambda logits, labels, total: logits.detach().sum(), "without a gradient"),
        ("optimizer", torch.optim.LBFGS, "LBFGS needs a closure"),
        ("optimizer", lambda parameters: None, "NoneType"),
        ("model", partial(FrameSequenceClassifier, head=lambda H, K: nn.Linear(H, K + 1)), r"\(1, 2, 11\).*10 classes"),
        ("model", partial(FrameSequenceClassifier, head=lambda H, K: None), "head must return a module"),
        ("model", partial(FrameSequenceClassifier, preprocess=lambda: None), "preprocess must return a module"),
        ("model", partial(FrameSequenceClassifier, temporal="GRU"), "temporal must be a module.*'GRU'"),
        ("model", partial(FrameSequenceClassifier, temporal=partial(nn.GRU, hidden_size=3)), "GRU .*is_first, state"),
        ("model", partial(FrameSequenceClassifier, temporal=nn.Linear(28, 3)), "Linear .*is_first, state"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(tmp_path, setting, function, words):
    prefix = "" if setting == "model" else f"setting {setting}: "
    with pytest.raises(SeqclfError, match=f"{prefix}.*{words}"):
        train(replace(TINY, **{setting: function}), tmp_path / "run", "cpu")


def test_augmentation_applies_to_training_only(tmp_path):
    for name, augment in (("plain", None), ("blank", torch.zeros_like)):
        experiment = replace(TINY, steps=1, augment=augment and _blank, optimizer=partial(torch.optim.SGD, lr=0.0))
        results = train(experiment, tmp_path / name, "cpu")
        losses = lines_of(tmp_path / name)[0]["loss"], results["parts"]["test"]["loss"]
        if name == "plain":
            before = losses
    assert before[0] != losses[0] and before[1] == losses[1]


def _blank(frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return torch.zeros_like(frames)


class _Counting(nn.Module):
    """Collects the samples that it receives: frames hold their sample's number."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.modes = [], set()

    def forward(self, frames, is_first=None, state=None, lengths=None):
        self.seen += frames[:, 0, 0].tolist()
        self.modes.add(self.training)
        return F.one_hot(frames[..., 0].long() % 3, 3).float(), None


@pytest.mark.parametrize("batch", [1, 4, 10, 1000])
def test_evaluation_counts_every_sample_once_for_any_batch_size(batch):
    clips = Clips(torch.arange(10)[:, None, None].expand(10, 2, 1).to(torch.uint8), torch.arange(10) % 3)
    model = _Counting()
    figures = evaluate(model, clips, 3, batch)
    assert model.seen == list(range(10))
    assert (figures["clips"], figures["frames"], figures["clip_last"]) == (10, 10, 1.0)
    assert figures["loss"] == pytest.approx(math.log(math.e + 2) - 1)
    assert model.modes == {False} and model.training, "evaluated in evaluation mode, handed back in training mode"


@pytest.mark.slow
def test_metrics_are_logged_at_every_interval_and_at_the_last_step(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(isinstance(line, dict) and isinstance(line["step"], int) for line in lines)
    assert [line["step"] for line in lines if line["part"] == "train"] == [7, 14, 21, 23]
    assert [line["step"] for line in lines if line["part"] == "validation"] == [5, 10, 15, 20, 23]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert {line["part"] for line in lines} == {"train", "validation"}
    assert {"loss", "accuracy", "grad_norm", "lr"} <= set(lines_of(run)[0])
    assert {"loss", "frame_accuracy", "clip_last", "clip_mean"} <= set(lines_of(run, "validation")[0])


def test_a_metrics_line_is_the_mean_since_the_previous_line(tmp_path):
    train(TINY, tmp_path / "each", "cpu")
    train(replace(TINY, log_every=4), tmp_path / "some", "cpu")
    each, some = lines_of(tmp_path / "each"), lines_of(tmp_path / "some")
    for name in ("loss", "accuracy", "grad_norm"):
        values = [line[name] for line in each]
        assert [line[name] for line in some] == pytest.approx([sum(values[:4]) / 4, sum(values[4:]) / 2])


def test_the_run_folder_holds_the_record_config_and_results(run):
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["train"] == {
        "clips": 1397,
        "frames": 28,
        "frame_shape": [28],
        "sha256": build_data(load_experiment(run / "config.py")).train.fingerprint(),
    }
    held_out = record["held_out"]
    assert held_out["by"] == "class" and len(held_out["clips"]) == 41 and held_out["groups"] is None
    assert record["data"]["validation"]["clips"] == 41 and record["data"]["test"]["clips"] == 359
    assert record["data"]["classes"] == list("0123456789") and "digits" in record["data"]["source"]
    environment = record["environment"]
    assert environment["torch"] == torch.__version__ and environment["seqclf"] == seqclf.__version__
    assert environment["device"] == "cpu" and environment["command"] == sys.argv
    assert record["parameters"] == sum(p.numel() for p in seqclf.load(run).model.parameters())
    assert record["seconds"] > 0 and record["started"] <= record["finished"] and record["resumed"] == []
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    assert render(load_experiment(run / "config.py")) == (run / "config.py").read_text()
    results = json.loads((run / "results.json").read_text())
    assert results["step"] == 23 and set(results["parts"]) == {"validation", "test"}
    assert not list(run.rglob("*.part"))
    with np.load(run / "most_wrong.npz") as worst:
        assert worst["sample"].tolist() == [row[0] for row in results["best"]["parts"]["test"]["most_wrong"]]
        assert np.array_equal(worst["frames"], DIGITS.test.frames[worst["sample"]].numpy())


def test_tensorboard_has_the_values_of_the_metrics_file(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    for part, name in (("train", "loss"), ("train", "lr"), ("validation", "clip_last")):
        message = [(event.step, event.value) for event in events.Scalars(f"{part}/{name}")]
        assert message == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines_of(run, part)]


def test_the_newest_checkpoints_and_the_best_are_kept_and_load_as_plain_tensors(run):
    results = json.loads((run / "results.json").read_text())
    lines = lines_of(run, "validation")
    highest = max(line["clip_last"] for line in lines)
    first = next(line["step"] for line in lines if line["clip_last"] == highest)
    best = results["best"]
    assert (best["step"], best["value"]) == (first, highest), "the earliest of the highest"
    assert best["metric"] == "clip_last" and best["parts"]["validation"]["clip_last"] == highest
    steps = sorted(int(path.stem[5:]) for path in (run / "checkpoints").iterdir())
    assert steps == sorted({first, *[23, 20]})
    for step in steps:
        content = checkpoint_of(run, step)
        assert content["step"] == step and content["experiment"] == (run / "config.py").read_text()
        assert content["data"]["train"]["clips"] == 1397


def test_an_early_best_checkpoint_is_kept(tmp_path):
    falling = replace(TINY, optimizer=partial(torch.optim.SGD, lr=0.0), eval_every=1, checkpoint_every=1, keep=2)
    results = train(falling, tmp_path / "run", "cpu")  # nothing is learned: no later figure is above the first
    assert results["best"]["step"] == 1
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step_1.pt",
        "step_5.pt",
        "step_6.pt",
    ]
    _, _, _, best = load_run(tmp_path / "run", "best")
    _, _, _, newest = load_run(tmp_path / "run", "newest")
    assert (best.name, newest.name) == ("step_1.pt", "step_6.pt")


def test_without_validation_no_checkpoint_is_best(tmp_path):
    experiment = replace(TINY, data=_without_validation, eval_every=2, checkpoint_every=100, keep=1)
    results = train(experiment, tmp_path / "run", "cpu")
    assert results["best"] is None
    assert checkpoint_of(tmp_path / "run", 6)["best"] is None
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_6.pt"]
    assert [line["step"] for line in lines_of(tmp_path / "run", "test")] == [2, 4, 6]


def _without_validation() -> Data:
    return replace(digits(), validation=None)


@pytest.fixture(scope="module")
def digit() -> tuple[torch.Tensor, int]:
    return DIGITS.test.frames[3], int(DIGITS.test.labels[3])


def test_a_loaded_run_gives_the_models_own_softmax_and_streams_alike(run, digit):
    frames, _ = digit
    predictor = seqclf.load(run, "newest")
    probabilities = predictor(frames).probabilities
    experiment, model = load_experiment(run / "config.py"), build_model(load_experiment(run / "config.py"), DIGITS)
    model.load_state_dict(checkpoint_of(run, experiment.steps)["model"])
    with torch.no_grad():
        logits, _ = model.eval()(frames[None])
    assert torch.equal(probabilities, logits[0].softmax(-1))
    assert torch.equal(predictor(frames.numpy()).probabilities, probabilities)
    torch.testing.assert_close(predictor(frames / 255).probabilities, probabilities)
    stream = predictor.stream()
    for _ in range(2):
        one_by_one = torch.stack([stream(frame) for frame in frames])
        torch.testing.assert_close(one_by_one, probabilities, atol=1e-6, rtol=1e-5)
        stream.reset()
    prediction = predictor(frames)
    best = int(probabilities[-1].argmax())
    assert prediction.label() == (str(best), float(probabilities[-1, best]))
    assert prediction.label("mean")[0] == str(int(probabilities.mean(0).argmax()))


@pytest.mark.parametrize("ink", ["white", "black"])
def test_predict_reads_a_picture_as_the_data_set_does(run, digit, tmp_path, tool, ink):
    frames, _ = digit
    pixels = frames.numpy() if ink == "white" else 255 - frames.numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    code, shown, _ = tool("predict", run, tmp_path / "digit.png")
    assert code == 0
    label, p = seqclf.load(run)(frames).label()
    assert f"{label} {p:.1%}" in shown
    assert ("inverted" in shown) == (ink == "black")


@pytest.mark.parametrize(("part", "checkpoint"), [("test", "newest"), ("validation", "newest"), ("validation", "best")])
def test_evaluate_reproduces_the_metrics_of_training(run, part, checkpoint, tool):
    code, shown, _ = tool("evaluate", run, "--part", part, "--checkpoint", checkpoint)
    assert code == 0
    results = json.loads((run / "results.json").read_text())
    step = results["best"]["step"] if checkpoint == "best" else 23
    figures = json.loads((run / f"evaluation_{part}_step_{step}.json").read_text())["parts"][part]
    if checkpoint == "newest":
        assert figures == results["parts"][part]
    else:
        assert figures["clip_last"] == results["best"]["value"]
    assert re.search(rf"\b{100 * figures['clip_last']:.2f}\s?%", shown)


def test_runs_of_one_seed_are_equal_and_of_another_are_not(tmp_path):
    texts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(TINY, seed=seed), tmp_path / name, "cpu")
        texts.append((tmp_path / name / "metrics.jsonl").read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_evaluations_do_not_change_training(tmp_path):
    model = change(TINY, "model.temporal.dropout_after=0.5").model
    for name, every in (("often", 1), ("once", 100)):
        train(replace(TINY, model=model, eval_every=every), tmp_path / name, "cpu")
    assert lines_of(tmp_path / "often") == lines_of(tmp_path / "once")


def test_labelling_changes_the_metrics_not_the_logits():
    per_clip, per_frame = mnist(source="digits"), mnist(source="digits", labelling=seqclf.labelling.every_frame)
    model = build_model(TINY, per_clip)
    a, b = (evaluate(model, data.test, 10) for data in (per_clip, per_frame))
    assert (a["frames"], b["frames"]) == (359, 359 * 28)
    assert (a["clip_last"], a["clip_mean"]) == (b["clip_last"], b["clip_mean"])
    assert per_clip.train.labelling is last_frame and per_clip.train.fingerprint() == per_frame.train.fingerprint()


def test_a_terminal_shows_one_live_line_from_the_first_step_to_the_end(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich treat the output as a terminal
    display = Display(10)
    display.say("reading")
    assert capsys.readouterr().out.strip() == "reading", "no bar before there is a step"
    display.begin(4)
    display.refreshed = float("-inf")
    display.step(7)
    shown = capsys.readouterr().out
    assert "step 4/10" in shown and "step 7/10" in shown
    assert display.rate() > 0
    display.close()
    assert display.bar is not None and not display.bar.live.is_started


def test_a_profile_writes_a_trace_and_prints_the_most_expensive_operations(tmp_path, capsys):
    train(replace(TINY, steps=20), tmp_path / "run", "cpu", profile=True)
    output = capsys.readouterr().out
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    assert {event["name"] for event in trace["traceEvents"]} >= {"ProfilerStep#12", "ProfilerStep#16"}
    assert re.search(r"5 steps of [\d.]+ ms; the CPU is idle for [\d.]+%", output)
    shares = [float(x) for x in re.findall(r"^ +([\d.]+)% +[\d.]+ ms a step +\d+ x  \S+", output, re.M)]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100


def test_a_run_too_short_to_be_profiled_prints_a_message(tmp_path, capsys):
    train(TINY, tmp_path / "run", "cpu", profile=True)
    assert "nothing was traced" in capsys.readouterr().out


def test_covered_time_counts_overlaps_once():
    assert covered([(2, 5), (0, 3), (4, 6), (8, 20)], 1, 10) == 7
    assert covered([], 0, 1) == 0


def test_cuda_graph_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(seqclf.SeqclfError, match="setting cuda_graph=True"):
        train(replace(TINY, cuda_graph=True), tmp_path / "run", "cpu")


def test_deterministic_changes_nothing_on_the_cpu_and_is_reset_after_the_run(tmp_path):
    for name, wanted in (("free", False), ("bound", True)):
        train(replace(TINY, deterministic=wanted), tmp_path / name, "cpu")
        assert not torch.are_deterministic_algorithms_enabled()
    free, bound = (checkpoint_of(tmp_path / name, 6)["model"] for name in ("free", "bound"))
    assert all(torch.equal(free[name], bound[name]) for name in free)


def test_an_operation_without_a_deterministic_form_is_refused():
    words = "^setting deterministic=True: put_ does not have a deterministic"
    with pytest.raises(seqclf.SeqclfError, match=words), deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError("put_ does not have a deterministic implementation")
    with pytest.raises(RuntimeError, match="another"), deterministic(True):
        raise RuntimeError("another mistake")


def test_the_share_of_time_waiting_for_data_is_measured(monkeypatch):
    now = 0.0
    monkeypatch.setattr("seqclf.runtime.progress.time.perf_counter", lambda: now)

    def slow():
        nonlocal now
        for i in range(3):
            now += 3
            yield i

    display = Display(3, quiet=True)
    now = 50.0
    display.begin(0)
    assert display.waits() == 0
    for done, _ in enumerate(display.waiting(slow()), 1):
        now += 5
        display.step(done)
    now += 6
    display.pause(6)
    assert display.waits() == pytest.approx(9 / 24) and display.rate() == pytest.approx(3 / 24)


def test_channels_last_changes_the_layout_only():
    def model(channels_last: bool) -> FrameSequenceClassifier:
        torch.manual_seed(0)
        parts = {"conv": partial(nn.Conv2d, 3, 4, 3), "relu": nn.ReLU, "flat": nn.Flatten}
        encoder, temporal = partial(seqclf.Chain, parts=parts), partial(LSTM, hidden=5)
        return FrameSequenceClassifier(
            encoder=encoder, temporal=temporal, frame_shape=(3, 6, 6), num_classes=2, channels_last=channels_last
        )

    frames = torch.randint(0, 256, (2, 3, 3, 6, 6), dtype=torch.uint8)
    plain, last = model(False), model(True)
    assert last.encoder.conv.weight.is_contiguous(memory_format=torch.channels_last)
    last.load_state_dict(plain.state_dict())
    torch.testing.assert_close(last(frames)[0], plain(frames)[0])


def test_compile_compiles_the_encoder(tmp_path):
    with torch.compiler.set_stance("fail_on_recompile"):  # an attempt to compile is an error
        train(TINY, tmp_path / "plain", "cpu")
        with pytest.raises(RuntimeError, match=r"models/encoder\.py|fail_on_recompile"):  # PyTorch 2.6: no file
            train(replace(TINY, compile=True), tmp_path / "compiled", "cpu")
    with torch.compiler.set_stance("force_eager"):
        train(replace(TINY, compile=True), tmp_path / "eager", "cpu")


def test_a_window_of_many_steps_keeps_few_measurements_and_loses_none():
    window, steps = Window(), PENDING + 5
    for k in range(steps):
        window.add(torch.tensor([k, 1, 2, 4], dtype=torch.float64))
        assert len(window.pending) < PENDING
    sums = {"loss": sum(range(steps)), "norm": steps, "right": 2 * steps, "labelled": 4 * steps, "steps": steps}
    assert window.state_dict() == sums
    assert window.means()["accuracy"] == 0.5
