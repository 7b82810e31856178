"""The rule: importances in, decision out. Pure.

`rule` holds the parameters, `choice` is the rule itself, on plain numbers; `decision` is what comes of it,
and `multiples` carries that over to sizes that are multiples of a number.
"""

from diffstruct.rule.choice import RuleNumbers, choose
from diffstruct.rule.decision import Decision, RuleState, addition, decision
from diffstruct.rule.multiples import Whole, in_multiples, round_up
from diffstruct.rule.rule import Rule, check_finite

__all__ = [
    "Decision",
    "Rule",
    "RuleNumbers",
    "RuleState",
    "Whole",
    "addition",
    "check_finite",
    "choose",
    "decision",
    "in_multiples",
    "round_up",
]
