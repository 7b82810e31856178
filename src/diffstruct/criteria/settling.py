"""Whether the network is still learning too much for anything to be taken away."""

from __future__ import annotations

from typing import Any

from diffstruct.states import Fields

WINDOW = 0.1
"""The fraction of the run that is looked back on."""


class Settling:
    """Compares what was won with what had been won a tenth of the run before.

    Args:
        total_steps: of the run.
    """

    def __init__(self, total_steps: int) -> None:
        self._window = WINDOW * total_steps
        self._past: list[tuple[int, float]] = []

    def pressure(self, step: int, won: float, tolerance: float) -> float:
        """From 0, where `tolerance` of what was won or more came in the last tenth of the run, to 1, where
        nothing did.

        Args:
            step: made so far.
            won: until now.
            tolerance: a fraction.
        """
        self._past.append((step, won))
        while len(self._past) > 1 and self._past[1][0] <= step - self._window:
            self._past.pop(0)
        begin, before = self._past[0]
        if begin > step - self._window or won <= 0:
            return 0.0
        return min(1.0, max(0.0, 1.0 - (won - before) / won / tolerance))

    def state_dict(self) -> dict[str, Any]:
        """What had been won, and when."""
        return {"past": [{"step": step, "won": won} for step, won in self._past]}

    def load_state_dict(self, state: Fields) -> None:
        """Go on from there."""
        self._past = [(each.whole("step"), each.number("won")) for each in state.list_of_fields("past")]
