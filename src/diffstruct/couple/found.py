"""What `find_widths` returns: the widths of a model, and the sizes that cannot be learned, with reasons."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from diffstruct.couple.findings import Place
from diffstruct.couple.proof import Proof
from diffstruct.width import Width
from diffstruct.width.table import aligned, places


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


@dataclass(repr=False)
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
        names = {module: name for name, module in self.model.named_modules()}
        where = dict.fromkeys(Place(slot.module, slot.name, slot.dim).path(names) for slot in width.slots)
        self.refused.append(Refusal((*where,), width.size, reason))

    def explain(self) -> str:
        """Which sizes of the model are not learned, and why: a line each."""
        return "\n".join(map(str, self.refused))

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        rows = [(name, str(width.size), places(width, self.model)) for name, width in self.widths.items()]
        table = aligned([("width", "units", "places"), *rows])
        return f"{table}\n\nnot learned:\n{self.explain()}" if self.refused else table
