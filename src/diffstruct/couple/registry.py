"""The rule for each ATen operator.

A rule takes a `Call` and returns the dimensions of each result; on the way it unifies dimensions that are
one, and fixes those that the operator does not treat unit by unit. An operator without a rule is taken apart
into simpler ones, if PyTorch knows how; else it fixes everything it touches, and so does an operator whose
rule raises an error: a missing or wrong rule can cost a width, but never stops a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch._decomp import decomposition_table

from diffstruct.couple.call import Call, Dims, OpRule, created, fix_all, name_of, unknown
from diffstruct.couple.fused_cells import SIMPLER
from diffstruct.couple.operators import OP_RULES
from diffstruct.couple.operators.elementwise import elementwise


@cache
def expand(func: Any) -> Callable[..., Any] | None:
    """What to run in place of an operator that has no rule but is defined by simpler ones."""
    if _rule_of(func) is not None:
        return None
    if func.namespace == "diffstruct":
        return _reference(func)
    if name_of(func) in SIMPLER:
        return SIMPLER[name_of(func)]
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        decompose: Callable[..., Any] = func.decompose
        return decompose
    return decomposition_table.get(func)


def _reference(func: Any) -> Callable[..., Any] | None:
    name = name_of(func)
    kernel = getattr(import_module(f"diffstruct.nn.kernels.{name}"), name)

    def run(*args: Any) -> Any:
        results = kernel.reference(*args)
        return *results, results[0].new_empty(0)  # nothing is kept for a backward pass

    return run


def _rule_of(func: Any) -> OpRule | None:
    name = name_of(func)
    if func.namespace != "aten":
        return None
    if name in OP_RULES:
        return OP_RULES[name]
    if name.endswith("_") and name[:-1] in OP_RULES:
        return OP_RULES[name[:-1]]
    if name.endswith("_like"):
        return elementwise
    if torch.Tag.pointwise in func.tags:
        return elementwise
    if name.startswith("new_"):
        return created
    return None


def describe(call: Call) -> Sequence[Dims]:
    """The dimensions of each result of a call, which have the sizes that the results have."""
    rule = _rule_of(call.func) or (unknown if call.tensors else created)
    try:
        found = rule(call)
        sizes = [[dim.term.size for dim in dims] for dims in found]
        shapes = [[*result.shape] for result in call.results]
        if sizes != shapes:
            raise ValueError(f"it gives sizes {sizes} to results of shape {shapes}")
    except Exception as error:  # of a rule, which is ours: the model itself has run
        return rule_failed(call, error)
    return found


def rule_failed(call: Call, error: Exception) -> Sequence[Dims]:
    """Fix everything, and record that what is known of the operator is wrong."""
    what = f"{type(error).__name__}: {error}"
    call.state.findings.failed_rules.setdefault(call.name, what)
    return fix_all(call, f"for which diffstruct's rule failed ({what})")
