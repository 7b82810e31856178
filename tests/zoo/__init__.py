"""Architectures as users write them, with the widths that are to be found in each."""

from zoo import feedforward

CASES = (*feedforward.CASES,)


def library_cases():
    return ()
