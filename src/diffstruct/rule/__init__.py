"""The rule: importances in, decision out. Pure.

`rule` is the rule itself; `multiples` carries its decisions out in multiples of a number.
"""

from diffstruct.rule.multiples import Whole, in_multiples, round_up
from diffstruct.rule.rule import Decision, Rule, RuleNumbers, RuleState, check_finite, choose, decision

__all__ = [
    "Decision",
    "Rule",
    "RuleNumbers",
    "RuleState",
    "Whole",
    "check_finite",
    "choose",
    "decision",
    "in_multiples",
    "round_up",
]
