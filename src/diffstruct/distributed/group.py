"""A process group as the structure uses it: sums in double precision, and agreement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.errors import StructureError


class Group:
    """The processes that train one model, and how they hear of each other.

    Everything is a sum over all processes: of all collectives it is the one that every backend has, for
    tensors of any device, and its result is the same on every process, to the bit.

    Args:
        group: of PyTorch.
        device: of the tensors that are sent: the model's.
    """

    def __init__(self, group: Any, device: torch.device) -> None:
        self.group, self.device = group, device
        self.size: int = dist.get_world_size(group)
        self.rank: int = dist.get_rank(group)
        self.lost = False
        """Whether a process could not be reached."""

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes, of arrays of one shape.

        Raises:
            StructureError: another process has ended or is not there.
        """
        sent = torch.from_numpy(np.ascontiguousarray(values, np.float64)).clone().to(self.device)
        self._run(dist.all_reduce, sent)
        found: NDArray[np.float64] = sent.cpu().numpy()
        return found

    def gather(self, values: Sequence[float]) -> NDArray[np.float64]:
        """What each process has, `[processes, values]`: each of the sums has one term that is not zero."""
        table = np.zeros((self.size, len(values)))
        table[self.rank] = values
        return self.sum(table)

    def agree(self, facts: object, what: str) -> None:
        """Make sure that all processes mean the same.

        Args:
            facts: whose `repr` must be the same everywhere.
            what: it is, for the message.

        Raises:
            StructureError: it is not; on all processes.
        """
        marks = self.gather([float(crc32(repr(facts).encode()))])[:, 0]
        others = np.flatnonzero(marks != marks[0])
        if len(others):
            raise StructureError(
                f"the processes differ in {what}: those of rank {', '.join(map(str, others))} from that of "
                "rank 0; give all of them the same arguments and the same seed, let all call step() after "
                "the same steps, and do nothing to the model on some of them alone"
            )

    def all(self, fact: bool) -> bool:
        """Whether something is so on all processes."""
        return bool(self.sum(np.array([float(fact)]))[0] == self.size)

    def objects(self, value: Any) -> list[Any]:
        """What each process has, by its rank: numbers, strings and tensors of the CPU, in lists and dicts."""
        found: list[Any] = [None] * self.size
        self._run(dist.all_gather_object, found, value)
        return found

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors everywhere the values that they have on the process of rank 0."""
        first = dist.get_global_rank(self.group, 0)
        for tensor in tensors:
            self._run(dist.broadcast, tensor, first)

    def _run(self, collective: Any, *args: Any) -> None:
        try:
            collective(*args, group=self.group)
        except RuntimeError as error:
            self.lost = True
            raise StructureError(
                f"the process of rank {self.rank} could not reach the {self.size - 1} others: one of "
                "them has ended, or does not call step() after the same steps, or state_dict() and "
                "load_state_dict() of a sharded model where the others do; the process group's timeout "
                f"bounds how long that is waited for ({error})"
            ) from error
