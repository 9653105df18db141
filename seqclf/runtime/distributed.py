"""The processes of a run, as torchrun starts them: ranks, shares of a batch, and communication.

Everything here also works for a run of one process: sums are unchanged and nothing is sent.
"""

from __future__ import annotations

import gc
import inspect
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from traceback import clear_frames
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from seqclf.batch import PeerFailed, SeqclfError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those of its run.

    Attributes:
        rank: from 0 to size - 1. The process of rank 0 leads: it alone writes files.
        size: the number of processes.
        local_rank: its rank on this machine, and the index of its GPU.
        restarts: how many times torchrun has restarted the processes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, clips: int) -> slice:
        """This process's share of a batch: consecutive clips. The shares differ by at most one clip."""
        return slice(self.rank * clips // self.size, (self.rank + 1) * clips // self.size)

    def sum(self, x: Tensor) -> Tensor:
        """The sum of a tensor over all processes. Shapes and dtypes must be equal."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        x = torch.tensor(number)  # on the CPU: a GPU is not waited for
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return int(x)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank. They must be picklable."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def lead(self, work: Callable[[], T]) -> T:
        """Runs a function in the leading process and returns its result in all processes.

        Raises:
            SeqclfError: in the leading process, if the function raises it.
            PeerFailed: in the others, if it does.
        """
        if self.size == 1:
            return work()
        error: SeqclfError | None = None
        outcome: list[Any] = [None, True]  # the result, and whether the function failed
        if self.leads:
            try:
                outcome = [work(), False]
            except SeqclfError as raised:
                error = raised
        dist.broadcast_object_list(outcome)
        if outcome[1]:
            raise error or PeerFailed("the leading process failed")
        return outcome[0]

    def everywhere(self, work: Callable[[], T]) -> T:
        """Runs a function that may write files in every process, on each machine first in one of them.

        Raises:
            SeqclfError: in the first process (by rank) whose function raises it.
            PeerFailed: in the others.
        """
        if self.size == 1:
            return work()
        result, error = None, None
        for turn in (self.local_rank == 0, self.local_rank > 0):
            if turn:
                try:
                    result = work()
                except SeqclfError as raised:
                    error = raised
            failed = [rank for rank, it_failed in enumerate(self.gather(error is not None)) if it_failed]
            if failed:
                raise error if error and failed[0] == self.rank else PeerFailed(f"process {failed[0]} failed")
        return result  # type: ignore[return-value]


ALONE = World()
"""A run of one process."""

_groups = count()
"""Numbers the groups of processes that this process joins, one after the other."""


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The processes of this run: those that torchrun started, or this process alone.

    Within the block they can communicate: CPUs through gloo, GPUs through NCCL. A process group that exists already is
    used and kept.

    Args:
        device: "cpu" if no GPU will be used.

    Raises:
        SeqclfError: another process cannot be reached any more.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    rank, local_rank, restarts = (
        int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    )
    if size == 1 or not {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        yield World(restarts=restarts)
        return
    world = World(rank, size, local_rank, restarts)
    if dist.is_initialized():
        yield world
        return
    gpus = device != "cpu" and torch.cuda.is_available()
    try:
        store, _, _ = next(rendezvous("env://"))
        # torchrun's store outlives groups and restarts, and keeps the addresses of what has ended
        store = dist.PrefixStore(f"group_{next(_groups)}", store)  # type: ignore[attr-defined]
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            store = dist.PrefixStore(f"start_{restarts}", store)  # type: ignore[attr-defined]
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", store=store, rank=rank, world_size=size)
        yield world
        _leave()
    except SeqclfError as error:
        clear_frames(error.__traceback__)  # they hold the model
        if not gpus:  # NCCL may wait for a process that has failed
            _leave()
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise SeqclfError(f"process {rank} of {size}: cannot reach the other processes of the run ({reason})") from None


def _leave() -> None:
    """Ends the communication, so that gloo's threads do not outlive the interpreter and abort the process.

    DistributedDataParallel is part of a reference cycle that keeps the process group alive: it is collected first.
    """
    gc.collect()
    dist.destroy_process_group()


def launch() -> str | None:
    """A name of the torchrun that started this process, unchanged by restarts; None without torchrun."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{platform.node()}:{os.getppid()}" if run == "none" else run


def summed_gradients(model: torch.nn.Module) -> torch.nn.parallel.DistributedDataParallel:
    """The model, with gradients summed over the processes while they are computed.

    They are summed, not averaged: the loss of each process is its part of the mean over the whole batch.
    """

    def add_up(bucket: Any) -> torch.futures.Future[Tensor]:
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        assert work is not None
        return work.get_future().then(lambda done: done.value()[0])

    engine = torch.nn.parallel.DistributedDataParallel
    # each process keeps its own statistics until average_buffers; the argument's name depends on PyTorch's version
    known = inspect.signature(engine).parameters
    own = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    on_gpu = next(model.parameters()).device.type == "cuda"
    parallel = engine(model, device_ids=[torch.cuda.current_device()] if on_gpu else None, **own)  # type: ignore[arg-type]
    parallel.register_comm_hook(None, lambda _, bucket: add_up(bucket))
    return parallel


def average_buffers(model: torch.nn.Module, world: World) -> None:
    """Averages a model's statistics (of batch norm) over the processes."""
    if world.size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(world.sum(buffer) / world.size)
