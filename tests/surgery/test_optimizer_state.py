"""One table: every optimizer of torch.optim, in all its variants, against every property of surgery.

What is expected is never read from the library: survivors are picked by unfolding each tensor into
[gates, units, ...], and what new entries begin with is read off a fresh optimizer of the same kind.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from surgery.stacks import draw_new
from torch import Tensor, nn
from torch.optim import Optimizer

import diffstruct as ds
from diffstruct.paper import ClippedRMSprop
from diffstruct.surgery import Change, operate, register_initial_state
from diffstruct.surgery.optimizer_state import initial_value
from diffstruct.surgery.planning import leave_zero

UNITS, KEEP, ADD = 5, (0, 2, 3), 3  # another size after than before
NEW = len(KEEP) + ADD
GATES = 4

MUON: Any = getattr(torch.optim, "Muon", None)  # from PyTorch 2.9 on

# Every class needs a line here; each line is a list of what adds state, or begins it elsewhere than at zero.
VARIANTS: dict[type[Optimizer], list[dict[str, Any]]] = {
    torch.optim.ASGD: [{}, {"lambd": 0.1, "weight_decay": 0.1}],
    torch.optim.Adadelta: [{}, {"weight_decay": 0.1}],
    torch.optim.Adafactor: [{}, {"weight_decay": 0.1}],
    torch.optim.Adagrad: [{}, {"initial_accumulator_value": 0.3, "lr_decay": 0.1}],
    torch.optim.Adam: [{}, {"amsgrad": True, "weight_decay": 0.1}],
    torch.optim.AdamW: [{}, {"amsgrad": True}],
    torch.optim.Adamax: [{}, {"weight_decay": 0.1}],
    torch.optim.NAdam: [{}, {"decoupled_weight_decay": True, "weight_decay": 0.1}],
    torch.optim.RAdam: [{}, {"betas": (0.5, 0.6)}],  # is rectified from the first steps on
    torch.optim.RMSprop: [{}, {"centered": True, "momentum": 0.9}],
    torch.optim.Rprop: [{}, {"step_sizes": (1e-4, 1.0)}],
    torch.optim.SGD: [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
    ],
    ClippedRMSprop: [{}, {"initial": 0.2, "new_unit": 0.3}],
}
if MUON is not None:
    VARIANTS[MUON] = [{}, {"nesterov": False}]
REFUSED = (torch.optim.LBFGS, torch.optim.SparseAdam)


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    kind: type[Optimizer]
    options: dict[str, Any]

    def build(self, params: Iterable[Tensor], **more: Any) -> list[Optimizer]:
        """The optimizer of `params`; Muon takes matrices only, and leaves the rest to SGD."""
        params = [*params]
        if self.kind is not MUON:
            return [self.kind(params, **self.options, **more)]
        matrices, rest = [p for p in params if p.ndim == 2], [p for p in params if p.ndim != 2]
        optimizers: list[Optimizer] = [self.kind(matrices, **self.options, **more)] if matrices else []
        return optimizers + ([torch.optim.SGD(rest, momentum=0.9, **more)] if rest else [])

    def __str__(self) -> str:
        return "-".join([self.kind.__name__, *(f"{k}={v}" for k, v in self.options.items())])


def cases() -> list[Case]:
    table = []
    for kind, variants in VARIANTS.items():
        flags = [{f: True} for f in ("foreach", "fused") if f in inspect.signature(kind).parameters]
        table += [Case(kind, {**variant, **flag}) for variant in variants for flag in ({}, *flags)]
    return table


every_case = pytest.mark.parametrize("case", cases(), ids=str)
with_and_without_state = pytest.mark.parametrize("steps", [0, 3])


class Net(nn.Module):
    """An LSTM whose output goes to two linear layers that share one weight."""

    def __init__(self, units: int = UNITS) -> None:
        super().__init__()
        self.rnn = ds.nn.LSTM(3, units)
        self.readout, self.second = nn.Linear(units, 2), nn.Linear(units, 2)
        self.second.weight = self.readout.weight
        self.rnn.feeds(self.readout, self.second)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.rnn(x)[0]
        return self.readout(hidden) + self.second(hidden).tanh()


class Run:
    """A model and its optimizers, trained on batches that depend on nothing but their number."""

    def __init__(self, case: Case, steps: int, model: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        self.model = model or Net()
        self.optimizers = case.build(self.model.parameters())
        self.seen = 0
        self.train(steps)

    def train(self, steps: int) -> Tensor | None:
        """Train; give back the last loss, with its graph."""
        loss = None
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.seen)
            x = torch.randn(4, 3, 3, generator=generator).to(self.model.readout.weight)
            y = torch.randn(4, 3, 2, generator=generator).to(x)
            self.model.zero_grad()
            loss = (self.model(x) - y).square().mean()
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            self.seen += 1
        return loss

    def operate(self, keep: tuple[int, ...] = KEEP, add: int = ADD, initialize: Any = draw_new) -> None:
        operate([Change(self.model.rnn.declare_width("rnn"), keep, add)], self.optimizers, initialize)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that surgery resizes, by parameter and what they are to it."""
        found = {}
        for name, parameter in self.model.named_parameters():
            found[f"{name}:value"] = parameter.detach()
            if parameter.grad is not None:
                found[f"{name}:grad"] = parameter.grad
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    found[f"{name}:{key}"] = torch.as_tensor(value)
        return found


