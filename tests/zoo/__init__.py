"""Architectures as users write them, with the widths that are to be found in each.

`CASES` need torch alone; `library_cases()` gives those of libraries that are installed.
"""

from zoo import attention_cases, convolutional_cases, feedforward_cases, plumbing_cases, recurrent_cases
from zoo.case import Case
from zoo.libraries import library_cases

CASES: tuple[Case, ...] = (
    *feedforward_cases.CASES,
    *convolutional_cases.CASES,
    *recurrent_cases.CASES,
    *plumbing_cases.CASES,
    *attention_cases.CASES,
)

__all__ = ["CASES", "Case", "library_cases"]
