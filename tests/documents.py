"""Runs the fenced blocks of a document in their order, as a reader at the top of a checkout would.

Blocks marked ``sh`` and ``python`` are run. A block marked ``text`` holds lines that the block before it prints, in
their order, with … for any text. Blocks without a mark are not run.
"""

import io
import re
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
API_PAGES = sorted((ROOT / "docs/api").glob("*.md"))


def blocks(doc):
    """Each fenced block of a document: its mark, the number of the line before it, its text."""
    text = doc.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        yield found[1], text.count("\n", 0, found.start(2)), found[2]


def prose(doc):
    """The text of a document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", doc.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(doc):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(doc), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def has_runnable_blocks(doc):
    return any(language in ("sh", "python") for language, _, _ in blocks(doc))


def run_blocks(doc):
    """Runs a document's blocks in the current folder. Returns the variables of its Python."""
    variables = {"__name__": "__main__"}
    torch.manual_seed(0)
    output = ""
    for language, line, text in blocks(doc):
        where = f"{doc.name}, line {line}"
        if language == "python":
            with redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * line + text, str(doc), "exec"), variables)
            output = printed.getvalue()
        elif language == "sh":
            bash = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(bash, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            output = done.stdout
            assert done.returncode == 0, f"{where}: exit code {done.returncode}:\n{output}"
        elif language == "text":
            rest = iter(output.splitlines())
            for expected in text.splitlines():
                pattern = ".*?".join(map(re.escape, expected.split("…")))
                assert any(re.search(pattern, printed) for printed in rest), f"{where}: {expected!r} not in\n{output}"
        else:
            assert language == "", f"{where}: a block of {language}, expected sh, python, text, or no mark"
    return variables
