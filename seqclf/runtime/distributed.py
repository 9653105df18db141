"""The processes that share a run, as torchrun starts them: which one this is, its share, and what they tell each other.

Everything here is also right for a run of one process, where sums are what they were and nothing is sent.
"""

from __future__ import annotations

import gc
import inspect
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
        rank: 0 to size - 1; the process of rank 0 leads, which alone writes.
        size: how many processes there are.
        local_rank: its number among those on this machine, and of its GPU.
        restarts: how often torchrun has started the processes anew.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, clips: int) -> slice:
        """This process's part of a batch of so many clips: consecutive ones, as many as others have, or one more."""
        return slice(self.rank * clips // self.size, (self.rank + 1) * clips // self.size)

    def sum(self, x: Tensor) -> Tensor:
        """The sum of all processes' tensors, which must be of one shape and dtype."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        if self.size == 1:
            return number
        x = torch.tensor(number)  # on the CPU: a GPU is not waited for
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return int(x)

    def gather(self, value: T) -> list[T]:
        """All processes' values, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def lead(self, work: Callable[[], T]) -> T:
        """Has the leading process do something, and tells all what came of it.

        Raises:
            PeerFailed: on the other processes, where the leading one raises an error.
        """
        if self.size == 1:
            return work()
        error: SeqclfError | None = None
        told: list[Any] = [None, True]  # the result, and whether it failed
        if self.leads:
            try:
                told = [work(), False]
            except SeqclfError as raised:
                error = raised
        dist.broadcast_object_list(told)
        if told[1]:
            raise error or PeerFailed("the leading process failed")
        return told[0]

    def everywhere(self, work: Callable[[], T]) -> T:
        """Has every process do something that may write files, the first on each machine before the others.

        Raises:
            PeerFailed: where another process raises an error, which is the first by rank.
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
"""That of a run of one process."""


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world of this process: that of torchrun where it started it, else this process alone.

    Inside, the processes can reach each other: on CPUs by gloo, on GPUs by NCCL. Where they do already, that stays.

    Args:
        device: "cpu" where no GPU will be used.

    Raises:
        SeqclfError: the others can't be reached any more.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or not {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        yield World(restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)))
        return
    rank, local_rank, restarts = (
        int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    )
    world = World(rank, size, local_rank, restarts)
    if dist.is_initialized():
        yield world
        return
    gpus = device != "cpu" and torch.cuda.is_available()
    try:
        store, _, _ = next(rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # the store outlives a restart: addresses of the dead lie in it
            store = dist.PrefixStore(f"start_{restarts}", store)  # type: ignore[attr-defined]
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", store=store, rank=rank, world_size=size)
        yield world
        gc.collect()  # DistributedDataParallel is part of a reference cycle that keeps gloo's threads alive
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise SeqclfError(f"process {rank} of {size}: can't reach the run's other processes ({reason})") from None


def launch() -> str | None:
    """A name of the torchrun that started this process, the same after it started its processes anew; else None."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{platform.node()}:{os.getppid()}" if run == "none" else run


def summed_gradients(model: torch.nn.Module) -> torch.nn.parallel.DistributedDataParallel:
    """The model, with gradients summed over the processes while they are computed.

    Summed, not averaged: each process's loss is its part of the global batch's mean.
    """

    def add_up(bucket: Any) -> torch.futures.Future[Tensor]:
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        assert work is not None
        return work.get_future().then(lambda done: done.value()[0])

    engine = torch.nn.parallel.DistributedDataParallel
    # statistics are each process's own between two evaluations (average_buffers); the setting's name is of the version
    known = inspect.signature(engine).parameters
    own = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    on_gpu = next(model.parameters()).device.type == "cuda"
    parallel = engine(model, device_ids=[torch.cuda.current_device()] if on_gpu else None, **own)  # type: ignore[arg-type]
    parallel.register_comm_hook(None, lambda _, bucket: add_up(bucket))
    return parallel


def average_buffers(model: torch.nn.Module, world: World) -> None:
    """Makes the statistics that a model gathers (batch norm's) the mean of all processes'."""
    if world.size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(world.sum(buffer) / world.size)
