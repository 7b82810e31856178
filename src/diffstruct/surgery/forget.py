"""Optimizers forget parameters that the model no longer has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.optim import Optimizer


def forget_parameters(optimizers: Sequence[Optimizer], parameters: Iterable[Tensor]) -> None:
    """Take `parameters`, their state, and the groups that held nothing else, out of the optimizers."""
    gone = {id(parameter) for parameter in parameters}
    for optimizer in optimizers:
        for group in [*optimizer.param_groups]:
            held = group["params"]
            kept = [parameter for parameter in held if id(parameter) not in gone]
            if len(kept) < len(held):
                for parameter in held:
                    if id(parameter) in gone:
                        optimizer.state.pop(parameter, None)
                if kept:
                    if "param_names" in group:
                        names = zip(held, group["param_names"], strict=True)
                        group["param_names"] = [
                            name for parameter, name in names if id(parameter) not in gone
                        ]
                    group["params"] = kept
                else:
                    optimizer.param_groups.remove(group)
