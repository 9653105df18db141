"""Random frames, and folders and video files of them, for tests."""

import torch
from PIL import Image


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def write_folder(path, frames):
    path.mkdir(parents=True)
    for n, frame in enumerate(frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(path / f"f_{n:03}.png")
    return path


def write_video(path, frames, rate=10):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[2:], "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_streams(path, *frames):
    """Writes a file with one video stream for each entry of ``frames``, all of equal length."""
    import av

    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in frames]
        for stream, pictures in zip(streams, frames, strict=True):
            stream.height, stream.width, stream.pix_fmt = *pictures.shape[2:], "yuv420p"
        for row in zip(*frames, strict=True):
            for stream, frame in zip(streams, row, strict=True):
                picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), "rgb24")
                container.mux(stream.encode(picture))
        for stream in streams:
            container.mux(stream.encode())
    return path
