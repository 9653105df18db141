"""The ``seqclf`` program: it starts in every form, finds reference configs, and reports a user error on one line."""

import ast
import os
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import seqclf
from seqclf.cli.main import COMMANDS, main, run
from seqclf.cli.parser import spelling
from seqclf.experiment.find_config import reference_configs

ROOT = Path(__file__).resolve().parents[1]


def python(*words, cwd=ROOT, **environment):
    """Runs Python in a process, with this checkout's seqclf."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_help_lists_every_command_and_imports_no_torch():
    code = "import sys; from seqclf.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"^  {name} ", done.stdout, re.M) for name in COMMANDS)


def test_a_command_is_a_module_and_a_tool():
    modules = {m.name for m in pkgutil.iter_modules([ROOT / "seqclf/cli"])} - {"main", "parser"}
    assert set(COMMANDS) == {name for name in modules if "_" not in name}
    assert {path.stem for path in (ROOT / "tools").glob("*.py")} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, tool):
    code, out, _ = tool(command, "--help")
    assert code == 0
    assert out.startswith(f"usage: seqclf {command}")
    assert re.search(rf"^ *seqclf {command} ", out, re.M), "no example"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "train"),
        (["tain"], "train"),
        (["xyz"], "evaluate"),
        (["train", "--stepz"], "--stepz"),
        (["evaluate"], "required: run ("),
        (["export"], "required: run ("),
        (["train"], "--config"),
        (["train", "--workdir", "no_run", "--resume"], "no_run"),
        (["report", "no_run"], "no_run"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_line(words, named, capsys):
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert named in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train", ["--config", "mnist_perframe", "data.source=digits", "--workdir", "RUN"]),
        ("evaluate", ["RUN"]),
        ("predict", ["RUN", "video.mp4"]),
        ("export", ["RUN"]),
        ("report", ["RUN"]),
        ("compare", ["RUN"]),
        ("prepare_frames", ["video.mp4", "--out", "RUN"]),
        ("prepare_features", ["--backbone", "resnet18", "video.mp4", "--out", "RUN"]),
        ("prepare_shards", ["--train", "a.txt", "--test", "b.txt", "--root", ".", "--out", "RUN"]),
    ],
)
def test_the_work_of_a_command_is_one_python_call(command, arguments, tmp_path, tool, monkeypatch):
    for name in ("config.py", "run.json", "results.json"):
        (tmp_path / name).touch()
    calls = []

    def record(*positional, **keywords):
        calls.append(str([*positional, keywords]))
        raise seqclf.SeqclfError("called")

    function = getattr(seqclf, command)
    for module in list(sys.modules.values()):  # wherever the command has it from
        if getattr(module, "__name__", "").startswith("seqclf") and vars(module).get(command) is function:
            monkeypatch.setattr(module, command, record)
    code, _, error = tool(*command.split("_"), *(tmp_path if word == "RUN" else word for word in arguments))
    assert (code, error) == (2, "error: called\n")
    assert len(calls) == 1 and str(tmp_path) in calls[0]


@pytest.mark.slow
def test_reference_configs_are_found_by_name_anywhere(tmp_path, tool):
    assert set(reference_configs()) == {path.stem for path in (ROOT / "configs").glob("*.py")}
    done = python("-m", "seqclf", "train", "--config", "mnist_perframe", "--show", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == tool("train", "--config", ROOT / "configs/mnist_perframe.py", "--show")[1]


def test_a_file_takes_precedence_over_a_reference_config(tmp_path, monkeypatch):
    (tmp_path / "mnist_seed").mkdir()  # a folder is no config
    (tmp_path / "mnist_perframe").write_text("")
    monkeypatch.chdir(tmp_path)
    seqclf.load_experiment("mnist_seed")
    with pytest.raises(seqclf.SeqclfError, match="mnist_perframe"):
        seqclf.load_experiment("mnist_perframe")


@pytest.mark.parametrize(("name", "named"), [("mnist_lastfram", "mnist_lastframe"), ("configs/x.py", "moving_digits")])
def test_an_unknown_config_names_the_near_ones_or_all(name, named):
    with pytest.raises(seqclf.SeqclfError, match=rf"(?s){re.escape(name)}.*{named}"):
        seqclf.load_experiment(name)


@pytest.mark.slow
def test_a_tool_does_not_hide_packages_of_the_users_config(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("import sys\nassert not any(p.endswith('tools') for p in sys.path)\nimport evaluate\n")
    done = python("tools/train.py", "--config", config, "--show")
    assert done.returncode == 2
    assert "No module named 'evaluate'" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argv0", "one", "two"),
    [
        ("/venv/bin/seqclf", "seqclf train", "torchrun --nproc-per-node 2 -m seqclf train"),
        ("/x/seqclf/__main__.py", "python -m seqclf train", "torchrun --nproc-per-node 2 -m seqclf train"),
        ("tools/train.py", "python tools/train.py", "torchrun --nproc-per-node 2 tools/train.py"),
    ],
)
def test_a_command_is_repeated_as_it_was_started(argv0, one, two, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv0, "--config", "x"])
    assert " ".join(spelling("train")) == one
    assert " ".join(spelling("train", 2)) == two


def test_every_folder_is_a_package_and_so_in_the_wheel():
    folders = {path.parent for path in (ROOT / "seqclf").rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_public_names_exist_and_type_checkers_see_the_same():
    assert sorted(seqclf.__all__) == sorted({*seqclf._MODULE_OF, *seqclf._NAMESPACES})
    assert [name for name in seqclf.__all__ if getattr(seqclf, name, None) is None] == []
    block = next(n for n in ast.parse(Path(seqclf.__file__).read_text()).body if isinstance(n, ast.If))
    shown = {alias.name: node.module for node in block.body for alias in node.names}
    assert shown.keys() == set(seqclf.__all__)
    assert {name: shown[name] for name in seqclf._MODULE_OF} == seqclf._MODULE_OF


def test_no_public_function_hides_a_module():
    modules = {path.stem for path in (ROOT / "seqclf").iterdir()}
    assert modules & set(seqclf.__all__) == set(seqclf._NAMESPACES)


def test_a_warning_is_one_line_on_stderr(capsys):
    def warns(words):
        warnings.warn("the file is old", stacklevel=1)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(warns, []) == 0
    assert capsys.readouterr().err == "warning: the file is old\n"
