"""docs/experiment.md lists every setting of ``Experiment`` as its docstring does, with an example that works.

``python tests/test_experiment_doc.py`` rewrites the table after a change of the docstring.
"""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from seqclf import Experiment, load_experiment
from seqclf.experiment.fingerprint import FREE, ON_REQUEST
from seqclf.experiment.settings import setting_fields

DOC = Path(__file__).resolve().parents[1] / "docs/experiment.md"
TABLE = re.compile(r"^\| setting \|.*?\n(?=\n)", re.M | re.S)
SPECIAL = {
    "data": "function or `Data`",
    "metrics": "mapping of functions or None",
    "precision": '`"fp32"`, `"bf16"` or `"fp16"`',
}


def meanings():
    """The description of each field in the docstring."""
    text = inspect.getdoc(Experiment).split("Attributes:\n")[1].split("\n\nRaises:")[0]
    entries = re.findall(r"^    (\w+): (.*?)(?=\n    \w|\Z)", text, re.M | re.S)
    texts = {name: " ".join(text.split()).replace("``", "`") for name, text in entries}
    return {name: text[0].upper() + text[1:] for name, text in texts.items()}


def type_of(field):
    if field.name in SPECIAL:
        return SPECIAL[field.name]
    kind, _, none = field.type.partition(" | None")
    kind = "function" if kind.startswith(("Callable", "Sampler", "Schedule", "Transform")) else kind
    return f"{kind} or None" if none or field.type.endswith("| None") else kind


def default_of(field):
    if field.default is dataclasses.MISSING:
        return "required"
    value = field.default
    if callable(value):
        return f"`{value.__module__.rpartition('.')[2]}.{value.__name__}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def rows():
    return {
        f.name: f"| `{f.name}` | {type_of(f)} | {default_of(f)} | {meanings()[f.name]} |"
        for f in setting_fields(Experiment)
    }


def documented():
    """The rows of the table in the document by setting: the generated part, and the example."""
    found = {}
    for line in TABLE.search(DOC.read_text(encoding="utf-8"))[0].splitlines()[2:]:
        start, example = re.fullmatch(r"(\|.*\|) `([^`]*)` \|", line).groups()
        found[re.match(r"\| `(\w+)`", line)[1]] = (start, example)
    return found


def test_the_table_is_that_of_the_docstring():
    assert {name: start for name, (start, _) in documented().items()} == rows()


@pytest.mark.parametrize("name", rows())
def test_the_example_changes_the_setting(name, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text("def groups(model):\n    return [{'params': list(model.parameters())}]\n")
    monkeypatch.syspath_prepend(tmp_path)
    example = documented()[name][1]
    assert re.split(r"[.=]", example)[0] == name
    before, after = load_experiment("mnist_lastframe"), load_experiment("mnist_lastframe", [example])
    changed = {f.name for f in setting_fields(after) if repr(getattr(before, f.name)) != repr(getattr(after, f.name))}
    assert changed == {name}


def test_the_settings_that_may_change_on_resuming():
    text = DOC.read_text(encoding="utf-8").split("\n## Resume")[1]
    free, on_request = re.findall(r"^\| (?:always|with `--allow`) \| (.*) \|$", text, re.M)
    assert set(re.findall(r"`([^`]+)`", free)) == set(FREE)
    assert set(re.findall(r"`([^`]+)`", on_request)) == set(ON_REQUEST)


if __name__ == "__main__":
    examples = {name: example for name, (_, example) in documented().items()}
    lines = ["| setting | type | default | meaning | example |", "| --- | --- | --- | --- | --- |"]
    lines += [f"{row} `{examples.get(name, '')}` |" for name, row in rows().items()]
    table = "\n".join(lines) + "\n"
    DOC.write_text(TABLE.sub(lambda _: table, DOC.read_text(encoding="utf-8")), encoding="utf-8")
