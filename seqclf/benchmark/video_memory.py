"""Peak memory of evaluating one long video, whose frames are scaled down while they are decoded."""

from __future__ import annotations

import importlib.util
import tempfile

import numpy as np

from seqclf.benchmark.timing import peak_memory

CODE = """
from functools import partial
import torch
from torchvision.transforms.v2 import functional
from seqclf import Video, Videos
from seqclf.data.transforms import resize
from seqclf.data.video.file import VideoFile
videos = Videos([Video("v", VideoFile({path!r}), 0)], transform=partial(resize, size=(64, 64)), workers=0)
if {read}:
    assert videos.batch(torch.arange(1)).frames.shape == (1, {frames}, 3, 64, 64)
"""


def video_memory(frames: int = 1000, height: int = 720, width: int = 1280) -> None:
    """Prints the memory of a batch of one whole video beyond that of the imports, and the size of its raw frames."""
    if importlib.util.find_spec("av") is None:
        print("video_memory: skipped, PyAV is not installed (pip install 'seqclf[video]')")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/video.mp4"
        _write(path, frames, height, width)
        before, after = (peak_memory(CODE.format(path=path, read=read, frames=frames)) for read in (False, True))
    raw = frames * height * width * 3 / 1e6
    print(
        f"{frames} frames of {width}x{height} for a model of 64x64: {after - before:.0f} MB more than the imports "
        f"({before:.0f} MB); raw frames {raw:,.0f} MB"
    )


def _write(path: str, frames: int, height: int, width: int) -> None:
    """A moving gradient as MPEG-4."""
    import av

    with av.open(path, "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        still = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)[..., None].repeat(3, 2)
        for k in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(still, 4 * k, 1), format="rgb24")))
        file.mux(stream.encode())
