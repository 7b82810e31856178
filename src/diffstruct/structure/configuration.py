"""The final sizes, written into the configuration that a model is built from, as far as that can say them.

Which of its integers holds which size is found by trying: the model's class is built from a changed copy of
the configuration, and must come to the sizes that the model has; with the model's tensors it must then give
the model's output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations, islice
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call

from diffstruct.couple import Proof, ProofError
from diffstruct.nn.outputs import tensors_in
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.structure.rebuilding import (
    Entry,
    Key,
    Rebuilder,
    Sketch,
    absent_keys,
    is_configuration,
    keys_of,
    sketch,
)
from diffstruct.structure.shapes import tensors_of
from diffstruct.width import Attribute, Layout, Product, Width
from diffstruct.width.canonical import canonical
from diffstruct.width.layout import axes, children, length
from diffstruct.width.solving import NoSizesError, solve

VALUES, TOGETHER, TRIALS = 3, 3, 100
"""As many values of an integer, as many integers together and as many choices of these are tried at most."""


def write_sizes(
    model: nn.Module, widths: Mapping[str, Width], proof: Proof | None, copies: Sequence[nn.Module] = ()
) -> str | None:
    """Write the sizes of widths into `model.config`, and into those of copies of the model.

    A model without a configuration, one whose class cannot be built from it alone, and one whose widths were
    found without example inputs are left alone.

    Returns:
        What the user should know: which sizes the configuration cannot say.
    """
    config = getattr(model, "config", None)
    if proof is None or proof.model is not model or not is_configuration(config):
        return None
    if not {slot.module for width in widths.values() for slot in width.slots} <= {*model.modules()}:
        return None  # layers of ours have become those of torch.nn, which its class does not build
    fit = _Fit(model, widths)
    if fit.written is None or not fit.wrong(fit.written):
        return None
    values = fit.search()
    final = fit.rebuilder.sketch_of(values)
    assert final is not None
    complete = not fit.wrong(final)
    before = proof.outputs()
    if complete and not _same_function(fit.rebuilder.model_of(values), model, proof):
        values, final = {}, fit.written
    targets = {id(each): each for each in (config, *(twin.config for twin in copies))}.values()
    with ExitStack() as undo:
        for target in targets:
            for key, value in values.items():
                undo.callback(key.put, target, key.of(target))
                key.put(target, value)
        try:
            proof.same(proof.outputs(), before, "the model reads its configuration while it runs")
            undo.pop_all()
        except ProofError:
            final = fit.written
    return fit.remark(final) if fit.wrong(final) else None


def _same_function(rebuilt: nn.Module | None, model: nn.Module, proof: Proof) -> bool:
    """Whether a model that was built anew, with the tensors of `model`, gives the same outputs."""
    tensors = {key: tensor for key, _, _, tensor in tensors_of(model)}
    try:
        assert rebuilt is not None
        expected = proof.outputs()
        with undisturbed(model), torch.enable_grad():
            found = functional_call(rebuilt.eval(), tensors, proof.run.args, proof.run.keywords)
        proof.same([tensor.detach() for tensor in tensors_in(found)], expected, "another function")
    except Exception:  # whatever the user's code raises where it is not the same
        return False
    return True


class _Source(NamedTuple):
    """A layout that an integer of the configuration may be the length of."""

    before: int
    """Its length by the configuration as it is written."""
    now: int
    widths: frozenset[str]


class _Fit:
    """What the configuration says, beside what the model has come to."""

    def __init__(self, model: nn.Module, widths: Mapping[str, Width]) -> None:
        self.model, self.widths = model, widths
        self.paths = {module: path for path, module in model.named_modules()}
        self.attributes: dict[Entry, Attribute] = {
            (self.paths[each.module], each.name, each.index): each
            for width in widths.values()
            for each in width.attributes
        }
        self.wanted = sketch(model, self.attributes)
        self.rebuilder = Rebuilder(model, self.attributes)
        written = self.rebuilder.sketch_of({})
        fits = written is not None and written.sizes.keys() == self.wanted.sizes.keys()
        self.written = written if fits else None
        self.sources = [*self._sources()] if self.written else []

    def wrong(self, built: Sketch) -> set[Entry]:
        """The sizes that a model that was built has and this one has not."""
        return {entry for entry, size in built.sizes.items() if size != self.wanted.sizes.get(entry)}

    def search(self) -> dict[Key, int]:
        """Values for the configuration that leave the fewest sizes wrong, and make none wrong that was right.

        One value is changed at a time, whichever helps most; where none helps alone, two or three together.
        """
        assert self.written is not None
        values: dict[Key, int] = {}
        left = len(self.wrong(self.written))
        moves = [*self._moves()]
        together = 1
        while left and together <= min(TOGETHER, len(moves)):
            best = min(
                self._trials(values, moves, together), key=lambda pair: pair[0], default=(left, values)
            )
            if best[0] < left:
                left, values = best
                together = 1
            else:
                together += 1
        return values

    def _trials(
        self, values: Mapping[Key, int], moves: Sequence[tuple[Key, int]], together: int
    ) -> Iterator[tuple[int, dict[Key, int]]]:
        """What some moves together lead to that do no harm: how many sizes are wrong then, and the values."""
        for several in islice(combinations(moves, together), TRIALS):
            trial = {**values, **dict(several)}
            built = self._built(trial) if len(dict(several)) == together else None
            if built is not None and not self._harm(built):
                yield len(self.wrong(built)), trial

    def _built(self, values: Mapping[Key, int]) -> Sketch | None:
        built = self.rebuilder.sketch_of(values)
        return built if built is not None and built.sizes.keys() == self.wanted.sizes.keys() else None

    def _harm(self, built: Sketch) -> bool:
        """Whether anything is neither as written nor as the model has it, or not restored by a state dict."""
        assert self.written is not None
        return (
            any(built.sizes[entry] != self.written.sizes[entry] for entry in self.wrong(built))
            or any(
                number not in (self.written.numbers.get(entry), self.wanted.numbers.get(entry))
                for entry, number in built.numbers.items()
            )
            or built.fleeting != self.written.fleeting
        )

    def _moves(self) -> Iterator[tuple[Key, int]]:
        """Integers of the configuration that may hold a size that has changed, with their new values.

        Integers that it does not have, but that its class looks for in it, keep what a module has come to.
        """
        for key, value in keys_of(self.rebuilder.config):
            asked = Counter(s.now for s in self.sources if value in (None, s.before) and s.now != s.before)
            for now, _ in asked.most_common(VALUES if value is not None else 5 * VALUES):
                if self._built({key: now}) != self.written:
                    yield key, now
        for key, value in absent_keys(self.model, self.attributes.values()):
            if self._built({key: value + 1}) != self.written:
                yield key, value

    def _sources(self) -> Iterator[_Source]:
        """The layouts of all places, and parts of them, with their lengths as they are written and now."""
        assert self.written is not None
        lengths: list[tuple[str, Layout, int]] = []
        for width in self.widths.values():
            for slot in width.slots:
                entry = self.paths[slot.module], slot.name, slot.dim
                lengths.append(("", slot.layout, self.written.sizes.get(entry, 0)))
        for (path, name, index), each in self.attributes.items():
            size = self.written.sizes[path, f".{name}", index]
            if isinstance(size, int):
                lengths.append(("", each.layout, size))
        by_axis = {width.axis: name for name, width in self.widths.items()}
        everything = {axis: axis.size for _, layout, _ in lengths for axis in axes(layout)}
        try:
            before = solve(lengths, {axis: size for axis, size in everything.items() if axis not in by_axis})
        except NoSizesError:  # the model was changed after it had been built: nothing is known
            return
        before = {**everything, **before}
        for layout in {part for _, whole, _ in lengths for part in _parts(canonical(whole))}:
            names = frozenset(by_axis[axis] for axis in axes(layout) if axis in by_axis)
            if names:
                yield _Source(length(layout, before), length(layout), names)

    def remark(self, built: Sketch) -> str:
        """Which sizes the configuration does not say, and what to do."""
        wrong = self.wrong(built)
        unsaid = {name: width.size for name, width in self.widths.items() if self._entries(name) & wrong}
        apart = "; ".join(f"{key} is {_listed(each)}" for key, each in self._apart(unsaid))
        return (
            f"{type(self.rebuilder.config).__name__} cannot say these sizes: {_listed(unsaid)}. "
            + (f"Layers differ ({apart}): tie them with Structure(tie=...). " if apart else "")
            + "A model that is built from the configuration takes them by ds.resize_to(model, state_dict, "
            "example_inputs); Structure(exclude=...) leaves them as they are"
        )

    def _entries(self, name: str) -> set[Entry]:
        """The sizes that a width decides on."""
        width = self.widths[name]
        return {
            *((self.paths[slot.module], slot.name, slot.dim) for slot in width.slots),
            *((self.paths[each.module], f".{each.name}", each.index) for each in width.attributes),
        }

    def _apart(self, unsaid: Mapping[str, int]) -> Iterator[tuple[Key, dict[str, int]]]:
        """The integers of the configuration that some widths would have different: their sizes by name."""
        assert self.written is not None
        sizes = {source.before for source in self.sources if source.widths & unsaid.keys()}
        for key, value in keys_of(self.rebuilder.config):
            for size in sizes & {value} if value is not None else sizes:
                asked = {
                    name: source.now
                    for source in self.sources
                    for name in source.widths & unsaid.keys()
                    if source.before == size
                }
                if len({*asked.values()}) > 1 and not self._changed({key: size}):
                    changed = self._changed({key: size + 1})
                    if changed and changed <= {entry for name in asked for entry in self._entries(name)}:
                        yield key, asked

    def _changed(self, values: Mapping[Key, int]) -> set[Entry]:
        """The sizes that other values of the configuration change; none if they change more than sizes."""
        built = self._built(values)
        if built is None or self.written is None or built.numbers != self.written.numbers:
            return set()
        return {entry for entry, size in built.sizes.items() if size != self.written.sizes[entry]}


def _listed(sizes: Mapping[str, int]) -> str:
    shown = ", ".join(f"{size} in {name}" for name, size in sorted(sizes.items())[:6])
    return shown + (f" and {len(sizes) - 6} more" if len(sizes) > 6 else "")


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
