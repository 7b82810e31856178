"""Units followed through a run, beside a simulation that moves names about."""

import numpy as np
import pytest
from helpers.records import histories
from hypothesis import given

from diffstruct.history import Event
from diffstruct.report.lives import ALIVE, lives_of, sizes_of


def simulated(width, start, events):
    """After each number of events the units that there are, each called by when it came and as which."""
    units = [(0, index) for index in range(start)]
    states = [units]
    for count, event in enumerate(events, 1):
        if event.width == width:
            for index in reversed(event.removed):
                units = units[:index] + units[index + 1 :]
            units = units + [(count, index) for index in range(event.added)]
        states.append(units)
    return states


@given(histories())
def test_lives_are_those_of_a_simulation(history):
    starts, events = history
    for width, start in starts.items():
        states = simulated(width, start, events)
        lives = lives_of(width, start, events)
        names = sorted({unit for state in states for unit in state})
        assert len(lives.born) == start + sum(event.added for event in events if event.width == width)
        # A unit that an event adds is there after that event: each life is seen.
        assert len(names) == len(lives.born)
        for count, state in enumerate(states):
            assert [names[life] for life in lives.alive(count)] == state
        for life, name in enumerate(names):
            there = [count for count, state in enumerate(states) if name in state]
            assert lives.born[life] == there[0] == name[0]
            assert lives.died[life] == (there[-1] + 1 if there[-1] < len(events) else ALIVE)


@given(histories())
def test_sizes_are_those_that_the_lives_come_to(history):
    starts, events = history
    for width, start in starts.items():
        steps, sizes = sizes_of(width, start, events)
        own = [count for count, event in enumerate(events, 1) if event.width == width]
        lives = lives_of(width, start, events)
        assert sizes.tolist() == [len(lives.alive(count)) for count in [0, *own]]
        assert steps.tolist() == [0, *(events[count - 1].step for count in own)]


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Event(1, "a", (2,), 0, 1), "removes unit 2 of 'a', which has 2"),
        (Event(1, "a", (0,), 1, 1), "leaves 2 units of 'a', and says 1"),
    ],
)
def test_events_that_cannot_have_happened_are_refused(event, says):
    with pytest.raises(ValueError, match=says):
        lives_of("a", 2, [event])


def test_many_lives_are_followed_in_order():
    events = [Event(step, "a", (0,), 1, 1_000) for step in range(1, 3_001)]
    lives = lives_of("a", 1_000, events)
    assert np.array_equal(lives.died[:3_000], np.arange(1, 3_001))
    assert (lives.died[3_000:] == ALIVE).all()
