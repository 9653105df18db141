"""The train and test nets that a solver's prototxt names (Solver::InitTrainNet, Solver::InitTestNets)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.nets.load import read_net_structure
from seqclf.caffe.nets.net import PHASES, Net

Python: TypeAlias = Mapping[str, Callable[..., Any]] | None
Build: TypeAlias = Callable[[Any, str, str, Any, Python, list[str]], Net]
"""``build(message, file, phase, state, python, problems)`` builds a net."""
TRAIN_FIELDS = ("net", "train_net", "net_param", "train_net_param")


def find(name: str, solver_file: str) -> str:
    """Resolves a path in the solver: relative to the working directory, as in Caffe, or else to the solver's file."""
    beside = os.path.join(os.path.dirname(solver_file), name)
    return name if os.path.exists(name) or not os.path.exists(beside) else beside


def find_named(field: str, name: str, solver_file: str) -> str:
    """Like ``find``, but a missing file is an error that names the field."""
    path = find(name, solver_file)
    if not os.path.isfile(path):
        raise CaffeFormatError(f'{solver_file}: field {field}: there is no file "{name}"')
    return path


def train_net(param: Any, file: str, flavour: str, python: Python, build: Build) -> Net:
    """Builds the train net."""
    given = [field for field in TRAIN_FIELDS if param.HasField(field)]
    if len(given) != 1:
        raise CaffeFormatError(
            f"{file}: expected exactly one of {', '.join(TRAIN_FIELDS)}, found {', '.join(given) or 'none'}"
        )
    return _build(getattr(param, given[0]), given[0], file, flavour, "TRAIN", param.train_state, python, build)


def test_nets(param: Any, file: str, flavour: str, python: Python, build: Build) -> list[Net]:
    """Builds the test nets, one for each ``test_iter``."""
    sources = [("test_net_param", net) for net in param.test_net_param] + [("test_net", net) for net in param.test_net]
    for field in ("net_param", "net"):
        if param.HasField(field):
            sources += [(field, getattr(param, field))] * (len(param.test_iter) - len(sources))
    if len(sources) != len(param.test_iter):
        raise CaffeFormatError(
            f"{file}: field test_iter: has {len(param.test_iter)} values, expected one for each of "
            f"{len(sources)} test nets"
        )
    if len(param.test_state) not in (0, len(sources)):
        raise CaffeFormatError(
            f"{file}: field test_state: has {len(param.test_state)} values, expected none, or one for each of "
            f"{len(sources)} test nets"
        )
    if sources and param.test_interval < 1:
        raise CaffeFormatError(f"{file}: field test_interval: must be above 0 where there are test nets")
    states = param.test_state if len(param.test_state) else [schema(flavour).NetState() for _ in sources]
    return [
        _build(source, field, file, flavour, "TEST", state, python, build)
        for (field, source), state in zip(sources, states, strict=True)
    ]


def _build(
    source: Any, field: str, file: str, flavour: str, phase: str, state: Any, python: Python, build: Build
) -> Net:
    """Builds a net from a path, or from a message inside the solver."""
    problems: list[str] = []
    if isinstance(source, str):
        path = find_named(field, source, file)
        message = read_net_structure(path, flavour, problems)
    else:
        path, message = file, type(source)()
        message.CopyFrom(source)
    own = next((s for s in (state, message.state) if s.HasField("phase")), None)
    phase = phase if own is None else PHASES[own.phase]  # Caffe merges the solver's state with the net's own
    return build(message, path, phase, state, python, problems)
