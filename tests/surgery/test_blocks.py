"""Blocks come and go: what stays is bit-equal, what comes is new, and optimizers go on as they must."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from surgery.test_optimizer_state import Case, every_case
from torch import nn
from torch.optim.swa_utils import AveragedModel
from zoo.blocks import MLPBlock, Net

import diffstruct as ds
from diffstruct.surgery import Change, blocks, change_blocks, copy_of, newborn
from diffstruct.width.depth import children_of

X = torch.randn(16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made(depth=3):
    torch.manual_seed(0)
    model = Net(depth=depth).double()
    return model, ds.find_depths(model, (X,)).depths["blocks"]


def birth(model, depth, unit, place, seed=0):
    children = [*children_of(depth.stack.container), None]
    generator = torch.Generator().manual_seed(seed)
    return newborn(model, depth, depth.stack.blocks[unit], children[place], (), generator)


def change(model, depth, keep, places=(), optimizers=(), copies=None, seed=0):
    births = [birth(model, depth, keep[0], place, seed) for place in places]
    return change_blocks(model, Change(depth, tuple(keep), len(births)), births, optimizers, copies)


def gradients(model, step):
    for number, parameter in enumerate(model.parameters()):
        noise = torch.Generator().manual_seed(1000 * step + number)
        parameter.grad = torch.randn(parameter.shape, generator=noise, dtype=parameter.dtype)


def all_of(optimizers, model):
    """What optimizers know of each parameter, by its name in the model."""
    names = {id(p): name for name, p in model.named_parameters()}
    state = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                held = {k: copy.deepcopy(v) for k, v in optimizer.state.get(parameter, {}).items()}
                options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
                assert names[id(parameter)] not in state
                state[names[id(parameter)]] = held, options
    return state


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        same = torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        assert same, key


@every_case
@settings(max_examples=5)
@given(data=st.data())
def test_optimizers_go_on_as_if_they_had_been_made_for_the_blocks_that_there_are(case: Case, data):
    """The oracle: optimizers made anew, with the state of the parameters that stayed put into them."""
    model, depth = made()
    optimizers = case.build(model.parameters())
    for step in range(6):
        gradients(model, step)
        event = data.draw(st.sampled_from(["none", "birth", "death", "both"]))
        before = {
            id(p): dict(o.state.get(p, {})) for p in model.parameters() for o in optimizers if p in o.state
        }
        units = depth.size
        keep = [*range(units)]
        if event in ("death", "both") and units > 1:
            keep.remove(data.draw(st.integers(0, units - 1)))
        places = [data.draw(st.integers(0, units))] if event in ("birth", "both") else []
        if places or len(keep) < units:
            change(model, depth, keep, places, optimizers, seed=step)
        held = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        assert {id(p) for p in held} == {id(p) for p in model.parameters()}
        assert len(held) == len({*map(id, held)})
        assert all(id(p) in {*map(id, held)} for o in optimizers for p in o.state)
        gradients(model, step)
        twin = copy.deepcopy(model)
        oracle = case.build(twin.parameters())
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            other.grad = parameter.grad.clone()
            for one in oracle:
                if any(other is p for g in one.param_groups for p in g["params"]):
                    if id(parameter) in before:
                        one.state[other] = copy.deepcopy(before[id(parameter)])
                    elif before and isinstance(one, torch.optim.SGD) and one.defaults["fused"]:
                        # Its kernel fails where some parameters have a momentum, and others have none.
                        one.state[other]["momentum_buffer"] = torch.zeros_like(other)
        for one in (*optimizers, *oracle):
            one.step()
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(parameter, other)


def test_what_stays_is_the_same_object_and_undoing_restores_everything():
    model, depth = made()
    optimizer = torch.optim.AdamW(model.named_parameters())
    gradients(model, 0)
    optimizer.step()
    average = AveragedModel(model)
    copies = [copy_of(model, average, [depth])]
    children, state = children_of(model.blocks), all_of([optimizer], model)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    modules, groups = copies[0], [[*group["params"]] for group in optimizer.param_groups]
    names = [*optimizer.param_groups[0]["param_names"]]
    undo = change(model, depth, [0, 2], [0, 3], [optimizer], copies)
    assert children_of(model.blocks)[1:3] == [children[0], children[2]]
    assert [*model.blocks._modules] == ["0", "1", "2", "3"]
    assert depth.size == model.depth == 4
    assert [*dict(average.module.named_parameters())] == [*dict(model.named_parameters())]
    assert {*optimizer.param_groups[0]["param_names"]} == {*dict(model.named_parameters())}
    undo()
    assert children_of(model.blocks) == children
    assert depth.size == model.depth == average.module.depth == 3
    assert copies == [modules]
    assert [[*group["params"]] for group in optimizer.param_groups] == groups
    assert optimizer.param_groups[0]["param_names"] == names
    assert_equal(dict(model.state_dict()), values)
    for name, (held, options) in all_of([optimizer], model).items():
        assert_equal(held, state[name][0])
        assert options == state[name][1]
    assert len(average.module.blocks) == 3
    average.update_parameters(model)


def test_all_or_nothing(monkeypatch):
    model, depth = made()
    optimizer = torch.optim.Adam(model.parameters())
    gradients(model, 0)
    optimizer.step()
    children, state = children_of(model.blocks), all_of([optimizer], model)

    def fails(*args):
        raise RuntimeError("no memory")

    monkeypatch.setattr(blocks, "begin_state", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        change(model, depth, [0, 1], [1], [optimizer])
    assert children_of(model.blocks) == children
    assert depth.size == model.depth == 3
    assert all_of([optimizer], model).keys() == state.keys()


def test_copies_have_the_new_block_and_go_on_with_it():
    model, depth = made()
    average = AveragedModel(model)
    copies = [copy_of(model, average, [depth])]
    change(model, depth, [0, 2], [1], copies=copies)
    for (name, mine), (other, theirs) in zip(
        model.named_parameters(), average.module.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(mine, theirs)
        assert mine is not theirs
    assert copies[0].modules[model.blocks[1]] is average.module.blocks[1]
    average.update_parameters(model)  # the first time it takes the weights as they are
    before = model.blocks[1].up.weight.detach().clone()
    with torch.no_grad():
        model.blocks[1].up.weight.add_(1)
    average.update_parameters(model)
    assert torch.allclose(average.module.blocks[1].up.weight, before + 0.5)


def test_a_group_whose_block_goes_stays_so_that_schedulers_go_on():
    model, depth = made()
    others = [*model.stem.parameters(), *model.head.parameters()]
    groups = [
        {"params": others},
        *({"params": [*b.parameters()], "lr": 0.1 * i} for i, b in enumerate(model.blocks)),
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    change(model, depth, [0, 2], [1], [optimizer])
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 12, 0, 6]
    gradients(model, 0)
    optimizer.step()
    scheduler.step()


def test_what_blocks_share_with_the_model_a_new_one_shares_too():
    torch.manual_seed(0)
    model = Net().double()
    for block in model.blocks:
        block.norm = model.blocks[0].norm
        block.options = model.blocks[0].__dict__.setdefault("options", {"of": "all"})
    depth = ds.find_depths(model, (X,)).depths["blocks"]
    change(model, depth, [0, 1, 2], [2])
    assert all(block.norm is model.blocks[0].norm for block in model.blocks)
    assert all(block.options is model.blocks[0].options for block in model.blocks)
    assert model.blocks[2].up is not model.blocks[0].up
    change(model, depth, [1, 2, 3])
    assert all(block.norm is model.blocks[0].norm for block in model.blocks)


def test_names_that_are_no_numbers_stay():
    torch.manual_seed(0)
    stack = nn.Sequential()
    for name in ("first", "second"):
        stack.add_module(name, MLPBlock())
    model = nn.Sequential(nn.Linear(5, 8), stack, nn.Linear(8, 3)).double()
    depth = ds.find_depths(model, (X,)).depths["1"]
    change(model, depth, [0, 1], [1, 2])
    assert [*stack._modules] == ["first", "first_2", "second", "first_3"]


def test_a_new_block_is_drawn_as_the_model_came_and_silent():
    model, depth = made()
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.mul_(100)
    new = birth(model, depth, 0, 0).block.module
    assert new.up.weight.std() < 1
    assert torch.equal(new.norm.weight, torch.ones(8).double())
    assert not new.down.weight.any()
    assert not new.down.bias.any()
    assert not torch.equal(new.up.weight, birth(model, depth, 0, 0, seed=1).block.module.up.weight)


class OwnReset(MLPBlock):
    def __init__(self, width=8):
        super().__init__(width)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.constant_(self.up.weight, 0.25)


def test_modules_that_know_how_to_reset_their_parameters_do():
    torch.manual_seed(0)
    model = Net(OwnReset).double()
    depth = ds.find_depths(model, (X,)).depths["blocks"]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    new = birth(model, depth, 0, 0).block.module
    assert torch.equal(torch.get_rng_state(), state)
    assert (new.up.weight == 0.25).all()
    assert not new.down.weight.any()
