"""What happens on a rank: collectives that are started, and tensors from their making to their end."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from model import Collective
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Watch(TorchDispatchMode):
    """Collectives that are started, and bytes of the tensors that are made within it and still alive."""

    collectives: list[Collective] = field(default_factory=list)
    alive: int = 0
    peak: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation on plain tensors; those on `DTensor`s come again as such."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        before = {_key(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        result = func(*args, **(kwargs or {}))
        made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        space, name = str(func).split(".")[:2]
        kind = "gather" if "gather" in name else "sum" if "reduce" in name else None
        if space in ("c10d", "_c10d_functional") and kind is not None:
            tensors = [each for each in tree_leaves(args) if isinstance(each, Tensor)]
            whole = max(each.numel() * each.element_size() for each in (*made, *tensors))
            self.collectives.append(Collective(kind, whole))
        for each in made:
            if not each.is_meta and _key(each) not in before | self._known:
                self._enter(each.untyped_storage())
        return result

    def _enter(self, storage: Any) -> None:
        size, key = storage.nbytes(), storage._cdata
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
