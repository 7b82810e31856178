import math
import pickle
import re
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffstruct.errors import ConfigurationError, DataError
from diffstruct.paper import tasks
from diffstruct.paper.tasks import SEQUENCE, Phase, Task, Window

patiently = settings(deadline=None)  # a busy machine is no failure
seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(SEQUENCE + 1, 1500)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spell(task: Task, text: Tensor) -> str:
    return "".join(task.alphabet[index] for index in text.tolist())


def letters_of(text: Tensor, letters: int) -> Tensor:
    """The whole groups of a hard text without their parentheses: `[groups, letters]`."""
    width = letters + 2
    return text[: len(text) // width * width].view(-1, width)[:, 1:-1]


def flips_of(text: Tensor, letters: int) -> Tensor:
    """Where each group differs from the previous one reversed: `[groups - 1, letters]` bool."""
    groups = letters_of(text, letters)
    return groups[1:] != groups[:-1].flip(1)


def ramp(size: int, name: str = "ramp") -> Task:
    """A text that says where it is read: 0, 1, 2, ..."""
    return Task(name, "ab", size, lambda _: torch.arange(size))


def read(n: int, *phases: Phase, length: int = SEQUENCE, seed: int = 0) -> list[Window]:
    return list(islice(tasks.windows(phases, seeded(seed), length), n))


# --- floors ---------------------------------------------------------------------------------------


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


# --- texts ----------------------------------------------------------------------------------------


@patiently
@given(p=st.floats(0, 0.95), length=lengths, seed=seeds)
def test_easy_texts_follow_the_grammar(p: float, length: int, seed: int) -> None:
    task = tasks.easy(p, length)
    text = task.text(seeded(seed))
    assert text.dtype == torch.int64
    assert len(text) == length
    # Whole groups, and then the beginning of one.
    assert re.fullmatch(r"(\((ab)+\))*(\((ab)*a?)?", spell(task, text))


@patiently
@given(letters=st.integers(2, 9), length=lengths, seed=seeds)
def test_hard_texts_follow_the_grammar(letters: int, length: int, seed: int) -> None:
    task = tasks.hard(letters, length)
    text = task.text(seeded(seed))
    assert text.dtype == torch.int64
    assert len(text) == length
    spelled = spell(task, text)
    assert re.fullmatch(rf"(\([ab]{{{letters}}}\))*(\([ab]{{0,{letters}}})?", spelled)
    for before, after in pairwise(re.findall(r"\((\w+)\)", spelled)):
        assert sum(x != y for x, y in zip(before[::-1], after, strict=True)) == 1


def test_the_first_group_of_a_hard_text_is_random() -> None:
    task = tasks.hard(length=SEQUENCE + 1)
    first = torch.stack([letters_of(task.text(seeded(seed)), 6)[0] for seed in range(1000)]) == 3
    share = first.double().mean(0)  # of b, at each letter
    assert float((share - 0.5).abs().max()) < 5 * 0.5 / math.sqrt(1000)
    assert len({tuple(group) for group in first.tolist()}) == 2**6


@pytest.mark.parametrize("task", [tasks.easy(), tasks.hard()], ids=lambda task: task.name)
def test_a_text_comes_from_its_generator_alone(task: Task) -> None:
    torch.manual_seed(1)
    text = task.text(seeded(5))
    torch.manual_seed(2)
    assert torch.equal(text, task.text(seeded(5)))
    assert not torch.equal(text, task.text(seeded(6)))
    assert len(text) == task.length == tasks.LENGTH
    assert sorted(set(text.tolist())) == list(range(len(task.alphabet)))
    assert task.alphabet == "".join(sorted("ab()"))


def test_tasks_travel_to_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("ab" * 50, encoding="utf-8")
    for task in (tasks.easy(length=100), tasks.hard(length=100), tasks.text_file(path)):
        copy = pickle.loads(pickle.dumps(task))
        assert torch.equal(copy.text(seeded()), task.text(seeded()))


@patiently
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=SEQUENCE + 1, max_size=200))
def test_a_file_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    assume(len(set(content)) > 1)
    assume("\r" not in content)
    assume(not content.startswith("\ufeff"))
    path = tmp_path_factory.getbasetemp() / "text.txt"
    path.write_bytes(content.encode())
    task = tasks.text_file(path)
    assert task.alphabet == "".join(sorted(set(content)))
    assert task.name == "text.txt"
    assert task.length == len(content)
    assert spell(task, task.text(seeded())) == content


def test_byte_order_mark_and_line_ends_are_no_symbols(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"one\r\ntwo\r" * 10)
    task = tasks.text_file(str(path))
    assert spell(task, task.text(seeded())) == "one\ntwo\n" * 10


