"""The videos that paths lead to: files, folders of frames, features, and collections of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.frame_folder import FrameFolder, is_picture, natural_key
from seqclf.data.source import FEATURES, VIDEOS, Source, is_video


def open_video(path: str | Path, fps: float | None = None, pattern: str | None = None) -> Source:
    """A folder as its pictures, a video file as its frames, an ``.npy`` file as its features; none is opened yet.

    Args:
        fps: the rate that a video file is resampled to; folders and features have none, and are taken as they are.
        pattern: which of a folder's pictures are frames, as of ``FrameFolder``.

    Raises:
        SeqclfError: there is none, or it is neither of these.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return FrameFolder(path, pattern)
    _expect_video(path)
    if path.suffix.lower() == FEATURES:
        from seqclf.data.features import FeatureFile

        return FeatureFile(path)
    from seqclf.data.video_file import VideoFile

    return VideoFile(path, fps)


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """The videos that paths lead to, in their order, each once: files, folders of frames, and collections of both.

    A folder that holds pictures is a video; one that holds videos, or such folders at any depth, is a collection of
    them, in natural order. Other files in it are passed over.

    Raises:
        SeqclfError: a path is not there or no video; a folder holds no video, or both pictures and videos.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        path = path.expanduser()
        if path.is_dir():
            inside = _inside(path, ())
            if not inside:
                raise SeqclfError(f"{path}: holds no video and no pictures")
            found.update(dict.fromkeys(inside))
        else:
            _expect_video(path)
            found[path] = None
    return list(found)


def plain_name(video: Path) -> str:
    """What a video is called, without a file's suffix."""
    return video.name if video.is_dir() else video.stem


def _inside(folder: Path, above: tuple[str, ...]) -> list[Path]:
    """The videos of a folder: itself, or those in it."""
    real = os.path.realpath(folder)
    if real in above:  # a link back
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
        raise SeqclfError(f"{folder}: holds pictures, as a video does, and videos ({videos[0]}): name the ones meant")
    return [folder] if pictures else videos


def _expect_video(path: Path) -> None:
    if not path.exists():
        raise SeqclfError(f"{path}: no such file or folder")
    if is_picture(path.name):
        raise SeqclfError(f"{path}: is one picture; a folder of pictures or a video was expected")
    if not is_video(path.name):
        raise SeqclfError(f"{path}: is no video by its name ({', '.join(VIDEOS)}; {FEATURES} for features)")


def names_in(folder: str | Path) -> Iterator[tuple[str, bool]]:
    """The names in a folder that are not hidden, and whether they are folders; SeqclfError where it can't be read."""
    try:
        with os.scandir(folder) as entries:
            yield from ((entry.name, entry.is_dir()) for entry in entries if entry.name[0] != ".")
    except OSError as error:
        raise SeqclfError(f"{folder}: can't be read ({error.strerror})") from None
