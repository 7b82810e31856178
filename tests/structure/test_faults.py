"""Whatever fails in a step or in finish: all is as it was before, and goes on as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from copy import deepcopy
from functools import cache, partial

import pytest
import torch
from helpers import faults
from helpers.faults import FailingOperator, Lines, differences, interrupt, out_of_memory
from torch import nn
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.rule import Decision, RuleState
from diffstruct.structure.deepening import Deepening
from diffstruct.width import Depth

pytestmark = pytest.mark.filterwarnings("ignore::diffstruct.StructureWarning")
X = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
EAGER = ds.Rule(p_add=1.0, p_spontaneous=1.0, p_delete=1.0, max_units=32, grace_period=2)
CRITERIA = {
    "taylor": ds.TaylorImportance(price=1, settling=1e9, rise=0.01),
    "norm": ds.OutgoingNorm(ds.L1Price(0.02)),
    "multipliers": ds.Multipliers(ds.L1Price(1e-3, how="gradient")),
}
RETREAT = "interrupts.py", "retreat.py"  # which puts things back, and cannot be put back itself
SAMPLES = int(os.environ.get("FAULT_SAMPLES", "6"))
"""So many of the points at which something could fail are tried in each case."""


CTRL_C = interrupt, KeyboardInterrupt, ()


@pytest.fixture(autouse=True)
def measure_at_each_step(monkeypatch):
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 2)
    for kind in ("taylor", "blocks"):
        saved(kind)  # once, before any line of what loads it is counted
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have set to ignore
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


class Blocks(nn.Sequential):
    """Residual blocks between two layers."""

    def __init__(self):
        branch = lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))  # noqa: E731
        super().__init__(nn.Linear(5, 6), ds.nn.Residual(branch, depth=3), nn.Linear(6, 3))


def plain():
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    )


def made(kind="taylor", steps=14, start=None):
    """A model that has been trained for some steps, and whose next one will change it."""
    torch.manual_seed(0)
    model = Blocks() if kind == "blocks" else plain()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(X,),
        total_steps=60,
        criterion=CRITERIA.get(kind, CRITERIA["taylor"]),
        rule=EAGER,
        interval=2,
        start=start,
    )
    average = AveragedModel(model)
    structure.follow(average)
    run = model, optimizer, structure, average
    for _ in range(steps):
        train(*run)
        structure.step()
        average.update_parameters(model)
    train(*run)
    structure.step()
    train(*run)
    return run


def picture(*roots):
    """Without what is remembered of buffers, for steps that may have to be left out."""
    found = faults.picture(*roots).items()
    return {way: each for way, each in found if not way.startswith(("2.guard._good", "2.guard._modules"))}


def train(model, optimizer, structure, average):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()


def births(structure):
    """A step at which a block comes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deepening, "more", lambda *args: 1)
        return structure.step()


def losses(structure):
    """All widths, and depths, lose their first unit, and get two new ones where they can."""
    decisions = {}
    for name, state in structure.states.items():
        size, add = len(state.ages), 0 if isinstance(structure.widths[name], Depth) else 2
        after = RuleState.initial(size - 1 + add)
        decisions[name] = Decision(size, tuple(range(1, size)), add, after)
    return structure.carry_out(decisions)


@cache
def saved(kind):
    """The state dicts of a run with other sizes."""
    model, optimizer, structure, _ = made(kind, steps=6)
    return [deepcopy(each.state_dict()) for each in (model, optimizer, structure)]


def load(structure):
    structure.load_state_dict(saved("blocks" if isinstance(structure.model, Blocks) else "taylor")[2])


def load_model(structure):
    structure.model.load_state_dict(saved("blocks" if isinstance(structure.model, Blocks) else "taylor")[0])


