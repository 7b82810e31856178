"""The reducer of a `DistributedDataParallel`, made anew after surgery.

The reducer lays gradients out in buckets by the parameters' sizes, and hangs hooks on their accumulators;
both are others after surgery. So everything that depends on them is made again, as PyTorch does where it
unpickles the object, and the object, with all settings of its user's, stays the same one.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from diffstruct.errors import StructureError

_c10d: Any = dist

NEEDED = (
    "_build_params_for_reducer",
    "_build_debug_param_to_name_mapping",
    "_ddp_init_helper",
    "_comm_hooks",
    "parameters_to_ignore",
    "reducer",
    "logger",
)
"""What this module uses of the class that is not documented."""


def check(ddp: DistributedDataParallel) -> None:
    """Refuse settings under which the reducer cannot be made anew, or the processes do not stay alike.

    Raises:
        StructureError: says which setting.
    """
    missing = [name for name in NEEDED if not hasattr(ddp, name)]
    if missing or not hasattr(getattr(ddp, "reducer", None), "_remove_autograd_hooks"):
        raise StructureError(
            f"the DistributedDataParallel of this version of PyTorch has no {', '.join(missing) or 'hooks'} "
            "that could be made anew after a change of structure; PyTorch 2.6 to 2.13 have"
        )
    state: Any = ddp
    refused = {
        "mixed_precision": getattr(state, "mixed_precision", None) is not None,
        "delay_all_reduce_named_params": bool(getattr(state, "_delay_all_reduce_params", ())),
        "the reducer of compiled autograd": bool(getattr(state, "_use_python_reducer", False)),
        "an optimizer that steps within backward": any(
            hasattr(parameter, "_in_backward_optimizers") for parameter in ddp.module.parameters()
        ),
    }
    for what, used in refused.items():
        if used:
            raise StructureError(
                f"a DistributedDataParallel with {what} cannot follow changes of structure: leave it out"
            )
    for hook, kept in state._comm_hooks:
        if type(kept).__name__ in ("PowerSGDState", "PostLocalSGDState"):
            raise StructureError(
                f"the communication hook {hook.__name__} keeps a {type(kept).__name__} of the gradients that "
                "does not fit after a change of structure: use another hook, or none"
            )
    join = getattr(state, "_join_config", None)
    if join is not None and join.enable and not join.throw_on_early_termination:
        raise StructureError(
            "within join() a process that has no more batches takes part in the reduction of gradients "
            "alone, not in decisions about the structure: give all processes as many batches, or use "
            "join(throw_on_early_termination=True)"
        )


def rebuild(ddp: DistributedDataParallel) -> None:
    """Make buckets, hooks, reducer and logger for the parameters as they are now, on every process.

    Args:
        ddp: that `check` has not refused. All its settings and communication hooks stay.
    """
    state: Any = ddp
    builtin = _builtin_hook(state)
    state.reducer._remove_autograd_hooks()
    if hasattr(state, "_module_parameters"):
        every = ddp.module.named_parameters()
        state._module_parameters = [p for name, p in every if name not in state.parameters_to_ignore]
    parameters, sparse = state._build_params_for_reducer()
    names = state._build_debug_param_to_name_mapping(parameters)
    state._ddp_init_helper(parameters, sparse, names, state.static_graph)
    state._has_rebuilt_buckets = False
    if state.static_graph:
        state._static_graph_delay_allreduce_enqueued = False
        state.reducer._set_static_graph()
        state.logger._set_static_graph()
    if builtin is not None:
        state._register_builtin_comm_hook(builtin)
    for hook, kept in state._comm_hooks:
        state.logger._set_comm_hook_name(hook.__qualname__)
        _c10d._register_comm_hook(state.reducer, kept, hook)


def _builtin_hook(state: Any) -> Any:
    """The communication hook in C++ that was registered, if any: only the logger remembers it."""
    if state._comm_hooks:
        return None
    name = str(state._get_ddp_logging_data().get("comm_hook", "")).rpartition(".")[2]
    return getattr(_c10d.BuiltinCommHookType, name, None) if name else None
