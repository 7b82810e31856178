"""What the history is told at a decision."""

from __future__ import annotations

from diffstruct.couple import MultiplyAdds
from diffstruct.history import Measurement, Sample
from diffstruct.structure.changing import ChangingStructure
from diffstruct.width.cost import Cost, sizes_of


def sample_of(structure: ChangingStructure, step: int) -> Sample:
    """The units that there are, after a step and before what is changed then."""
    criterion, widths = structure.criterion, structure.widths
    importances = {
        name: criterion.measured(width).detach().float().cpu().numpy().copy()
        for name, width in widths.items()
    }
    thresholds = {name: structure.training.threshold(name) for name in widths}
    events, loss = len(structure.history.events), criterion.known_loss
    return Sample(step, events, importances, thresholds, costs_of(structure), loss)


def costs_of(structure: ChangingStructure) -> dict[str, float]:
    """What the model costs now: its parameters, and its multiply-adds where they can be told."""
    costs = {"parameters": float(sum(each.numel() for each in structure.model.parameters()))}
    multiply_adds = _multiply_adds(structure)
    if multiply_adds is not None:
        costs["multiply-adds"] = multiply_adds(sizes_of(structure.widths.values()))
    return costs


def _multiply_adds(structure: ChangingStructure) -> Cost | None:
    """How multiply-adds are counted, if it is known: by the budget, or by what units cost."""
    if structure.training.multiply_adds is not None:
        return structure.training.multiply_adds
    cost = getattr(structure.criterion, "cost", None)
    # It counts by the names that widths had when it was made.
    return cost if isinstance(cost, MultiplyAdds) and not structure.history.names else None


def measurement_of(structure: ChangingStructure, step: int, loss: float) -> Measurement:
    """A loss, and the units that there are."""
    return Measurement(step, loss, sum(width.size for width in structure.widths.values()))