# --- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cycles", [3, 4, 5, 100, 100_000, 299_999])
def test_the_transition_switches_at_thirds(cycles: int) -> None:
    phases = tasks.transition(cycles, p=0.75, letters=5)
    assert [phase.start for phase in phases] == [0, int(cycles / 3), int(2 * cycles / 3)]
    assert [phase.task.name for phase in phases] == ["easy", "hard", "easy"]
    floors = [tasks.easy(0.75).floor, tasks.hard(5).floor, tasks.easy(0.75).floor]
    assert [phase.task.floor for phase in phases] == floors


@pytest.mark.parametrize("cycles", [2, 3, 100_000])
def test_hard_easy_switches_at_one_half(cycles: int) -> None:
    phases = tasks.hard_easy(cycles, p=0.75, letters=5)
    assert [phase.start for phase in phases] == [0, int(cycles / 2)]
    assert [phase.task.name for phase in phases] == ["hard", "easy"]
    floors = [tasks.hard(5).floor, tasks.easy(0.75).floor]
    assert [phase.task.floor for phase in phases] == floors


# --- windows --------------------------------------------------------------------------------------


def author_s_reading(size: int, length: int) -> Iterator[tuple[int, bool]]:
    """Position and restart of each update, written as the author's program does it."""
    position, n = 0, 0
    while True:
        restart = position + length + 1 >= size or n == 0
        if restart:
            position = 0
        yield position, restart
        position += length
        n += 1


@patiently
@given(length=st.integers(1, 12), extra=st.integers(1, 60), n=st.integers(1, 40))
def test_windows_are_read_as_the_author_reads_them(length: int, extra: int, n: int) -> None:
    size = length + extra
    got = read(n, Phase(0, ramp(size)), length=length)
    for window, (position, restart) in zip(got, author_s_reading(size, length), strict=False):
        assert window.inputs.tolist() == list(range(position, position + length))
        assert window.targets.tolist() == list(range(position + 1, position + length + 1))
        assert window.restart is restart


@pytest.mark.parametrize(
    ("size", "restarts"),
    [
        (41, [True, True, True, True]),  # one window and its last target: always from the beginning
        (81, [True, True, True, True]),  # a second window would fit exactly, and is not read
        (82, [True, False, True, False]),
        (122, [True, False, False, True]),
    ],
)
def test_a_text_starts_over_when_it_is_used_up(size: int, restarts: list[bool]) -> None:
    got = read(4, Phase(0, ramp(size)))
    assert [window.restart for window in got] == restarts
    assert all(window.inputs[0] == 0 for window in got if window.restart)


@patiently
@given(seed=seeds, easily=st.booleans(), size=st.integers(100, 1500))
def test_windows_continue_each_other(seed: int, easily: bool, size: int) -> None:
    task = tasks.easy(length=size) if easily else tasks.hard(length=size)
    text = task.text(seeded(seed))
    got = read(100, Phase(0, task), seed=seed)
    assert got[0].restart
    assert any(window.restart for window in got[1:])
    for window in got:
        assert window.inputs.dtype == window.targets.dtype == torch.int64
        assert window.inputs.shape == window.targets.shape == (SEQUENCE,)
        assert torch.equal(window.inputs[1:], window.targets[:-1])
    for before, after in pairwise(got):
        if after.restart:
            assert torch.equal(after.inputs, text[:SEQUENCE])
        else:
            assert after.inputs[0] == before.targets[-1]


def test_windows_are_views_into_one_text() -> None:
    first, second = read(2, Phase(0, tasks.hard()))
    storage = first.inputs.untyped_storage().data_ptr()
    assert first.targets.untyped_storage().data_ptr() == storage
    assert second.inputs.untyped_storage().data_ptr() == storage


def test_a_switch_reads_the_new_text_from_its_beginning_and_keeps_the_state() -> None:
    cycles = 100
    phases = tasks.transition(cycles)
    got = read(cycles, *phases)
    generator = seeded()
    for phase, end in zip(phases, (33, 66, 100), strict=True):
        text = phase.task.text(generator)  # drawn from the same generator, one after the other
        spoken = torch.cat([window.inputs for window in got[phase.start : end]])
        assert torch.equal(spoken, text[: len(spoken)])
    assert [index for index, window in enumerate(got) if window.restart] == [0]


def test_a_switch_ends_a_text_wherever_it_is() -> None:
    got = read(9, Phase(0, ramp(90)), Phase(3, ramp(130)), Phase(8, ramp(90)))
    assert [int(window.inputs[0]) for window in got] == [0, 40, 0, 0, 40, 80, 0, 40, 0]
    restarts = [True, False, True, False, False, False, True, False, False]
    assert [window.restart for window in got] == restarts


def test_a_text_is_drawn_when_its_phase_starts() -> None:
    drawn: list[str] = []

    def task(name: str) -> Task:
        def make(_: torch.Generator) -> Tensor:
            drawn.append(name)
            return torch.arange(100)

        return Task(name, "ab", 100, make)

    stream = tasks.windows((Phase(0, task("one")), Phase(5, task("two"))), seeded())
    assert drawn == []
    list(islice(stream, 5))
    assert drawn == ["one"]
    list(islice(stream, 50))
    assert drawn == ["one", "two"]


