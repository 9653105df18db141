"""A run and how it reads files: the recorded input of ``run.json``, changed only by what the caller asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.data import find_videos
from seqclf.data.find import names_in, plain_name
from seqclf.data.frames.array_file import ArrayFile
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.numbers import natural_key
from seqclf.data.frames.pictures import is_picture
from seqclf.data.frames.source import Source
from seqclf.data.input_spec import DecisionRule, InputSpec, check_decision, kind_of_path
from seqclf.data.recipe import Recipe, from_recipe, opaque_parts, parts_of
from seqclf.data.sampling import Sampling
from seqclf.data.transforms import LRCN_FRAME, Size, Transform, in_turn
from seqclf.data.transforms import resize as resized
from seqclf.data.video.file import VideoFile
from seqclf.evaluation.multi_label import Threshold
from seqclf.experiment.config import Experiment
from seqclf.prediction.clips import SourcePrediction, predict_source
from seqclf.prediction.fit import Fit
from seqclf.prediction.predictor import Predictor
from seqclf.prediction.run import load_run
from seqclf.prediction.run_input import RunInput
from seqclf.runs.folder import RunFolder
from seqclf.runtime.text import numbered

KINDS = {"array": "an .npy file", "folder": "a folder of pictures", "image": "an image", "video": "a video"}
"""The kinds of files, as messages name them."""

CROPS = ("center_crop", "random_crop", "corner_crop", "flip")
"""Steps that ten crops replace."""


@dataclass(frozen=True)
class RunReader:
    """A run, ready to read files and to classify them.

    Attributes:
        folder: the run's.
        checkpoint: the file of the weights.
        predictor: the model.
        input: how the run reads files.
        fit: the transform of frames.
        sampling: which frames of a file make its clips; None: what evaluation does.
        fps: the frame rate to read files at; None: what the run recorded.
        root: the folder of the videos.
        video_stream: which video stream of a file to read; None for the recorded one.
        annotation: how the run read its table of segments, as arguments; empty if it had none.
        listing: how it read its lists, as arguments of ``read_paths``.
    """

    folder: str
    checkpoint: Path
    predictor: Predictor
    input: RunInput
    fit: Fit
    sampling: Sampling | None = None
    fps: float | None = None
    root: str | None = None
    video_stream: int | None = None
    annotation: Mapping[str, Any] = field(default_factory=dict)
    listing: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def load(
        folder: str | Path,
        checkpoint: str = "auto",
        device: torch.device | str = "cpu",
        *,
        decision: DecisionRule | None = None,
        sampling: Sampling | None = None,
        transform: Transform | None = None,
        resize: Size | None = None,
        crop: bool = False,
        crops: int = 1,
        fps: float | None = None,
        root: str | None = None,
        threshold: Threshold | None = None,
        experiment: Experiment | None = None,
        video_stream: int | None = None,
    ) -> RunReader:
        """A run from its folder.

        Args:
            decision, sampling, transform: in place of what the run recorded.
            resize, crop: in place of the recorded transform; see ``Fit``.
            crops: 10 for ten crops, which take the place of the crops of the recorded transform.
            fps: resample video files to this rate; of folders and arrays, the rate that they have.
            root: the folder of the videos, where it is another than in training.
            threshold: of a multi-label run; see ``BatchPredictor``.
            experiment: in place of the run's config; also read for parts of the input that have no importable name.
            video_stream: the video stream of files with several, from 0.

        Raises:
            SeqclfError: as in ``load_run``; the record does not say how input is read, or says it by code that can't be
                imported; an argument is out of range.
        """
        check_decision(decision)
        if fps is not None and not 0 < fps < float("inf"):
            raise SeqclfError(f"fps={fps}: expected a positive number")
        loaded, model, record, path = load_run(folder, checkpoint, experiment=experiment)
        spec = InputSpec.from_record(record, folder)
        files = RunInput(spec, RunFolder(folder).sources, experiment)
        if transform is None and resize is None and not crop:
            transform = _ten_crop_transform(spec, files.sources) if crops != 1 else files.transform()
        rule = decision or spec.decision
        predictor = Predictor(
            model, spec.classes, device, rule, spec, files.sources, loaded.precision, threshold=threshold
        )
        fit = Fit(transform, resize, crop, crops, spec.flow)
        tables = [(record.get("data") or {}).get(name, {}) for name in ("annotation", "listing")]
        root = root or spec.root
        return RunReader(str(folder), path, predictor, files, fit, sampling, fps, root, video_stream, *tables)

    @property
    def spec(self) -> InputSpec:
        """The record of how the run reads input."""
        return self.input.spec

    @property
    def classes(self) -> list[str]:
        return self.predictor.classes

    def find(self, paths: Sequence[str | Path]) -> list[Path]:
        """The files that paths lead to, as this run reads them: videos, or images where an image is a clip.

        Raises:
            SeqclfError: as in ``find_videos``; a folder holds no images.
        """
        if "image" not in self.spec.readers:
            return find_videos(paths)
        found: list[Path] = []
        for path in (Path(path).expanduser() for path in paths):
            if path.is_dir():
                inside = sorted(
                    (n for n, is_folder in names_in(path) if not is_folder and is_picture(n)), key=natural_key
                )
                if not inside:
                    raise SeqclfError(f"{path}: holds no images")
                found += [path / name for name in inside]
            elif not path.exists():
                raise SeqclfError(f"{path}: no such file or folder")
            else:
                found.append(path)
        return list(dict.fromkeys(found))

    def open(self, path: str | Path) -> Source:
        """A file as this run reads it.

        Raises:
            SeqclfError: there is no such file, or the run can't read its kind; ``video_stream`` is set, and this is no
                video file.
        """
        path = Path(path).expanduser()
        if not path.exists():
            raise SeqclfError(f"{path}: no such file or folder")
        kind = kind_of_path(path)
        reader = self.input.reader(kind) or self._default_reader(kind, path)
        if self.fps is not None and kind == "video":
            reader = partial(reader, fps=self.fps)
        if self.video_stream is not None:
            if kind != "video":
                raise SeqclfError(f"{path}: video_stream={self.video_stream} (--video-stream) is for video files")
            reader = partial(reader, stream=self.video_stream)
        return reader(path)

    def is_default(self, path: str | Path) -> bool:
        """Whether the run has never read files of this kind, so that they are opened with default settings."""
        return kind_of_path(path) not in self.spec.readers

    def _default_reader(self, kind: str, path: Path) -> Callable[..., Source]:
        shape = self.predictor.frame_shape or self.spec.frame_shape
        if kind == "array":
            return partial(ArrayFile, frame_shape=shape, dtype=None)
        if kind in ("folder", "video") and len(shape) == 3:
            return {"folder": FrameFolder, "video": VideoFile}[kind]
        known = " or ".join(KINDS.get(name, name) for name in dict.fromkeys(["array", *self.spec.readers]))
        raise SeqclfError(
            f"{path}: is read as {KINDS.get(kind, kind)}, but the run {self.folder} reads frames {shape} from {known}"
        )

    def predict(self, source: Source) -> SourcePrediction:
        """Classifies a source as evaluation does; errors as in ``predict_source``."""
        return predict_source(self.predictor, source, self.sampling or self.input.sampling(), self.fit)

    def setting(self, kind: str, name: str) -> Any:
        """A setting of the reader of a kind of file, such as "fps" of "video"; None where the run has none."""
        recipe = self.spec.readers.get(kind) or {}
        return recipe.get("keywords", {}).get(name)


def _ten_crop_transform(spec: InputSpec, sources: Path) -> Transform | None:
    """The recorded transform without its own crops, which ten crops take the place of."""
    recipe: Recipe = spec.transform
    if recipe is None:
        return None
    if opaque_parts(recipe):
        return spec.build_transform(sources)  # raises
    name = recipe["call"].rpartition(":")[2] if isinstance(recipe, dict) and "call" in recipe else ""
    if name == "in_turn":
        steps = recipe.get("keywords", {}).get("steps", [])
        kept = [step for step in (steps if isinstance(steps, list) else steps["tuple"]) if _name(step) not in CROPS]
        left = tuple(
            partial(resized, size=LRCN_FRAME) if _name(s) == "lrcn_crop" else from_recipe(s, sources) for s in kept
        )
        return partial(in_turn, steps=left) if left else None
    if name in CROPS:
        return None
    return partial(resized, size=LRCN_FRAME) if name == "lrcn_crop" else spec.build_transform(sources)


def _name(recipe: Recipe) -> str:
    return next((part["call"].rpartition(":")[2] for part in parts_of(recipe) if "call" in part), "")


def file_names(paths: Sequence[Path]) -> list[str]:
    """A name for the files written of each video: its own without suffix, numbered where several are the same."""
    return numbered(plain_name(Path(os.path.abspath(path))) or "video" for path in paths)
