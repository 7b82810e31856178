"""Which modules contain which."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class Tree:
    """The modules of a model.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._by_name = dict(model.named_modules(remove_duplicate=False))
        self.names: dict[nn.Module, list[str]] = {}
        """Every module in order, with all names that it has in the model."""
        for name, module in self._by_name.items():
            self.names.setdefault(module, []).append(name)

    def around(self, modules: Iterable[nn.Module]) -> list[nn.Module]:
        """These modules, and all that contain any of them, in the model's order."""
        found = {self._by_name[""]}
        for module in modules:
            for name in self.names.get(module, ()):
                parts = name.split(".")
                found.update(
                    self._by_name[".".join(parts[:stop])] for stop in range(1, len(parts) + 1) if name
                )
        return [module for module in self.names if module in found]
