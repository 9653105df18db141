"""The machine code of the LSTM kernels of the extra ``fast``: compiled once for a CPU, kept in a file, and loaded.

Only compiling imports numba, which takes half a second and 70 MB. The code is loaded by llvmlite, on which numba is
built.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.runtime.files import cache_folder, write_atomic

SOURCES = [Path(__file__).with_name(f"fused_{part}.py") for part in ("kernels", "vectors")]
KERNELS = {"panels": 5, "panels_of_transpose": 5, "take": 8, "forward": 17, "backward": 17, "weight_gradients": 16}
"""The kernels of ``fused_kernels`` and the number of their arguments, all int64."""


@cache
def available() -> bool:
    """Whether numba is installed, on a system on which the kernels were tested."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and find_spec("numba") is not None


def run(name: str, *arguments: int, threads: int = 1) -> None:
    """Runs a kernel, without the lock of the interpreter.

    Args:
        name: a key of ``KERNELS``.
        threads: the number of threads that run it together. They are those of PyTorch's operators: others would share
            the cores with them, because after an operator they wait for the next one without sleeping.

    Raises:
        SeqclfError: the installed numba does not work.
    """
    if len(arguments) != KERNELS[name]:
        raise TypeError(f"the kernel {name} has {KERNELS[name]} arguments, not {len(arguments)}")
    function, array = getattr(load(), name), (ctypes.c_int64 * len(arguments))(*arguments)
    parallel = openmp() if threads > 1 else None
    if parallel is None:
        function(array)
    else:
        parallel(function, array, threads, 0)


@cache
def openmp() -> Callable[[Any, Any, int, int], None] | None:
    """The function of PyTorch's OpenMP library that runs a function in several threads; None if there is none."""
    with suppress(AttributeError, OSError):
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return function  # type: ignore[no-any-return]
    return None


@cache
def load() -> SimpleNamespace:
    """Loads the kernels, and compiles them first if no file has their code.

    Returns:
        the kernels by name, as C functions of the address of their arguments.

    Raises:
        SeqclfError: the installed numba does not work.
    """
    try:
        files = _files()
        return _load(next(filter(None, map(_read, files)), None) or _compile(files))
    except Exception as error:  # such as a numba that is too old for the installed NumPy
        raise SeqclfError(
            f"numba is installed but does not work ({error}): update it, or set SEQCLF_FUSED=0 to disable it"
        ) from error


def _load(code: bytes) -> SimpleNamespace:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    builder = llvm.JITLibraryBuilder().add_object_img(code)
    for name in KERNELS:
        builder.export_symbol(f"seqclf_{name}")
    compiler = llvm.create_lljit_compiler()
    library = builder.link(compiler, "seqclf")
    kernels = SimpleNamespace()
    for name in KERNELS:
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(library[f"seqclf_{name}"])
        function.owners = compiler, library  # type: ignore[attr-defined]  # without them, the code disappears
        setattr(kernels, name, function)
    return kernels


def _files() -> list[Path]:
    """Where the code may be: beside the bytecode of the package, or in the user's cache folder.

    The name has a hash of what the code depends on.
    """
    import llvmlite.binding as llvm

    parts = [version("numba"), version("llvmlite"), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    content = [" ".join(parts).encode(), *(source.read_bytes() for source in SOURCES)]
    name = f"fused_kernels-{hashlib.sha256(b''.join(content)).hexdigest()[:16]}.o"
    return [folder / name for folder in (Path(cache_from_source(__file__)).parent, cache_folder())]


def _read(file: Path) -> bytes | None:
    """The code in a file; None if it is missing or damaged."""
    with suppress(OSError):
        digest, code = (content := file.read_bytes())[:32], content[32:]
        if hashlib.sha256(code).digest() == digest:
            return code
    return None


def _compile(files: list[Path]) -> bytes:
    """Compiles the kernels, and keeps the code in the first of the files that can be written."""
    message = "compiling the LSTM kernels for this CPU (a few seconds, kept for later runs)"
    timer = Timer(2, print, [message], {"file": sys.stderr})
    timer.start()
    try:
        from seqclf.models.kernels.fused_kernels import machine_code

        code = machine_code()
    finally:
        timer.cancel()
    for file in files:
        with suppress(SeqclfError):
            write_atomic(file, hashlib.sha256(code).digest() + code)
            break
    return code
