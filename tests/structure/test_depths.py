"""A structure that learns how many blocks there are, and the widths in these at the same time."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from zoo.blocks import MODELS, VECTORS, Net, Stages, declared
from zoo.checks import assert_sizes_hold, outputs_of

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.nn.outputs import tensors_in
from diffstruct.structure import deepening

every_model = pytest.mark.parametrize(("build", "inputs", "name"), MODELS.values(), ids=[*MODELS])
EAGER = ds.TaylorImportance(settling=1e9, price=0.3)


@pytest.fixture(autouse=True)
def measure_at_each_step(monkeypatch):
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 2)


@pytest.fixture
def births(monkeypatch):
    """One block comes at every fifth decision, as long as there may be more."""
    growth = deepening.Deepening

    def more(self, ages, fair, worth, most):
        due = self._age % 5 == 0 and len(ages) < most
        return int(due)

    monkeypatch.setattr(growth, "more", more)


def loss_of(model, inputs):
    outputs = max(tensors_in(model(*inputs)), key=lambda tensor: tensor.requires_grad)
    rows = outputs.flatten(0, -2)
    targets = torch.arange(len(rows)) % rows.shape[1]
    return nn.functional.cross_entropy(rows, targets)


def train(model, optimizer, structure, inputs, steps, check=lambda events: None):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, inputs).backward()
        optimizer.step()
        check(structure.step())


def made(build, inputs, name, total_steps=120, **options):
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    options = {
        "example_inputs": inputs,
        "total_steps": total_steps,
        "depth": [name],
        "interval": 1,
        **options,
    }
    return model, optimizer, ds.Structure(model, optimizer, **options)


def assert_whole(model, optimizer, structure, finished=False):
    """Optimizer and structure are about the model as it is."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {*map(id, held)} == {id(p) for p in model.parameters()}
    modules = {*model.modules()}
    for name, width in structure.widths.items():
        assert name == width.name
        width.check_lengths()
        assert all(slot.module in modules for slot in width.slots)
        assert finished or len(structure.states[name].ages) == width.size
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.shape == parameter.shape
        for key, value in optimizer.state.get(parameter, {}).items():
            assert key == "step" or value.shape == parameter.shape
    assert_sizes_hold(model)


