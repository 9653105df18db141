"""What all tests share: few threads, and tools that are run as their command lines would run them."""

import os
import runpy
import sys
from functools import partial
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when PyTorch is imported

import pytest
import torch

torch.set_num_threads(min(2, torch.get_num_threads()))

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs a tool in this process; gives its exit code, stdout and stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def prepare(tool):
    """Runs tools/prepare.py, as ``tool`` does."""
    return partial(tool, "prepare")
