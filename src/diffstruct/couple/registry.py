"""What each ATen operator says of the dimensions of its tensors.

A rule takes a `Call` and returns the dimensions of each result; on the way it unifies dimensions that are
one, and fixes those that the operator does not treat unit by unit. An operator without a rule is taken apart
into simpler ones, if PyTorch knows how; else it fixes everything it touches, so that a missing rule can cost
a width, never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch._decomp import decomposition_table

from diffstruct.couple.call import Call, Dims, Rule, created, unknown
from diffstruct.couple.operators import RULES
from diffstruct.couple.operators.elementwise import pointwise


@cache
def expand(func: Any) -> Callable[..., Any] | None:
    """What to run in place of an operator that has no rule but is defined by simpler ones."""
    if _rule_of(func) is not None:
        return None
    if func.namespace == "diffstruct":
        return _reference(func)
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        decompose: Callable[..., Any] = func.decompose
        return decompose
    return decomposition_table.get(func)


def _reference(func: Any) -> Callable[..., Any] | None:
    name = func._schema.name.partition("::")[2]
    kernel = getattr(import_module(f"diffstruct.nn.kernels.{name}"), name)

    def run(*args: Any) -> Any:
        results = kernel.reference(*args)
        return *results, results[0].new_empty(0)  # nothing is kept for a way back

    return run


@cache
def _rule_of(func: Any) -> Rule | None:
    name = func._schema.name.partition("::")[2]
    if func.namespace != "aten":
        return None
    if name in RULES:
        return RULES[name]
    if name.endswith("_") and name[:-1] in RULES:
        return RULES[name[:-1]]
    if name.endswith("_like"):
        return pointwise
    if torch.Tag.pointwise in func.tags:
        return pointwise
    if name.startswith("new_"):
        return created
    return None


def describe(call: Call) -> Sequence[Dims]:
    """The dimensions of each result of a call."""
    found = _rule_of(call.func)
    if found is None and not call.tensors:
        found = created
    return (found or unknown)(call)