@pytest.mark.slow
@every_model
@pytest.mark.usefixtures("births")
def test_depths_are_learned_through_many_changes_and_plain_models_are_left(build, inputs, name):
    rules = {name: ds.Rule(max_units=6)}
    model, optimizer, structure = made(build, inputs, name, start={name: 1}, rule=rules, criterion=EAGER)
    assert structure.widths[name].size == 1
    average = AveragedModel(model)
    structure.follow(average)
    changes, seed = [], np.random.default_rng(0)

    def check(events):
        changes.extend(event for event in events if event.width == name)
        average.update_parameters(model)
        assert_whole(model, optimizer, structure)

    for _ in range(8):
        train(model, optimizer, structure, inputs, 14, check)
        size = structure.widths[name].size
        if size > 2:  # a block goes, whatever it is worth, so that there is room for others
            state = structure.states[name]
            keep = np.arange(size) != seed.integers(size)
            gone = ds.Decision(
                size, tuple(np.flatnonzero(keep)), 0, ds.RuleState(state.ages[keep], state.risen[keep])
            )
            others = {
                other: ds.Decision(width.size, tuple(range(width.size)), 0, structure.states[other])
                for other, width in structure.widths.items()
                if other != name
            }
            check(structure.carry_out({name: gone, **others}))
    assert sum(event.added for event in changes) >= 3
    assert sum(len(event.removed) for event in changes) >= 3
    train(model, optimizer, structure, inputs, 10, check)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ds.StructureWarning)
        plain = structure.finish()
    assert plain is model
    assert_whole(model, optimizer, structure, finished=True)
    assert len([*model.get_submodule(name).children()]) == structure.widths[name].size
    assert structure.history.added(name) - structure.history.removed(name) + 1 == structure.widths[name].size
    loss_of(model, inputs).backward()
    optimizer.step()
    average.update_parameters(model)
    assert all(not module._forward_hooks for module in model.modules())
    if name != "1" or build is not declared:
        assert not any(type(module).__module__.startswith("diffstruct") for module in model.modules())
    rebuilt = copy.deepcopy(model)
    rebuilt.load_state_dict(model.state_dict())
    for one, other in zip(outputs_of(model, inputs), outputs_of(rebuilt, inputs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@every_model
@pytest.mark.usefixtures("births")
def test_a_birth_changes_nothing_to_the_bit_but_the_number_of_blocks(build, inputs, name):
    rules = {name: ds.Rule(max_units=6)}
    model, optimizer, structure = made(build, inputs, name, rule=rules, total_steps=200)
    births = 0
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(model, inputs).backward()
        optimizer.step()
        values = {parameter: parameter.detach().clone() for parameter in model.parameters()}
        state = {p: {k: copy.deepcopy(v) for k, v in optimizer.state[p].items()} for p in model.parameters()}
        before = outputs_of(model, inputs)
        events = structure.step()
        if any(event.added for event in events):
            births += 1
            assert [event.width for event in events] == [name]
            for one, other in zip(outputs_of(model, inputs), before, strict=True):
                assert torch.equal(one, other)
            for parameter, value in values.items():
                assert torch.equal(parameter, value)
                for key, entry in state[parameter].items():
                    assert torch.equal(
                        torch.as_tensor(optimizer.state[parameter][key]), torch.as_tensor(entry)
                    )
            new = [parameter for parameter in model.parameters() if parameter not in values]
            assert new
            assert all(parameter not in optimizer.state for parameter in new)
            optimizer.zero_grad()
            loss_of(model, inputs).backward()
            assert any(p.grad is not None and p.grad.count_nonzero() for p in new)
    assert births


@pytest.mark.usefixtures("births")
def test_a_block_comes_where_the_loss_falls_most_for_it():
    """The place is that of the largest gradient of what a block is silenced by, at the same cost."""
    torch.manual_seed(0)
    model = Net(depth=2)
    with torch.no_grad():
        model.blocks[1].down.weight.mul_(50)  # in front of it a block is heard fifty times as loudly
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=VECTORS,
        total_steps=100,
        depth=["blocks"],
        rule={"blocks": ds.Rule(max_units=3)},
        interval=1,
    )
    children, x = [*model.blocks], VECTORS[0]
    train(model, optimizer, structure, VECTORS, 5)
    assert len(model.blocks) == 3
    new = next(block for block in model.blocks if block not in children)
    place = [*model.blocks].index(new)
    steepness = []
    for other in range(3):  # the oracle: the gradient of the same silent block at each place
        stack = [*children]
        stack.insert(other, new)
        model.blocks = nn.ModuleList(stack)
        new.zero_grad()
        loss_of(model, (x,)).backward()
        steepness.append(sum(p.grad.square().sum().item() for p in (new.down.weight, new.down.bias)))
    assert place == int(np.argmax(steepness))
    assert max(steepness) > 1.5 * min(steepness)


@pytest.mark.slow
def test_blocks_that_are_worth_nothing_go_and_the_others_stay_as_they_were():
    torch.manual_seed(0)
    model = Net(depth=4)
    x = torch.randn(256, 5)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    criterion = ds.TaylorImportance(price=2.0)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(x,),
        total_steps=400,
        depth=["blocks"],
        criterion=criterion,
        include=["stem"],
    )
    events = []
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        blocks = {block: copy.deepcopy(block.norm.state_dict()) for block in model.blocks}
        found = [event for event in structure.step() if event.width == "blocks" and event.removed]
        for block in model.blocks if found else ():
            for key, value in block.norm.state_dict().items():
                assert torch.equal(value, blocks[block][key])
        events += found
    structure.finish()
    assert sum(len(event.removed) for event in events) >= 1
    assert all(event.cost is not None and event.cost < 0.5 for event in events)
    assert len(model.blocks) == model.depth == structure.widths["blocks"].size < 4
    assert nn.functional.cross_entropy(model(x), y) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("start", [None, 1])
def test_a_budget_is_met_with_blocks_and_units_together(start):
    torch.manual_seed(0)
    x = torch.randn(512, 5)
    y = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0).long()
    model = Net(depth=6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(x[:16],),
        total_steps=600,
        depth=["blocks"],
        start={"blocks": start},
        budget=ds.Budget(parameters=600),
    )
    for step in range(600):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        structure.step()
        if step == 150:  # the way there leaves room for all blocks, whatever it began with
            assert sum(p.numel() for p in model.parameters()) > 900
            assert len(model.blocks) > 1
    structure.finish()
    used = sum(p.numel() for p in model.parameters())
    assert 0.85 * 600 <= used <= 600