def pick(name: str, tensor: Tensor, units: Iterable[int], size: int) -> Tensor:
    """The entries of `tensor` that belong to `units` of `size`, by what torch documents of an LSTM's layout.

    Adafactor's factors have length 1 where they have summed over the units.
    """
    parameter, units = name.split(":")[0], [*units]
    if tensor.ndim and parameter.startswith("rnn.") and tensor.shape[0] > 1:
        tensor = tensor.unflatten(0, (GATES, size))[:, units].flatten(0, 1)
    if tensor.ndim and parameter in ("rnn.weight_hh_l0", "readout.weight") and tensor.shape[-1] > 1:
        tensor = tensor[..., units]
    return tensor


def new_entries(name: str, tensor: Tensor) -> Tensor:
    """Where in `tensor`, after the surgery, entries are that have not been there before."""
    places = torch.arange(tensor.numel()).view(tensor.shape)
    new = torch.ones(tensor.numel(), dtype=torch.bool)
    new[pick(name, places, range(len(KEEP)), NEW).flatten()] = False
    return new.view(tensor.shape)


def test_the_table_covers_every_class_of_torch():
    found = {c for c in vars(torch.optim).values() if isinstance(c, type) and issubclass(c, Optimizer)}
    assert found - {Optimizer} == ({*VARIANTS} | {*REFUSED}) - {ClippedRMSprop}


@with_and_without_state
@every_case
def test_survivors_are_bit_equal(case, steps):
    run = Run(case, steps)
    before = {name: tensor.clone() for name, tensor in run.tensors().items()}
    run.operate()
    after = run.tensors()
    assert after.keys() == before.keys()
    for name, old in before.items():
        survived = pick(name, after[name], range(len(KEEP)), NEW)
        assert torch.equal(survived, pick(name, old, KEEP, UNITS)), name
        assert after[name].dtype == old.dtype, name


@with_and_without_state
@every_case
def test_new_entries_have_no_gradient_and_the_state_that_the_optimizer_begins_with(case, steps):
    run = Run(case, steps)
    run.operate()
    fresh = Run(case, 0, Net(NEW))
    with torch.no_grad():  # a step with a gradient of zero, at zero, leaves the state as it begins
        for parameter in fresh.model.parameters():
            parameter.zero_()
            parameter.grad = torch.zeros_like(parameter)
    for optimizer in fresh.optimizers:
        if case.kind is torch.optim.Adamax:  # adds eps to exp_inf even then
            optimizer.param_groups[0]["eps"] = 0.0
        optimizer.step()
    expected = fresh.tensors()
    for name, tensor in run.tensors().items():
        new, what = new_entries(name, tensor), name.split(":")[1]
        if what == "value" or tensor.ndim == 0:
            continue
        if isinstance(run.optimizers[0], ClippedRMSprop) and what == "square_avg":
            expected[name] = torch.full_like(tensor, case.options.get("new_unit", 0.01))  # the paper's
        if what == "ax":  # an average of the parameter is set to it at the first step
            expected[name] = run.model.get_parameter(name.split(":")[0]).detach()
        assert tensor.shape == expected[name].shape, name
        assert torch.equal(tensor[new], expected[name][new]), name


