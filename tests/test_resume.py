"""A resumed run equals an uninterrupted one bit for bit, and checkpoints survive every way that a run ends."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import seqclf
from seqclf import LSTM, Clips, Data, Experiment, FrameSequenceClassifier, SeqclfError, mnist
from seqclf.data import sample_order
from seqclf.experiment.loading import load_experiment
from seqclf.experiment.losses import cross_entropy
from seqclf.experiment.schedules import one_cycle
from seqclf.experiment.settings import change
from seqclf.runs.checkpoint import list_checkpoints, load_checkpoint, load_newest
from seqclf.runs.folder import RunFolder
from seqclf.runs.metrics_file import MetricsWriter
from seqclf.runtime.files import write_json
from seqclf.runtime.signals import stop_signals
from seqclf.training.loop import Stopped, train

ROOT = Path(__file__).resolve().parents[1]
DIGITS = mnist(source="digits")


class Killed(BaseException):
    """Ends a run as SIGKILL does: no handler catches it."""


def digits(labels_from: int = 0) -> Data:
    """200 of the built-in digits to train, 30 to validate, 30 to test."""
    x, y = DIGITS.train.frames, DIGITS.train.labels
    train_part = Clips(x[:200], y[labels_from : 200 + labels_from])
    return Data(train_part, Clips(x[-30:], y[-30:]), DIGITS.classes, "digits", Clips(x[-60:-30], y[-60:-30]))


def jitter(frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """An augmentation that draws from the step's generator; ends the run at a step of the test."""
    WHEN["call"] += 1
    if WHEN["call"] == WHEN["kill"]:
        raise Killed
    if WHEN["call"] == WHEN["signal"]:
        os.kill(os.getpid(), signal.SIGTERM)
    return frames.roll(int(torch.randint(-2, 3, (), generator=generator)), 2)


def nan_at(logits: torch.Tensor, labels: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """The loss, but NaN in one step."""
    loss = cross_entropy(logits, labels, total)
    return loss * torch.nan if WHEN["call"] == WHEN["nan"] else loss


def steep_at(logits: torch.Tensor, labels: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """The loss, but with an infinite gradient in one step."""
    loss = cross_entropy(logits, labels, total)
    return loss + (loss - loss.detach()).sqrt() if WHEN["call"] == WHEN["nan"] else loss


WHEN = {"call": 0, "kill": None, "signal": None, "nan": None}
RUN = Experiment(
    data=digits,
    model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8, layers=2, dropout=0.4)),
    optimizer=partial(torch.optim.Adam, lr=0.02),
    schedule=partial(one_cycle, warmup=0.3),
    augment=jitter,
    clip_norm=0.5,
    steps=20,
    batch_size=16,
    log_every=7,
    checkpoint_every=5,
    eval_every=6,
    keep=2,
)


def go(experiment: Experiment, run: Path, resume: bool = False, **when: int) -> dict:
    """Trains. `kill`, `signal` and `nan` are the step of this process, counted from 1."""
    WHEN.update(call=0, kill=None, signal=None, nan=None)
    WHEN.update(when)
    return train(experiment, run, "cpu", resume)


