"""One seed for a run, and a seed of its own for each part of it."""

import numpy as np


def split_seed(seed: int) -> tuple[int, int]:
    """Two independent seeds from one, always the same."""
    first, second = np.random.SeedSequence(seed).generate_state(2).tolist()
    return first, second
