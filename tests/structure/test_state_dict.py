"""State dicts: a run goes on from one bit for bit, in a fresh process's objects or in its own."""

import copy
import io
from collections.abc import Mapping

import pytest
import torch
from helpers.exact import same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.criteria import removal

X = torch.randn(512, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :3] * X[:, 2:]).argmax(1)
EAGER = ds.Rule(p_add=0.3, p_delete=0.5, max_units=12, grace_period=3)
TAYLOR = ds.TaylorImportance(price=3, settling=1e9)  # removes units from the start of the run on
STEPS = 60


@pytest.fixture(autouse=True, scope="module")
def measure_at_each_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "FORWARDS_A_STEP", 2)
        yield


class Branch(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 8))

    def forward(self, x):
        return x + self.branch(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(1, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.rnn(x[..., None])[0][:, -1])


def plain():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def normed():
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)
    )


def residual():
    blocks = nn.Sequential(Branch(), Branch(), Branch())
    return nn.Sequential(nn.Linear(5, 8), blocks, nn.LayerNorm(8), nn.Linear(8, 3))


def unlike():
    blocks = nn.Sequential(Branch(6), Branch(7))
    return nn.Sequential(nn.Linear(5, 8), blocks, nn.LayerNorm(8), nn.Linear(8, 3))


def multiplied():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), ds.nn.Multiplier(8), nn.Linear(8, 3))


OUTGOING = ds.OutgoingNorm(ds.L1Price(0.02))
GOING = ds.Rule(threshold=30.0, grace_period=3)  # at once
DEEP = {"1": ds.Rule(max_units=5, grace_period=3), "*": EAGER}
CASES = {
    "added and removed": (plain, {"criterion": TAYLOR, "rule": EAGER}),
    "from one unit": (plain, {"start": 1}),
    "budget": (plain, {"budget": ds.Budget(parameters=70)}),
    "multiples": (plain, {"criterion": TAYLOR, "rule": EAGER, "multiple_of": 2}),
    "norms": (normed, {"criterion": TAYLOR, "rule": EAGER}),
    "recurrent": (Recurrent, {"criterion": TAYLOR, "rule": EAGER}),
    "outgoing norm": (plain, {"criterion": OUTGOING, "rule": EAGER, "start": 3}),
    "multipliers": (plain, {"criterion": ds.Multipliers(ds.L1Price(0.02)), "rule": EAGER, "start": 3}),
    "own multipliers": (multiplied, {"criterion": ds.Multipliers(ds.L1Price(0.02)), "rule": EAGER}),
    "depth": (residual, {"depth": ["1"], "start": {"1": 1, "*": None}, "criterion": TAYLOR, "rule": DEEP}),
    "unlike blocks": (unlike, {"depth": ["1"], "criterion": TAYLOR, "rule": {"1": GOING, "*": EAGER}}),
}
FIRST = ("structure", "model", "optimizer", "scheduler")
USUAL = ("model", "optimizer", "scheduler", "structure")


def made(case, seed=0, optimizer="Adam", steps=STEPS):
    build, options = CASES[case]
    torch.manual_seed(seed)
    model = build()
    kind, rate = getattr(torch.optim, optimizer), {"Adam": 0.02, "SGD": 0.2, "Adagrad": 0.1}[optimizer]
    optimizer = kind(model.parameters(), lr=rate)
    options = {"interval": 1, **options}
    structure = ds.Structure(model, optimizer, example_inputs=(X[:32],), total_steps=steps, **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return {"structure": structure, "model": model, "optimizer": optimizer, "scheduler": scheduler}


def train(run, begin, end):
    for step in range(begin, end):
        rows = torch.arange(32) + 16 * (step % 30)
        run["optimizer"].zero_grad()
        loss = nn.functional.cross_entropy(run["model"](X[rows]), Y[rows])
        loss.backward()
        run["optimizer"].step()
        run["scheduler"].step()
        run["structure"].step(loss)


def saved(run):
    file = io.BytesIO()
    torch.save({name: each.state_dict() for name, each in run.items()}, file)
    return file


def read(file):
    file.seek(0)
    return torch.load(file, weights_only=True)


def load(run, state, order=FIRST):
    for name in order:
        run[name].load_state_dict(state[name])


def sizes(run):
    return {name: width.size for name, width in run["structure"].widths.items()}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=5)
