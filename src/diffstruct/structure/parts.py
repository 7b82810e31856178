"""What a structure consists of, as far as saving and loading it have to know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import nn

from diffstruct.couple import FoundWidths
from diffstruct.criteria import Criterion, Training
from diffstruct.rule import Decision, RuleState
from diffstruct.structure.deepening import Growth
from diffstruct.structure.finite import Guard
from diffstruct.structure.history import Event, History
from diffstruct.structure.hooks import ActsBeforeSteps
from diffstruct.structure.widening import Widening
from diffstruct.surgery import Birth, Change, Initialize
from diffstruct.width import Width


class StructureParts(ActsBeforeSteps):
    """The attributes of a `Structure`, and how it changes."""

    model: nn.Module
    criterion: Criterion
    training: Training
    widths: dict[str, Width]
    multiple_of: dict[str, int]
    states: dict[str, RuleState]
    """What the rule remembers of the units of each width."""
    history: History
    steps: int
    """Made so far."""
    guard: Guard

    _found: FoundWidths
    _spare: dict[str, NDArray[np.bool_]]
    _growth: Growth
    _widening: Widening | None
    _last: dict[str, Change]
    """What the last step has changed."""
    _finished: bool
    _loads: int
    """State dicts that were loaded into the model since the last step, beyond the one that follows a state
    dict of the structure's."""

    @abstractmethod
    def _all_or_nothing(self) -> AbstractContextManager[ExitStack]:
        """To do something as a whole or, if anything fails, not at all."""

    @abstractmethod
    def _operate(
        self,
        decisions: Mapping[str, Decision],
        initialize: Initialize,
        steps: int = 1,
        births: Mapping[str, Sequence[Birth]] = MappingProxyType({}),
        spare: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
        undo: ExitStack | None = None,
    ) -> tuple[Event, ...]:
        """Carry decisions out, and count steps; `undo` gets to know what undoes the surgery."""

    @abstractmethod
    def _end(self, keep: Mapping[str, tuple[int, ...]], undo: ExitStack) -> tuple[nn.Module, list[str]]:
        """Remove all units but those to keep, and all that is ours; the plain model, and what to say."""

    @abstractmethod
    def _record_next(self) -> None:
        """Let the criterion record what the next step shows, or not."""
