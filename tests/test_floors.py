"""The floors of the house: a file imports only from floors below its own, and nothing goes round in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    10: ("tools", "configs", "__main__"),
    9: ("cli",),
    8: ("benchmark",),
    7: ("exporting", "caffe"),
    6: ("training", "prediction"),
    5: ("reporting",),
    4: ("runs",),
    3: ("evaluation", "experiment"),
    2: ("data", "models"),
    1: ("runtime",),
    0: ("batch",),
    -1: ("errors",),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
FACADE = "seqclf"  # seqclf/__init__.py imports the public names from floors 0 to 7, on first use
ALLOWED = {
    ("runs", FACADE): "the version, read when a run begins",
}
FILES = sorted((ROOT / "seqclf").rglob("*.py")) + sorted(p for d in FLOORS[10] for p in (ROOT / d).rglob("*.py"))


def module_of(file: Path) -> str:
    """Its dotted name: seqclf.data.mnist for seqclf/data/mnist.py, seqclf.data for seqclf/data/__init__.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The name in the table: a file of seqclf/, one of its folders, tools, configs, or the facade."""
    parts = module.split(".")
    return parts[1] if parts[0] == FACADE and len(parts) > 1 else parts[0]


def imports_of(file: Path) -> set[str]:
    """The project's modules that a file imports, wherever in it, by the dotted names of their files."""
    named = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            named |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    known = {module_of(f) for f in FILES} | {module_of(f).removeprefix("configs.") for f in FILES}
    found = set()
    for name in named:  # a symbol's home is the longest prefix of its name that is a file
        prefixes = [name.rsplit(".", cut)[0] if cut else name for cut in range(name.count(".") + 1)]
        found |= set([prefix for prefix in prefixes if prefix in known][:1])
    return found


def test_every_file_has_a_floor_and_every_room_has_a_file():
    rooms = {room_of(module_of(file)) for file in FILES} - {FACADE}
    assert rooms == set(FLOOR_OF), "a new file goes into FLOORS, a file that is gone leaves it"


@pytest.mark.parametrize("file", [f for f in FILES if module_of(f) != FACADE], ids=module_of)
def test_a_file_imports_only_from_floors_below(file):
    room = room_of(module_of(file))
    for module in imports_of(file):
        other = room_of(module)
        if room == "configs" and other not in FLOOR_OF and other != FACADE:
            other = "configs"  # a config may be the delta of another: inside one room
        if other == room or (room, other) in ALLOWED:
            assert room != "tools", f"{file.name} imports the tool {module}"
            continue
        assert FLOOR_OF[room] > (7 if other == FACADE else FLOOR_OF[other]), f"{file.name} reaches up for {module}"


def test_no_file_is_part_of_a_circle_and_all_exceptions_are_used():
    graph = {module_of(f): imports_of(f) - {module_of(f), FACADE} for f in FILES if module_of(f) != FACADE}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(FILES) - 1  # raises CycleError on a circle
    used = {(room_of(module_of(f)), room_of(module)) for f in FILES for module in imports_of(f)}
    assert set(ALLOWED) <= used, "an exception that nothing needs is taken out of the table"