def test_averages_of_new_entries_begin_at_the_entries():
    # A fresh ASGD sets the average to the parameter at its first step. Once it averages (after t0
    # steps), an average that began at 0 would stay away from the parameter that it is to average.
    run = Run(Case(torch.optim.ASGD, {"t0": 1.0}), 6)
    run.operate()
    for name, parameter in run.model.named_parameters():
        new = new_entries(name, parameter)
        assert torch.equal(run.optimizers[0].state[parameter]["ax"][new], parameter.detach()[new]), name


def test_what_new_entries_begin_with_can_be_registered_and_is_inherited():
    class Early(torch.optim.Adagrad):
        pass

    class Late(Early):
        pass

    register_initial_state(Early, "sum", lambda group, value: value * group["lr"])
    for kind in (Early, Late):
        run = Run(Case(kind, {"lr": 0.5, "initial_accumulator_value": 0.3}), 2)
        run.operate()
        for name, parameter in run.model.named_parameters():
            new = new_entries(name, parameter)
            total = run.optimizers[0].state[parameter]["sum"]
            assert torch.equal(total[new], 0.5 * parameter.detach()[new]), name
    assert (
        initial_value(
            torch.optim.Adagrad([parameter], initial_accumulator_value=0.3), "sum", parameter, parameter
        )
        == 0.3
    )


@pytest.mark.parametrize("alive", [False, True], ids=["", "earlier loss alive"])
@with_and_without_state
@every_case
def test_the_next_step_trains_every_entry(case, steps, alive):
    run = Run(case, steps)
    loss = run.train(1) if alive else None  # holds the graph, and with it autograd's memory of the shapes
    run.operate()
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train(1)
    moved = {name: p.detach() != before[name] for name, p in run.model.named_parameters()}
    for name, parameter in run.model.named_parameters():
        assert parameter.grad.shape == parameter.shape, name
        assert parameter.grad.all(), name
    if case.kind is torch.optim.Rprop:  # skips one step where a gradient has changed its sign
        run.train(1)
        moved = {name: moved[name] | (p.detach() != before[name]) for name, p in run.model.named_parameters()}
    assert all(entries.all() for entries in moved.values()), moved
    del loss


@every_case
def test_objects_stay_the_same_and_shared_parameters_are_cut_once(case):
    run = Run(case, 2)
    parameters = dict(run.model.named_parameters())
    groups = [[[*g["params"]] for g in o.param_groups] for o in run.optimizers]
    states = [{*map(id, o.state)} for o in run.optimizers]
    run.operate()
    for name, parameter in run.model.named_parameters():
        assert parameter is parameters[name]
    for optimizer, before, keys in zip(run.optimizers, groups, states, strict=True):
        for group, params in zip(optimizer.param_groups, before, strict=True):
            assert all(a is b for a, b in zip(group["params"], params, strict=True))
        assert {*map(id, optimizer.state)} == keys
    assert run.model.second.weight is run.model.readout.weight
    assert run.model.readout.weight.shape == (2, NEW)
    assert run.model.readout.in_features == run.model.second.in_features == NEW
    run.train(1)
    assert run.model.second.weight.grad is run.model.readout.weight.grad


