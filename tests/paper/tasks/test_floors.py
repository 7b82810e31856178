"""The best loss possible on each task, against estimates from its text."""

import math
from pathlib import Path

import pytest
import torch
from helpers.texts import flips_of, seeded
from torch import Tensor

from diffstruct.paper import tasks


@pytest.mark.parametrize(
    ("nats", "expected"),
    [
        (tasks.easy(0.6).floor, 9.614),
        (tasks.easy(0.75).floor, 8.997),
        (tasks.hard().floor, 8.959),
        (tasks.hard().plateau, 13.517),
    ],
    ids=["easy 0.6", "easy 0.75", "hard", "plateau"],
)
def test_the_paper_s_tasks_have_these_floors_per_40_characters(nats: float | None, expected: float) -> None:
    assert nats is not None
    assert round(40 * nats, 3) == expected


def chi_square_bound(freedom: int, x: float = 14.0) -> float:
    """What chi-square exceeds with a probability of at most exp(-x) (Laurent and Massart, 2000)."""
    return freedom + 2 * math.sqrt(freedom * x) + 2 * x


def surprisals(contexts: Tensor, symbols: Tensor, cells: int, alphabet: int) -> Tensor:
    """Nats `[n]` per symbol `[n]`, by its relative frequency in the text given its context `[n]`.

    Their mean is the plug-in estimate of the conditional entropy. It knows nothing of the task.
    """
    counts = torch.bincount(contexts * alphabet + symbols, minlength=cells * alphabet)
    frequency = counts.view(cells, alphabet).double()
    frequency /= frequency.sum(1, keepdim=True).clamp_min(1)
    return -frequency[contexts, symbols].log()


@pytest.mark.parametrize("order", [1, 5])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.6, 0.75, 0.95])
def test_the_entropy_of_easy_texts_is_the_floor(p: float, order: int) -> None:
    task = tasks.easy(p)
    assert task.floor is not None
    text = task.text(seeded())
    # After anything but b the next character is certain; after b, chance does not look further
    # back. So the last character is all that matters, and a longer context must not help.
    grams = text.unfold(0, order + 1, 1)
    context = (grams[:, :-1] * 4 ** torch.arange(order)).sum(1)
    nats = surprisals(context, grams[:, -1], cells=4**order, alphabet=4)
    # The standard error comes from blocks much longer than what the text remembers, a group. The
    # frequencies that are fitted to N characters make the estimate too low by chi-square / 2N, with
    # a degree of freedom for each context that ends in b: at order 5, (abab, babab and b)(ab.
    blocks = nats[: len(nats) // 200 * 200].view(200, -1).mean(1)
    tolerance = 5 * float(blocks.std()) / math.sqrt(200) + chi_square_bound(3) / (2 * len(nats))
    assert abs(float(nats.mean()) - task.floor) < tolerance
    assert 40 * tolerance < 0.1  # sharp enough for a wrong floor to show


@pytest.mark.parametrize("p", [0.0, 0.3, 0.6, 0.75, 0.95])
def test_another_ab_follows_with_probability_p(p: float) -> None:
    # The entropy is not monotonic in p, so it alone would not tell one p from every other.
    text = tasks.easy(p).text(seeded())
    after = text[1:][text[:-1] == 3]  # what follows each b
    error = 5 * math.sqrt(p * (1 - p) / len(after))
    assert abs(float((after == 2).double().mean()) - p) <= error


@pytest.mark.parametrize("letters", [2, 3, 6, 9])
def test_a_hard_text_costs_the_floor_with_a_memory_of_the_flip(letters: int) -> None:
    task = tasks.hard(letters)
    assert task.floor is not None
    flips = flips_of(task.text(seeded()), letters)  # [groups, letters]
    nats = torch.zeros(len(flips), dtype=torch.float64)
    seen = torch.zeros(len(flips), dtype=torch.bool)
    for position in range(letters):
        # The flip is still to come with certainty, and equally likely at each letter that is left.
        chance = (~seen).double() / (letters - position)
        nats -= torch.where(flips[:, position], chance, 1 - chance).log()
        seen |= flips[:, position]
    # The same for every group, so that a single wrong one would show; parentheses cost nothing.
    expected = torch.full_like(nats, task.floor * (letters + 2))
    torch.testing.assert_close(nats, expected)


@pytest.mark.parametrize("letters", [2, 3, 6, 9])
def test_a_hard_text_costs_the_plateau_without_a_memory_of_the_flip(letters: int) -> None:
    task = tasks.hard(letters)
    assert task.plateau is not None
    flips = flips_of(task.text(seeded()), letters)
    groups = len(flips)
    chances = torch.tensor([1 - 1 / letters, 1 / letters], dtype=torch.float64)
    nats = -chances[flips.long()].log().sum(1).mean()
    assert float(nats) / (letters + 2) == pytest.approx(task.plateau, rel=1e-9)
    # Nor does it help such a predictor to learn how often each position is flipped.
    position = torch.arange(letters).repeat(groups)
    learned = surprisals(position, flips.flatten().long(), cells=letters, alphabet=2).sum() / groups
    gain = task.plateau * (letters + 2) - float(learned)
    # The frequencies add up to one, so the errors of first order cancel; the binomial error of each
    # is worth chi-square(1) / 2G nats a group over G groups, always as a gain.
    assert 0 <= gain < letters * chi_square_bound(1) / (2 * groups)


@pytest.mark.parametrize("letters", [2, 3, 6, 9])
def test_the_entropy_of_hard_texts_is_the_floor(letters: int) -> None:
    task = tasks.hard(letters)
    assert task.floor is not None
    flips = flips_of(task.text(seeded()), letters).long()
    # The state of the process: the last flip, the position, and whether the flip has happened. The
    # true law depends on the last two only; the first would show if flips depended on one another.
    last, now = flips[:-1].argmax(1, keepdim=True), flips[1:]
    seen = now.cumsum(1) - now
    context = (last * letters + torch.arange(letters)) * 2 + seen
    groups, cells = len(now), 2 * letters**2
    nats = surprisals(context.flatten(), now.flatten(), cells, alphabet=2).sum() / groups
    # Frequencies fitted to G groups, L - 1 free ones for each of L last flips, make the estimate
    # too low by chi-square(L (L - 1)) / 2G. To first order it has no other error, since entropy is
    # highest where flips are uniform. The factor 1.1 allows for higher orders.
    deficit = task.floor * (letters + 2) - float(nats)
    assert 0 <= deficit < 1.1 * chi_square_bound(letters * (letters - 1)) / (2 * groups)


def test_floors_are_unknown_where_nothing_is_known(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("ab" * 50, encoding="utf-8")
    task = tasks.text_file(path)
    assert (task.floor, task.plateau) == (None, None)
    assert tasks.easy().plateau is None
