"""Ratios that can be trusted on a noisy machine: both sides in turn, many times, in one process."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from statistics import quantiles
from typing import Any

import torch

from diffstruct.paper.reproduce.runs import machine, versions


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, by side; a round calls each side once, and one more round warms up."""
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = quantiles(values, n=4)
    return {"median": median, "q25": low, "q75": high}


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times `slow` is as long as `fast`, round by round: median and quartiles."""
    return spread([s / f for s, f in zip(slow, fast, strict=True)])


def where() -> dict[str, Any]:
    """The machine, and what runs on it."""
    return {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "versions": versions(),
    }
