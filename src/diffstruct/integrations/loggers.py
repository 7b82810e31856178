"""What a logger is told of a structure: sizes, importances and events, to TensorBoard or as plain numbers."""

from __future__ import annotations

from typing import Any, Protocol

from diffstruct.structure import Event, Structure

LARGEST = 1e18
"""What TensorBoard has no bins for; shares of next to nothing, of a network that has won nothing yet."""


def measures(structure: Structure) -> dict[str, float]:
    """Numbers for any logger, by name, such as for `log(measures(structure), step)`.

    Args:
        structure: at any time, also when it is finished.

    Returns:
        `units/NAME`, the size of each width; `added/NAME` and `removed/NAME`, the units that came and went so
        far; `parameters`, of the model.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> from diffstruct.integrations.loggers import measures
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> structure = ds.Structure(model, optimizer, example_inputs=(torch.ones(2, 3),), total_steps=100)
        >>> measures(structure)
        {'units/0': 8.0, 'added/0': 0.0, 'removed/0': 0.0, 'parameters': 41.0}
    """
    found: dict[str, float] = {}
    for name, width in structure.widths.items():
        found[f"units/{name}"] = float(width.size)
        found[f"added/{name}"] = float(structure.history.added(name))
        found[f"removed/{name}"] = float(structure.history.removed(name))
    found["parameters"] = float(sum(each.numel() for each in structure.model.parameters()))
    return found


class Writer(Protocol):
    """A `torch.utils.tensorboard.SummaryWriter`, or what writes as it does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, /) -> Any:
        """Write a number."""
        ...

    def add_histogram(self, tag: str, values: Any, global_step: int, /) -> Any:
        """Write how numbers are distributed."""
        ...

    def add_text(self, tag: str, text_string: str, global_step: int, /) -> Any:
        """Write a text."""
        ...


class StructureWriter:
    """Writes to TensorBoard what becomes of a structure.

    Each `write` adds the numbers of `measures` as scalars, the importance of the units of each width as the
    rule sees them as a histogram, `importance/NAME`, and the events since the last time as texts,
    `events/NAME`, at the steps at which they happened.

    Args:
        writer: a `torch.utils.tensorboard.SummaryWriter`.

    Example:
        >>> from torch.utils.tensorboard import SummaryWriter
        >>> from diffstruct.integrations.loggers import StructureWriter
        >>> log = StructureWriter(SummaryWriter("runs/mine"))  # doctest: +SKIP
        >>> log.write(structure)  # doctest: +SKIP
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._told = 0

    def write(self, structure: Structure, step: int | None = None, scalars: bool = True) -> None:
        """Write what there is to say now.

        Args:
            structure: the same in all calls.
            step: that it is written for; None: the structure's own count.
            scalars: False where the sizes are logged otherwise.
        """
        now = structure.steps if step is None else step
        for name, value in measures(structure).items() if scalars else ():
            self.writer.add_scalar(name, value, now)
        if not structure._finished:
            for name, width in structure.widths.items():
                values = structure.criterion.importance(width).detach().double().clamp(max=LARGEST)
                self.writer.add_histogram(f"importance/{name}", values.cpu().numpy(), now)
        events = structure.history.events
        for event in events[min(self._told, len(events)) :]:
            self.writer.add_text(f"events/{event.width}", _said(event), event.step)
        self._told = len(events)


def _said(event: Event) -> str:
    """An event in words."""
    parts = []
    if event.removed:
        cost = "" if event.cost is None else f", at a cost of {event.cost:.3g}"
        parts.append(f"removed {', '.join(map(str, event.removed))}{cost}")
    if event.added:
        parts.append(f"added {event.added}")
    return f"{'; '.join(parts)}: {event.size} units"
