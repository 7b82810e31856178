"""The paper's tasks: texts to predict one character at a time, and the best loss possible on each.

Miconi, "Neural networks with differentiable structure" (arXiv:1606.06216), section on the tasks.
The *floor* of a task is the entropy of its text in nats per character: no predictor, of any size,
does better in the long run. It is derived here from the task's parameters, not tabulated.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffstruct.errors import ConfigurationError, DataError

SEQUENCE = 40
"""Characters per update."""

LENGTH = 1_200_000
"""Characters in a generated text, as in the author's program."""

BRACKETS = "()ab"
"""The alphabet of the paper's tasks; the generators below write its indices 0 to 3."""


@dataclass(frozen=True, eq=False)
class Task:
    """A text to predict, and how well it can be predicted.

    Args:
        name: what to call it.
        alphabet: its distinct symbols, sorted.
        length: characters in its text.
        make: draws a text, `[length]` int64 indices into `alphabet`; `text` calls it.
        floor: the text's entropy in nats per character, None where it is unknown.
        plateau: the loss in nats per character of a network that has learned all but the task's
            hardest part, None where there is no such loss or it is unknown.
    """

    name: str
    alphabet: str
    length: int
    make: Callable[[torch.Generator], Tensor] = field(repr=False)
    floor: float | None = None
    plateau: float | None = None

    def text(self, generator: torch.Generator) -> Tensor:
        """Draw a text with `generator` (on the CPU): `[length]` int64 indices into `alphabet`."""
        text = self.make(generator)
        assert text.shape == (self.length,)
        assert text.dtype == torch.int64
        return text


@dataclass(frozen=True)
class Phase:
    """A part of a run: from update `start` on (counted from 0), `task` is read."""

    start: int
    task: Task


class Window(NamedTuple):
    """What one update reads: two views into the text, not to be written to."""

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
        for number in range(self.windows):
            start = self.position + number * length
            stop = start + length
            inputs, targets = self.text[start:stop], self.text[start + 1 : stop + 1]
            yield Window(inputs, targets, self.restart and number == 0)


def easy(p: float = 0.6, length: int = LENGTH) -> Task:
    """Groups of one or more `ab` in parentheses: `(ab)(ababab)(abab)`.

    After each `ab`, another follows with probability `p`. On average a group makes `1 / (1 - p)`
    such choices, each of entropy `H(p)`, in `2 / (1 - p) + 2` characters; the rest is certain.

    Args:
        p: the probability of another `ab`; 0.6 in the author's data, 0.75 in revision 3's text.
        length: characters in the text; the last group is cut there.

    Raises:
        ConfigurationError: a parameter that cannot work.
    """
    _need(0 <= p < 1, "p", "a probability of at least 0 and below 1", p)
    _need(length > SEQUENCE, "length", f"at least {SEQUENCE + 1} characters", length)
    nats, characters = _entropy(p) / (1 - p), 2 / (1 - p) + 2
    return Task("easy", BRACKETS, length, partial(_easy_text, p, length), nats / characters)


def _easy_text(p: float, length: int, generator: torch.Generator) -> Tensor:
    # The text is `(`, and then pieces `ab` and `ab)(`, of which each has at least two characters.
    pieces = length // 2 + 1
    ends = torch.rand(pieces, generator=generator, dtype=torch.float64) >= p
    always = torch.ones_like(ends)
    present = torch.stack([always, always, ends, ends], dim=1)  # [pieces, 4]
    symbols = torch.tensor([2, 3, 1, 0]).expand(pieces, 4)[present]
    return torch.cat([torch.tensor([0]), symbols])[:length]


def hard(letters: int = 6, length: int = LENGTH) -> Task:
    """Groups of letters in parentheses: `(aababb)(bbbbaa)(aabbab)`.

    Each group is the previous one reversed, with one letter flipped, each letter as likely as the
    others; the first group is random. So a group costs `ln(letters)` nats. A network that does not
    remember whether this group's flip has already happened must take the flips for independent, at
    `H(1 / letters)` nats a letter: that is the plateau.

    Args:
        letters: letters in a group, at least 2: flipping a single letter leaves nothing to chance.
        length: characters in the text, at least two groups; the last group is cut there.

    Raises:
        ConfigurationError: a parameter that cannot work.
    """
    _need(letters >= 2, "letters", "at least 2", letters)
    least = max(SEQUENCE + 1, 2 * (letters + 2))
    _need(length >= least, "length", f"at least {least} characters", length)
    floor = math.log(letters) / (letters + 2)
    plateau = letters * _entropy(1 / letters) / (letters + 2)
    return Task("hard", BRACKETS, length, partial(_hard_text, letters, length), floor, plateau)


def _hard_text(letters: int, length: int, generator: torch.Generator) -> Tensor:
    groups = math.ceil(length / (letters + 2))
    first = torch.randint(2, (1, letters), generator=generator)
    flips = F.one_hot(torch.randint(letters, (groups - 1,), generator=generator), letters)
    # Turn every other group round, and nothing is reversed any more: each group is the exclusive or
    # of all flips before it. A uniformly random position stays one when its group is turned.
    bits = torch.cat([first, flips]).cumsum(0) % 2  # [groups, letters]
    bits[1::2] = bits[1::2].flip(1)
    text = torch.zeros(groups, letters + 2, dtype=torch.int64)
    text[:, 1:-1] = bits + 2
    text[:, -1] = 1
    return text.flatten()[:length]


