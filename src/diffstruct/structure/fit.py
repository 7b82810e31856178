"""Which integers of a configuration say the sizes that a model has come to: found by trying.

The model's class is built from a changed copy of the configuration, and must come to the sizes of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any, NamedTuple

from torch import nn

from diffstruct.structure.rebuilding import Entry, Key, Rebuilder, Sketch, absent_keys, keys_of, sketch
from diffstruct.width import Attribute, Layout, Product, Width
from diffstruct.width.canonical import canonical
from diffstruct.width.layout import axes, children, length
from diffstruct.width.solving import NoSizesError, solve

VALUES, TOGETHER, TRIALS = 3, 3, 100
"""As many values of an integer, as many integers together and as many choices of these are tried at most."""

Values = dict[Key, int]
"""New values in a configuration."""


class _Source(NamedTuple):
    """A layout that an integer of the configuration may be the length of."""

    before: int
    """Its length by the configuration as it is written."""
    now: int
    widths: frozenset[str]


class Fit:
    """What the configuration says, beside what the model has come to.

    Args:
        model: its class is built from `model.config` alone.
        widths: of it, by name.

    Attributes:
        written: what the class comes to by the configuration as it is; None if it cannot be built from it, or
            is another model then.
    """

    def __init__(self, model: nn.Module, widths: Mapping[str, Width]) -> None:
        self.model, self.widths = model, widths
        self._paths = {module: path for path, module in model.named_modules()}
        self._attributes: dict[Entry, Attribute] = {
            (self._paths[each.module], each.name, each.index): each
            for width in widths.values()
            for each in width.attributes
        }
        self.wanted = sketch(model, self._attributes)
        self._rebuilder = Rebuilder(model, self._attributes)
        self._known: dict[frozenset[tuple[Key, int]], Sketch | None] = {}
        self._others: set[frozenset[tuple[Key, int]]] = set()  # with which the class is another model
        self.written = self.built({})
        self._sources = [*self._lengths()] if self.written else []

    def rebuilt(self, values: Mapping[Key, int]) -> nn.Module | None:
        """The model's class with some values, without memory; None if it does not take them."""
        return self._rebuilder.model_of(values)

    def built(self, values: Mapping[Key, int]) -> Sketch | None:
        """What that comes to; None if it is another model, not one of other sizes."""
        known = frozenset(values.items())
        if known not in self._known:
            built = self._rebuilder.sketch_of(values)
            if built is not None and built.sizes.keys() != self.wanted.sizes.keys():
                self._others.add(known)
                built = None
            self._known[known] = built
        return self._known[known]

    def wrong(self, values: Mapping[Key, int]) -> set[Entry]:
        """The sizes that come out as the model has not."""
        built = self.built(values)
        assert built is not None
        return {entry for entry, size in built.sizes.items() if size != self.wanted.sizes.get(entry)}

    def search(self, strict: bool) -> Values:
        """Values that leave the fewest sizes wrong, and make none wrong that was right.

        One is changed at a time, whichever helps most; where none helps alone, two or three together.

        Args:
            strict: whether all integers of modules are to stay as they are, if they are not to change with a
                width. Many are never read again; others, such as one that outputs are scaled by, are.
        """
        values: Values = {}
        left = len(self.wrong(values))
        moves = self._hopeful([*self._moves()])
        together = 1
        while left and together <= min(TOGETHER, len(moves)):
            trials = self._trials(values, moves, together, strict)
            best = min(trials, key=lambda pair: pair[0], default=(left, values))
            if best[0] < left:
                left, values = best
                together = 1
            else:
                together += 1
        return self._without_halves(values, strict)

    def _trials(
        self, values: Values, moves: Sequence[tuple[Key, int]], together: int, strict: bool
    ) -> Iterator[tuple[int, Values]]:
        """What some moves together lead to that do no harm: how many sizes are wrong then, and the values."""
        for several in islice(combinations(moves, together), TRIALS):
            trial = {**values, **dict(several)}
            if len(dict(several)) == together and not self._harms(trial, strict):
                yield len(self.wrong(trial)), trial

    def _harms(self, values: Values, strict: bool) -> bool:
        """Whether anything comes out neither as written nor as the model has it, or in no state dict."""
        built, written = self.built(values), self.written
        assert written is not None
        if built is None or built.fleeting != written.fleeting or self._harmed(values):
            return True
        return strict and any(
            each not in (written.integers.get(entry), self.wanted.integers.get(entry))
            for entry, each in built.integers.items()
        )

    def _harmed(self, values: Values) -> set[Entry]:
        """The sizes and floats that come out neither as they are written nor as the model has them."""
        built = self.built(values)
        if built is None:
            return set()
        now = {**self.wanted.sizes, **self.wanted.floats}
        return {entry for entry, each in self._touched(values).items() if each != now.get(entry)}

    def _touched(self, values: Values) -> dict[Entry, float]:
        """The sizes and floats that come out otherwise than as they are written."""
        built, written = self.built(values), self.written
        if built is None or written is None:
            return {}
        before = {**written.sizes, **written.floats}
        new = {**built.sizes, **built.floats}
        return {entry: each for entry, each in new.items() if each != before.get(entry)}

    def _hopeful(self, moves: list[tuple[Key, int]]) -> list[tuple[Key, int]]:
        """Leave out moves that make something wrong that no other integer could put right.

        Such as a size for all layers, where one of them has another.
        """
        moves = [move for move in moves if frozenset([move]) not in self._others]
        reach: dict[Key, set[Entry]] = {}
        for key, value in moves:  # the double, for heads that would not divide a width
            written = key.of(self._rebuilder.config)
            for each in (value, 2 * (written if isinstance(written, int) else value)):
                reach.setdefault(key, set()).update(self._touched({key: each}))
        while True:
            keys = {key for key, _ in moves}
            mended = {key: set[Entry]().union(*(reach[each] for each in keys - {key})) for key in keys}
            left = [(key, value) for key, value in moves if self._harmed({key: value}) <= mended[key]]
            if len(left) == len(moves):
                return moves
            moves = left

    def _without_halves(self, values: Values, strict: bool) -> Values:
        """Leave out as few values as it takes for every width to be said wholly or not at all.

        Said by halves, a model that is built would be neither what it was before nor what it is now.
        """
        for count in range(len(values) + 1):
            choices = [
                {key: value for key, value in values.items() if key not in out}
                for out in combinations(values, count)
            ]
            whole = [each for each in choices if not self._harms(each, strict) and not self._halves(each)]
            if whole:
                return min(whole, key=lambda each: len(self.wrong(each)))
        return {}

    def _halves(self, values: Values) -> bool:
        wrong, changed = self.wrong(values), self._changed(values)
        return any(self.entries(name) & wrong and self.entries(name) & changed for name in self.widths)

    def _changed(self, values: Values) -> set[Entry]:
        """The sizes that come out otherwise than as they are written."""
        built = self.built(values)
        assert built is not None
        assert self.written is not None
        return {entry for entry, size in built.sizes.items() if size != self.written.sizes[entry]}

    def _moves(self) -> Iterator[tuple[Key, int]]:
        """Integers of the configuration that may hold what has changed, with their new values.

        Integers that it does not have, but that its class looks for in it, keep what a module has come to.
        """
        for key, value in keys_of(self._rebuilder.config):
            asked = Counter(s.now for s in self._sources if value in (None, s.before) and s.now != s.before)
            for now, _ in asked.most_common(VALUES if value is not None else 5 * VALUES):
                if self.built({key: now}) != self.written:
                    yield key, now
        for key, value in absent_keys(self.model):
            if self.built({key: value + 1}) != self.written:
                yield key, value

    def _lengths(self) -> Iterator[_Source]:
        """The layouts of all places, and parts of them, with their lengths as they are written and now."""
        assert self.written is not None
        lengths: list[tuple[str, Layout, int]] = []
        for width in self.widths.values():
            for slot in width.slots:
                entry = self._paths[slot.module], slot.name, slot.dim
                if entry in self.written.sizes:
                    lengths.append(("", slot.layout, self.written.sizes[entry]))
        for held, each in self._attributes.items():
            size = self.written.sizes[held]
            if isinstance(size, int):
                lengths.append(("", each.layout, size))
        by_axis = {width.axis: name for name, width in self.widths.items()}
        everything = {axis: axis.size for _, layout, _ in lengths for axis in axes(layout)}
        try:
            before = solve(lengths, {axis: size for axis, size in everything.items() if axis not in by_axis})
        except NoSizesError:  # the model was changed after it had been built: nothing is known
            return
        before = {**everything, **before}
        for layout in dict.fromkeys(part for _, whole, _ in lengths for part in _parts(canonical(whole))):
            names = frozenset(by_axis[axis] for axis in axes(layout) if axis in by_axis)
            if names:
                yield _Source(length(layout, before), length(layout), names)

    def entries(self, name: str) -> set[Entry]:
        """The sizes that a width decides on."""
        width = self.widths[name]
        return {
            *((self._paths[slot.module], slot.name, slot.dim) for slot in width.slots),
            *((self._paths[each.module], each.name, each.index) for each in width.attributes),
        }

    def apart(self, unsaid: Mapping[str, int]) -> Iterator[tuple[Key, dict[str, int]]]:
        """The integers of the configuration that would have to be several at once: for each, the sizes.

        Args:
            unsaid: the sizes that the configuration does not say, by the widths' names.
        """
        for key, value in keys_of(self._rebuilder.config):
            for size in dict.fromkeys(s.before for s in self._sources if value in (None, s.before)):
                own = self._held_by(key, size)
                asked = {
                    name: source.now
                    for source in self._sources
                    for name in source.widths
                    if source.before == size and self.entries(name) & own
                }
                known = {entry for name in asked for entry in self.entries(name)}
                if asked.keys() & unsaid.keys() and len({*asked.values()}) > 1 and own <= known:
                    yield key, asked

    def _held_by(self, key: Key, size: int) -> set[Entry]:
        """The sizes that an integer of the configuration, which is `size`, holds, if it holds no more."""
        same, more = self.built({key: size}), self.built({key: size + 1})
        if same is None or more is None or self.written is None or more.floats != self.written.floats:
            return set()
        return set() if self._changed({key: size}) else self._changed({key: size + 1})


def _parts(layout: Layout) -> Iterator[Layout]:
    """The layout, those that it is made of, and products of some factors in a row."""
    yield layout
    if isinstance(layout, Product):
        factors: tuple[Any, ...] = layout.factors
        for start, stop in combinations(range(len(factors) + 1), 2):
            if 1 < stop - start < len(factors):
                yield Product(factors[start:stop])
    for child in children(layout):
        yield from _parts(child)
