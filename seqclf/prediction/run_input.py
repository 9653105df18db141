"""How a run reads files: by its record, or by its experiment for parts that the record can't name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data import Clips, Videos
from seqclf.data.input_spec import InputSpec, Reader, kind_of
from seqclf.data.recipe import Recipe, opaque_parts
from seqclf.data.sampling import Sampling, whole
from seqclf.data.transforms import Transform
from seqclf.experiment.config import Experiment, build_data


@dataclass(frozen=True)
class RunInput:
    """The sampling, the transform and the readers of a run's evaluation.

    Attributes:
        spec: the record.
        sources: the folder of the user's modules that it refers to.
        experiment: the experiment that provides parts without an importable name, or None.
    """

    spec: InputSpec
    sources: Path
    experiment: Experiment | None = None

    def sampling(self) -> Sampling:
        """The sampling function. Errors as in ``InputSpec.build_sampling``."""
        if self._needs_experiment(self.spec.sampling):
            found: Sampling = getattr(self._test, "sampling", whole)
            return found
        return self.spec.build_sampling(self.sources)

    def transform(self) -> Transform | None:
        """The transform of a clip's frames, or None. Errors as in ``InputSpec.build_transform``."""
        if self._needs_experiment(self.spec.transform):
            found: Transform | None = getattr(self._test, "transform", None)
            return found
        return self.spec.build_transform(self.sources)

    def reader(self, kind: str) -> Reader | None:
        """The reader of a kind of file, or None. Errors as in ``InputSpec.build_reader``."""
        if self._needs_experiment(self.spec.readers.get(kind)):
            test = self._test
            if isinstance(test, Clips):
                return test.readers.get(kind)
            for video in test.videos:
                if kind_of(video.source) == kind and hasattr(video.source, "reader"):
                    found: Reader = video.source.reader()
                    return found
        return self.spec.build_reader(kind, self.sources)

    def _needs_experiment(self, recipe: Recipe) -> bool:
        return self.experiment is not None and bool(opaque_parts(recipe))

    @cached_property
    def _test(self) -> Clips | Videos:
        """The test part of the experiment's data."""
        assert self.experiment is not None
        data = build_data(self.experiment)
        if tuple(data.classes) != self.spec.classes:
            raise SeqclfError(f"experiment=: its data ({data.source}) has other classes than the run")
        return data.test
