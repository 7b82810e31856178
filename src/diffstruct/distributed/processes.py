"""The processes that train one model, as criterion and structure see them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffstruct.distributed import exchange
from diffstruct.distributed.exchange import Seen
from diffstruct.distributed.group import Group
from diffstruct.distributed.reducer import check, rebuild
from diffstruct.distributed.sharding import Sharding
from diffstruct.distributed.shards import sharded_modules
from diffstruct.distributed.wrappers import covers, ddp_around
from diffstruct.errors import StructureError


class Processes:
    """Whoever trains the same model; by default one process alone, for which nothing here does anything.

    What a decision is made from is the same on every process, to the bit: everything that is seen of a batch
    goes through one of these methods. All processes must call the same ones in the same order.

    Args:
        model: that is trained; None: alone, for good.
        independent: whether other processes, if no wrapper is known, train models of their own.
    """

    def __init__(self, model: nn.Module | None = None, independent: bool = False) -> None:
        self._model, self._independent = model, independent
        self._wrapper: weakref.ref[DistributedDataParallel] | None = None
        self._group: Group | None = None
        self._stale = self._heard = False
        self.sharding: Sharding | None = None
        """How the model is sharded; None if each process has all of it."""
        if model is not None and sharded_modules(model):
            self.sharding = Sharding(model)
            device = next(model.parameters()).device
            self._group = Group(self.sharding.mesh.get_group(), device)
        self.joined = model is None
        """Whether it was made sure that the processes mean the same."""
        self._look()

    @property
    def size(self) -> int:
        """How many there are."""
        return 1 if self._group is None else self._group.size

    def join(self, facts: object, remembered: Sequence[Tensor]) -> None:
        """Before the first decision: find the others, and start from the same.

        Args:
            facts: that must be the same everywhere: widths, rules, seed.
            remembered: copies of weights, which may have been made before a wrapper gave all processes the
                weights of one; they are given those of this one, too.

        Raises:
            StructureError: there are several processes, and no wrapper that is known; or they differ.
        """
        if self.joined or self._model is None:
            return
        self._look()
        known = self._wrapper is not None or self.sharding is not None
        if not known and dist.is_available() and dist.is_initialized():
            world = dist.get_world_size()
            if world > 1 and not self._independent:
                raise StructureError(
                    f"this is one of {world} processes, but no DistributedDataParallel around this "
                    f"{type(self._model).__name__} is known, nor is it sharded, so that each of them would "
                    "decide for itself: wrap the model, or say Structure(..., independent=True) if each "
                    "process trains a model of its own"
                )
        if self._group is not None and self.size > 1:
            self._group.agree(facts, "widths, rules or seed")
            if self.sharding is None:  # else it was made after the weights were shared out
                self._group.spread(remembered)
        self.joined = True

    def check(self) -> None:
        """Refuse a wrapper whose settings have come to be such that processes would not stay alike.

        Raises:
            StructureError: says which.
        """
        ddp = None if self._wrapper is None else self._wrapper()
        if ddp is not None:
            check(ddp)
        elif self._wrapper is not None:  # another one may be in its place
            self._look()

    def agree(self, facts: object, what: str) -> None:
        """Raise on all processes if these facts, by their `repr`, are not the same on all of them."""
        if self._group is not None and self.size > 1:
            self._group.agree(facts, what)

    @contextmanager
    def alike(self, what: str) -> Iterator[None]:
        """Of a sharded model: what is done within it is done on all processes, or raises on all of them.

        All must come to its end, whether what they do there succeeds or not: so nothing else within may wait
        for the others but `Sharding.in_turn`, and what is done alike within it.

        Args:
            what: it is, for the message.

        Raises:
            StructureError: another process has failed.
        """
        if self.sharding is None or self._group is None:
            yield
            return
        self._heard = False  # whether all have heard of a failure, within
        try:
            yield
        except BaseException:
            # Unless the others are not there yet, or no more.
            if not (self._group.lost or self.sharding.gathering or self._heard):
                self._heard = True
                self.all(False)
            raise
        if not self.all(True):
            self._heard = True
            raise StructureError(
                f"{what} has failed on another process, whose error says why: nothing has changed here either"
            )

    def all(self, fact: bool) -> bool:
        """Whether something is so on all processes."""
        return fact if self._group is None or self.size == 1 else self._group.all(fact)

    def together(self, seen: Seen, sizes: Mapping[str, int], step: int) -> Seen:
        """What all processes have seen of a training step; see `exchange.together`."""
        if self._group is None or self.size == 1:
            return seen
        return exchange.together(self._group, seen, sizes, step)

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes of arrays of one shape."""
        return values if self._group is None or self.size == 1 else self._group.sum(values)

    def first(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the process of rank 0 has in the place of these values."""
        if self._group is None or self.size == 1:
            return values
        return self._group.sum(values if self._group.rank == 0 else np.zeros_like(values))

    def objects(self, value: Any) -> list[Any]:
        """What each process that has shards of a model has, by rank; of others, what this one has."""
        return [value] if self._group is None or self.sharding is None else self._group.objects(value)

    @property
    def rank(self) -> int:
        """The number of this process."""
        return 0 if self._group is None else self._group.rank

    def mean(self, tensors: Sequence[Tensor | None], shapes: Sequence[Sequence[int]]) -> list[Tensor | None]:
        """The mean of each tensor over the processes that have it; None where none has.

        Args:
            tensors: of this process; None where it has none.
            shapes: of the tensors, the same on all processes.
        """
        if self._group is None or self.size == 1:
            return [*tensors]
        lengths = [int(np.prod(shape)) for shape in shapes]
        parts: list[NDArray[np.float64]] = []
        for tensor, length in zip(tensors, lengths, strict=True):
            values = np.zeros(length) if tensor is None else tensor.detach().double().cpu().numpy().ravel()
            parts.append(np.concatenate([[float(tensor is not None)], values]))
        total, found, place = self._group.sum(np.concatenate([np.zeros(0), *parts])), [], 0
        for tensor, shape, length in zip(tensors, shapes, lengths, strict=True):
            count, values = total[place], total[place + 1 : place + 1 + length]
            mean = torch.from_numpy(values / max(count, 1.0)).reshape([*shape])
            kept = mean.to(self._group.device, torch.float32) if tensor is None else mean.to(tensor)
            found.append(kept if count else None)
            place += 1 + length
        return found

    def settle(self) -> None:
        """After a run of the model: parameters are sharded again, if they are."""
        if self.sharding is not None:
            self.sharding.settle()

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Within it the model is as if it had never been sharded; for trials, of which nothing stays."""
        with nullcontext() if self.sharding is None else self.sharding.plain():
            yield

    def changing(self) -> None:
        """To be told that parameters are changed now, also if that is undone: `following` acts on it."""
        self._stale = True

    @contextmanager
    def following(self) -> Iterator[None]:
        """At its end the wrapper follows, if parameters have changed within it."""
        if not self.joined:  # it may have come since
            self._look()
        try:
            yield
        finally:
            ddp = None if self._wrapper is None else self._wrapper()
            if self._stale and ddp is not None:
                rebuild(ddp)
            self._stale = False

    def replace(self, model: nn.Module) -> None:
        """Put another module in the place of the model."""
        ddp = None if self._wrapper is None else self._wrapper()
        if ddp is not None and ddp.module is self._model:
            ddp.module = model
        self._model = model

    def _look(self) -> None:
        """Find the wrapper that the model is in by now.

        Raises:
            StructureError: it cannot follow changes of structure, or does not train the whole model.
        """
        if self._model is None or self.sharding is not None:
            return
        if sharded_modules(self._model):
            raise StructureError(
                "the model was sharded after its structure was made: call fully_shard first, make the "
                "optimizer, and the structure then; widths may be found before (ds.find_widths)"
            )
        ddp = ddp_around(self._model)
        if ddp is None:
            return
        check(ddp)
        missed = covers(ddp, self._model)
        if missed:
            raise StructureError(
                f"the DistributedDataParallel does not reduce the gradients of {', '.join(missed[:3])}"
                f"{', ...' if len(missed) > 3 else ''}, so that the processes would not stay alike: wrap the "
                "whole model, with all parameters that are trained"
            )
        self._wrapper = weakref.ref(ddp)
        self._group = Group(ddp.process_group, next(self._model.parameters()).device)

    def __getstate__(self) -> dict[str, Any]:
        """A copy finds its own wrapper and processes."""
        if self.sharding is not None:
            raise StructureError(
                "a structure whose model is sharded over processes cannot be copied or pickled"
            )
        mine = {**vars(self), "_wrapper": None, "_group": None}
        return {**mine, "joined": self._model is None}
