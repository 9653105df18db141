"""``metrics.jsonl`` and TensorBoard events of a run."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.runs.events_file import EventsWriter
from seqclf.runtime.files import json_text, write_atomic


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file. Incomplete lines, left by a process that was killed, are skipped."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            values["step"], values["part"]
        except (ValueError, KeyError, TypeError):
            continue
        lines.append(values)
    return lines


class MetricsWriter:
    """Writes ``metrics.jsonl``, one JSON object per line, and TensorBoard events.

    The file holds no times, so that a resumed run ends with the same bytes as an uninterrupted one. TensorBoard has
    the times. Lines after ``step``, which a killed run may have written after its last checkpoint, are removed.

    Args:
        path: the metrics file; None writes nothing.
        step: the step that the run continues after; 0 starts a new file.

    Raises:
        SeqclfError: a file cannot be written.
    """

    def __init__(self, path: Path | None, step: int = 0) -> None:
        self.path = path
        if path is None:
            return
        if step and path.exists():
            kept = [line for line in read_metrics(path) if line["step"] <= step]
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        try:
            with ExitStack() as on_error:
                self.stream = on_error.enter_context(path.open("a" if step else "w", encoding="utf-8"))
                self.events = EventsWriter(path.parent, step)
                on_error.pop_all()
        except OSError as error:
            raise self._error(error) from None

    def add(self, step: int, part: str, values: dict[str, float | None], **timings: float) -> None:
        """Writes one line.

        Args:
            step: the number of steps done.
            part: "train", "validation" or "test".
            values: metrics by name.
            timings: written to TensorBoard only.

        Raises:
            SeqclfError: the file cannot be written.
        """
        if self.path is None:
            return
        try:
            self.stream.write(json_text({"step": step, "part": part, **values}) + "\n")
            self.stream.flush()
            known = {f"{part}/{k}": value for k, value in {**values, **timings}.items() if value is not None}
            self.events.add(step, known)
        except OSError as error:
            raise self._error(error) from None

    def close(self) -> None:
        """Closes the files.

        Raises:
            SeqclfError: the last lines cannot be written.
        """
        if self.path is None:
            return
        try:
            with closing(self.events), self.stream:  # closes both, also if the first raises
                pass
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> SeqclfError:
        return SeqclfError(f"{self.path}: cannot be written ({error}); checkpoints are unchanged")
