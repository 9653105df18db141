"""The memory allocator of glibc."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HIGH = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the process, instead of returning it to the system.

    By default glibc returns freed blocks above 32 MB and the top of the heap, and the next step faults every page in
    again: 4,400 page faults per step of the reference task, a fifth of its time. The process does not shrink then,
    so only programs call this, not library functions.

    Returns:
        whether it had an effect; False without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, 2**30)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _HIGH))