@pytest.mark.slow
@pytest.mark.usefixtures("births")
def test_copies_of_everything_go_on_alike():
    build, inputs, name = MODELS["transformer"]
    rules = {name: ds.Rule(max_units=5)}
    run = made(build, inputs, name, rule=rules, criterion=EAGER, total_steps=100)
    train(*run, inputs, 8)
    twin = copy.deepcopy(run)
    for each in (run, twin):
        torch.manual_seed(1)
        train(*each, inputs, 30)
    assert run[2].history.events == twin[2].history.events
    assert run[2].widths[name].size > 3
    for one, other in zip(run[0].parameters(), twin[0].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.usefixtures("births")
@pytest.mark.parametrize("kind", ["GPT-2", "Llama", "Qwen2"])
def test_a_library_model_of_another_depth_generates_saves_and_loads(kind, tmp_path):
    build, inputs, name = MODELS[kind]
    rules = {name: ds.Rule(max_units=5)}
    model, optimizer, structure = made(build, inputs, name, 40, start={name: 1}, rule=rules, exclude=["*"])
    assert [*structure.widths] == [name]
    train(model, optimizer, structure, inputs, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ds.StructureWarning)
        model = structure.finish().eval()
    assert model.config.num_hidden_layers == len(model.get_submodule(name)) == structure.widths[name].size > 1
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    cached, plain = (model.generate(*inputs, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, plain)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(*inputs).logits, model(*inputs).logits)


@pytest.mark.usefixtures("births")
def test_widths_that_are_tied_stay_tied_whatever_blocks_come_and_go():
    rules = {"blocks": ds.Rule(max_units=4)}
    model, _, structure = run = made(Net, VECTORS, "blocks", start={"blocks": 1}, rule=rules, tie=["*.up"])
    assert structure.widths["*.up"].size == 12
    train(*run, VECTORS, 20)
    assert len(model.blocks) == 4
    assert [name for name in structure.widths if name.endswith("up")] == ["*.up"]
    everything = {
        name: ds.Decision(width.size, tuple(range(width.size)), 0, structure.states[name])
        for name, width in structure.widths.items()
    }
    structure.carry_out({**everything, "*.up": ds.Decision(12, tuple(range(7)), 0, ds.RuleState.initial(7))})
    assert [block.up.out_features for block in model.blocks] == [7] * 4
    assert [block.down.in_features for block in model.blocks] == [7] * 4


@pytest.mark.usefixtures("births")
def test_two_depths_of_one_model_are_learned_and_new_blocks_have_widths_of_their_own():
    names = "stages.0", "stages.1"
    options = {"rule": {name: ds.Rule(max_units=3) for name in names}, "criterion": EAGER}
    start = {**dict.fromkeys(names, 1), "*": None}
    run = made(Stages, VECTORS, "", depth=[*names], start=start, **options)
    model, _, structure = run
    train(*run, VECTORS, 24, lambda events: assert_whole(*run))
    assert [len(stage) for stage in model.stages] == [3, 3]
    inner = [f"{name}.{block}.up" for name in names for block in range(3)]
    assert {*inner} < {*structure.widths}
    assert len({id(structure.widths[name].axis) for name in inner}) == 6
    for name, stage in zip(("stem", "between"), model.stages, strict=True):
        assert {block.up for block in stage} < {slot.module for slot in structure.widths[name].slots}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ds.StructureWarning)
        structure.finish()
    assert_whole(*run, finished=True)


def test_names_and_history_follow_blocks():
    model, _, structure = made(Net, VECTORS, "blocks")
    names = [name for name in structure.widths if name.startswith("blocks.")]
    assert "blocks.2.up" in names
    axis = structure.widths["blocks.2.up"].axis
    everything = {
        name: ds.Decision(width.size, tuple(range(width.size)), 0, structure.states[name])
        for name, width in structure.widths.items()
    }
    smaller = ds.Decision(12, tuple(range(10)), 0, ds.RuleState.initial(10))
    structure.carry_out({**everything, "blocks.2.up": smaller})
    everything["blocks.2.up"] = ds.Decision(10, tuple(range(10)), 0, ds.RuleState.initial(10))
    without = ds.Decision(3, (0, 2), 0, ds.RuleState.initial(2))
    structure.carry_out({**everything, "blocks": without})
    assert "blocks.2.up" not in structure.widths
    assert structure.widths["blocks.1.up"].axis is axis
    assert structure.widths["blocks.1.up"].size == model.blocks[1].up.out_features == 10
    assert structure.history.removed("blocks.1.up") == 2
    assert structure.history.removed("blocks.0.up") == 0
    assert structure.history.removed("blocks") == 1
    lines = str(structure).splitlines()
    assert lines[3].startswith("blocks (depth)  2")
    assert [line.split()[0] for line in lines[4:6]] == ["blocks.0.up", "blocks.1.up"]
    assert all(line.startswith("  ") for line in lines[4:6])
