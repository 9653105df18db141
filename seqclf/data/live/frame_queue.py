"""A queue between the thread that reads live video and the one that classifies it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FrameQueue(Generic[Item]):
    """A bounded queue from one thread to another.

    Args:
        size: the largest number of items.

    Attributes:
        drops: whether a full queue drops its oldest item, so that the newest are kept; otherwise the writer waits.
        dropped: the number of items dropped so far.
    """

    def __init__(self, size: int) -> None:
        self.size, self.drops, self.dropped = size, False, 0
        self._items: deque[Item] = deque()
        self._change = Condition()
        self._ended, self._closed = False, False
        self._error: BaseException | None = None

    @property
    def ended(self) -> bool:
        """Whether no more items will come."""
        return self._ended

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> bool:
        """Adds an item. Returns False if the reader has closed the queue."""
        with self._change:
            while len(self._items) >= self.size and not self.drops and not self._closed:
                self._change.wait()
            if self._closed:
                return False
            if len(self._items) >= self.size:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._change.notify_all()
            return True

    def end(self, error: BaseException | None = None) -> None:
        """Ends the queue: no more items will come, and ``error`` is raised after the last one."""
        with self._change:
            self._ended, self._error = True, error
            self._change.notify_all()

    def get(self, stopped: Callable[[], bool], poll: float) -> Item | None:
        """The next item; None at the end, or when ``stopped``, called every ``poll`` seconds, returns True."""
        with self._change:
            while not self._items:
                if self._error is not None:
                    raise self._error
                if self._ended or stopped():
                    return None
                self._change.wait(poll)
            item = self._items.popleft()
            self._change.notify_all()
            return item

    def close(self) -> None:
        """Drops all items; the writer stops at its next one."""
        with self._change:
            self._closed = True
            self._items.clear()
            self._change.notify_all()
