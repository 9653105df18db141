"""Finding and opening videos on disk: files, folders of frames, feature files, and collections of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.numbers import natural_key
from seqclf.data.frames.pictures import is_picture
from seqclf.data.frames.source import FEATURES, Layout, Source, is_video


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
    """Opens a video: a folder of pictures, an ``.npy`` file of features, or a video file.

    The file is read on first use.

    Args:
        path: the file or folder; a file may have any suffix.
        fps: the frame rate to resample a video file to; None for its own.
        pattern: which pictures of a folder are frames; see ``FrameFolder``.
        frame_numbers: how annotations number the frames of a folder; see ``FrameFolder``.
        folder_fps: the frame rate of a folder of pictures, if known.
        stream: the index of the video stream of a file, from 0; None for FFmpeg's choice.
        on_error: how to handle damage in a video file; see ``VideoFile``.
        layout: the axes of an ``.npy`` file: "time_first" for (T, D), "features_first" for (D, T).

    Raises:
        SeqclfError: there is no such file or folder, or it is a single picture.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return FrameFolder(path, pattern, frame_numbers, folder_fps)
    _expect_video(path)
    if path.suffix.lower() == FEATURES:
        from seqclf.data.frames.feature_file import FeatureFile

        return FeatureFile(path, layout=layout)
    from seqclf.data.video.file import VideoFile

    return VideoFile(path, fps, stream, on_error)


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """Finds videos: files, folders of frames, and collections of both.

    A folder of pictures is a video. A folder of videos, or of such folders at any depth, is a collection. In a
    collection, files with a suffix of ``source.VIDEOS`` or ``.npy`` are videos and other files are ignored. A file in
    ``paths`` itself may have any suffix.

    Args:
        paths: files and folders.

    Returns:
        the videos without duplicates, in the order of ``paths``; those of a collection in natural order.

    Raises:
        SeqclfError: a path does not exist or is a single picture; a folder has no video, or both pictures and videos.
    """
    found: dict[Path, None] = {}
    for given in paths:
        if not isinstance(given, str | Path):
            raise SeqclfError(
                f"expected paths, not {type(given).__name__}: seqclf.load(run) classifies frames in memory"
            )
        path = Path(given).expanduser()
        if path.is_dir():
            inside = _inside(path, ())
            if not inside:
                raise SeqclfError(f"{path}: has no videos and no pictures")
            found.update(dict.fromkeys(inside))
        else:
            _expect_video(path)
            found[path] = None
    return list(found)


def plain_name(video: Path) -> str:
    """The name of a video, without the suffix if it is a file."""
    return video.name if video.is_dir() else video.stem


def _inside(folder: Path, above: tuple[str, ...]) -> list[Path]:
    """The videos of a folder: the folder itself, or those in it."""
    real = os.path.realpath(folder)
    if real in above:  # a symbolic link to a parent folder
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
            f"{folder}: has both pictures and videos ({videos[0]}), expected one or the other: give the path of a video"
        )
    return [folder] if pictures else videos


def _expect_video(path: Path) -> None:
    if not path.exists():
        raise SeqclfError(f"{path}: no such file or folder")
    if is_picture(path.name) and not is_video(path.name):
        raise SeqclfError(f"{path}: is a single picture, expected a video or a folder of pictures")


def names_in(folder: str | Path) -> Iterator[tuple[str, bool]]:
    """The entries of a folder that are not hidden: name, and whether it is a folder.

    Raises:
        SeqclfError: the folder can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield from ((entry.name, entry.is_dir()) for entry in entries if entry.name[0] != ".")
    except OSError as error:
        raise SeqclfError(f"{folder}: can't be read ({error.strerror})") from None
