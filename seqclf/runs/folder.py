"""The run folder. No other module knows its file names.

| name                | content                                                                      |
| ------------------- | ---------------------------------------------------------------------------- |
| config.py, sources/ | the resolved config, and the user's modules that it imports                  |
| run.json            | the record: data, input, settings, environment, times                        |
| checkpoints/        | step_<n>.pt                                                                  |
| metrics.jsonl       | metrics by step; beside it TensorBoard events                                |
| results.json        | metrics after the last step                                                  |
| most_wrong.npz      | frames of the misclassified test clips with the highest loss                 |
| trace.json          | the trace of ``profile=True``                                                |
| report/, export/, predictions/, evaluation_<part>_step_<n>.json | written on request                |
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqclf.batch import SeqclfError
from seqclf.experiment.config import Experiment
from seqclf.experiment.loading import load_experiment
from seqclf.experiment.rendering import save_experiment
from seqclf.runs.checkpoint import list_checkpoints, load_checkpoint, load_newest, save_checkpoint, step_of
from seqclf.runs.metrics_file import read_metrics
from seqclf.runtime.files import make_folder, read_json_object, write_atomic, write_json


class RunFolder:
    """The files of one run.

    Args:
        path: the folder. It need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.py"
        self.sources = self.path / "sources"
        self.record = self.path / "run.json"
        self.results = self.path / "results.json"
        self.metrics = self.path / "metrics.jsonl"
        self.most_wrong = self.path / "most_wrong.npz"
        self.checkpoints = self.path / "checkpoints"
        self.trace = self.path / "trace.json"
        self.report = self.path / "report"
        self.export = self.path / "export"
        self.predictions = self.path / "predictions"

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run.

        Raises:
            SeqclfError: the folder holds no run.
        """
        folder = cls(path)
        for file in (folder.config, folder.record):
            if not file.is_file():
                reason = f"it has no {file.name}" if folder.path.is_dir() else "there is no such folder"
                raise SeqclfError(f"{path} is not a run folder ({reason})")
        return folder

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """A new folder, which may exist if it is empty.

        Raises:
            SeqclfError: the folder is not empty or cannot be created.
        """
        folder = cls(path)
        folder.make()
        if not folder.is_empty():
            raise SeqclfError(f"run folder {path} is not empty: choose another one")
        return folder

    @staticmethod
    def is_run(path: str | Path) -> bool:
        """Whether a path is a run: a folder with ``config.py`` or ``run.json``."""
        folder = RunFolder(path)
        return folder.config.is_file() or folder.record.is_file()

    def make(self) -> None:
        """Creates the folder if it is missing.

        Raises:
            SeqclfError: it cannot be created.
        """
        make_folder(self.path, "run folder ")

    def is_empty(self, resuming: bool = False) -> bool:
        """Whether the folder holds nothing; with ``resuming``, nothing but files of a run that wrote no record."""
        names = {p.name for p in self.path.iterdir()}
        if resuming:
            names = {n for n in names if not (n.startswith(".") and n.endswith(".part"))} - {"config.py", "sources"}
        return not names

    # ---- config and record

    def read_config(self) -> str:
        """The text of ``config.py``.

        Raises:
            SeqclfError: the file is missing or damaged.
        """
        try:
            return self.config.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SeqclfError(f"{self.config}: cannot be read ({error})") from None

    def write_config(self, experiment: Experiment) -> dict[str, str]:
        """Writes ``config.py`` and the user's modules that it imports; returns what ``save_experiment`` does."""
        return save_experiment(experiment, self.path)

    def load_experiment(self, overrides: Iterable[str] = ()) -> Experiment:
        """The run's experiment, with ``key=value`` overrides. Errors as in ``load_experiment``."""
        return load_experiment(self.config, overrides)

    def read_record(self, *needed: str) -> dict[str, Any]:
        """The content of ``run.json``.

        Args:
            needed: the keys that it must have besides "data".

        Raises:
            SeqclfError: the file is missing or damaged, or lacks a key.
        """
        record = read_json_object(self.record, ("data", *needed))
        if not isinstance(record["data"], dict):
            raise SeqclfError(f"{self.record}: damaged (data is no object)")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes ``run.json``."""
        write_json(self.record, record)

    def update_record(self, **fields: Any) -> None:
        """Sets fields of ``run.json``."""
        self.write_record({**self.read_record(), **fields})

    # ---- metrics

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; empty if there is none."""
        return read_metrics(self.metrics) if self.metrics.exists() else []

    def has_results(self) -> bool:
        """Whether the run has finished."""
        return self.results.is_file()

    def read_results(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return read_json_object(self.results, ("step", "parts"))

    def write_results(self, results: dict[str, Any]) -> None:
        """Writes ``results.json``."""
        write_json(self.results, results)

    def write_evaluation(self, part: str, step: int, results: dict[str, Any]) -> Path:
        """Writes the metrics of a checkpoint on a part of the data; returns the file's path."""
        return write_json(self.path / f"evaluation_{part}_step_{step}.json", results)

    def read_most_wrong(self) -> tuple[list[NDArray[Any]], list[int]]:
        """The clips of ``most_wrong.npz``, each ``(T, *frame_shape)`` without padding, and their sample numbers.

        Raises:
            SeqclfError: the file is missing or damaged.
        """
        try:
            with self.most_wrong.open("rb") as stream, np.load(stream) as file:
                clips = zip(file["frames"], file["length"], strict=False)  # without clips there is one empty row
                return [clip[:length] for clip, length in clips], file["sample"].tolist()
        except FileNotFoundError:
            raise SeqclfError(f"{self.most_wrong}: no such file") from None
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise SeqclfError(f"{self.most_wrong}: damaged ({error})") from None

    def write_most_wrong(self, frames: NDArray[Any], lengths: Sequence[int], samples: Sequence[int]) -> None:
        """Writes ``most_wrong.npz``: padded clips ``(N, T, *frame_shape)``, their lengths and their sample numbers."""
        stream = io.BytesIO()
        length, sample = np.array(lengths, np.int64), np.array(samples, np.int64)
        np.savez_compressed(stream, frames=frames, length=length, sample=sample)
        write_atomic(self.most_wrong, stream.getvalue())

    # ---- checkpoints

    def save_checkpoint(self, content: dict[str, Any], step: int, keep: int = 1, best: int | None = None) -> Path:
        """Writes a checkpoint and deletes older ones. Arguments and errors as in ``checkpoint.save_checkpoint``."""
        return save_checkpoint(content, self.checkpoints, step, keep, best)

    def list_checkpoints(self) -> list[Path]:
        """The paths of the checkpoints, newest first."""
        return list_checkpoints(self.checkpoints)

    def load_newest(self) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest undamaged checkpoint, as in ``checkpoint.load_newest``."""
        return load_newest(self.checkpoints)

    def load_checkpoint(self, which: str = "auto") -> tuple[Path, dict[str, Any], list[str]]:
        """A checkpoint.

        Args:
            which: "newest", "best" (by the validation part), the number of a step, or "auto": the best one, or the
                newest of a run without a validation part.

        Returns:
            its path, its content, and one message for each damaged checkpoint that was skipped.

        Raises:
            SeqclfError: there is no such checkpoint, or it is damaged.
        """
        found = self.load_newest()
        if found is None:
            raise SeqclfError(f"{self.path} has no checkpoint yet")
        path, content, damaged = found
        if which == "auto":
            which = "newest" if content["best"] is None else "best"
        if which == "newest":
            return path, content, damaged
        if which == "best" and content["best"] is None:
            raise SeqclfError(f"{self.path} has no best checkpoint, because no validation metric chose one")
        step = str(content["best"]["step"]) if which == "best" else str(which)
        steps = {str(step_of(path)): path for path in self.list_checkpoints()}
        if step not in steps:
            raise SeqclfError(f"{self.path} has no checkpoint {which}: expected best, newest, or {', '.join(steps)}")
        return steps[step], load_checkpoint(steps[step]), damaged
