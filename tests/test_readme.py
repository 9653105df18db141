"""The README's commands and Python run as they stand, on videos in the folders that it describes."""

import shutil

import pytest
import torch
from documents import README, blocks, run_blocks

from seqclf.data.digits.moving import make_moving_digits


def lay_out_videos(folder):
    """Videos in ``videos/run`` and ``videos/jump``, and the lists of them that the README describes."""
    made = make_moving_digits(folder / "made", videos=12, test_videos=4, frames=(10, 14), source="digits")
    for part in ("train", "test"):
        lines = []
        for n, video in enumerate(sorted(made.glob(f"videos/{part}_*.mp4"))):
            label = ("run", "jump")[n % 2]
            (folder / "videos" / label).mkdir(parents=True, exist_ok=True)
            shutil.move(video, folder / "videos" / label / video.name)
            lines.append(f"{label}/{video.name} {label}\n")
        (folder / f"{part}.txt").write_text("".join(lines))


@pytest.mark.slow
def test_its_blocks_run_as_they_stand(checkout):
    lay_out_videos(checkout)
    config = next(text for language, _, text in blocks(README) if language == "python")
    (checkout / "my_config.py").write_text(config)  # as the README asks its reader to
    variables = run_blocks(README)
    assert (checkout / "runs/mine/predictions/predictions.json").is_file()
    assert (checkout / "runs/mine/export/README.md").is_file()
    assert variables["results"]["parts"]["test"]["clip_last"] > 0.9
    torch.testing.assert_close(variables["probabilities"], variables["prediction"].probabilities[-1])