ACTIONS = {
    "step": ds.Structure.step,
    "finish": ds.Structure.finish,
    "births": births,
    "losses": losses,
    "load": load,
    "load the model": load_model,
}
CASES = [(kind, what) for what in ("step", "finish") for kind in (*CRITERIA, "blocks")]
CASES += [("blocks", "births"), ("blocks", "losses"), ("taylor", "losses")]
CASES += [("taylor", "load"), ("taylor", "load the model")]
CASES += [pytest.param("blocks", what, marks=pytest.mark.slow) for what in ("load", "load the model")]
every_case = pytest.mark.parametrize(("kind", "what"), CASES)


def some(count):
    return sorted(random.Random(0).sample(range(1, count + 1), min(SAMPLES, count)))


@every_case
def test_out_of_memory_at_any_operator_changes_nothing(kind, what):
    run, act, undisturbed = made(kind), ACTIONS[what], made(kind)
    with FailingOperator(0, RuntimeError()) as counted:
        act(undisturbed[2])
    assert what == "finish" or undisturbed[2].history.events != run[2].history.events
    before = picture(*run)
    for at in some(counted.count):
        error, done = torch.OutOfMemoryError("CUDA"), False
        with suppress(RuntimeError), FailingOperator(at, error) as failing:  # PyTorch's own code may wrap it
            act(run[2])
            done = True
        if failing.count < at:  # it was counted with what only the first run of all needs
            return
        if done:  # it went without: where there is no memory to compare buffers, they are copied
            assert_alike(run, undisturbed)
            run = made(kind)
            before = picture(*run)
        assert not differences(before, picture(*run)), at
    act(run[2])
    assert_alike(run, undisturbed)


@every_case
@pytest.mark.parametrize(("fault", "error", "without"), [(out_of_memory, MemoryError, RETREAT), CTRL_C])
def test_a_fault_at_any_line_changes_all_or_nothing(kind, what, fault, error, without):
    undisturbed, act = made(kind), ACTIONS[what]
    with Lines(None, None, without).traced() as counted:
        act(undisturbed[2])
    after, run, before, whole = of_any_run(picture(*undisturbed)), None, {}, 0
    for at in some(counted.count):
        if run is None:
            run = made(kind)
            before = picture(*run)
        with pytest.raises(error), Lines(at, fault, without).traced():
            act(run[2])
        now = picture(*run)
        if differences(before, now):
            assert not differences(after, of_any_run(now)), counted.places[at - 1]
            run, whole = None, whole + 1
    assert error is KeyboardInterrupt or whole < 0.1 * SAMPLES + 1


def of_any_run(found):
    """Without what differs from one run to the next: which objects there are, and the numbers of hooks."""
    own = ":object", "hooks:keys", "kwargs:keys"
    return {way: value for way, value in found.items() if not way.endswith(own)}


def assert_alike(run, other):
    assert run[2].history.events == other[2].history.events
    torch.testing.assert_close(dict(run[0].state_dict()), dict(other[0].state_dict()), rtol=0, atol=0)


class Fragile(nn.Sequential):
    """A model whose forward pass fails at some calls."""

    calls, fails_at, error = 0, (), RuntimeError("the user's own")

    def forward(self, x):
        self.calls += 1
        if self.calls in self.fails_at:
            raise self.error
        return super().forward(x)


