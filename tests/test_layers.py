"""The packages form layers: a file imports only from layers below its own, and no two files import each other.

Functions are short.
"""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (  # the lowest first
    ("errors",),
    ("batch",),
    ("runtime",),
    ("data", "models"),
    ("evaluation", "experiment"),
    ("labelling", "losses", "samplers", "sampling", "schedules", "transforms"),
    ("runs",),
    ("reporting",),
    ("training", "prediction"),
    ("exporting", "caffe", "preparing"),
    ("benchmark",),
    ("cli",),
    ("tools", "configs", "__main__"),
)
SUB_PACKAGES = {
    "models": ("kernels",),
    "data": ("frames", "video", "live", "tables", "lists", "annotations", "sets", "shards", "digits"),
    "prediction": ("files", "streams"),
    "caffe": ("formats", "images", "layers", "nets", "solvers", "conversion", "description"),
}
"""The sub-packages of a package: each imports only from those before it, also through the modules beside them."""
LAYER_OF = {package: number for number, packages in enumerate(LAYERS) for package in packages}
PUBLIC = "seqclf"  # seqclf/__init__.py imports the public names on first use
LAYER_OF[PUBLIC] = LAYER_OF["caffe"]
VERSION_ONLY = "runs"  # imports seqclf.__version__, which it records
FILES = sorted(file for folder in ("seqclf", *LAYERS[-1]) for file in (ROOT / folder).rglob("*.py"))


def module_of(file: Path) -> str:
    """The dotted name of a file: seqclf.data.clips for seqclf/data/clips.py, seqclf.data for its __init__.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package_of(module: str) -> str:
    """The name in LAYERS: the part after "seqclf.", or tools, configs, or "seqclf" itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == PUBLIC and len(parts) > 1 else parts[0]


KNOWN = {module_of(f) for f in FILES} | {module_of(f).removeprefix("configs.") for f in FILES}


@cache
def statements_of(file: Path) -> list[ast.AST]:
    """All statements of a file, also those inside others."""
    found: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    for node in found:  # expressions contain no statements
        found += [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr)]
    return found


@cache
def imports_of(file: Path) -> set[str]:
    """The modules of the project that a file imports, at its top or inside functions."""
    names = set()
    for node in statements_of(file):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    found = set()
    for name in names:  # the longest prefix that is a file: the rest is a name inside it
        prefixes = [name.rsplit(".", cut)[0] if cut else name for cut in range(name.count(".") + 1)]
        found |= set([prefix for prefix in prefixes if prefix in KNOWN][:1])
    return found


def test_every_package_has_a_layer():
    packages = {package_of(module_of(file)) for file in FILES} - {PUBLIC}
    assert packages == set(LAYER_OF) - {PUBLIC}


def not_below(file: Path) -> list[str]:
    """The imports of a file from layers that are not below its own."""
    package, wrong = package_of(module_of(file)), []
    for module in imports_of(file):
        other = package_of(module)
        if package == "configs" and other not in LAYER_OF:
            other = "configs"  # a config may change another one
        allowed = other == package or (package, other) == (VERSION_ONLY, PUBLIC)
        if not allowed and LAYER_OF[other] >= LAYER_OF[package]:
            wrong.append(f"{file} imports {module}")
    return wrong


def test_files_import_only_from_layers_below():
    files = [file for file in FILES if module_of(file) != PUBLIC]
    assert len(files) > 300 and [wrong for file in files for wrong in not_below(file)] == []


def test_no_import_cycles():
    graph = {module_of(f): imports_of(f) - {module_of(f), PUBLIC} for f in FILES if module_of(f) != PUBLIC}
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)  # raises CycleError for a cycle


def part_of(module: str) -> str:
    """A sub-package, or a module beside the sub-packages: "video" for seqclf.data.video.index."""
    return module.split(".")[2]


@pytest.mark.parametrize("package", SUB_PACKAGES)
def test_sub_packages_import_in_one_direction(package):
    folder, prefix = ROOT / PUBLIC / package, f"seqclf.{package}."
    graph = {part: {before} for before, part in pairwise(SUB_PACKAGES[package])}
    for file in (file for file in folder.rglob("*.py") if module_of(file).startswith(prefix)):
        own = part_of(module_of(file))
        parts = {part_of(module) for module in imports_of(file) if module.startswith(prefix)}
        graph.setdefault(own, set()).update(parts - {own})
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == set(SUB_PACKAGES[package])
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError for a cycle


ONE_KIND = ("seqclf.benchmark", "seqclf.caffe.layers", "seqclf.cli", "seqclf.cli.caffe")
"""Packages whose modules are all of one kind, and found by their names."""
SUB_PACKAGED = {f"seqclf.{package}" for package in SUB_PACKAGES}


def test_packages_name_their_modules():
    for file in (file for file in FILES if file.name == "__init__.py"):
        folder, listed = file.parent, module_of(file).rpartition(".")[0] in SUB_PACKAGED
        modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        if (len(modules) > 10 or listed) and module_of(file) not in (PUBLIC, *ONE_KIND):
            names = re.findall(r"``(\w+)``", ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))
            missing = modules - {"__init__", *names}
            assert not missing, f"name them in the docstring of {file}: {missing}"


ARGUMENTS = {"video_set", "annotated_set", "stream"}
"""Functions whose many arguments alone, with their documentation, fill the limit."""


def test_functions_have_at_most_60_lines():
    long = []
    for file in (file for file in FILES if module_of(file).startswith(PUBLIC)):
        for node in statements_of(file):
            if isinstance(node, ast.FunctionDef) and node.name not in ARGUMENTS:
                lines = node.end_lineno - node.lineno + 1
                long += [f"{file}:{node.lineno}: {node.name} has {lines} lines"] * (lines > 60)
    assert long == []
