"""Videos on disk: files, folders of frames, features, and collections of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.frame_numbers import natural_key
from seqclf.data.pictures import is_picture
from seqclf.data.source import FEATURES, Layout, Source, is_video


def open_video(
    path: str | Path,
    fps: float | None = None,
    pattern: str | None = None,
    frame_numbers: str = "names",
    folder_fps: float | None = None,
    stream: int | None = None,
    on_error: Literal["raise", "skip_frames"] = "raise",
    layout: Layout = "time_first",
) -> Source:
    """Open a video: a folder as its pictures, an ``.npy`` file as its features, any other file as a video file.

    Nothing is read yet.

    Args:
        path: The file or folder; a file may have any suffix.
        fps: The frame rate that a video file is resampled to; None for its own.
        pattern: Which pictures of a folder are frames; see ``FrameFolder``.
        frame_numbers: What annotations of a folder's frames count; see ``FrameFolder``.
        folder_fps: The frame rate of a folder of pictures, where it is known.
        stream: Which video stream of a file, from 0; None for the one that FFmpeg chooses.
        on_error: What to do about damage in a video file; see ``VideoFile``.
        layout: The axes of an ``.npy`` file: "time_first", (T, D), or "features_first", (D, T).

    Raises:
        SeqclfError: There is no such file or folder, or it is a single picture.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return FrameFolder(path, pattern, frame_numbers, folder_fps)
    _expect_video(path)
    if path.suffix.lower() == FEATURES:
        from seqclf.data.feature_file import FeatureFile

        return FeatureFile(path, layout=layout)
    from seqclf.data.video_file import VideoFile

    return VideoFile(path, fps, stream, on_error)


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """Find the videos that paths lead to: files, folders of frames, and collections of both.

    A folder that holds pictures is a video. One that holds videos, or such folders at any depth, is a collection of
    them. In a collection, the suffix decides which files are videos (``source.VIDEOS``) and other files are ignored;
    a file that is given itself may have any suffix.

    Args:
        paths: Files and folders.

    Returns:
        The videos in the order of ``paths``, those of a collection in natural order, each once.

    Raises:
        SeqclfError: A path does not exist or is a single picture; a folder has no video, or both pictures and videos.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        path = path.expanduser()
        if path.is_dir():
            inside = _inside(path, ())
            if not inside:
                raise SeqclfError(f"{path}: has no video and no pictures")
            found.update(dict.fromkeys(inside))
        else:
            _expect_video(path)
            found[path] = None
    return list(found)


def plain_name(video: Path) -> str:
    """The name of a video, without the suffix of a file."""
    return video.name if video.is_dir() else video.stem


def _inside(folder: Path, above: tuple[str, ...]) -> list[Path]:
    """The videos of a folder: the folder itself, or those in it."""
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder above
        return []
    pictures, videos = False, []
    for name, is_folder in sorted(names_in(folder), key=lambda entry: natural_key(entry[0])):
        if is_folder:
            videos += _inside(folder / name, (*above, real))
        elif is_video(name):
            videos.append(folder / name)
        else:
            pictures |= is_picture(name)
    if pictures and videos:
        raise SeqclfError(
            f"{folder}: has both pictures, as a video, and videos ({videos[0]}); give the path of the one that is meant"
        )
    return [folder] if pictures else videos


def _expect_video(path: Path) -> None:
    if not path.exists():
        raise SeqclfError(f"{path}: no such file or folder")
    if is_picture(path.name):
        raise SeqclfError(f"{path}: is a single picture; a video or a folder of pictures is expected")


def names_in(folder: str | Path) -> Iterator[tuple[str, bool]]:
    """The names in a folder that are not hidden, and whether they are folders.

    Raises:
        SeqclfError: The folder can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield from ((entry.name, entry.is_dir()) for entry in entries if entry.name[0] != ".")
    except OSError as error:
        raise SeqclfError(f"{folder}: can't be read ({error.strerror})") from None
