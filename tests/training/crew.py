"""Several ranks in the threads of one process, for what torchrun would take seconds to start."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from hourglass.training.ranks import Ranks

T = TypeVar("T")


class Crew:
    """What its ranks lay together."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.laid = [torch.zeros(())] * count
        self.barrier = threading.Barrier(count, timeout=60)


class Hand(Ranks):
    """One rank of a crew."""

    def __init__(self, crew: Crew, rank: int) -> None:
        self._crew, self.rank, self.count = crew, rank, crew.count

    def total(self, tensor: Tensor) -> Tensor:
        return torch.stack(self._all(tensor)).sum(dim=0)

    def largest(self, tensor: Tensor) -> Tensor:
        return torch.stack(self._all(tensor)).amax(dim=0)

    def agree(self, module: nn.Module) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.detach().copy_(self._all(tensor.detach())[0])

    def _all(self, tensor: Tensor) -> list[Tensor]:
        self._crew.laid[self.rank] = tensor.double().clone()
        self._crew.barrier.wait()
        laid = list(self._crew.laid)
        self._crew.barrier.wait()
        return laid


def together(count: int, work: Callable[[Ranks], T]) -> list[T]:
    """What each of so many ranks makes of the same work."""
    crew = Crew(count)

    def go(rank: int) -> T:
        try:
            return work(Hand(crew, rank))
        except BaseException:
            crew.barrier.abort()
            raise

    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(go, rank) for rank in range(count)]]
