"""What an event costs where a model is sharded over processes, from shapes alone.

It follows what the library does, in the same order: each parameter that is touched is gathered, changed and
sharded again before the next one, and so its gradient and each tensor of its optimizer state; and the shards
that were there before, which undo this, stay until the end. Bytes are those of rank 0, which has most rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

NUMBER = 8
"""Bytes of a number in the sums over all processes."""

SAMPLE = 4096
"""Entries of a parameter that the criterion remembers, to see how far training moves weights."""


@dataclass(frozen=True)
class Sharded:
    """A parameter that is sharded by rows.

    Args:
        shape: of the whole of it.
        value: bytes of an entry.
        gradient: bytes of an entry of the gradient; 0 where there is none.
        state: bytes of an entry of each tensor of the optimizer's state that is shaped like it.
    """

    shape: tuple[int, ...]
    value: int
    gradient: int
    state: tuple[int, ...]

    @property
    def entries(self) -> int:
        """Of the whole."""
        return prod(self.shape)

    def kinds(self) -> list[int]:
        """Bytes of an entry of everything that is gathered of it: value, gradient and state."""
        return [self.value, *([self.gradient] if self.gradient else []), *self.state]

    def rows(self, ranks: int) -> int:
        """Entries of the rows that rank 0 has."""
        return ceil(self.shape[0] / ranks) * prod(self.shape[1:])


@dataclass(frozen=True)
class Place:
    """Where a width lies: a dimension of a parameter, with so many entries for each unit."""

    parameter: str
    dim: int
    each: int = 1


@dataclass(frozen=True)
class Model:
    """Parameters and widths, by name; and the names of the parameters that read units."""

    parameters: Mapping[str, Sharded]
    widths: Mapping[str, Sequence[Place]]
    readers: Collection[str] = ()

    def touched(self, widths: Iterable[str]) -> dict[str, Sharded]:
        """The parameters that some widths lie in."""
        names = {place.parameter for width in widths for place in self.widths[width]}
        return {name: each for name, each in self.parameters.items() if name in names}

    def after(self, event: Mapping[str, int]) -> Model:
        """The model after an event, which is how many units come (or go, below zero) by width."""
        found = dict(self.parameters)
        for width, units in event.items():
            for place in self.widths[width]:
                shape = [*found[place.parameter].shape]
                shape[place.dim] += units * place.each
                found[place.parameter] = replace(found[place.parameter], shape=tuple(shape))
        return replace(self, parameters=found)


@dataclass(frozen=True)
class Collective:
    """One of them; `whole` bytes are what each rank has of it afterwards."""

    kind: str
    whole: int

    def received(self, ranks: int) -> float:
        """Bytes that come to one rank, on a ring."""
        rounds = {"gather": 1, "sum": 2}[self.kind]
        return rounds * (ranks - 1) / ranks * self.whole


def of_event(model: Model, event: Mapping[str, int], ranks: int) -> list[Collective]:
    """Agreement on what was decided, and on nothing having failed before and after it is done; between these
    one gather for each tensor that is made whole."""
    found = [Collective("sum", ranks * NUMBER), *2 * [Collective("sum", NUMBER)]]
    for parameter in model.touched(event).values():
        padded = ranks * parameter.rows(ranks)
        found += [Collective("gather", padded * size) for size in parameter.kinds()]
    return found


def of_decision(sizes: Sequence[int], readers: int, rows: int, classes: int, ranks: int) -> list[Collective]:
    """The sums of a decision that neither tries nor changes anything.

    Args:
        sizes: units of each width.
        readers: parameters that read units.
        rows: predictions that are looked at, of all ranks together.
        classes: of a prediction.
        ranks: processes.
    """
    seen = sum(1 + size for size in sizes) + rows + 2 * rows * classes
    # The loss; that all are at one step; shapes; what was seen; how far weights moved; that all agree.
    lengths = 2, ranks, 6 * ranks, seen, 2 * readers, ranks
    return [Collective("sum", NUMBER * length) for length in lengths]


def of_trial(model: Model) -> list[Collective]:
    """A run of the model as it is sharded, on a batch at hand, and the sum of what was lost."""
    whole = sum(parameter.entries * parameter.value for parameter in model.parameters.values())
    return [Collective("gather", whole), Collective("sum", 2 * NUMBER)]


@dataclass
class Ledger:
    """Memory that is alive, at most alive, and written, in bytes; entries that are picked one by one."""

    alive: int = 0
    peak: int = 0
    written: int = 0
    picked: int = 0

    def take(self, size: int, writes: int = 1) -> int:
        """Allocate; returns the size, for `free`."""
        self.alive += size
        self.peak = max(self.peak, self.alive)
        self.written += writes * size
        return size

    def free(self, size: int) -> None:
        """Give back."""
        self.alive -= size

    def cut(self, before: Sequence[int], after: Sequence[int], dims: Sequence[int], size: int) -> int:
        """Along some dimensions, one after the other; only the last result stays."""
        shape, last = [*before], 0
        for dim in dims:
            shape[dim] = after[dim]
            kept = min(before[dim], after[dim]) * prod(shape) // shape[dim]
            new, copied = self.take(kept * size, writes=0), kept  # taken out
            if after[dim] > before[dim]:  # and put in place, between new ones
                larger = self.take(prod(shape) * size)
                self.free(new)
                new, copied = larger, 2 * kept
            self.free(last)
            if dim:
                self.picked += copied
            else:  # whole rows at a time
                self.written += copied * size
            last = new
        return last


@dataclass(frozen=True)
class Memory:
    """Of an event, in bytes beyond what there was before it.

    Args:
        peak: at most alive at once.
        written: by gathering, cutting and sharding.
        picked: entries that are copied one by one, along another dimension than the first.
    """

    peak: int
    written: int
    picked: int


def memory_of(model: Model, event: Mapping[str, int], ranks: int) -> Memory:
    """What an event needs beside the model."""
    ledger, changed = Ledger(), model.after(event)
    # Copies of this rank's rows of all parameters that widths lie in, from which a decision is undone.
    ledger.take(sum(each.rows(ranks) * each.value for each in model.touched(model.widths).values()))
    # And of what the criterion remembers of weights.
    sampled = (model.parameters[name] for name in model.readers)
    ledger.take(sum(each.rows(ranks) // max(1, each.entries // SAMPLE) * each.value for each in sampled))
    for name, old in model.touched(event).items():
        _turn(ledger, old, changed.parameters[name], _dims(model, event, name), ranks)
    return Memory(ledger.peak, ledger.written, ledger.picked)


def _turn(ledger: Ledger, old: Sharded, new: Sharded, dims: Sequence[int], ranks: int) -> None:
    """A parameter, its gradient and its optimizer state, one after the other; their new shards stay."""
    whole = ledger.take(ranks * old.rows(ranks) * old.value)
    value = ledger.cut(old.shape, new.shape, dims, old.value)
    ledger.free(whole)
    ledger.take(new.rows(ranks) * new.value)
    ledger.free(ledger.take(new.entries * new.value, writes=0))  # PyTorch asks for a whole one
    if old.gradient:
        whole = ledger.take(ranks * old.rows(ranks) * old.gradient)
        made = ledger.cut(old.shape, new.shape, dims, old.gradient)
        ledger.take(new.rows(ranks) * new.gradient)
        ledger.free(whole + made)
    for size in old.state:
        whole = ledger.take(ranks * old.rows(ranks) * size)
        made = ledger.cut(old.shape, new.shape, dims, size)
        ledger.take(new.rows(ranks) * size)
        ledger.free(whole + made)
    ledger.free(value)  # the state may begin with it


def _dims(model: Model, event: Mapping[str, int], name: str) -> list[int]:
    places = (place for width in event for place in model.widths[width])
    return [*dict.fromkeys(place.dim for place in places if place.parameter == name)]


@dataclass(frozen=True)
class Machine:
    """What turns bytes into seconds.

    Args:
        latency: seconds of a collective, however small.
        bandwidth: bytes that a rank receives in a second.
        copies: bytes that a rank writes in a second, copying.
        picks: entries that it copies one by one in a second.
        event: seconds of Python for an event.
        tensor: seconds of Python for each tensor that is made whole and sharded again.
    """

    latency: float
    bandwidth: float
    copies: float
    picks: float
    event: float = 0.0
    tensor: float = 0.0


def seconds_of(collectives: Iterable[Collective], memory: Memory, ranks: int, machine: Machine) -> float:
    """Of an event: one collective after the other, and the work of a rank by itself."""
    total = machine.event + memory.written / machine.copies + memory.picked / machine.picks
    for each in collectives:
        total += machine.latency + each.received(ranks) / machine.bandwidth
        total += machine.tensor * (each.kind == "gather")
    return total
