"""Cross-validation: one run per fold, and a summary of their test metrics."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data import Data
from seqclf.data.folds import fold
from seqclf.experiment.config import Experiment, build_data, check_is_experiment
from seqclf.experiment.fingerprint import changed_settings, resume_fingerprint
from seqclf.reporting.cross_validation import summarise, write_summary
from seqclf.runs.folder import RunFolder
from seqclf.runtime.distributed import World, joined
from seqclf.runtime.progress import Display
from seqclf.training.loop import train


def cross_validate(
    experiment: Experiment, workdir: str | Path, folds: int | None = None, *, pool: bool = False, device: str = "auto"
) -> dict[str, Any]:
    """Trains and tests an experiment once per fold.

    Each fold is the test part of one run, ``<workdir>/fold_<n>``; the other clips are its training part. With
    ``validation=`` a part of these is held out to choose the checkpoint that is tested, so that nothing of the test
    fold chooses anything. Clips with groups are assigned to folds by whole groups. A finished fold is not repeated, and
    an unfinished one is resumed.

    Args:
        experiment: what to train.
        workdir: the folder of the runs and of the summary, ``cross_validation.json`` and ``cross_validation.csv``.
        folds: the number of folds; None for leave-one-group-out, one fold per group.
        pool: whether to cut the folds from all clips of the data. By default they are cut from its training part, and
            its test part is not used.
        device: "auto", "cpu", "cuda" or "cuda:<n>".

    Returns:
        what ``cross_validation.json`` holds: ``folds``, a dict per fold with its ``run``, ``test`` (the groups or the
        fold that it is tested on), ``clips``, ``step`` and metrics; ``mean`` and ``sd``, the sample standard deviation,
        of each metric; and ``main``, the names of the main metrics.

    Raises:
        SeqclfError: there are too few clips or groups; the folder holds folds of another experiment; as in ``train``.
        Stopped: SIGINT or SIGTERM arrived. The same call resumes.
    """
    check_is_experiment(experiment)
    if folds is not None and not isinstance(folds, int):
        raise SeqclfError(f"folds={folds!r}: expected an integer of at least 2, or None for one fold per group")
    workdir = Path(workdir)
    with joined(device) as world:
        names = world.everywhere(lambda: _names(experiment, folds, pool))
        rows = []
        for number, name in enumerate(names):
            results = _run_fold(_of_fold(experiment, number, folds, pool), workdir / f"fold_{number}", device, world)
            rows.append((name, results))
        summary: dict[str, Any] = world.lead(lambda: summarise(rows, experiment.metrics or ()))
        world.lead(lambda: write_summary(workdir, summary))
    return summary


def _of_fold(experiment: Experiment, number: int, folds: int | None, pool: bool) -> Experiment:
    """The experiment of one fold. A function of the data stays a function, so that the run's config can hold it."""
    data = partial(fold, experiment.data, number=number, folds=folds, seed=experiment.seed, pool=pool)
    return replace(experiment, data=data() if isinstance(experiment.data, Data) else data)


def _names(experiment: Experiment, folds: int | None, pool: bool) -> list[str]:
    """The names of the folds."""
    data = build_data(replace(experiment, data=_of_fold(experiment, 0, folds, pool).data, validation=None))
    return list(data.details["folds"])


def _run_fold(experiment: Experiment, path: Path, device: str, world: World) -> dict[str, Any]:
    """The results of a fold, from its folder if it has finished.

    Raises:
        SeqclfError: the folder holds a run with other settings.
    """
    folder = RunFolder(path)

    def finished() -> dict[str, Any] | None:
        if not folder.has_results():
            return None
        changed = changed_settings(folder.read_record("settings")["settings"], resume_fingerprint(experiment))
        if changed:
            name, (before, now) = next(iter(changed.items()))
            raise SeqclfError(f"{path}: {name} was {before} and is now {now}: use another workdir= (--workdir)")
        return folder.read_results()

    done: dict[str, Any] | None = world.lead(finished)
    if done is not None:
        Display(1, quiet=not world.leads).say(f"{path} has finished and is kept")
        return done
    return train(experiment, path, device, resume=world.lead(lambda: RunFolder.is_run(path)))