@given(
    st.integers(0, STEPS),
    st.sampled_from(["Adam", "SGD", "Adagrad"]),
    st.sampled_from([FIRST, USUAL]),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore::diffstruct.StructureWarning")
def test_a_run_goes_on_bit_for_bit_in_objects_that_were_drawn_otherwise(case, step, optimizer, order, again):
    if case == "unlike blocks":
        order = FIRST  # a state dict of the model alone does not say which blocks have gone
    whole = made(case, optimizer=optimizer)
    train(whole, 0, step)
    middle = saved(whole)
    train(whole, step, STEPS)
    end = read(saved(whole))
    whole["structure"].finish()
    plain = read(saved(whole))

    run = made(case, seed=1, optimizer=optimizer)
    if again:  # in the middle of another run
        train(run, 0, 40)
        order = FIRST
        if case == "unlike blocks" and len(run["model"][1]) < 2:
            return
    load(run, read(middle), order)
    assert same(read(saved(run)), read(middle))
    train(run, step, STEPS)
    assert same(read(saved(run)), end)
    run["structure"].finish()
    assert same(read(saved(run)), plain)

    run = made(case, seed=2, optimizer=optimizer)
    load(run, plain)
    assert same(read(saved(run)), plain)
    with pytest.raises(ds.StructureError, match="the structure is finished"):
        run["structure"].step()


def test_sizes_really_change_in_the_runs_that_go_on():
    for case in CASES:
        run = made(case)
        train(run, 0, STEPS)
        assert run["structure"].history.events, case


def test_keep_best_restores_a_run_in_its_own_process():
    run = made("added and removed")
    train(run, 0, 25)
    best, then = saved(run), sizes(run)
    train(run, 25, STEPS)
    end = read(saved(run))
    assert sizes(run) != then
    load(run, read(best))
    assert sizes(run) == then
    train(run, 25, STEPS)
    assert same(read(saved(run)), end)


def test_the_tensors_of_a_state_dict_are_copies():
    run = made("norms")
    train(run, 0, 20)
    state = run["structure"].state_dict()
    before = copy.deepcopy(state)
    train(run, 20, 40)
    assert same(state, before)


def test_averages_get_the_sizes_too():
    run = made("added and removed")
    train(run, 0, 30)
    average = AveragedModel(run["model"])
    file = saved({**run, "average": average})
    other = made("added and removed", seed=1)
    other["average"] = AveragedModel(other["model"])
    other["structure"].follow(other["average"])
    load(other, read(file), (*FIRST, "average"))
    assert same(read(saved(other)), read(file))


@pytest.mark.parametrize("case", ["added and removed", "multipliers", "depth", "norms"])
def test_a_watched_model_takes_on_the_sizes_of_what_is_loaded_into_it(case):
    run = made(case)
    train(run, 0, 30)
    weights, shapes = copy.deepcopy(run["model"].state_dict()), sizes(run)
    other = made(case, seed=1)
    assert sizes(other) != shapes
    holder = nn.ModuleDict({"inner": other["model"]})  # as a trainer's module holds the model
    holder.load_state_dict({f"inner.{name}": tensor for name, tensor in weights.items()})
    assert sizes(other) == shapes
    assert same(dict(other["model"].state_dict()), dict(weights))
    held = {id(p) for group in other["optimizer"].param_groups for p in group["params"]}
    assert held == {id(p) for p in other["model"].parameters()}
    train(other, 0, STEPS)  # and the run goes on


@pytest.mark.parametrize("case", ["added and removed", "multipliers", "depth"])
def test_a_state_dict_may_be_loaded_in_parts_which_say_nothing_of_blocks(case):
    run = made(case)
    train(run, 0, 30)
    weights = copy.deepcopy(dict(run["model"].state_dict()))
    other = made(case, seed=1)
    if case == "depth":
        load(other, read(saved(run)))
        other["model"].load_state_dict({key: torch.zeros_like(each) for key, each in weights.items()})
    for name, tensor in weights.items():
        other["model"].load_state_dict({name: tensor}, strict=False)
    assert sizes(other) == sizes(run)
    assert same(dict(other["model"].state_dict()), weights)


def test_a_copy_of_the_model_alone_is_not_resized_by_what_is_loaded():
    run = made("added and removed")
    train(run, 0, 30)
    twin = copy.deepcopy(run["model"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        twin.load_state_dict(made("added and removed")["model"].state_dict())
    copied = copy.deepcopy(run)
    hooks = [each.hook for each in copied["model"]._load_state_dict_pre_hooks.values()]
    assert len(hooks) == 1
    copied["model"].load_state_dict(made("added and removed")["model"].state_dict())
    assert sizes(copied) == {"0": 8, "2": 6}
    assert sizes(run) != sizes(copied)


def test_a_finished_model_is_not_watched():
    run = made("added and removed")
    train(run, 0, STEPS)
    run["structure"].finish()
    assert not run["model"]._load_state_dict_pre_hooks
    with pytest.raises(ds.StructureError, match="make model, optimizer and structure anew"):
        run["structure"].load_state_dict(run["structure"].state_dict())


def test_weights_of_another_architecture_are_refused_and_nothing_has_changed():
    run = made("added and removed")
    before = read(saved(run))
    with pytest.raises(ds.StructureError, match="not one of this Sequential at any sizes"):
        run["model"].load_state_dict({**run["model"].state_dict(), "2.weight": torch.ones(6, 9)})
    assert same(read(saved(run)), before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"total_steps": 70}, "total_steps 60, this one has 70"),
        ({"interval": 2}, "interval 1, this one has 2"),
        ({"criterion": OUTGOING}, "criterion_type 'TaylorImportance', this one has 'OutgoingNorm'"),
        ({"include": ["0"]}, "entry 'widths.2.slots' .* not those of any width"),
    ],
)
def test_a_state_dict_of_another_run_is_refused(change, says):
    state = made("added and removed")["structure"].state_dict()
    model = plain()
    options = {"total_steps": STEPS, "interval": 1, "criterion": TAYLOR, "rule": EAGER, **change}
    structure = ds.Structure(model, torch.optim.Adam(model.parameters()), example_inputs=(X[:32],), **options)
    with pytest.raises(ds.StructureError, match=says):
        structure.load_state_dict(state)


