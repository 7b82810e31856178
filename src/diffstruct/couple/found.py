"""What `find_widths` returns: the widths of a model, and the sizes that cannot be learned, with reasons."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from diffstruct.couple.findings import Place
from diffstruct.couple.proof import Proof
from diffstruct.width.width import Slot, Width


@dataclass(frozen=True)
class Refusal:
    """A size that is not learned.

    Args:
        places: where it lies, such as `layer.weight[0]`.
        size: the number of units.
        reason: why it is not learned.
    """

    places: tuple[str, ...]
    size: int
    reason: str

    def __str__(self) -> str:
        shown = ", ".join(self.places[:3]) + (", ..." if len(self.places) > 3 else "")
        return f"{shown} ({self.size}): {self.reason}"


@dataclass
class FoundWidths:
    """The widths of a model that can be learned; `print` shows them, and why the others cannot.

    Args:
        model: the model.
        widths: those that can be learned, by name.
        refused: the sizes that cannot, or are excluded by name.
        proof: runs the model on the example inputs; None where its modules declared the widths.
    """

    model: nn.Module
    widths: dict[str, Width]
    refused: list[Refusal]
    proof: Proof | None

    def refuse(self, name: str, reason: str) -> None:
        """Move a width to those that are not learned."""
        width = self.widths.pop(name)
        names = self._module_names()
        places = tuple(Place(slot.module, slot.name, slot.dim).path(names) for slot in width.slots)
        self.refused.append(Refusal(places, width.size, reason))

    def explain(self) -> str:
        """Which sizes of the model are not learned, and why: a line each."""
        return "\n".join(map(str, self.refused))

    def __str__(self) -> str:
        names = self._module_names()
        rows = [("width", "units", "places")]
        for name, width in self.widths.items():
            rows.append((name, str(width.size), ", ".join(_place(slot, names) for slot in width.slots)))
        spans = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{name.ljust(spans[0])}  {units.ljust(spans[1])}  {where}" for name, units, where in rows]
        if self.refused:
            lines += ["", "not learned:", self.explain()]
        return "\n".join(lines)

    def _module_names(self) -> dict[nn.Module, str]:
        return {module: name for name, module in self.model.named_modules()}


def _place(slot: Slot, names: dict[nn.Module, str]) -> str:
    """A slot as it prints, with the module's name in the model in place of its class."""
    inside = str(slot).removeprefix(f"{type(slot.module).__name__}.")
    return f"{names[slot.module]}.{inside}".removeprefix(".")
