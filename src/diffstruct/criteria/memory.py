"""What `TaylorImportance` remembers of a run, as a state dict, and how a run goes on from one.

Names of tensors and modules are those of the model that is trained, which has the same sizes then.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from diffstruct.criteria.importance import averages_shape
from diffstruct.criteria.loss import Loss
from diffstruct.criteria.outputs import Call, Outputs
from diffstruct.criteria.removal import Removals
from diffstruct.criteria.tracker import ImportanceTracker
from diffstruct.distributed import Processes
from diffstruct.states import Fields, tensor_of

AVERAGES = ("fisher", "mean_slopes", "importance", "alone")
KINDS = ("softmax", "sigmoid", "other")


def tracker_state(tracker: ImportanceTracker) -> dict[str, Any]:
    """The moving averages of importance."""
    widths: dict[str, dict[str, Any]] = {}
    for name in tracker.widths:
        widths[name] = {each: tensor_of(getattr(tracker, each)[name]) for each in AVERAGES}
        widths[name]["share"] = tracker.shares.get(name)
        weights = tracker.weights.get(name)
        widths[name]["weights"] = None if weights is None else tensor_of(weights)
    loss = tracker.loss
    return {
        "won": float(tracker.won),
        "observations": tracker.observations,
        "warned": tracker.warned,
        "loss": None if loss is None else {**vars(loss), "constant": tensor_of(loss.constant)},
        "widths": widths,
    }


def load_tracker(tracker: ImportanceTracker, state: Fields) -> None:
    """Go on with these averages."""
    widths = state.fields("widths")
    known: dict[str, dict[str, Any]] = {each: {} for each in AVERAGES}
    shares, weights = {}, {}
    for name, width in tracker.widths.items():
        entry = widths.fields(name)
        for each in AVERAGES:
            shape = averages_shape(width.size) if each == "fisher" else (width.size,)
            known[each][name] = entry.array(each, shape, np.float64)
        if entry["share"] is not None:
            shares[name] = entry.number("share")
        if entry["weights"] is not None:
            weights[name] = entry.array("weights", (width.size,), np.float64)
    if len(shares) not in (0, len(tracker.widths)):
        raise widths.wrong("", "lacks the share of some widths")
    loss = None if state["loss"] is None else _loss(state.fields("loss"))
    won, observations = state.number("won"), state.whole("observations")
    tracker.warned = state.flag("warned")
    for each in AVERAGES:
        setattr(tracker, each, known[each])
    tracker.shares, tracker.weights, tracker.loss = shares, weights, loss
    tracker.won, tracker.observations = won, observations


def _loss(state: Fields) -> Loss:
    kind = state.text("kind")
    if kind not in KINDS:
        raise state.wrong("kind", f"is {kind!r:.40}, not one of {KINDS}")
    scale, predictions, nats, spread = map(state.number, ("scale", "predictions", "nats", "spread"))
    constant = state.array("constant", None, np.float64)
    if constant.ndim != (2 if kind == "sigmoid" else 1):
        raise state.wrong("constant", f"has {constant.ndim} dimensions, which a {kind} loss has not")
    return Loss(kind, scale, predictions, nats, constant, spread)


def removals_state(removals: Removals) -> dict[str, Any]:
    """What was found out by measuring."""
    names = _names(removals.training.model)
    widths = {
        name: {
            "off": removals.off[name],
            "shown": tensor_of(removals.shown[name]),
            "group": removals.group[name],
            "waiting": removals.waiting[name],
        }
        for name in removals.tracker.widths
    }
    shares = {names[module]: share.clone() for module, share in removals.variances.shares.items()}
    begin = None if removals.budget is None else removals.budget.begin
    return {"credit": removals.credit, "widths": widths, "variances": shares, "begin": begin}


def load_removals(removals: Removals, state: Fields) -> None:
    """Go on with what was found out; nothing is pending then."""
    modules = dict(removals.training.model.named_modules())
    widths, variances = state.fields("widths"), state.fields("variances")
    off, shown, group, waiting = {}, {}, {}, {}
    for name, width in removals.tracker.widths.items():
        entry = widths.fields(name)
        off[name], group[name] = entry.number("off"), entry.number("group")
        shown[name] = entry.array("shown", (width.size,), np.bool_)
        waiting[name] = entry.whole("waiting")
    for path in variances.value:
        if path not in modules:
            raise variances.wrong(path, "is of no module of the model")
    shares = {modules[path]: variances.tensor(path) for path in variances.value}
    credit = state.number("credit")
    budget = removals.budget
    if (state["begin"] is None) != (budget is None):
        raise state.wrong("begin", "is of a run with a budget, or of one without, as this one is not")
    if budget is not None:
        budget.begin = state.number("begin")
    removals.off, removals.shown, removals.group, removals.waiting = off, shown, group, waiting
    removals.variances.shares, removals.credit, removals.pending = shares, credit, {}


def outputs_state(outputs: Outputs, processes: Processes) -> dict[str, Any]:
    """The last call of the model that was recorded, on which `finish` measures; of processes that share the
    model out, which have to ask together, those of all.

    One with inputs that are no plain trees of tensors and numbers cannot be kept, nor one that was seen only
    in part.
    """
    calls = [_call_state(call) if _plain((call.args, dict(call.kwargs))) else None for call in outputs.batch]
    if processes.sharding is not None:
        there = processes.objects([tree_map(_on_cpu, call) for call in calls])
        calls = [call for each in zip_longest(*there) for call in each]  # in the order that they had
    return {"calls": [] if None in calls else calls}


def _call_state(call: Call) -> dict[str, Any]:
    inputs = [call.args, dict(call.kwargs)]
    leaves = [each for each in tree_flatten(inputs)[0] if isinstance(each, Tensor)]
    device, dtype, enabled = call.autocast
    return {
        "inputs": tree_map(lambda each: each.clone() if isinstance(each, Tensor) else each, inputs),
        "on_cpu": [each.device.type == "cpu" for each in leaves],
        "autocast": {"device": device, "dtype": str(dtype).removeprefix("torch."), "enabled": enabled},
        "index": call.index,
        "dim": call.dim,
        "step": call.step,
        "share": call.share,
        "outputs": call.outputs.clone(),
        "gradient": call.gradient.clone(),
    }


def _on_cpu(each: Any) -> Any:
    return each.cpu() if isinstance(each, Tensor) else each


def load_outputs(outputs: Outputs, state: Fields, processes: Processes) -> None:
    """Measure on the calls that are in the state dict, until others are recorded.

    Each process has one, as before, or as many as the others if they are fewer than before. If that does not
    come out even, some calls are left out, or count twice.
    """
    calls, size = state.list_of_fields("calls"), processes.size
    mine = calls[processes.rank :: size] if len(calls) % size == 0 else [calls[processes.rank % len(calls)]]
    outputs.put([_call(outputs, each) for each in mine])


def _call(outputs: Outputs, entry: Fields) -> Call:
    home = next((p.device for p in outputs.model.parameters()), torch.device("cpu"))
    inputs, on_cpu = entry.items("inputs"), [*entry.items("on_cpu")]
    if len(inputs) != 2 or not isinstance(inputs[0], tuple) or not isinstance(inputs[1], dict):
        raise entry.wrong("inputs", "are not the arguments of a call")
    leaves = [each for each in tree_flatten(inputs)[0] if isinstance(each, Tensor)]
    if len(leaves) != len(on_cpu):
        raise entry.wrong("on_cpu", f"is of {len(on_cpu)} tensors, not {len(leaves)}")

    def there(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        return each.detach().clone() if on_cpu.pop(0) else each.detach().clone().to(home)

    args, kwargs = tree_map(there, inputs)
    cast = entry.fields("autocast")
    dtype = getattr(torch, cast.text("dtype"), None)
    if not isinstance(dtype, torch.dtype):
        raise cast.wrong("dtype", f"is {cast.text('dtype')!r:.40}, which PyTorch does not have")
    autocast = cast.text("device"), dtype, cast.flag("enabled")
    call = Call(args, kwargs, autocast, entry.whole("index"))
    call.dim, call.step, call.share = entry.whole("dim", -1), entry.whole("step", 1), entry.number("share")
    call.outputs = entry.tensor("outputs").to(home)
    call.gradient = entry.tensor("gradient", call.outputs.shape).to(home)
    return call


def _plain(tree: Any) -> bool:
    """Whether a tree has nothing but tensors and numbers in dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return type(tree) in (Tensor, nn.Parameter) and tree.layout == torch.strided
    if isinstance(tree, dict):
        return type(tree) is dict and all(isinstance(key, str) and _plain(each) for key, each in tree.items())
    if isinstance(tree, (list, tuple)):
        return type(tree) in (list, tuple) and all(map(_plain, tree))
    return tree is None or isinstance(tree, (bool, int, float, str))


def _names(model: nn.Module) -> dict[nn.Module, str]:
    return {module: path for path, module in model.named_modules()}


def readers_of(tracker: ImportanceTracker) -> dict[str, Tensor]:
    """The outgoing weights, in their order, by their names."""
    names = _names(tracker.training.model)
    return {f"{names[slots[0][0].module]}.{slots[0][0].name}": tensor for tensor, slots in tracker.readers}
