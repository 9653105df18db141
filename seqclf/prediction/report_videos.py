"""The page of the videos of a run's data, with their true labels; the command ``seqclf report --videos`` wraps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data import Data, Video, Videos
from seqclf.experiment.config import Experiment, build_data
from seqclf.prediction.evaluate_run import part_of
from seqclf.prediction.files.frames import FilePrediction, file_frames, on_file
from seqclf.prediction.files.page import EMBED, PredictionPage
from seqclf.prediction.reader import RunReader, file_names
from seqclf.prediction.run import load_run
from seqclf.runs.folder import RunFolder
from seqclf.runtime.devices import pick_device
from seqclf.runtime.text import counted


def report_videos(
    run: str | Path,
    part: str = "test",
    checkpoint: str = "auto",
    settings: Sequence[str] = (),
    *,
    html: str | Path | None = None,
    embed: float = EMBED,
    most: int = 200,
    device: str = "auto",
    data: Data | None = None,
    experiment: Experiment | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Writes a page that plays the videos of a part of a run's data above their predictions and true labels.

    For other videos, see ``predict`` with ``html=``.

    Args:
        run: the run's folder.
        part: "test", "validation" or "train".
        checkpoint: "auto" (the best one, or the newest without validation), "best", "newest", or a step.
        settings: ``key=value`` changes of the run's config, such as ``data.root=DIR``.
        html: the page; None for ``report/videos.html`` in the run.
        embed: megabytes of a video that are embedded in the page. Larger ones are linked, or copied beside it.
        most: the largest number of videos; the first ones of the part are shown.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        data: data to use instead of the config's.
        experiment: the run's experiment, if its config could not be written completely.
        say: called with a line for each video: how the page shows it, or why it was skipped.

    Returns:
        the path of the page.

    Raises:
        SeqclfError: the run or its data can't be loaded; there are no such videos; one can't be read, nor skipped.
    """
    if most < 1:
        raise SeqclfError(f"most={most}: expected 1 or more")
    if data is None:
        data = build_data(load_run(run, checkpoint, settings, experiment)[0])
    reader = RunReader.load(run, checkpoint, pick_device(device), experiment=experiment)
    clips = part_of(data, part, reader.spec, run)
    if not isinstance(clips, Videos):
        raise SeqclfError(f"{run}: its {part} data ({data.source}) are not videos: name files (predict with html=)")
    path = RunFolder(run).report / "videos.html" if html is None else Path(html)
    title = f"{Path(run).name}: {part} videos"
    page = PredictionPage(path, title, data.classes, clips.multi_label, reader.spec.background, embed)
    videos = clips.videos[:most]
    for video, name in zip(videos, file_names([Path(video.name) for video in videos]), strict=True):
        try:
            say(f"{video.name}: {_add(page, name, video, reader)}")
        except SeqclfError as error:
            if clips.on_error == "raise":
                raise
            say(f"skipped: {error}")
    if not len(page):
        raise SeqclfError(f"{run}: none of its {part} videos can be read")
    of = "" if len(page) == len(clips.videos) else f" of {len(clips.videos):,}"
    return page.write(f"{counted(len(page), 'video')}{of}, predicted by {reader.checkpoint}; {data.source}")


def _add(page: PredictionPage, name: str, video: Video, reader: RunReader) -> str:
    """Predicts a video and adds it; returns how the page shows it."""
    frames = file_frames(video.source, reader.fps)
    found = on_file(reader.predict(video.source), frames)
    return page.add(name, video.name, found, video.source, _truth(video, found, page.page.multi_label))


def _truth(video: Video, found: FilePrediction, multi_label: bool) -> Tensor | int | None:
    """The label of the video, or the labels of all frames of its file."""
    if not isinstance(video.labels, Tensor) or video.labels.dim() == int(multi_label):
        return video.labels
    return video.labels[found.frames.read]
