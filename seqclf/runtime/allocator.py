"""The C allocator of glibc, told to keep the memory that training frees and asks for again a moment later."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HIGH = 2**31 - 1


def keep_freed_memory() -> bool:
    """Stops glibc from handing freed memory back to the system. Returns whether it did (elsewhere: False).

    By default blocks above 32 MB at most, and the heap's top, go back when freed, and the next step faults every page
    in again: 4,400 page faults a step of the reference task, about a fifth of its time. (``mallopt(3)``: malloc uses
    these two thresholds as given, no longer adjusting them.) The price is that the process does not shrink.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, 2**30)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _HIGH))
