"""What holds for every test: one thread, and no test that fails because the machine is busy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# The parent is Hypothesis's own profile, which tries the same examples each time where CI is set.
settings.register_profile(
    "diffstruct", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("diffstruct")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small models are slower on several threads, and tests that run side by side compete for the cores."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)
