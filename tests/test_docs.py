"""What the documents say works: their commands and Python run in order, print what they say, and their links lead on.

In a document ```sh and ```python are run, one block after the other in one folder, as a reader at the top of a checkout
would; ```text is what the block before it prints, some of its lines, with … for anything.
"""

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
each_document = pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.stem)
each_text = pytest.mark.parametrize("doc", [ROOT / "README.md", *DOCS], ids=lambda doc: doc.stem)


def blocks(doc):
    """Each fenced block: its language, the line it begins at, its text."""
    text = doc.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        yield found[1], text.count("\n", 0, found.start(2)), found[2]


def prose(doc):
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", doc.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the tools and configs of this checkout, where ``python`` and ``seqclf`` are those of the tests."""
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".bin"
    programs.mkdir()
    for name, words in (("python", ""), ("seqclf", "-m seqclf ")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if name not in before and str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@each_document
def test_what_a_document_shows_works(doc, checkout):
    variables = {"__name__": "__main__"}
    torch.manual_seed(0)
    output, ran = "", 0
    for language, line, text in blocks(doc):
        where = f"docs/{doc.name}, line {line}"
        if language == "python":
            with redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * line + text, str(doc), "exec"), variables)
            output = printed.getvalue()
        elif language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            output = done.stdout
            assert done.returncode == 0, f"{where}: ended with {done.returncode}:\n{output}"
        elif language == "text":
            rest = iter(output.splitlines())
            for said in text.splitlines():
                pattern = ".*?".join(map(re.escape, said.split("…")))
                assert any(re.search(pattern, shown) for shown in rest), f"{where}: {said!r} is not in\n{output}"
        else:
            assert language == "", f"{where}: a block of {language}, expected sh, python, text, or none"
        ran += language in ("python", "sh")
    assert ran > 0


@each_text
def test_its_links_lead_to_something(doc):
    text = prose(doc)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        assert (doc.parent / path).exists() if path else anchor in anchors, f"{doc.name}: a link to {target}"


@each_text
def test_every_file_that_it_names_is_there(doc):
    named = set(re.findall(r"\b(?:configs|tools|tests|seqclf|docs)/[\w/]+(?:\.\w+)+", doc.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