def same(a: object, b: object) -> bool:
    """Deep equality of checkpoints, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def assert_same_run(run: Path, whole: Path) -> None:
    """Final checkpoints, metrics and results are equal, and no temporary files are left."""
    newest = list_checkpoints(whole / "checkpoints")[0].name
    contents = [torch.load(r / "checkpoints" / newest, weights_only=True) for r in (run, whole)]
    assert same(*contents)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    results = [json.loads((r / "results.json").read_text()) for r in (run, whole)]
    assert results[0]["parts"] == results[1]["parts"] and results[0]["best"] == results[1]["best"]
    assert {p.name for p in (run / "checkpoints").iterdir()} == {p.name for p in (whole / "checkpoints").iterdir()}
    assert not list(run.rglob("*.part"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    go(RUN, run)
    return run


def test_the_comparison_detects_another_seed(whole, tmp_path):
    go(replace(RUN, seed=1), tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(1,), (5,), (6,), (7,), (8,), (11, 3), (13, 1, 2), (16,), (20,), (9, 9)], ids=str)
def test_a_run_killed_in_any_step_and_resumed_equals_the_uninterrupted_run(whole, tmp_path, kills):
    run = tmp_path / "run"
    for i, kill in enumerate(kills):
        with pytest.raises(Killed):
            go(RUN, run, resume=i > 0, kill=kill)
    go(RUN, run, resume=True)
    assert_same_run(run, whole)
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == len(kills)


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("call", [3, 5, 6])
def test_a_run_killed_while_writing_a_checkpoint_resumes_from_the_previous_one(
    whole, tmp_path, monkeypatch, function, call
):
    run, calls = tmp_path / "run", []
    real = getattr(os, function)

    def killing(*args):
        calls.append(args)
        if len(calls) == call:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, killing)
        with pytest.raises(Killed):
            go(RUN, run)
    go(RUN, run, resume=True)
    assert_same_run(run, whole)


def test_leftover_files_of_a_killed_run_are_removed(whole, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Killed):
        go(RUN, run, kill=14)  # the newest checkpoint is of step 12, the best, or 10
    (run / "checkpoints" / ".step_3.pt.77.part").write_bytes(b"half a checkpoint")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 14, "part": "train", "loss": 2.2}\n{"step": 15, "pa')
    go(RUN, run, resume=True)
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    ("precision", "temporal"),
    [("bf16", "LSTM"), ("fp16", "Identity")],  # PyTorch has no LSTM in fp16 on most CPUs
)
def test_low_precision_runs_resume_bit_for_bit(tmp_path, precision, temporal):
    experiment = change(replace(RUN, precision=precision, accumulate=2), f"model.temporal={temporal}")
    go(experiment, tmp_path / "whole")
    with pytest.raises(Killed):
        go(experiment, tmp_path / "run", kill=12)
    go(experiment, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    scaler = load_checkpoint(tmp_path / "run" / "checkpoints" / "step_20.pt")["scaler"]
    assert (scaler.get("_growth_tracker", 0) > 0) == (precision == "fp16"), "the loss scaling counts its steps"


def test_a_signal_saves_a_checkpoint_that_resumes_bit_for_bit(whole, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=r"SIGTERM .*step_9\.pt"):
        go(RUN, tmp_path / "run", signal=9)
    assert signal.getsignal(signal.SIGTERM) is before
    go(RUN, tmp_path / "run", resume=True)
    kept = tmp_path / "run" / "checkpoints"
    assert_same_run(tmp_path / "run", whole)
    assert "step_9.pt" not in {p.name for p in kept.iterdir()}


def test_a_signal_in_the_last_step_lets_the_run_finish(whole, tmp_path):
    assert go(RUN, tmp_path / "run", signal=20)["step"] == 20
    assert_same_run(tmp_path / "run", whole)


def test_resuming_a_finished_run_returns_its_results(whole, tmp_path):
    run = tmp_path / "run"
    go(RUN, run)
    before = json.loads((run / "results.json").read_text())
    after = go(RUN, run, resume=True)
    assert after["parts"]["test"] == before["parts"]["test"] and after["best"] == before["best"]
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_resuming_with_fewer_steps_than_done_is_refused(tmp_path):
    go(RUN, tmp_path / "run")
    before = (tmp_path / "run" / "results.json").read_text()
    with pytest.raises(SeqclfError, match="steps"):
        go(replace(RUN, steps=10), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "results.json").read_text() == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(whole, tmp_path, capsys, damage):
    run = tmp_path / "run"
    with pytest.raises(Killed):
        go(RUN, run, kill=17)
    newest, before = list_checkpoints(run / "checkpoints")[:2]
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"truncated": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=newest.name):  # reading skips it, too
        assert seqclf.load(run).model is not None
    capsys.readouterr()
    go(RUN, run, resume=True)
    shown = capsys.readouterr().out
    assert re.search(rf"skipped: checkpoint \S*{newest.name} is damaged", shown)
    assert f"resuming from {before} at step {before.stem[5:]}" in shown
    assert_same_run(run, whole)


def test_a_run_with_damaged_checkpoints_only_is_refused(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Killed):
        go(RUN, run, kill=12)
    files = list_checkpoints(run / "checkpoints")
    for path in files:
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SeqclfError, match="all checkpoints are damaged") as message:
        go(RUN, run, resume=True)
    assert len(files) == 2 and all(path.name in str(message.value) for path in files)
    with pytest.raises(SeqclfError, match="all checkpoints are damaged"):
        seqclf.load(run)


def test_any_flipped_byte_of_a_checkpoint_is_detected_or_harmless(whole, tmp_path):
    source = list_checkpoints(whole / "checkpoints")[0]
    content, truth = source.read_bytes(), load_checkpoint(source)
    path, draw, found = tmp_path / "step_1.pt", random.Random(0), 0
    for _ in range(60):
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :])
        try:
            assert same(load_checkpoint(path), truth), f"byte {at} is changed, and so is what was read"
        except SeqclfError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 20


def test_a_full_disk_is_reported_and_earlier_checkpoints_are_kept(whole, tmp_path, monkeypatch):
    run, real, calls = tmp_path / "run", os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) >= 5:  # two calls for each checkpoint: the file's, the folder's
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SeqclfError, match=r"No space left on device") as message:
            go(RUN, run)
    kept = [p.name for p in list_checkpoints(run / "checkpoints")]
    assert len(kept) == 2 and f"Earlier checkpoints are unchanged: {', '.join(kept)}" in str(message.value)
    assert not list((run / "checkpoints").glob("*.part"))
    for path in list_checkpoints(run / "checkpoints"):
        load_checkpoint(path)
    go(RUN, run, resume=True)
    assert_same_run(run, whole)


def test_a_write_that_fails_midway_is_reported(tmp_path, monkeypatch, file_limit):
    run, save = tmp_path / "run", torch.save

    def limited(content, stream):
        with file_limit(2000) if content["step"] > 5 else nullcontext():
            save(content, stream)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", limited)
        with pytest.raises(SeqclfError, match="cannot be written"):
            go(RUN, run)
    found = load_newest(run / "checkpoints")
    assert found is not None and found[1]["step"] == 5 and found[2] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_metrics_file_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(SeqclfError, match=r"metrics\.jsonl: cannot be written .*No space left"),
        closing(MetricsWriter(tmp_path / "metrics.jsonl")) as record,
    ):
        record.add(1, "train", {"loss": 1.0})


def test_json_files_have_null_for_numbers_that_are_not_finite(tmp_path):
    with closing(MetricsWriter(tmp_path / "metrics.jsonl")) as record:
        record.add(1, "train", {"loss": 0.5, "grad_norm": float("nan")})
    written = write_json(tmp_path / "a.json", {"a": [1.5, (float("-inf"), None)], "b": {"c": float("nan")}})
    read = [json.loads(p.read_text(), parse_constant=pytest.fail) for p in (tmp_path / "metrics.jsonl", written)]
    assert read[0] == {"step": 1, "part": "train", "loss": 0.5, "grad_norm": None}
    assert read[1] == {"a": [1.5, [None, None]], "b": {"c": None}}


@pytest.mark.parametrize("limit", [0, 100])
def test_tensorboard_events_that_cannot_be_written_are_reported_by_the_step(tmp_path, file_limit, limit):
    (tmp_path / "metrics.jsonl").symlink_to(os.devnull)
    threads = threading.active_count()
    with (
        file_limit(limit),
        pytest.raises(SeqclfError, match=r"metrics\.jsonl: cannot be written"),
        closing(MetricsWriter(tmp_path / "metrics.jsonl")) as record,
    ):
        for step in range(1, 9):
            record.add(step, "train", {"loss": 1.0})
            assert threading.active_count() == threads  # a thread could not raise the error here


def test_the_users_modules_that_cannot_be_copied_are_named(tmp_path, file_limit):
    (tmp_path / "mine.py").write_text(
        "from seqclf import Data, Experiment\n"
        "def make(): return Data(None, None, 'ab')\n"
        f"def get_config(): return Experiment(make, make, make, 1, 1)\n#{'.' * 2000}"
    )
    experiment = load_experiment(tmp_path / "mine.py")
    with file_limit(2000), pytest.raises(SeqclfError, match=r"sources.*mine\.py: cannot be written"):
        RunFolder(tmp_path / "run").write_config(experiment)


@pytest.mark.parametrize(("loss", "message"), [(nan_at, "loss is nan"), (steep_at, "gradient norm is (inf|nan)")])
@pytest.mark.parametrize(("step", "kept"), [(1, "no checkpoint was saved yet"), (9, r"step_6\.pt"), (10, r"step_6")])
def test_a_loss_or_gradient_that_is_not_finite_ends_the_run(tmp_path, loss, message, step, kept):
    experiment = replace(RUN, loss=loss, eval_every=6, checkpoint_every=6)
    with pytest.raises(SeqclfError, match=rf"^step {step}: .*{message}.*{kept}") as error:
        go(experiment, tmp_path / "run", nan=step)
    rows = ", ".join(map(str, sample_order(200, 16, 0, step - 1).tolist()[:8]))
    rate = 0.02 * RUN.schedule(step - 1, 20)
    assert f"at learning rate {rate:.3g}, in the batch of samples {rows}, ... (seed 0, step {step - 1})" in str(
        error.value
    )
    steps = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert steps == (["step_6.pt"] if step > 6 else [])
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "step_6.pt") if steps else {"model": {}}
    assert all(x.isfinite().all() for x in content["model"].values())
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_diverging_run_ends_with_that_error(tmp_path):
    experiment = replace(RUN, optimizer=partial(torch.optim.SGD, lr=1e38), clip_norm=None)
    with pytest.raises(SeqclfError, match=r"^step \d+: .*(nan|inf)"):
        go(experiment, tmp_path / "run")
    with pytest.raises(SeqclfError, match=r"no checkpoint.*delete it.*--workdir"):
        go(RUN, tmp_path / "run")


def test_a_run_folder_is_not_overwritten(whole, tmp_path):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(SeqclfError, match=r"--workdir.*--resume"):
        go(RUN, whole)
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SeqclfError, match="is not empty"):
        go(RUN, tmp_path)
    with pytest.raises(SeqclfError, match="holds no run to resume"):
        go(RUN, tmp_path, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("override", "setting", "old", "new", "may_change"),
    [
        ("batch_size=8", "batch_size", "16", "8", False),
        ("seed=3", "seed", "0", "3", False),
        ("model.temporal.hidden=9", "model.temporal.hidden", "8", "9", False),
        ("model.temporal.dropout=0.1", "model.temporal.dropout", "0.4", "0.1", False),
        ("precision=bf16", "precision", "'fp32'", "'bf16'", False),
        ("data.labels_from=1", "data.labels_from", "its default", "1", False),
        ("optimizer=torch.optim.SGD", "optimizer", "torch.optim.Adam", "torch.optim.SGD", False),
        ("optimizer.lr=0.5", "optimizer.lr", "0.02", "0.5", True),
        ("optimizer.weight_decay=0.1", "optimizer.weight_decay", "its default", "0.1", True),
        ("schedule=constant", "schedule", "seqclf.schedules.one_cycle", "constant", True),
        ("schedule.warmup=0.1", "schedule.warmup", "0.3", "0.1", True),
        ("clip_norm=None", "clip_norm", "0.5", "None", True),
        ("augment=None", "augment", "test_resume.jitter", "None", True),
    ],
)
def test_a_changed_setting_is_refused_with_both_values_and_ways_out(whole, override, setting, old, new, may_change):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(SeqclfError) as error:
        go(change(RUN, override), whole, resume=True)
    message = str(error.value)
    assert re.search(rf"{setting} was {re.escape(old)} and is now \S*{re.escape(new)}", message)
    assert (f"--allow {setting}" in message) == may_change and f"--init {whole}" in message
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "name", ["batch_size", "seed", "data", "data.root2", "model.temporal.hidden", "optimizer", "x"]
)
def test_a_setting_that_cannot_change_cannot_be_allowed(whole, name):
    with pytest.raises(SeqclfError, match=rf"--allow {name}: "):
        train(RUN, whole, "cpu", resume=True, allow=[name])


@pytest.mark.parametrize(
    ("overrides", "allow"),
    [
        (["optimizer.lr=0.001"], ["optimizer.lr"]),
        (["optimizer.weight_decay=0.5"], ["optimizer.weight_decay"]),
        (["schedule=constant", "clip_norm=None"], ["schedule", "clip_norm"]),
        (["augment=None"], ["augment"]),
    ],
)
def test_an_allowed_setting_takes_effect_and_is_recorded(whole, tmp_path, overrides, allow):
    run, changed = tmp_path / "run", RUN
    for override in overrides:
        changed = change(changed, override)
    with pytest.raises(Killed):
        go(RUN, run, kill=8)
    first = torch.load(run / "checkpoints" / "step_6.pt", weights_only=True)
    WHEN.update(call=0, kill=None)
    train(changed, run, "cpu", resume=True, allow=allow)
    record = json.loads((run / "run.json").read_text())
    assert record["resumed"][0]["step"] == first["step"] == 6
    assert {name.split(".")[0] for name in record["resumed"][0]["changed"]} == {a.split(".")[0] for a in allow}
    ends = [torch.load(r / "checkpoints" / "step_20.pt", weights_only=True) for r in (run, whole)]
    assert not same(ends[0]["model"], ends[1]["model"]), "the change has no effect"
    if "optimizer.weight_decay" in allow:
        assert ends[0]["optimizer"]["param_groups"][0]["weight_decay"] == 0.5
    WHEN.update(call=0)
    train(changed, run, "cpu", resume=True)  # the run's settings are the new ones from now on


def test_resuming_with_changed_data_is_refused(whole, monkeypatch):
    labels = DIGITS.train.labels.clone()
    labels[17] = (labels[17] + 1) % 10
    monkeypatch.setattr(DIGITS.train, "labels", labels)
    with pytest.raises(SeqclfError, match="its train data has changed"):
        go(RUN, whole, resume=True)


def test_settings_that_do_not_affect_the_weights_may_change_on_resuming(whole, tmp_path):
    with pytest.raises(Killed):
        go(RUN, tmp_path / "run", kill=8)
    go(replace(RUN, keep=1, checkpoint_every=4, eval_batch=7), tmp_path / "run", resume=True)
    ends = [torch.load(r / "checkpoints" / "step_20.pt", weights_only=True) for r in (tmp_path / "run", whole)]
    assert same(ends[0]["model"], ends[1]["model"]) and same(ends[0]["optimizer"], ends[1]["optimizer"])


def start_tool(programs: Path, run: Path, *arguments: str) -> subprocess.Popen:
    command = [programs / "python", ROOT / "tools" / "train.py", "--workdir", run, "--device", "cpu", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(
        command, cwd=run.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    """Waits for a checkpoint of this step or a later one."""
    for _ in range(12_000):
        if any(int(path.stem[5:]) >= step for path in list_checkpoints(run / "checkpoints")):
            return
        assert process.poll() is None, f"ended by itself: {process.communicate()[0]}"
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"no step {step} in a minute")


@pytest.mark.slow
def test_a_command_killed_twice_and_stopped_once_equals_an_uninterrupted_run(programs, tmp_path):
    settings = "data.source=digits validation=0.04 model.temporal.hidden=24 model.temporal.dropout=0.2 steps=400"
    more = "batch_size=16 checkpoint_every=8 log_every=11 eval_every=90"
    config = str(ROOT / "configs" / "mnist_lastframe.py")
    train(load_experiment(config, f"{settings} {more}".split()), tmp_path / "whole", "cpu")
    run = tmp_path / "run"

    process = start_tool(programs, run, "--config", config, *settings.split(), *more.split())
    wait_for_step(process, run, 16)
    process.kill()
    process.communicate()
    first = int(list_checkpoints(run / "checkpoints")[0].stem[5:])

    process = start_tool(programs, run, "--resume")
    wait_for_step(process, run, first + 20)
    process.terminate()
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, shown
    stopped = re.search(r"stopped by SIGTERM after step (\d+); saved (\S+)\nto resume: (.*)\n$", shown)
    assert f"resuming from {run / 'checkpoints' / f'step_{first}.pt'} at step {first}" in shown
    assert stopped and Path(stopped[2]) == list_checkpoints(run / "checkpoints")[0]
    assert f"--workdir {run} --resume" in stopped[3] and "Traceback" not in shown

    process = start_tool(programs, run, "--resume")
    wait_for_step(process, run, int(stopped[1]) + 5)
    time.sleep(0.017)  # somewhere in a step, or in the writing of a checkpoint
    process.kill()
    process.communicate()
    (run / "checkpoints" / ".step_399.pt.77.part").write_bytes(b"half")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5')

    process = start_tool(programs, run, "--resume")
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    assert_same_run(run, tmp_path / "whole")
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 3


def test_a_second_signal_has_its_usual_effect_except_under_torchrun():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores SIGINT
    try:
        with stop_signals(repeated=True) as seen:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
            assert seen == [signal.SIGINT] * 2
        with stop_signals() as seen:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, previous)
