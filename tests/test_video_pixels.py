"""Frames are written into arrays exactly as FFmpeg converts them to RGB, and nothing else is written."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqclf.data.video import conversion
from seqclf.data.video.conversion import Converter, Kind, is_exact, noise_of, write_directly
from seqclf.data.video.pixels import upright_shape, write_upright

av = pytest.importorskip("av")

FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuva420p", "yuv420p10le", "nv12", "yuyv422", "gray", "gbrp")
COLORSPACES, RANGES = (1, 2, 5, 9), (0, 1, 2)
GUARD = 64


def written(frame, offset: int = 0, step: int = 1) -> np.ndarray:
    """What ``write_upright`` writes to an array, at an address with this offset, and with gaps for a step above 1."""
    shape = upright_shape(frame)
    around = np.full(np.prod(shape) * step + 3 * GUARD, 170, np.uint8)
    start = GUARD + (offset - around.ctypes.data) % GUARD
    end = start + np.prod(shape) * step
    out = around[start:end].reshape(*shape[:2], -1)[:, :, ::step]
    write_upright(frame, out)
    gaps = around[start:end].reshape(-1, step)[:, 1:]
    assert all((part == 170).all() for part in (around[:start], gaps, around[end:]))
    return out


def converted(frame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24", threads=1).transpose(2, 0, 1)


kinds = st.builds(
    Kind,
    pixels=st.sampled_from(FORMATS),
    height=st.integers(1, 40).map(lambda half: 2 * half),
    width=st.one_of(st.integers(1, 9).map(lambda n: 16 * n), st.integers(1, 70).map(lambda half: 2 * half)),
    colorspace=st.sampled_from(COLORSPACES),
    color_range=st.sampled_from(RANGES),
)


@given(kind=kinds, offset=st.sampled_from([0, 1, 8, 16, 48]), step=st.sampled_from([1, 2]))
def test_frames_are_written_as_ffmpeg_converts_them(kind, offset, step):
    frame = noise_of(kind)
    np.testing.assert_array_equal(written(frame, offset, step), converted(frame))


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p"])
def test_frames_are_the_same_where_the_functions_of_ffmpeg_are_not_found(pixels, monkeypatch):
    frame = noise_of(Kind(pixels, 24, 32, 1, 1))
    direct = written(frame)
    is_exact.cache_clear()
    monkeypatch.setattr(conversion, "functions", lambda: None)
    assert not is_exact(Kind(pixels, 24, 32, 1, 1))
    np.testing.assert_array_equal(written(frame), direct)
    is_exact.cache_clear()


def test_a_frame_is_not_written_to_an_array_of_another_shape():
    out = np.full((3, 48, 32), 170, np.uint8)  # as large as the frame
    with pytest.raises(ValueError):
        write_upright(noise_of(Kind("yuv420p", 32, 48, 1, 1)), out)
    assert (out == 170).all()


def test_arrays_that_are_not_aligned_are_not_written_directly():
    """On some processors, FFmpeg's conversions would stop the process there."""
    kind = Kind("yuv420p", 24, 32, 1, 1)
    around = np.full(3 * 24 * 32 + 16, 170, np.uint8)
    start = (8 - around.ctypes.data) % 16
    assert not write_directly(kind, noise_of(kind), around[start : start + 3 * 24 * 32].reshape(3, 24, 32))
    assert (around == 170).all()


@pytest.mark.parametrize("place", [-1, 3 * 24 * 32])
def test_a_conversion_that_writes_outside_of_the_array_is_not_used(place, monkeypatch):
    write = Converter.write

    def write_more(self, frame, address):
        write(self, frame, address)
        ctypes.memset(address + place, 1, 1)

    kind = Kind("yuv420p", 24, 32, 1, 1)
    assert is_exact.__wrapped__(kind) == is_exact(kind)
    monkeypatch.setattr(Converter, "write", write_more)
    assert not is_exact.__wrapped__(kind)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere FFmpeg's functions may not be found")
@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p"])
def test_frequent_kinds_of_frames_need_no_copy(pixels):
    assert is_exact(Kind(pixels, 240, 320, 2, 0)) and is_exact(Kind(pixels, 1080, 1920, 1, 1))


@pytest.mark.parametrize("kind", [Kind("unknown", 16, 32, 2, 0), Kind("yuv420p", 16, 33, 2, 0)])
def test_other_kinds_of_frames_are_not_written_directly(kind):
    assert not is_exact(kind)
