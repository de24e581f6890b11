"""Ranks: the processes of one run, as torchrun starts them.

All go through a run alike, on the same rows, until the model is fitted: each takes its share of
every batch and of every sum over rows. Then the first one alone goes on. Of one process nothing of
torch.distributed is asked.
"""

import os
import sys
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from hourglass.training.errors import RunError

TOLD_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = timedelta(hours=6)  # of one process for the others; torchrun ends all when one fails


class Ranks:
    """One process, which all sums and shares of are its own; `Torchrun` is several."""

    rank, count = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this process speaks, and publishes."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """Of rows that every process has, this one's: every W-th."""
        return rows if self.count == 1 else rows[self.rank :: self.count]

    def total(self, tensor: Tensor) -> Tensor:
        """The tensor added up over all processes, in float64."""
        return tensor

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest of all processes in each place, in float64."""
        return tensor

    def agree(self, module: nn.Module) -> None:
        """Give a module what the first process has in its parameters and buffers."""

    def part(self) -> None:
        """Let the first process go on alone; the others end here, with nothing left to do."""

    def is_first_to_fail(self) -> bool:
        """Whether this process is the one to say why the run has failed."""
        return True


class Torchrun(Ranks):
    """The processes that torchrun started, over gloo, or NCCL where each has a GPU."""

    def __init__(self, *, gpu: bool) -> None:
        # the store is torchrun's own: it outlives each of the processes
        self._store, self.rank, self.count = next(rendezvous("env://"))
        self._device = torch.device("cpu")
        if gpu:
            self._device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self._device)
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            store=self._store,
            rank=self.rank,
            world_size=self.count,
            timeout=LONGEST_WAIT,
        )

    def total(self, tensor: Tensor) -> Tensor:
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def largest(self, tensor: Tensor) -> Tensor:
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def agree(self, module: nn.Module) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            there = tensor.detach().to(self._device, copy=True)
            dist.broadcast(there, src=0)
            tensor.detach().copy_(there)

    def part(self) -> None:
        dist.destroy_process_group()
        if not self.is_first:
            sys.exit(0)

    def is_first_to_fail(self) -> bool:
        return int(self._store.add("hourglass/failed", 1)) == 1

    def _reduce(self, tensor: Tensor, by: dist.ReduceOp.RedOpType) -> Tensor:
        there = tensor.to(self._device, torch.float64, copy=True)
        dist.all_reduce(there, by)
        return there.to(tensor.device)


ALONE = Ranks()


def is_one_of_several(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started this process beside others."""
    told = all(name in environment for name in TOLD_BY_TORCHRUN)
    return told and int(environment["WORLD_SIZE"]) > 1


def join(*, gpu: bool) -> Ranks:
    """The processes of this run; RunError where there are more of them than GPUs."""
    if not is_one_of_several():
        return ALONE
    place, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if gpu and place >= gpus:
        raise RunError(
            f"{place + 1} processes or more are on a machine of {gpus} GPUs; as many as there are"
            " GPUs, or --device cpu, can run"
        )
    return Torchrun(gpu=gpu)