def test_the_same_seed_gives_the_same_windows() -> None:
    def reading(seed: int) -> Tensor:
        got = read(30, *tasks.transition(30), seed=seed)
        return torch.stack([window.inputs for window in got])

    assert torch.equal(reading(3), reading(3))
    # In each phase on its own, since one seed must not change the first text only.
    for phase in (slice(0, 10), slice(10, 20), slice(20, 30)):
        assert not torch.equal(reading(3)[phase], reading(4)[phase])
    # Both easy phases read the same task, but not the same text.
    assert not torch.equal(reading(3)[:10], reading(3)[20:])


# --- bad inputs -----------------------------------------------------------------------------------


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, math.nan, math.inf])
def test_impossible_p(p: float) -> None:
    for make in (tasks.easy, lambda p: tasks.transition(9, p), lambda p: tasks.hard_easy(9, p)):
        with pytest.raises(ConfigurationError, match="p must be a probability") as caught:
            make(p)
        assert repr(p) in one_line(caught)


@pytest.mark.parametrize("letters", [-1, 0, 1])
def test_too_few_letters(letters: int) -> None:
    with pytest.raises(ConfigurationError, match="letters must be at least 2") as caught:
        tasks.hard(letters)
    assert f"got {letters}" in one_line(caught)


def test_texts_too_short_to_read() -> None:
    with pytest.raises(ConfigurationError, match="length must be at least 41 characters, got 40"):
        tasks.easy(length=40)
    with pytest.raises(ConfigurationError, match="length must be at least 41 characters, got 40"):
        tasks.hard(length=40)
    with pytest.raises(ConfigurationError, match="length must be at least 64 characters, got 63"):
        tasks.hard(letters=30, length=63)
    assert len(tasks.hard(letters=30, length=64).text(seeded())) == 64


def test_too_few_updates() -> None:
    with pytest.raises(ConfigurationError, match=r"cycles must be at least 3 updates.*got 2"):
        tasks.transition(2)
    with pytest.raises(ConfigurationError, match=r"cycles must be at least 2 updates.*got 1"):
        tasks.hard_easy(1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "at least 41 characters, .*has 0"),
        (b"ab" * 20, "at least 41 characters, .*has 40"),
        ("é".encode() * 30 + b"a", "at least 41 characters, .*has 31"),  # 61 bytes
        (b"\n" * 100, r"two distinct symbols, .*only '\\n'"),
        (b"caf\xe9 " * 20, "expected UTF-8, .*byte 3"),
        ("naïve ".encode("utf-16") * 20, "expected UTF-8"),
    ],
    ids=["empty", "short", "short in characters", "one symbol", "latin-1", "utf-16"],
)
def test_files_that_hold_no_text_to_learn(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "odd\nname.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        tasks.text_file(path)
    assert r"odd\nname.txt" in one_line(caught)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (
        tmp_path / "missing.txt",
        tmp_path,
        tmp_path / "null\0.txt",
        tmp_path / ("x" * 999),
    ):
        with pytest.raises(DataError, match="expected a readable text file") as caught:
            tasks.text_file(path)
        assert repr(str(path)) in one_line(caught)


def test_the_shortest_file_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"ab" * 20 + b"a")
    (window,) = read(1, Phase(0, tasks.text_file(path)))
    assert window.inputs.tolist() == [0, 1] * 20
    assert window.targets.tolist() == [1, 0] * 20


@pytest.mark.parametrize("starts", [[], [1], [0, 0], [0, 5, 3], [-1, 2]], ids=str)
def test_phases_out_of_order(starts: list[int]) -> None:
    phases = [Phase(start, ramp(100)) for start in starts]
    with pytest.raises(ConfigurationError, match="starts of phases must be 0 first") as caught:
        tasks.windows(phases, seeded())
    assert f"got {starts}" in one_line(caught)


def test_phases_with_different_alphabets() -> None:
    other = Task("other", "ab\n", 100, lambda _: torch.arange(100))
    with pytest.raises(ConfigurationError, match=r"'ramp' and 'other' differ in '\\n'") as caught:
        tasks.windows((Phase(0, ramp(100)), Phase(5, other)), seeded())
    one_line(caught)


def test_windows_longer_than_a_text() -> None:
    phases = (Phase(0, ramp(200)), Phase(5, ramp(100, "brief")))
    with pytest.raises(DataError, match="at least 101 characters, but 'brief' has 100") as caught:
        tasks.windows(phases, seeded(), length=100)
    one_line(caught)
    assert len(read(1, *phases, length=99)[0].inputs) == 99
    with pytest.raises(ConfigurationError, match="length must be at least 1 character, got 0"):
        tasks.windows(phases, seeded(), length=0)
