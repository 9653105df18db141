"""Shared by all tests: few threads, fixtures that run commands, and a folder that stands for a checkout."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when PyTorch is imported

import pytest
from hypothesis import HealthCheck, settings

from seqclf.cli.main import main

# the same examples in each run, however slow the machine is
settings.register_profile(
    "seqclf", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("seqclf")


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    import torch  # by the workers only: the process that starts them would wait 2 s for it

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
def file_limit():
    """``with file_limit(n):`` no file grows beyond n bytes, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture
def prepare(tool):
    """Runs ``seqclf prepare``, as ``tool`` does."""
    return partial(tool, "prepare")


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A folder of the programs ``python``, ``seqclf`` and ``torchrun``, which start at once; see ``preloaded.py``.

    Where that is impossible (not on Linux, or a temporary folder with a long name), they start as usual.
    """
    folder = tmp_path_factory.mktemp("programs")
    script, socket = Path(__file__).with_name("preloaded.py"), folder / "socket"
    preloaded = sys.platform == "linux" and len(str(socket)) <= 100  # a socket's name has at most 107 characters
    start = f'-S -E "{script}" "{socket}"' if preloaded else ""
    for name, words in (("python", ""), ("seqclf", "-m seqclf"), ("torchrun", "-m torch.distributed.run")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} {words} "$@"\n')
        (folder / name).chmod(0o755)
    if not preloaded:
        yield folder
        return
    with subprocess.Popen([sys.executable, script, socket, "serve"], stdin=subprocess.PIPE) as server:
        yield folder
        server.stdin.close()  # the server ends


@pytest.fixture
def checkout(tmp_path, monkeypatch, programs):
    """A folder with the tools and configs of this checkout, where ``python`` and ``seqclf`` are those of the tests."""
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(Path(__file__).resolve().parents[1] / name)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if name not in before and str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="module", params=["fused", "torch"])
def lstm_kernel(request):
    """Runs the tests of a file with the LSTM kernel of the extra ``fast``, and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQCLF_FUSED", str(int(request.param == "fused")))
        yield request.param


@pytest.fixture(autouse=True, scope="session")
def no_reports():
    """Skips the report at the end of training, which takes longer than all the rest; returns the function."""
    with pytest.MonkeyPatch.context() as patch:
        from seqclf.training.session import report

        patch.setattr("seqclf.training.session.report", lambda path: None)
        yield report


@pytest.fixture(autouse=True)
def reports(request, monkeypatch, no_reports):
    """Writes it in tests marked ``report``."""
    if request.node.get_closest_marker("report") is not None:
        monkeypatch.setattr("seqclf.training.session.report", no_reports)
