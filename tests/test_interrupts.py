"""Signals wait while something must not be left half done."""

import signal
import threading
from contextlib import ExitStack

import pytest

from diffstruct.interrupts import allowed, held, uninterrupted


class Stop(Exception):
    pass


@pytest.fixture
def handlers():
    """SIGINT and SIGTERM raise, SIGUSR1 counts."""
    seen = []

    def stop(number, frame):
        seen.append(number)
        raise Stop(number)

    kinds = {
        signal.SIGINT: stop,
        signal.SIGTERM: stop,
        signal.SIGUSR1: lambda number, frame: seen.append(number),
    }
    before = {number: signal.signal(number, each) for number, each in kinds.items()}
    yield seen
    for number, each in kinds.items():
        assert signal.getsignal(number) is each
        signal.signal(number, before[number])


def raised_in(what, *blocks):
    """Run something in some blocks; a handler that was called raises."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block)
        what()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_comes_meanwhile_is_delivered_at_the_end(handlers, number):
    done = []

    def what():
        signal.raise_signal(number)
        done.append(1)

    with pytest.raises(Stop):
        raised_in(what, held())
    assert done == [1]
    assert handlers == [number]


def test_all_that_came_are_delivered_even_if_the_first_raises(handlers):
    numbers = [signal.SIGUSR1, signal.SIGINT, signal.SIGTERM]
    with pytest.raises(Stop):
        raised_in(lambda: [signal.raise_signal(number) for number in numbers], held())
    assert handlers == numbers


def test_an_inner_block_does_not_end_the_outer_one(handlers):
    @uninterrupted
    def inner():
        signal.raise_signal(signal.SIGINT)
        return 3

    done = []
    with pytest.raises(Stop), held():
        done.append(inner())
    assert done == [3]


def test_where_they_are_allowed_they_come_at_once_but_only_one(handlers):
    done = []

    def model():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert len(handlers) == 2
        signal.raise_signal(signal.SIGINT)
        done.append("not reached")

    def what():
        try:
            raised_in(model, allowed())
        finally:
            signal.raise_signal(signal.SIGTERM)  # waits: all is being put back
            done.append("put back")

    with pytest.raises(Stop):
        raised_in(what, held())
    assert done == ["put back"]
    assert handlers[2:] == [signal.SIGINT, signal.SIGTERM]


def test_what_has_waited_comes_where_it_is_allowed(handlers):
    with held():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stop), allowed():
            pytest.fail("it comes first")


def test_an_error_goes_through(handlers):
    with pytest.raises(ValueError, match="mine"), held():
        raise ValueError("mine")


def test_in_other_threads_nothing_is_held_or_changed(handlers):
    before, found = signal.getsignal(signal.SIGINT), []

    def run():
        with held(), allowed():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]


def test_outside_of_all_nothing_is_held(handlers):
    with pytest.raises(Stop), allowed():
        signal.raise_signal(signal.SIGINT)
