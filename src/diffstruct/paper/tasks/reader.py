"""Reading a schedule: each step of a run learns from one window of characters."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffstruct.errors import ConfigurationError, DataError
from diffstruct.paper.tasks.phases import Phase
from diffstruct.paper.tasks.task import SEQUENCE, need


class Window(NamedTuple):
    """The characters of one step: two views into the text, not to be written to."""

    inputs: Tensor
    """`[length]` int64 indices into the alphabet."""
    targets: Tensor
    """`[length]` int64, the character that follows each input."""
    restart: bool
    """Whether to zero the hidden state first: at the very start, and when a text starts over."""


class Stretch(NamedTuple):
    """Windows that follow one another in one text."""

    text: Tensor
    """`[characters]` int64 indices into the alphabet, not to be written to."""
    position: int
    """Where the first window begins."""
    windows: int
    """How many there are, at least 1."""
    restart: bool
    """Whether to zero the hidden state before the first."""

    def split(self, length: int = SEQUENCE) -> Iterator[Window]:
        """The windows one by one, `length` characters each."""
        return (self.window(number, length) for number in range(self.windows))

    def window(self, number: int, length: int = SEQUENCE) -> Window:
        """The window of a number, counted from 0, of `length` characters."""
        start = self.position + number * length
        stop = start + length
        inputs, targets = self.text[start:stop], self.text[start + 1 : stop + 1]
        return Window(inputs, targets, self.restart and number == 0)


class Reader:
    """Reads a schedule of tasks, `length` characters a step, without end.

    A text is read from left to right, and from its beginning again (with `restart`) once used up.
    At a switch of task the new text is read from its beginning, while the hidden state carries on.
    Each phase's text is drawn when the phase starts; the same seed gives the same windows. `state_dict` says
    where it is, so that another reader of the same schedule can go on there.

    Args:
        phases: the schedule; `(Phase(0, task),)` for a single task.
        generator: the source of the texts (on the CPU).
        length: characters per window.

    Raises:
        ConfigurationError: the phases are out of order, or their alphabets differ.
        DataError: a text is too short for one window.
    """

    def __init__(self, phases: Sequence[Phase], generator: torch.Generator, length: int = SEQUENCE) -> None:
        need(length >= 1, "length", "at least 1 character", length)
        starts = [phase.start for phase in phases]
        ordered = starts[:1] == [0] and all(before < after for before, after in pairwise(starts))
        need(ordered, "starts of phases", "0 first, and each later than the one before", starts)
        first = phases[0].task
        for task in (phase.task for phase in phases):
            if task.alphabet != first.alphabet:
                apart = "".join(sorted(set(task.alphabet) ^ set(first.alphabet)))[:20]
                raise ConfigurationError(
                    f"all phases must share one alphabet, but {first.name!r} and {task.name!r} differ "
                    f"in {apart!r}; use texts over the same symbols"
                )
            if task.length <= length:
                raise DataError(
                    f"expected a text of at least {length + 1} characters, but {task.name!r} has "
                    f"{task.length}; give a longer text or read shorter windows"
                )
        self._phases = tuple(phases)
        self._ends = [*starts[1:], None]
        self._generator = generator
        self._length = length
        self._step = 0  # the next one
        self._phase = -1  # none begun yet
        self._before = generator.get_state()  # before the present text was drawn
        self._text = torch.empty(0, dtype=torch.int64)
        self._digest: str | None = None  # of the text, once it was asked for
        self._position = 0
        self._restart = True

    def _turn(self) -> None:
        """Begin the phase that the next step belongs to, if it has not begun."""
        if self._phase < 0 or self._step == self._ends[self._phase]:
            self._phase += 1
            self._before = self._generator.get_state()
            self._text = self._phases[self._phase].task.text(self._generator)
            self._position, self._digest = 0, None

    def take(self, most: int) -> Stretch:
        """Read on: the next windows of one text, `most` of them or fewer."""
        assert most >= 1
        self._turn()
        text, length, end = self._text, self._length, self._ends[self._phase]
        # The author's rule, to the letter: a last window that fits exactly is not read.
        left = math.ceil((len(text) - 1 - length - self._position) / length)
        if left <= 0:
            self._position, self._restart = 0, True
            left = max(1, math.ceil((len(text) - 1 - length) / length))
        windows = min(most, left, most if end is None else end - self._step)
        stretch = Stretch(text, self._position, windows, self._restart)
        self._position += windows * length
        self._step += windows
        self._restart = False
        return stretch

    def state_dict(self) -> dict[str, Any]:
        """Where it is: plain numbers, the generator's state before the text was drawn, and the text's hash.

        The text itself is not in there, since it is drawn again.
        """
        self._turn()
        self._digest = self._digest or _digest(self._text)
        return {
            "step": self._step,
            "phase": self._phase,
            "position": self._position,
            "restart": self._restart,
            "generator": self._before.clone(),
            "text": self._digest,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another reader of the same schedule was.

        Raises:
            DataError: the text is another one, or the state is that of no reader of this schedule. Nothing
                has changed then.
        """
        step, phase, position = state["step"], state["phase"], state["position"]
        if not self._is_in(phase, step):
            raise DataError(f"step {step} is not in phase {phase} of the schedule")
        task = self._phases[phase].task
        generator = torch.Generator()
        generator.set_state(state["generator"])
        text = task.text(generator)
        if _digest(text) != state["text"]:
            raise DataError(f"the text of {task.name!r} is not the one that was read so far: it has changed")
        if not 0 <= position < len(text):
            raise DataError(f"expected a position in {len(text)} characters, got {position}")
        self._step, self._phase, self._position = step, phase, position
        self._text, self._digest, self._restart = text, state["text"], state["restart"]
        self._before = state["generator"].clone()
        self._generator.set_state(generator.get_state())

    def _is_in(self, phase: int, step: int) -> bool:
        if not 0 <= phase < len(self._phases):
            return False
        end = self._ends[phase]
        return step >= self._phases[phase].start and (end is None or step <= end)


def _digest(text: Tensor) -> str:
    return hashlib.sha256(text.numpy().tobytes()).hexdigest()


def windows(phases: Sequence[Phase], generator: torch.Generator, length: int = SEQUENCE) -> Iterator[Window]:
    """The windows that a `Reader` reads, one by one, without end; arguments and errors as there."""
    reader = Reader(phases, generator, length)  # here, so that errors do not wait for the first window
    return (window for _ in count() for window in reader.take(1000).split(length))
