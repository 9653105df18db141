"""The Python of the README runs, one block after the other, as one script."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    checks = """
assert results["step"] == 20 and prediction.probabilities.shape == (9, 2)
assert torch.allclose(probabilities, prediction.probabilities[-1], atol=1e-6), "streamed frame by frame, the same"
assert logits.shape == (1, 9, 2)
assert torch.allclose(z.transpose(0, 1), blobs["z"], atol=1e-6), "the classifier's logits are the net's"
"""
    (tmp_path / "script.py").write_text("".join(blocks) + checks)
    done = subprocess.run([sys.executable, "-W", "error", "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_file_that_the_readme_names_is_there():
    root = Path(__file__).resolve().parents[1]
    named = set(re.findall(r"\b(?:configs|tools|tests|seqclf)/[\w/]+\.(?:py|md)\b", README))
    assert len(named) >= 8
    assert [name for name in named if not (root / name).exists()] == []
