"""Which task is read when."""

import pytest

from diffstruct.errors import ConfigurationError
from diffstruct.paper import tasks


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


def test_too_few_steps() -> None:
    with pytest.raises(ConfigurationError, match=r"cycles must be at least 3 steps.*got 2"):
        tasks.transition(2)
    with pytest.raises(ConfigurationError, match=r"cycles must be at least 2 steps.*got 1"):
        tasks.hard_easy(1)