def text_file(path: str | os.PathLike[str]) -> Task:
    """The text of any UTF-8 file, read at once and the same for every generator.

    Its alphabet is whatever characters it holds. A byte order mark is dropped, and every kind of
    line end is read as one newline.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is shorter than one sequence and the
            character after it, or holds one symbol only.
    """
    shown = repr(os.fspath(path))  # stays on one line, whatever the name
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected UTF-8, but {shown} is something else at byte {error.start}; convert the file to UTF-8"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"expected a readable text file, but {shown} cannot be read: {reason}; check the path"
        ) from error
    if len(text) <= SEQUENCE:
        raise DataError(
            f"expected a text of at least {SEQUENCE + 1} characters, but {shown} has {len(text)}; "
            "give a longer text"
        )
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    points, symbols = np.unique(codes, return_inverse=True)
    if len(points) == 1:
        raise DataError(
            f"expected at least two distinct symbols, but {shown} holds only {text[0]!r}; "
            "give a text in which there is something to predict"
        )
    indices = torch.from_numpy(symbols.astype(np.int64, copy=False))
    alphabet = "".join(map(chr, points))
    return Task(Path(path).name, alphabet, len(text), partial(_same_text, indices))


def _same_text(text: Tensor, _: torch.Generator) -> Tensor:
    return text


def transition(cycles: int, p: float = 0.6, letters: int = 6) -> tuple[Phase, Phase, Phase]:
    """Easy, then hard, then easy again, switched at one third and two thirds of `cycles` updates.

    Raises:
        ConfigurationError: a parameter that cannot work, such as fewer than 3 updates.
    """
    _need(cycles >= 3, "cycles", "at least 3 updates, one a phase", cycles)
    both = easy(p)
    return Phase(0, both), Phase(cycles // 3, hard(letters)), Phase(2 * cycles // 3, both)


def hard_easy(cycles: int, p: float = 0.6, letters: int = 6) -> tuple[Phase, Phase]:
    """Hard, then easy, switched at one half of `cycles` updates.

    Raises:
        ConfigurationError: a parameter that cannot work, such as fewer than 2 updates.
    """
    _need(cycles >= 2, "cycles", "at least 2 updates, one a phase", cycles)
    return Phase(0, hard(letters)), Phase(cycles // 2, easy(p))


def schedule(
    task: str | os.PathLike[str] | Task | Sequence[Phase], cycles: int
) -> tuple[str, tuple[Phase, ...]]:
    """What to read when, and what to call it.

    Args:
        task: `"easy"`, `"hard"`, `"transition"`, the path of a text file, a task, or phases.
        cycles: updates of the run, for the switches of a transition.

    Raises:
        DataError: there is no task and no file of that name, or the file cannot be learned from.
        ConfigurationError: too few updates for a transition.
    """
    if isinstance(task, Task):
        return task.name, (Phase(0, task),)
    if not isinstance(task, (str, os.PathLike)):
        return "-".join(phase.task.name for phase in task), tuple(task)
    if task == "transition":
        return task, transition(cycles)
    if task in ("easy", "hard"):
        return task, (Phase(0, easy() if task == "easy" else hard()),)
    if not os.path.exists(task):
        raise DataError(
            f"there is no task and no file {os.fspath(task)!r}: choose easy, hard or transition, "
            "or give the path of a text file"
        )
    return Path(task).stem, (Phase(0, text_file(task)),)


class Reader:
    """Reads a schedule of tasks, `length` characters an update, without end.

    A text is read from left to right, and from its beginning again (with `restart`) once used up.
    At a switch of task the new text is read from its beginning, while the hidden state carries on.
    Each phase's text is drawn when the phase starts; the same seed gives the same windows.

    Args:
        phases: what to read when; `(Phase(0, task),)` for a single task.
        generator: the source of the texts (on the CPU).
        length: characters per window.

    Raises:
        ConfigurationError: the phases are out of order, or their alphabets differ.
        DataError: a text is too short for one window.
    """

    def __init__(self, phases: Sequence[Phase], generator: torch.Generator, length: int = SEQUENCE) -> None:
        _need(length >= 1, "length", "at least 1 character", length)
        starts = [phase.start for phase in phases]
        ordered = starts[:1] == [0] and all(before < after for before, after in pairwise(starts))
        _need(ordered, "starts of phases", "0 first, and each later than the one before", starts)
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
        self._update = 0  # the next one
        self._phase = -1  # none begun yet
        self._text = torch.empty(0, dtype=torch.int64)
        self._position = 0
        self._restart = True

    def take(self, most: int) -> Stretch:
        """Read on: the next windows of one text, `most` of them or fewer."""
        assert most >= 1
        if self._phase < 0 or self._update == self._ends[self._phase]:
            self._phase += 1
            self._text = self._phases[self._phase].task.text(self._generator)
            self._position = 0
        text, length, end = self._text, self._length, self._ends[self._phase]
        # The author's rule, to the letter: a last window that fits exactly is not read.
        left = math.ceil((len(text) - 1 - length - self._position) / length)
        if left <= 0:
            self._position, self._restart = 0, True
            left = max(1, math.ceil((len(text) - 1 - length) / length))
        windows = min(most, left, most if end is None else end - self._update)
        stretch = Stretch(text, self._position, windows, self._restart)
        self._position += windows * length
        self._update += windows
        self._restart = False
        return stretch


def windows(phases: Sequence[Phase], generator: torch.Generator, length: int = SEQUENCE) -> Iterator[Window]:
    """The windows that a `Reader` reads, one by one, without end; arguments and errors as there."""
    reader = Reader(phases, generator, length)  # here, so that errors do not wait for the first window
    return (window for _ in count() for window in reader.take(1000).split(length))


def _entropy(p: float) -> float:
    """The entropy in nats of a choice that falls one way with probability `p`."""
    return sum(-q * math.log(q) for q in (p, 1 - p) if q > 0)


def _need(holds: bool, name: str, what: str, got: object) -> None:
    if not holds:
        raise ConfigurationError(f"{name} must be {what}, got {got!r}")