def test_unlike_blocks_of_which_one_has_gone_want_the_structure_first():
    run = made("unlike blocks")
    while len(run["model"][1]) == 2:
        train(run, run["structure"].steps, run["structure"].steps + 1)
    file = saved(run)
    other = made("unlike blocks", seed=1)
    with pytest.raises(ds.StructureError, match="load the structure's state dict first"):
        load(other, read(file), USUAL)
    load(other, read(file))
    assert same(read(saved(other)), read(file))
    fresh = read(saved(made("unlike blocks", seed=1)))  # the block that has gone cannot come back
    before = read(saved(other))
    with pytest.raises(ds.StructureError, match="load it into a model that was made anew"):
        load(other, fresh)
    assert same(read(saved(other)), before)


def leaves(tree, path=()):
    """The paths of all entries within a tree."""
    children = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    for key, each in children:
        yield (*path, key)
        if isinstance(each, Mapping | list | tuple):
            yield from leaves(each, (*path, key))


def damaged(state, path, how):
    """The state with another entry at a path, or without it."""
    *within, last = path
    parent = state
    for key in within:
        parent = parent[key]
    value = parent[last]
    if how == "missing":
        del parent[last]
    elif isinstance(value, torch.Tensor) and value.numel():
        parent[last] = torch.cat([value, value], -1) if value.ndim else value.repeat(3)
    else:
        parent[last] = 1j


@pytest.mark.parametrize("case", ["norms", "depth", "from one unit", "multipliers"])
@settings(max_examples=25)
@given(st.data(), st.sampled_from(["missing", "another"]))
def test_a_damaged_state_dict_is_refused_and_nothing_has_changed(case, data, how):
    run = made(case)
    train(run, 0, 3 if case == "from one unit" else 30)
    state = run["structure"].state_dict()
    free = {"inputs", "constant", "variances", "whole", "outputs", "gradient", "removed", "past", "moments"}
    free.add("before")  # these may be anything
    paths = [path for path in leaves(state) if not free & {*path}]
    path = data.draw(st.sampled_from(paths))
    if isinstance(path[-1], int) and (how == "missing" or path[-2] == "slots"):
        return
    damaged(state, path, how)
    other = made(case, seed=1)
    train(other, 0, 10)
    before = read(saved(other))
    with pytest.raises(ds.StructureError):
        other["structure"].load_state_dict(state)
    assert same(read(saved(other)), before)
    train(other, 10, 12)  # and the run goes on
