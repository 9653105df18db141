"""A file of TensorBoard events, written by the calling thread."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path


class EventsWriter:
    """Writes scalars to a new events file.

    PyTorch's ``SummaryWriter`` writes in a thread of its own, which prints a traceback when the disk is full. Here an
    ``OSError`` reaches the caller.

    Args:
        folder: the folder of the file.
        step: the step that the run continues after. TensorBoard ignores values of later steps in earlier files.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary = Event, Summary
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        with ExitStack() as on_error:
            # appended to: the same process may continue the run within a second
            self.stream = on_error.enter_context((folder / name).open("ab"))
            self.records = RecordWriter(self.stream)
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            if step:
                start = SessionLog(status=SessionLog.START)
                self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))
            self.stream.flush()
            on_error.pop_all()

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the values of a step by their tags."""
        values = [self.summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(self.event(wall_time=time.time(), step=step, summary=self.summary(value=values)))
        self.stream.flush()

    def close(self) -> None:
        """Closes the file."""
        self.stream.close()

    def _write(self, event: object) -> None:
        self.records.write(event.SerializeToString())  # type: ignore[attr-defined]
