"""What the user should know at the end of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffstruct.criteria import Training
from diffstruct.width import Width


def remarks_at_the_end(steps: int, training: Training, widths: Mapping[str, Width]) -> Iterator[str]:
    """Sentences about steps and sizes, before `finish` removes anything.

    Args:
        steps: made.
        training: the run.
        widths: by name.
    """
    total, rules = training.total_steps, training.rules
    if abs(steps - total) > 0.01 * total:
        yield (
            f"structure.finish() after {steps} of total_steps={total} steps: the times of criterion and rule "
            "are fractions of total_steps, so give the number of steps that are made"
        )
    bounds = {name: (rules[name].min_units or 1, rules[name].max_units or 1) for name in widths}
    if all(bounds[name][0] == width.size < bounds[name][1] for name, width in widths.items()):
        yield (
            "all widths are at their minimum: nothing that their units do has earned its price; look at the "
            "learning rate, or lower the price"
        )
    full = [name for name, width in widths.items() if rules[name].p_add and width.size == bounds[name][1]]
    if full:
        yield f"the widths {full} have reached max_units, and may want to be larger: raise it"
