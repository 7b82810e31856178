"""The windows that are read, one a step."""

from collections.abc import Iterator
from itertools import islice, pairwise

import pytest
import torch
from helpers.texts import one_line, ramp, read, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffstruct.errors import ConfigurationError, DataError
from diffstruct.paper import tasks
from diffstruct.paper.tasks import SEQUENCE, Phase, Reader, Task, easy, hard

seeds = st.integers(0, 2**32 - 1)


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
        inputs = torch.cat([window.inputs for window in got[phase.start : end]])
        assert torch.equal(inputs, text[: len(inputs)])
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


def check_same_from_here(one: Reader, other: Reader) -> None:
    for _ in range(40):
        mine, its = one.take(7), other.take(7)
        assert torch.equal(mine.text, its.text)
        assert mine[1:] == its[1:]


@given(st.integers(0, 60), st.integers(1, 9))
def test_a_reader_goes_on_where_another_one_was(steps: int, most: int) -> None:
    phases = (Phase(0, easy(length=500)), Phase(20, hard(length=300)), Phase(33, easy(length=150)))
    first = Reader(phases, seeded(1))
    read = 0
    while read < steps:
        read += first.take(min(most, steps - read)).windows
    state = first.state_dict()
    second = Reader(phases, seeded(2))
    second.load_state_dict(state)
    check_same_from_here(first, second)
    third = Reader(phases, seeded(3))
    third.load_state_dict(state)  # which has not changed meanwhile
    assert third.state_dict()["text"] == state["text"]


def test_a_reader_refuses_another_text_and_stays_where_it_is() -> None:
    first = Reader((Phase(0, easy(length=500)),), seeded())
    first.take(3)
    for other in (easy(p=0.5, length=500), ramp(500), easy(length=501)):
        second, same = (Reader((Phase(0, other),), seeded()) for _ in range(2))
        second.take(2)
        same.take(2)
        with pytest.raises(DataError, match="has changed"):
            second.load_state_dict(first.state_dict())
        check_same_from_here(second, same)


@pytest.mark.parametrize(
    "changes", [{"phase": 2}, {"phase": -1}, {"step": 9}, {"step": -1}, {"position": 500}, {"position": -40}]
)
def test_a_reader_refuses_a_place_that_no_reader_can_be_at(changes: dict[str, int]) -> None:
    phases = (Phase(0, easy(length=500)), Phase(8, hard(length=300)))
    first = Reader(phases, seeded())
    first.take(3)
    with pytest.raises(DataError, match=r"expected a position|is not in phase"):
        Reader(phases, seeded()).load_state_dict({**first.state_dict(), **changes})
