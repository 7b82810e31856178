"""The texts: the paper's two grammars, with their floors, and any text file."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffstruct.errors import DataError
from diffstruct.paper.tasks.task import BRACKETS, LENGTH, SEQUENCE, Task, need


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
    need(0 <= p < 1, "p", "a probability of at least 0 and below 1", p)
    need(length > SEQUENCE, "length", f"at least {SEQUENCE + 1} characters", length)
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
    need(letters >= 2, "letters", "at least 2", letters)
    least = max(SEQUENCE + 1, 2 * (letters + 2))
    need(length >= least, "length", f"at least {least} characters", length)
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


def _entropy(p: float) -> float:
    """The entropy in nats of a choice that falls one way with probability `p`."""
    return sum(-q * math.log(q) for q in (p, 1 - p) if q > 0)
