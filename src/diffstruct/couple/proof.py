"""A width is used only after surgery has proved it on the example inputs: see `trials`.

Integers that hold a size and that only the model's own code knows are found on the way: with them kept in
step the proof succeeds, without them it does not. Widths of repeated layers are alike: what was found out of
one is tried on all others at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple, TypeAlias

from diffstruct.couple.attributes import Candidate
from diffstruct.couple.findings import lost_unit
from diffstruct.couple.subsets import subsets
from diffstruct.couple.trials import ChangesOutputError, ProofError, Trials
from diffstruct.width.width import Width

Variants: TypeAlias = Sequence[Sequence[Width]]
"""What a width may be: for each choice of parts, with what may be rescaled."""

NUMBERS_TOO = 3
"""So many ways to rescale there are if numbers may be: it is tried first with them, and last without."""


class Proved(NamedTuple):
    """A width that is proved.

    Args:
        width: the width, with the attributes that must be kept in step.
        variant: which of the variants it is.
        kinds: of the candidates that are among its attributes.
    """

    width: Width
    variant: tuple[int, int]
    kinds: frozenset[str]


class Proof(Trials):
    """Proves the widths of a model."""

    def prove_all(
        self, variants: Mapping[str, Variants], candidates: Mapping[str, Sequence[Candidate]]
    ) -> dict[str, Width | ProofError]:
        """Prove widths; by name, each width with its attributes, or what refutes it.

        Args:
            variants: by name, what each width may be.
            candidates: by name, integers that may hold its size.
        """
        found: dict[str, Width | ProofError] = {}
        alike: dict[str, list[str]] = {}
        for name in variants:
            alike.setdefault(re.sub(r"\d+", "#", name), []).append(name)
        for names in alike.values():
            todo = [*names]
            while todo:
                first = todo.pop(0)
                try:
                    proved = self.prove(variants[first], candidates[first])
                except ProofError as error:
                    found[first] = error
                    continue
                found[first] = proved.width
                found |= self._like(proved, {name: variants[name] for name in todo}, candidates)
                todo = [name for name in todo if name not in found]
        return found

    def _like(
        self, one: Proved, variants: Mapping[str, Variants], candidates: Mapping[str, Sequence[Candidate]]
    ) -> dict[str, Width]:
        """Those of the widths that can be proved at once, as what one of them was found to be."""
        choice, index = one.variant
        found: dict[str, Width] = {}
        for name, own in variants.items():
            if len(own) > choice and len(own[choice]) > index:
                chosen = [each for each in candidates[name] if each.kind in one.kinds]
                found[name] = _also(own[choice][index], chosen)
        return self._at_once(found)

    def _at_once(self, widths: Mapping[str, Width]) -> dict[str, Width]:
        """Those of some widths that stand the trials, half of them at a time where not all do."""
        try:
            self._try_all([*widths.values()])
            return {**widths}
        except ProofError:
            if len(widths) < 4:
                return {}
        names = [*widths]
        half = len(names) // 2
        found: dict[str, Width] = {}
        for some in (names[:half], names[half:]):
            found |= self._at_once({name: widths[name] for name in some})
        return found

    def _try_all(self, widths: Sequence[Width]) -> None:
        """Try several widths at once.

        Two that have to be as large as one another would stand a trial in which both get as many units more.
        So each gets other numbers than all others, in several trials.
        """
        if not widths:
            return
        trials = next(n for n in count(1) if 3**n >= len(widths))
        with self.sharp(any(_is_scaled(width) for width in widths)), self.even_gains(widths):
            for trial in range(trials):
                more = {width: 1 + index // 3**trial % 3 for index, width in enumerate(widths)}
                self.insertion(more)
            self.trained(more)
            self.removal(widths)

    def prove(self, variants: Variants, candidates: Sequence[Candidate]) -> Proved:
        """Find out which of the variants a width is, and which attributes must be kept in step.

        Raises:
            ProofError: surgery changes the model's output, or the model fails.
        """
        first: ProofError | None = None
        for choice, widths in enumerate(variants):
            try:
                with self.sharp(len(widths) > 1), self.even_gains(widths[:1]):
                    proved = self._with_attributes(choice, widths, candidates)
                    self.trained({proved.width: 1})
                    self.removal([proved.width])
                return proved
            except ProofError as error:
                first = first or error
                if not isinstance(error, ChangesOutputError):
                    break  # another choice of parts has the same shapes
        assert first is not None
        raise type(first)(lost_unit(str(first)) if variants[0][0].size == 1 else str(first)) from first

    def _with_attributes(
        self, choice: int, widths: Sequence[Width], candidates: Sequence[Candidate]
    ) -> Proved:
        """The width with those of `candidates` that it needs, and those that are likely and do no harm."""
        first: ProofError | None = None
        for chosen in subsets(candidates):
            for index, width in enumerate(widths):
                trial = _also(width, chosen)
                try:
                    self.insertion({trial: 1})
                except ProofError as error:
                    changes = isinstance(error, ChangesOutputError)
                    if first is None or changes > isinstance(first, ChangesOutputError):
                        first = error
                    if not changes:
                        break  # with other things rescaled the model fails as well
                    continue
                if index == 0 and len(widths) == NUMBERS_TOO:
                    fewer = _also(widths[-1], chosen)  # without numbers, if these make no difference
                    if self._stands(fewer):
                        index, trial = NUMBERS_TOO - 1, fewer
                return self._without_idle(trial, (choice, index), chosen)
        assert first is not None
        raise first

    def _without_idle(self, width: Width, variant: tuple[int, int], chosen: Iterable[Candidate]) -> Proved:
        """Drop the attributes that make no difference, unless they are likely to hold the size."""
        chosen = [*chosen]
        unlikely = [candidate for candidate in chosen if not candidate.likely]
        for kind in dict.fromkeys(candidate.kind for candidate in unlikely):
            idle = [candidate.attribute for candidate in unlikely if candidate.kind == kind]
            fewer = [each for each in width.attributes if each not in idle]
            trial = replace(width, attributes=tuple(fewer))
            if self._stands(trial):
                width = trial
        kinds = frozenset(each.kind for each in chosen if each.attribute in width.attributes)
        return Proved(width, variant, kinds)

    def _stands(self, width: Width) -> bool:
        """Whether the output stays the same if the width gets a unit more."""
        try:
            self.insertion({width: 1})
        except ProofError:
            return False
        return True


def _is_scaled(width: Width) -> bool:
    return any(each.part is not None for each in width.rescaled)


def _also(width: Width, chosen: Iterable[Candidate]) -> Width:
    return replace(width, attributes=(*width.attributes, *(candidate.attribute for candidate in chosen)))
