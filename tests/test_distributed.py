"""Several processes equal one: losses, weights and metrics, also when a run is stopped and resumed."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from distributed_runs import RUNS, SAME, STEPS, STRUCK_AT, evaluated

from seqclf import SeqclfError
from seqclf.runs.folder import RunFolder
from seqclf.runs.start import open_run
from seqclf.runtime.devices import pick_device
from seqclf.runtime.distributed import World, launch
from seqclf.training.checks import check_processes
from seqclf.training.loop import train

ROOT = Path(__file__).resolve().parents[1]


REAL = (sys.executable, "-m", "torch.distributed.run")


@pytest.fixture(scope="module")
def torchrun(programs):
    """Runs a script in several processes of one thread. They find each other at a port of their own."""

    def run(processes, *command, restarts=0, timeout=600, program=(programs / "torchrun",), **environment):
        options = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
        return subprocess.run(
            [*program, *options, *map(str, command)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            cwd=ROOT / "tests",
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """All runs with one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in SAME:
        train(RUNS[name], folder / name, "cpu")
    return folder


def weights(run):
    return torch.load(run / "checkpoints" / f"step_{STEPS}.pt")["model"]


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def expect_equal(run, other):
    torch.testing.assert_close(weights(run), weights(other), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(lines(run), lines(other), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            near = 2e-3 if name.endswith("_map") else 1e-5  # rounding changes the order of scores that nearly tie
            assert value == (theirs[name] if isinstance(value, str) else pytest.approx(theirs[name], abs=near))


@pytest.fixture(scope="module")
def several(torchrun, tmp_path_factory):
    """All runs with two and with three processes."""
    folders = {}
    for processes in (2, 3):
        folders[processes] = tmp_path_factory.mktemp(f"by_{processes}")
        done = torchrun(processes, "distributed_runs.py", folders[processes])
        assert done.returncode == 0, done.stderr
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_equal_one(processes, alone, several):
    folder = several[processes]
    for name in SAME:
        expect_equal(folder / name, alone / name)
        assert len(lines(folder / name)) == STEPS / 10 + 2, "one process writes"
    for rank in range(processes):
        assert torch.load(folder / f"figures_{rank}.pt") == evaluated(World())
        norm = torch.load(folder / f"norm_{rank}.pt")
        assert norm["running_mean"].tolist() == [(processes - 1) / 2] * 2 and norm["running_var"].tolist() == [1, 1]


@pytest.mark.slow
def test_a_killed_process_is_restarted_and_the_run_is_unchanged(torchrun, several, tmp_path):
    done = torchrun(2, "distributed_runs.py", tmp_path, "struck", restarts=1, STRIKE="SIGKILL")
    assert done.returncode == 0, done.stderr
    killed, undisturbed = tmp_path / "struck", several[2] / "struck"
    assert [at["step"] for at in json.loads((killed / "run.json").read_text())["resumed"]] == [20]
    for ours, theirs in zip(weights(killed).values(), weights(undisturbed).values(), strict=True):
        assert torch.equal(ours, theirs)
    assert lines(killed) == lines(undisturbed)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_any_number_can_resume(torchrun, alone, tmp_path):
    stopped = torchrun(2, "distributed_runs.py", tmp_path / "1", "struck", STRIKE="SIGTERM")
    assert stopped.returncode != 0
    assert f"SIGTERM after step {STRUCK_AT}" in stopped.stderr
    assert (tmp_path / "1" / "struck" / "checkpoints" / f"step_{STRUCK_AT}.pt").exists()
    assert not (tmp_path / "1" / "struck" / "results.json").exists()
    shutil.copytree(tmp_path / "1", tmp_path / "3")
    train(RUNS["struck"], tmp_path / "1" / "struck", "cpu", resume=True)
    done = torchrun(3, "distributed_runs.py", tmp_path / "3", "struck")
    assert done.returncode == 0, done.stderr
    for processes in ("1", "3"):
        run = tmp_path / processes / "struck"
        assert [at["step"] for at in json.loads((run / "run.json").read_text())["resumed"]] == [STRUCK_AT]
        expect_equal(run, alone / "struck")


@pytest.mark.slow
def test_each_process_has_its_own_random_numbers_and_the_first_those_of_one_alone(torchrun, tmp_path):
    for processes in (1, 2):
        draws = str(tmp_path / f"draws_{processes}")
        done = torchrun(processes, "distributed_runs.py", tmp_path / str(processes), "drawn", DRAWS=draws)
        assert done.returncode == 0, done.stderr
    names = ("draws_1_0", "draws_2_0", "draws_2_1")
    alone, first, second = ((tmp_path / name).read_text().split()[1:] for name in names)  # after the check of the loss
    assert alone == first and len(first) == len(second) == 3
    assert len({*first, *second}) == 6, "each process draws its own numbers, and others in each step"


@pytest.mark.slow
def test_a_script_can_form_groups_one_after_the_other(torchrun, tmp_path):
    script = tmp_path / "groups.py"
    block = "with joined('cpu') as world: print(len(world.gather(world.rank)))\n"
    script.write_text(f"from seqclf.runtime.distributed import joined\n{3 * block}")
    done = torchrun(2, script)
    assert (done.returncode, done.stdout.count("2")) == (0, 6), done.stderr


@pytest.mark.slow
def test_an_error_is_printed_once_and_one_report_is_written(torchrun, tmp_path):
    config = ROOT / "configs" / "mnist_perframe.py"
    settings = ["data.source=digits", "steps=4", "batch_size=9", "eval_batch=100"]
    tool = [ROOT / "tools" / "train.py", "--config", config, "--device", "cpu", "--workdir", tmp_path / "run"]
    for setting, sentence in (("batch_size=1", "setting batch_size=1: "), ("validation=1.0", "setting validation=1.0")):
        wrong = torchrun(2, *tool, *settings, setting)
        assert wrong.returncode != 0
        assert wrong.stderr.count("error: ") == wrong.stderr.count(f"error: {sentence}") == 1
    right = torchrun(2, *tool, *settings, program=REAL)
    assert right.returncode == 0, right.stderr
    assert right.stdout.count("report: ") == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["environment"]["processes"] == 2


@pytest.mark.slow
def test_the_process_that_failed_has_time_to_print_its_error(torchrun, tmp_path):
    script = tmp_path / "late.py"
    script.write_text(
        "import sys, time\n"
        "from seqclf import SeqclfError\n"
        "from seqclf.cli.main import run\n"
        "from seqclf.runtime.distributed import joined\n"
        "def fail(): raise SeqclfError('of one process')\n"
        "def command(words):\n"
        "    with joined('cpu') as world:\n"
        "        try: world.lead(fail)\n"
        "        finally: time.sleep(2 * world.leads)\n"
        "sys.exit(run(command, []))\n"
    )
    assert torchrun(2, script).stderr.count("error: of one process\n") == 1


@pytest.mark.slow
def test_a_restart_needs_a_run_folder(torchrun, tmp_path):
    done = torchrun(
        2, ROOT / "tools" / "train.py", "--config", ROOT / "configs" / "mnist_perframe.py", "steps=1", restarts=1
    )
    assert "error: torchrun --max-restarts needs workdir= (--workdir DIR)" in done.stderr
    assert done.stderr.count("error: ") == 2, "once by each of the two starts"


def test_a_restart_resumes_its_own_run_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    experiment = replace(RUNS["clip"], steps=3)
    train(experiment, tmp_path, "cpu")
    data = json.loads((tmp_path / "run.json").read_text())["data"]
    again = partial(open_run, RunFolder(tmp_path), experiment, data)
    start = again(False, (), World(restarts=1))
    assert start.path.name == "step_3.pt" and start.step == 3
    with pytest.raises(SeqclfError, match="--workdir"):
        again(False, (), World())
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    with pytest.raises(SeqclfError, match="--workdir"):
        again(False, (), World(restarts=1))


def test_other_data_and_a_batch_smaller_than_the_processes_are_refused():
    check_processes([["a", "b"]] * 3, 3)
    with pytest.raises(SeqclfError, match="process 2 of 3"):
        check_processes([["a", "b"], ["a", "b"], ["a", "c"]], 3)
    with pytest.raises(SeqclfError, match=r"batch_size=2: .* 3"):
        check_processes([["a", "b"]] * 3, 2)


def test_shares_are_even_and_complete():
    for clips in range(1, 20):
        for size in range(1, clips + 1):
            shares = [range(clips)[World(rank, size).share(clips)] for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(clips))
            assert {len(share) for share in shares} <= {clips // size, -(-clips // size)}


def test_a_launch_keeps_its_name_through_restarts(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert launch() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert launch() == "job"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launch() == launch()
    assert str(os.getppid()) in launch()


def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device("auto", World(rank, 2, rank)).index for rank in range(2)] == [0, 1]
    with pytest.raises(SeqclfError, match=" 2 CUDA devices"):
        pick_device("cuda", World(2, 3, 2))
    with pytest.raises(SeqclfError, match=r"--device cuda:0: .* 2 "):
        pick_device("cuda:0", World(1, 2, 1))