def fragile():
    model = Fragile(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, torch.optim.AdamW(model.parameters(), lr=0.02)


@pytest.mark.parametrize("error", [RuntimeError("the user's own"), KeyboardInterrupt("Ctrl-C")])
def test_a_forward_pass_that_fails_while_units_are_measured(error):
    torch.manual_seed(0)
    model, optimizer = fragile()
    options = {"example_inputs": (X,), "total_steps": 60, "rule": EAGER, "interval": 2}
    structure = ds.Structure(model, optimizer, criterion=CRITERIA["taylor"], **options)
    for _ in range(15):
        train(model, optimizer, structure, None)
        structure.step()
    train(model, optimizer, structure, None)
    before = picture(model, optimizer, structure)
    model.calls, model.error = 0, error
    for at in (1, 2):
        model.fails_at = (model.calls + at,)
        with pytest.raises(type(error), match=str(error)):
            structure.step()
        now = differences(before, picture(model, optimizer, structure))
        assert not [way for way in now if not way.startswith(("0.calls", "0.error", "0.fails_at"))]
    model.fails_at = ()
    assert structure.step()


def structured(model, optimizer, **options):
    return ds.Structure(model, optimizer, example_inputs=(X,), total_steps=60, start=2, **options)


@pytest.mark.parametrize("criterion", ["taylor", "multipliers"])
def test_whatever_fails_while_a_structure_is_made_model_and_optimizer_are_as_they_were(criterion):
    options = {"criterion": CRITERIA[criterion]}
    torch.manual_seed(0)
    run, twin = fragile(), fragile()
    train(*run, None, None)
    train(*twin, None, None)
    with FailingOperator(0, RuntimeError()) as counted:
        structured(*twin, **options)
    before = picture(*run)
    for at in some(counted.count):
        with suppress(RuntimeError, ds.StructureError), FailingOperator(at, torch.OutOfMemoryError("CUDA")):
            structured(*run, **options)
            pytest.fail(f"operator {at} did not fail")
        now = picture(*run)
        assert not [way for way in differences(before, now) if not way.endswith("calls")], at


def test_ctrl_c_while_a_structure_is_made_comes_through_at_once_in_the_models_code():
    model, optimizer = fragile()
    before = picture(model, optimizer)
    model.register_forward_pre_hook(lambda module, args: interrupt())
    with pytest.raises(KeyboardInterrupt):
        structured(model, optimizer)
    model._forward_pre_hooks.clear()
    assert model.calls == 0
    assert not differences(before, picture(model, optimizer))


RESIZE = {"by modules": (), "by a run": ((X,),)}
TRIALS = *RETREAT, "commit.py", "trials.py", "undisturbed.py"  # where what was tried is undone


@pytest.mark.parametrize("how", RESIZE)
@pytest.mark.parametrize("fault", ["operator", out_of_memory, interrupt])
def test_whatever_fails_in_resize_to_the_model_is_as_it_was_or_has_all(how, fault):
    weights = saved("taylor")[0]
    resized = lambda model: ds.resize_to(model, weights, *RESIZE[how])  # noqa: E731
    assert_all_or_nothing(
        lambda: torch.manual_seed(1) and plain(), resized, lambda model: faults.picture(model), fault, TRIALS
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["operator", out_of_memory, interrupt])
def test_whatever_fails_in_loading_a_checkpoint_all_objects_are_as_before_or_have_all(tmp_path, fault):
    names = "model", "optimizer", "structure", "average"
    ds.checkpoint.save(tmp_path, **dict(zip(names, made(steps=6), strict=True)))
    load_all = lambda run: ds.checkpoint.load(tmp_path, **dict(zip(names, run, strict=True)))  # noqa: E731
    states = lambda run: faults.picture([each.state_dict() for each in run])  # noqa: E731
    assert_all_or_nothing(made, load_all, states, fault, RETREAT)


def assert_all_or_nothing(make, act, look, fault, without):
    """Let something fail at some points: what is looked at is as it was, or as it is without the fault."""
    lines = partial(Lines, without=() if fault is interrupt else without)
    undisturbed = make()
    counted = FailingOperator(0, RuntimeError()) if fault == "operator" else lines(None, None)
    with counted if fault == "operator" else counted.traced():
        act(undisturbed)
    after = of_any_run(look(undisturbed))
    for at in some(counted.count)[::2]:
        subject = make()
        before = of_any_run(look(subject))
        failing = FailingOperator(at, torch.OutOfMemoryError("CUDA")) if fault == "operator" else None
        errors = suppress(RuntimeError, MemoryError, KeyboardInterrupt, ds.CheckpointError)
        with errors, failing or lines(at, fault).traced():
            act(subject)
        now = of_any_run(look(subject))
        assert not differences(before, now) or not differences(after, now), at
        act(subject)
        assert not differences(after, of_any_run(look(subject)))
