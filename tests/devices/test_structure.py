"""Structure on every device: what is found, surgery, optimizer state, whole runs, random numbers."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import diffstruct as ds
from diffstruct.rule import RuleState

from .models import MODELS, case, loss_of

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    "AdamW foreach": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, foreach=True),
    "AdamW fused": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, fused=True),
    "AdamW capturable": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, capturable=True),
    "Adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=3e-3),
}
STILL = ds.Rule(p_add=0, p_delete=0, max_units=100)


def train(model, x, y, optimizer, structure=None):
    loss = loss_of(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if structure is not None:
        structure.step()
    return loss.item()


def change_all(structure, chance):
    """In every width one unit goes, and another comes."""
    decisions = {}
    for name, width in structure.widths.items():
        gone = int(chance.integers(width.size))
        keep = tuple(unit for unit in range(width.size) if unit != gone)
        decisions[name] = ds.Decision(width.size, keep, 1, RuleState.initial(width.size))
    structure.carry_out(decisions)


def on(model, device):
    tensors = (*model.parameters(), *model.buffers())
    return all(tensor.device.type == device.type for tensor in tensors)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_widths_are_found_as_on_the_cpu(name, device):
    found = []
    for where in (device, torch.device("cpu")):
        model, x, _ = case(name, where)
        found.append({width.name: width.size for width in ds.find_widths(model, (x,)).widths.values()})
    assert found[0] == found[1]
    assert found[0]


@pytest.mark.parametrize("name", MODELS)
def test_ten_changes_of_every_width_come_to_the_same_as_on_the_cpu(name, device):
    outputs = []
    for where in (device, torch.device("cpu")):
        model, x, y = case(name, where)
        optimizer = torch.optim.Adam(model.parameters())
        structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=10**6, rule=STILL)
        loss_of(model(x), y).backward()
        for chance in range(10):
            change_all(structure, np.random.default_rng(chance))
        model.eval()
        with torch.no_grad():
            outputs.append(model(x).cpu())
        assert on(model, where)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp", "convolutions", "encoder"])
def test_state_of_optimizers_follows(name, optimizer, device):
    if "capturable" in optimizer and device.type == "cpu":
        pytest.skip("PyTorch has no capturable optimizers on the CPU")
    model, x, y = case(name, device)
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=10**6, rule=STILL)
    for _ in range(3):
        train(model, x, y, optimizer)
    before = {
        parameter: {key: value.clone() for key, value in state.items() if torch.is_tensor(value)}
        for parameter, state in optimizer.state.items()
    }
    structure.carry_out(
        {
            name: ds.Decision(width.size, tuple(range(width.size)), 1, RuleState.initial(width.size))
            for name, width in structure.widths.items()
        }
    )
    for parameter, state in before.items():
        for key, value in state.items():
            now = optimizer.state[parameter][key]
            assert now.device == value.device
            assert now.dtype == value.dtype
            if name != "encoder":  # whose heads lie side by side; elsewhere new units are behind the others
                assert torch.equal(now[tuple(slice(length) for length in value.shape)], value)
    assert all(np.isfinite(train(model, x, y, optimizer)) for _ in range(3))


@pytest.mark.parametrize("name", MODELS)
def test_a_run_meets_its_budget_and_learns(name, device):
    model, x, y = case(name, device)
    whole = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    budget = ds.Budget(parameters=int(0.7 * whole))
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=200, budget=budget)
    losses = [train(model, x, y, optimizer, structure) for _ in range(200)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ds.StructureWarning)
        plain = structure.finish()
    assert sum(parameter.numel() for parameter in plain.parameters()) <= 0.7 * whole
    assert on(plain, device)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("kind", ["bfloat16", "float16 with a scaler"])
def test_automatic_mixed_precision(kind, device):
    if kind != "bfloat16" and device.type == "cpu":
        pytest.skip("float16 is for GPUs")
    model, x, y = case("mlp", device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=kind != "bfloat16")
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float16
    whole = sum(parameter.numel() for parameter in model.parameters())
    budget = ds.Budget(parameters=whole // 2)
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=200, budget=budget)
    for _ in range(200):
        with torch.autocast(device.type, dtype):
            loss = loss_of(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        structure.step()
    assert structure.criterion.tracker.loss.kind == "softmax"
    plain = structure.finish()
    assert sum(parameter.numel() for parameter in plain.parameters()) <= whole // 2
    assert loss.item() < 0.8
    assert all(parameter.dtype == torch.float32 for parameter in plain.parameters())


def test_a_compiled_model(device):
    model, x, y = case("mlp", device)
    compiled = torch.compile(model, backend="inductor" if device.type == "cuda" else "aot_eager")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    budget = ds.Budget(parameters=500)
    structure = ds.Structure(compiled, optimizer, example_inputs=(x,), total_steps=200, budget=budget)
    losses = [train(compiled, x, y, optimizer, structure) for _ in range(200)]
    plain = structure.finish()
    assert sum(parameter.numel() for parameter in plain.parameters()) <= 500
    assert losses[-1] < 0.8
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-3, atol=1e-4)


def test_random_numbers_are_left_alone(device):
    model, x, y = case("encoder", device)  # which draws dropout
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def states():
        gpu = [torch.cuda.get_rng_state()] if device.type == "cuda" else []
        return [torch.get_rng_state(), *gpu]

    before = states()
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=30, interval=1)
    assert all(map(torch.equal, before, states()))
    for _ in range(30):
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        before = states()
        structure.step()
        assert all(map(torch.equal, before, states()))


def test_copies_go_on_alike(device):
    model, x, y = case("mlp", device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    budget = ds.Budget(parameters=400)
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=100, budget=budget)
    average = torch.optim.swa_utils.AveragedModel(model)
    structure.follow(average)
    for _ in range(50):
        train(model, x, y, optimizer, structure)
        average.update_parameters(model)
    twins = [(model, optimizer, structure), copy.deepcopy((model, optimizer, structure))]
    for one, own, learned in twins:
        for _ in range(50):
            train(one, x, y, own, learned)
    assert structure.widths["0"].size < 24
    for mine, other in zip(twins[0][0].parameters(), twins[1][0].parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert average.module[0].weight.shape == model[0].weight.shape
    assert on(average.module, device)


def test_a_depth_grows_and_shrinks(device):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(12, 8), nn.Linear(8, 12)

        def forward(self, x):
            return x + self.down(self.up(x).relu())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Sequential(*(Block() for _ in range(3))), nn.Linear(12, 4))
    model.to(device)
    _, x, y = case("mlp", device)
    optimizer = torch.optim.Adam(model.parameters())
    run = {"depth": ["1"], "start": {"1": 1}, "rule": STILL}
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=10**6, **run)
    train(model, x, y, optimizer, structure)
    assert len(model[1]) == 1
    from diffstruct.structure.deepening import births
    from diffstruct.structure.operation import operate_on
    from diffstruct.surgery import Change

    depth = structure.widths["1"]
    with torch.no_grad():
        before = model(x)
    born = births(model, depth, 1, structure.widths, lambda tensors: None, np.random.default_rng(0))
    operate_on(model, {"1": Change(depth, (0,), 1)}, {"1": born}, structure.training.optimizers)
    assert len(model[1]) == 2
    assert on(model, device)
    with torch.no_grad():
        assert torch.equal(model(x), before)