@every_case
def test_groups_keep_their_own_learning_rate(case):
    """Two groups in one optimizer do, before and after surgery, what two optimizers with a group each do."""

    def trained(together: bool) -> Run:
        run = Run(case, 0)
        names = dict(run.model.named_parameters())
        slow = [p for name, p in names.items() if name in ("rnn.weight_hh_l0", "readout.weight")]
        fast = [p for name, p in names.items() if p.ndim == 2 and name == "rnn.weight_ih_l0"]
        rest = [p for p in names.values() if p.ndim == 1]
        if together:
            groups = [{"params": fast}, {"params": slow, "lr": 0.0004}]
            if case.kind is MUON:
                run.optimizers = [case.kind(groups, lr=0.002, **case.options)]
                run.optimizers.append(torch.optim.SGD(rest, lr=0.002, momentum=0.9))
            else:
                groups[0]["params"] = fast + rest
                run.optimizers = [case.kind(groups, lr=0.002, **case.options)]
        else:
            run.optimizers = case.build(fast + rest, lr=0.002) + case.build(slow, lr=0.0004)
        run.train(3)
        run.operate()
        assert (len(run.optimizers[0].param_groups) == 2) == together
        run.train(3)
        return run

    one, two = trained(True).tensors(), trained(False).tensors()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


# Muon mixes all entries of a matrix, Adafactor their mean square: there every unit has an effect.
elementwise = [c for c in cases() if c.kind not in (MUON, torch.optim.Adafactor)]


@pytest.mark.parametrize("case", elementwise, ids=str)
def test_adding_and_removing_a_unit_of_zero_weights_does_not_change_training(case):
    """A unit whose incoming and outgoing weights are zero gets no gradient."""
    reference, changed = Run(case, 2), Run(case, 2)
    changed.operate(tuple(range(UNITS)), 1, leave_zero)
    changed.train(2)
    assert changed.model.readout.weight.shape[1] == UNITS + 1
    changed.operate(tuple(range(UNITS)), 0)
    changed.train(3)
    reference.train(5)
    expected = reference.tensors()
    for name, tensor in changed.tensors().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@with_and_without_state
@every_case
def test_state_can_be_saved_and_loaded_afterwards(case, steps):
    run = Run(case, steps, Net().float())  # load_state_dict casts NAdam's mu_product to the model's type
    run.operate()
    twin = Run(case, 0, copy.deepcopy(run.model))
    twin.seen = run.seen
    for new, old in zip(twin.optimizers, run.optimizers, strict=True):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    run.train(2)
    twin.train(2)
    mine, loaded = run.tensors(), twin.tensors()
    assert mine.keys() == loaded.keys()
    assert all(torch.equal(mine[name], loaded[name]) for name in mine)


@every_case
def test_a_structure_grows_and_shrinks_with_every_optimizer(case):
    run = Run(case, 0)
    rule = ds.Rule(threshold=3.0, p_add=0.6, p_delete=0.6, p_spontaneous=0.4, max_units=8)
    structure = ds.Structure(
        run.model, run.optimizers, total_steps=20, criterion=ds.OutgoingNorm(), rule=rule, start=1
    )
    for _ in range(20):
        run.train(1)
        structure.step()
    run.train(1)
    size = structure.widths["rnn"].size
    assert structure.history.added() > 0
    assert structure.history.removed() > 0
    assert size == 1 + structure.history.added() - structure.history.removed()
    for name, tensor in run.tensors().items():
        assert tensor.isfinite().all(), name
    for name, parameter in Net(size).named_parameters():
        assert run.model.get_parameter(name).grad.shape == parameter.shape


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside Adam"])
@pytest.mark.parametrize("kind", REFUSED)
def test_an_optimizer_whose_state_cannot_follow_is_refused_before_anything_changes(kind, beside):
    model = Net()
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    matrices, rest = (
        [p for p in model.parameters() if p.ndim == 2],
        [p for p in model.parameters() if p.ndim == 1],
    )
    refused: Optimizer = kind(rest if beside else matrices + rest)
    optimizers = [torch.optim.Adam(matrices), refused] if beside else refused
    with pytest.raises(ds.StructureError, match=rf"{kind.__name__} cannot follow.*use .*torch\.optim\.Adam"):
        ds.Structure(model, optimizers, total_steps=20, criterion=ds.OutgoingNorm(), start=1)
    assert model.rnn.hidden_size == model.readout.in_features == UNITS
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0]
        assert torch.equal(parameter, before[name][1])
