"""Keeps unusual words out of the text of the project: code, names of tests, comments, messages, documentation."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = {
    "told": "reported, printed, given",
    "untold": "unknown, not given",
    "dearest": "most expensive, highest loss",
    "loud": "warning",
    "loudly": "with a warning",
    "made ready": "prepared",
    "gone on with": "resumed, continued",
    "goes on with": "continues with",
    "anew": "again",
    "what becomes of": "what happens to",
    "be had": "is available",
    "for ever": "without end",
    "has a say": "has an influence",
    "left alone": "not changed",
    "of someone else": "of other origin",
    "to speak of": "(give the figure)",
    "put together": "assembled, batched, joined",
    "as of": "as in, see",
    "whence": "from where",
    "thereof": "of it",
}
"""Each word, and what to write instead."""
PATTERN = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, sorted(WORDS, key=len, reverse=True)))})(?!\w)", re.I)


def files():
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split() if listed.returncode == 0 else []
    found = [ROOT / name for name in names] or [*ROOT.glob("*.md"), *ROOT.glob("*/**/*.py"), *ROOT.glob("docs/**/*.md")]
    return [path for path in found if path.is_file() and path != Path(__file__).resolve()]


def test_words():
    found = []
    for path in files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith("def test_"):
                line = line.replace("_", " ")
            for word in PATTERN.findall(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {word!r}; write: {WORDS[word.lower()]}")
    assert not found, "\n".join(found)
