"""The machine code of the extra ``fast``: where it is kept, and when it is compiled again."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from inspect import signature

import pytest
import torch

from seqclf.batch import SeqclfError
from seqclf.models.kernels import fused_code

pytest.importorskip("numba")

from seqclf.models.kernels import fused_kernels


def test_the_kernels_have_the_arguments_with_which_they_are_called():
    """With another number, they would read other memory."""
    assert {k.__name__: len(signature(k).parameters) for k in fused_kernels.KERNELS} == fused_code.KERNELS


def test_a_kernel_with_another_number_of_arguments_is_refused():
    with pytest.raises(TypeError, match="take"):
        fused_code.run("take", 0, 0)


@pytest.fixture
def compiled(monkeypatch) -> list[bytes]:
    """The results of the compiler, which is replaced: it takes seconds."""
    fused_code.load()
    code = next(filter(None, map(fused_code._read, fused_code._files())))
    results = []
    monkeypatch.setattr(fused_kernels, "machine_code", lambda: results.append(code) or code)
    return results


def works() -> bool:
    """Whether the code can be loaded and run, in a new state of the module. Only the function that runs is kept."""
    x, index, out = torch.arange(6.0), torch.tensor([1, 2, 0]), torch.ones(3, 3)
    begun = ctypes.c_int64()
    numbers = x.data_ptr(), 3, 2, index.data_ptr(), 3, out.data_ptr(), 3, ctypes.addressof(begun)
    arguments = (ctypes.c_int64 * 8)(*numbers)
    fused_code.load.__wrapped__().take(arguments)
    return out.tolist() == [[3, 4, 5], [0, 0, 0], [0, 1, 2]]


def test_code_is_compiled_once_and_again_if_its_file_is_damaged(tmp_path, monkeypatch, compiled):
    file = tmp_path / "new folder" / "code.o"
    monkeypatch.setattr(fused_code, "_files", lambda: [file])
    assert works() and works() and len(compiled) == 1
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: works(), range(8)))
    for content in (b"", file.read_bytes()[:-1], file.read_bytes()[:40] + b"x" + file.read_bytes()[41:]):
        file.write_bytes(content)
        before = len(compiled)
        assert works() and works() and len(compiled) == before + 1


@pytest.mark.parametrize("writable", [0, 1, 2], ids=["first", "second", "none"])
def test_code_is_kept_in_the_first_folder_that_can_be_written(tmp_path, monkeypatch, compiled, writable):
    (tmp_path / "file").touch()
    files = [tmp_path / (str(k) if k >= writable else "file") / "code.o" for k in range(2)]
    monkeypatch.setattr(fused_code, "_files", lambda: files)
    assert works() and works()
    assert [file.exists() for file in files] == [k == writable for k in range(2)]
    assert len(compiled) == (2 if writable == 2 else 1)


def test_another_source_version_or_cpu_has_another_file(tmp_path, monkeypatch):
    source = tmp_path / "changed.py"
    source.write_bytes(fused_code.SOURCES[1].read_bytes() + b"\n")
    changes = {
        "seqclf.models.kernels.fused_code.version": lambda name: "0.1",
        "llvmlite.binding.get_host_cpu_name": lambda: "other",
        "seqclf.models.kernels.fused_code.SOURCES": [fused_code.SOURCES[0], source],
    }
    names = [fused_code._files()[0].name]
    for target, value in changes.items():
        monkeypatch.setattr(target, value)
        names.append(fused_code._files()[0].name)
    assert len(set(names)) == 4


def test_a_numba_that_cannot_be_imported_is_an_error_that_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(fused_code, "_files", lambda: [tmp_path / "code.o"])
    monkeypatch.setitem(sys.modules, "seqclf.models.kernels.fused_kernels", None)
    monkeypatch.delattr("seqclf.models.kernels.fused_kernels")
    with pytest.raises(SeqclfError, match="SEQCLF_FUSED=0"):
        fused_code.load.__wrapped__()
