"""Shared by all tests: few threads, and a fixture that runs the commands of ``seqclf``."""

import os
from functools import partial

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when PyTorch is imported

import pytest
import torch

from seqclf.cli.main import main

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture
def tool(capsys):
    """Runs a command in this process; returns its exit code, stdout and stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([name, *map(str, arguments)])
        except SystemExit as end:  # argparse: --help, or a wrong option
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def prepare(tool):
    """Runs ``seqclf prepare``, as ``tool`` does."""
    return partial(tool, "prepare")


@pytest.fixture(autouse=True)
def no_reports(request, monkeypatch):
    """Skips the report at the end of training, to save time, except in tests marked ``report``."""
    if request.node.get_closest_marker("report") is None:
        monkeypatch.setattr("seqclf.training.session.report", lambda path: None)
