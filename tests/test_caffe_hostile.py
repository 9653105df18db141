"""Damaged and hostile files work or raise a ``CaffeFormatError``, in bounded time and memory.

Each case changes a file of ``caffe_golden`` at random, by its own seed: it truncates the file, flips bits, replaces
lengths, shapes, names and tokens, or doubles, swaps and removes layers and blobs. Every public function reads the file,
and the nets are run. The law: this works, or raises a ``CaffeFormatError`` that names the file. There is no other
exception, no warning, no hang, and no memory beyond the size of the file.

500 cases run each time, and 20,000 with ``SEQCLF_LONG=1``. ``SEQCLF_CASE=<number>`` runs one case.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from caffe_mutants import KINDS, MEMORY, Subject, address_space

LONG = bool(os.environ.get("SEQCLF_LONG"))
CASES, CHUNK = (20_000, 250) if LONG else (500, 50)
MEGABYTES = 500
"""The most that a case may add to the largest address space of the process."""


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": MEMORY}.__getitem__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the cases. Some were run there before, because PyTorch and h5py load libraries on first use."""
    root, here = tmp_path_factory.mktemp("hostile"), Path.cwd()
    for kind in ("state", "weights", "pictures"):
        subject = Subject(root, kind, *KINDS[kind][-1], random.Random(0))
        os.chdir(subject.folder)
        subject.run()
    os.chdir(here)
    return root


def cases():
    if "SEQCLF_CASE" in os.environ:
        return [range(int(os.environ["SEQCLF_CASE"]), int(os.environ["SEQCLF_CASE"]) + 1)]
    return [range(start, start + CHUNK) for start in range(0, CASES, CHUNK)]


@pytest.mark.parametrize("kind", ("net", "weights", "state", "solver", "rows", "pictures"))
def test_unchanged_files_are_accepted(kind, folder, monkeypatch):
    every = dict.fromkeys(KINDS[kind])
    for case, file in every if LONG else list(every)[-4:]:
        subject = Subject(folder, kind, case, file, random.Random(0))
        monkeypatch.chdir(subject.folder)
        subject.run()
        for message in subject.refused:
            # a .caffemodel of lisa-caffe or of 2014 lacks the shapes of its inputs; labels are random
            assert (kind == "weights" and "is the top of no earlier layer" in message) or "a label of -" in message


@pytest.mark.slow
@pytest.mark.parametrize("seeds", cases(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_damaged_files_work_or_raise_caffe_format_error(seeds, folder, monkeypatch):
    for seed in seeds:
        subject = Subject.mutant(folder, seed)
        monkeypatch.chdir(subject.folder)
        before = address_space()
        signal.signal(signal.SIGALRM, hangs)
        signal.alarm(60)
        try:
            subject.run()
            grown = address_space() - before
            assert grown < MEGABYTES, f"took {grown} MB of address space"
        except (Exception, Hang) as error:
            what = f"{type(error).__name__}: {error}"
            raise AssertionError(f"SEQCLF_CASE={seed} ({subject.what} in {subject.folder}): {what}") from error
        finally:
            signal.alarm(0)


class Hang(BaseException):
    """Not an ``Exception``, so that the code under test does not catch it."""


def hangs(*_):
    raise Hang("has not ended after a minute")
