"""A width is used only after surgery has proved it on the example inputs.

For each width: a silent unit is added, of which everything is random but its outgoing weights, which are
zero, and the model's output must be what it was before; a unit in the middle is silenced, then removed, and
the output must be the same both times; and the model must run in the modes in which it is trained. Each time
the model is restored bit for bit. Integers that hold a size and that only the model's own code knows are
found on the way: with them kept in step the proof succeeds, without them it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from diffstruct.couple.attributes import Candidate
from diffstruct.couple.even_draws import EvenDraws
from diffstruct.couple.findings import Findings, coarsest, lost_unit
from diffstruct.couple.sharpening import FACTORS, Sharpening, apart
from diffstruct.nn.outputs import tensors_in
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.surgery import Change, plan
from diffstruct.width.layout import owners
from diffstruct.width.silence import silence_writers, writers
from diffstruct.width.width import READERS, Role, Width

SEED = 0
"""Of the random entries of silent units."""


class ProofError(Exception):
    """Surgery refutes a width; the message says how."""


class ChangesOutputError(ProofError):
    """The model runs at another size, but its output is another."""


class Proof:
    """Tries widths on a model.

    Args:
        model: the model.
        run: the model with the example inputs as its arguments. A deep copy of a proof together with its
            model runs the copy of the model.
        trains: whether it runs with the modes that its modules are in as well.
        findings: what the trace found: whether the model draws random numbers in evaluation mode, which are
            then made independent of sizes, and how coarsely it computes.
    """

    def __init__(self, model: nn.Module, run: partial[Any], trains: bool, findings: Findings) -> None:
        self.model, self.run, self.trains = model, run, trains
        self.draws, self.precision = findings.draws, findings.coarsest
        self.expected = self.outputs()
        self._sharpening = Sharpening(())
        self._sharp_outputs = self.expected

    def prove(self, variants: Sequence[Sequence[Width]], candidates: Sequence[Candidate]) -> Width:
        """The width, with the attributes that must be kept in step.

        Args:
            variants: what the width may be: for each choice of parts, with what may be rescaled.
            candidates: integers that may hold its size.

        Raises:
            ProofError: surgery changes the model's output, or the model fails.
        """
        first: ProofError | None = None
        for widths in variants:
            try:
                with self._sharp(len(widths) > 1), self._even_gains(widths[:1]):
                    proved = self._with_attributes(widths, candidates)
                    if proved.size > 1:  # the last unit cannot be removed
                        self._removal(proved)
                return proved
            except ProofError as error:
                first = first or error
                if not isinstance(error, ChangesOutputError):
                    break  # another choice of parts has the same shapes
        assert first is not None
        raise type(first)(lost_unit(str(first)) if variants[0][0].size == 1 else str(first)) from first

    def sharpen(self, variants: Iterable[Sequence[Sequence[Width]]]) -> None:
        """Find out at which weights of attention its scale matters most: there it is tried what scale it has.

        Args:
            variants: of all widths, as `prove` takes them.
        """
        self._sharpening, self._sharp_outputs = Sharpening(variants), self.expected
        best = 0.0
        for factor in FACTORS if self._sharpening else ():
            with self._sharpening.applied(factor):
                here = self.outputs()
            with self._sharpening.applied(1.1 * factor):
                change = apart(here, self.outputs())
            if change > best:
                best, self._sharpening.factor, self._sharp_outputs = change, factor, here

    @contextmanager
    def _sharp(self, needed: bool) -> Iterator[None]:
        """Let the output depend on the scale of attention meanwhile, where that is needed."""
        expected = self.expected
        if not needed:
            yield
            return
        with self._sharpening.applied():
            self.expected = self._sharp_outputs
            try:
                yield
            finally:
                self.expected = expected

    @contextmanager
    def _even_gains(self, widths: Iterable[Width]) -> Iterator[None]:
        """Give all units of a `LayerNorm` the same gain and bias meanwhile.

        What a `LayerNorm` returns has the same mean for every example only then. Behind others a channel
        that equals the mean differs from the next mean, by about the gains' spread over the root of their
        number: surgery there is exact only to that.
        """
        expected = self.expected
        centred = [each for each in widths if each.normalisation is not None and each.normalisation.centred]
        slots = (slot for width in centred for slot in width.having(Role.INCOMING) if slot.tensor.ndim == 1)
        uneven = {slot.tensor: None for slot in slots if slot.tensor.is_floating_point()}
        backup = [(tensor, tensor.detach().clone()) for tensor in uneven if (tensor != tensor[0]).any()]
        if not backup:
            yield
            return
        try:
            for tensor, before in backup:
                tensor.data.fill_(before.mean())
            self.expected = self.outputs()
            yield
        finally:
            self.expected = expected
            for tensor, before in backup:
                tensor.data.copy_(before)

    def _with_attributes(self, widths: Sequence[Width], candidates: Sequence[Candidate]) -> Width:
        """The width with those of `candidates` that it needs, and those that are likely and do no harm."""
        first: ProofError | None = None
        for chosen in _subsets(candidates):
            for index, width in enumerate(widths):
                trial = _also(width, chosen)
                try:
                    self._insertion(trial)
                except ProofError as error:
                    if first is None or (
                        isinstance(error, ChangesOutputError) > isinstance(first, ChangesOutputError)
                    ):
                        first = error
                    if not isinstance(error, ChangesOutputError):
                        break  # with other things rescaled the model fails as well
                    continue
                if index == 0 and len(widths) == NUMBERS_TOO:
                    trial = self._without_numbers(trial, _also(widths[-1], chosen))
                return self._without_idle(trial, chosen)
        assert first is not None
        raise first

    def _without_numbers(self, width: Width, fewer: Width) -> Width:
        """The width with fewer numbers that are rescaled, if these make no difference."""
        try:
            self._insertion(fewer)
        except ProofError:
            return width
        return fewer

    def _without_idle(self, width: Width, chosen: Iterable[Candidate]) -> Width:
        """Drop the attributes that make no difference, unless they are likely to hold the size."""
        unlikely = [candidate for candidate in chosen if not candidate.likely]
        for kind in dict.fromkeys(candidate.kind for candidate in unlikely):
            idle = [candidate.attribute for candidate in unlikely if candidate.kind == kind]
            fewer = [each for each in width.attributes if each not in idle]
            trial = replace(width, attributes=tuple(fewer))
            try:
                self._insertion(trial)
            except ProofError:
                continue
            width = trial
        return width

    def _insertion(self, width: Width) -> None:
        """Add a silent unit; the output must not change."""
        change = Change(width, tuple(range(width.size)), 1)
        undo = self._operate(change)
        try:
            self.same(self.outputs(), self.expected, "a silent unit changes the model's output")
            if self.trains:
                self.outputs(training=True)
        finally:
            undo()

    def _removal(self, width: Width) -> None:
        """Silence a unit in the middle, then remove it; the outputs must be the same."""
        gone = width.size // 2
        keep = tuple(unit for unit in range(width.size) if unit != gone)
        slots = width.having(*READERS, *([] if width.normalisation is None else [Role.INCOMING]))
        backup = [(tensor, tensor.detach().clone()) for tensor in {slot.tensor: None for slot in slots}]
        try:
            with torch.no_grad():
                for slot in width.having(*READERS):
                    where = (owners(slot.layout, width.axis) == gone).nonzero()[:, 0].to(slot.tensor.device)
                    slot.tensor.data.index_fill_(slot.dim, where, 0)
                for slot in writers(width) if width.normalisation is not None else ():
                    silence_writers(width, slot, slot.tensor.data, torch.arange(width.size) == gone)
            silent = self.outputs()
            undo = self._operate(Change(width, keep, 0))
            try:
                self.same(self.outputs(), silent, "removing a silent unit changes the model's output")
            finally:
                undo()
        finally:
            for tensor, before in backup:
                tensor.data.copy_(before)

    def runs(self, changes: Iterable[Change]) -> None:
        """Check that the model runs after some changes at once.

        Raises:
            ProofError: it does not.
        """
        undo = self._operate(*changes)
        try:
            self.outputs()
            if self.trains:
                self.outputs(training=True)
        finally:
            undo()

    def together(self, widths: Iterable[Width]) -> None:
        """Add a silent unit to each of the widths at once; the output must not change.

        Raises:
            ProofError: it does.
        """
        widths = [*widths]
        with self._even_gains(widths):
            undo = self._operate(*(Change(width, tuple(range(width.size)), 1) for width in widths))
            try:
                self.same(self.outputs(), self.expected, "silent units together change the model's output")
            finally:
                undo()

    def _operate(self, *changes: Change) -> Callable[[], None]:
        return plan(changes, (), _silent_units).commit()

    def outputs(self, training: bool = False) -> list[Tensor]:
        """The model's outputs on the example inputs.

        Raises:
            ProofError: the model fails.
        """
        # With gradients, which a model can need for its output (forces, from an energy).
        draws = EvenDraws() if self.draws and not training else nullcontext()
        with undisturbed(self.model, training), torch.enable_grad(), draws:
            try:
                return [tensor.detach().clone() for tensor in tensors_in(self.run())]
            except Exception as error:  # whatever the user's code raises where a size does not fit
                raise ProofError(f"with a unit more or less the model fails: {_one_line(error)}") from error

    def same(self, found: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
        """Compare outputs, up to rounding.

        Raises:
            ChangesOutputError: they are not the same; the message begins with `what`.
        """
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
            raise ChangesOutputError(f"{what}: its shape")
        types = [tensor.dtype for tensor in found if tensor.dtype.is_floating_point]
        kept = coarsest([*types, self.precision] if types else [])
        tolerance = torch.finfo(kept).eps ** 0.7  # rounding adds up on its way through the model
        for mine, right in zip(found, expected, strict=True):
            if not right.dtype.is_floating_point:
                if not torch.equal(mine, right):
                    raise ChangesOutputError(what)
                continue
            mine, right = mine.double(), right.double()
            finite = right.isfinite()
            if not torch.equal(mine.isfinite(), finite):
                raise ChangesOutputError(f"{what}: it is not finite")
            scale = float(right[finite].abs().max()) if finite.any() else 1.0
            apart = float((mine - right)[finite].abs().max()) if finite.any() else 0.0
            if apart > tolerance * scale:
                raise ChangesOutputError(f"{what}, by {apart / scale:.1g} of it")


def _silent_units(changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
    """Make all entries of the new units random, but their outgoing weights zero."""
    generator = torch.Generator().manual_seed(SEED)
    sizes = {change.width.axis: change.new_size for change in changes}
    for roles in ((Role.INCOMING, Role.MULTIPLIER), READERS):
        for change in changes:
            for slot in change.width.having(*roles):
                value = values[slot.tensor]
                units = owners(slot.layout, change.width.axis, sizes)
                where = (units >= len(change.keep)).nonzero()[:, 0].to(value.device)
                if roles is READERS:
                    value.index_fill_(slot.dim, where, 0)
                elif value.is_floating_point():
                    shape = [*value.shape]
                    shape[slot.dim] = len(where)
                    scale = slot.tensor.detach().float().abs().mean().item() + 0.1
                    noise = scale * (1 + torch.rand(shape, generator=generator))
                    value.index_copy_(slot.dim, where, noise.to(value))
    new = {change.width.axis: torch.arange(change.new_size) >= len(change.keep) for change in changes}
    for change in changes:
        axis = change.width.axis
        for slot in writers(change.width) if change.width.normalisation is not None else ():
            silence_writers(change.width, slot, values[slot.tensor], new[axis], sizes, new)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def _also(width: Width, chosen: Iterable[Candidate]) -> Width:
    return replace(width, attributes=(*width.attributes, *(candidate.attribute for candidate in chosen)))


NUMBERS_TOO = 3
"""So many ways to rescale there are if numbers may be: it is tried first with them, and last without."""

MANY = 8
"""As many candidates are tried one by one."""


def _subsets(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, ...]]:
    """All, none, each, each pair, all but one: not all subsets, which would take too long.

    Those of one kind belong together; if that is of no help, and they are few, they are taken one by one.
    """
    kinds: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        kinds.setdefault(candidate.kind, []).append(candidate)
    yield tuple(candidates)
    if candidates:
        yield ()
    yield from _some([*kinds.values()])
    if len(kinds) < len(candidates) <= MANY:
        yield from _some([[candidate] for candidate in candidates])


def _some(groups: Sequence[Sequence[Candidate]]) -> Iterator[tuple[Candidate, ...]]:
    for size in sorted({1, 2, len(groups) - 1}):
        if 0 < size < len(groups):
            for chosen in combinations(groups, size):
                yield tuple(candidate for group in chosen for candidate in group)
