"""From few units, a model grows back to its own sizes by the weights that it came with."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds


class Joined(nn.Module):
    """Two convolutions whose channels are joined, normalised, pooled and flattened for a linear layer."""

    def __init__(self, one, two):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, one, 3, padding=1), nn.Conv2d(1, two, 1)
        self.norm, self.head = nn.BatchNorm2d(one + two), nn.Linear((one + two) * 4, 3)

    def forward(self, x):
        y = self.norm(torch.cat([self.one(x), self.two(x)], 1)).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(y, 2).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, one, two):
        super().__init__()
        self.rnn, self.up, self.head = (
            nn.LSTM(4, one, batch_first=True),
            nn.Linear(one, two),
            nn.Linear(two, 3),
        )

    def forward(self, x):
        return self.head(self.up(self.rnn(x)[0][:, -1]).tanh())


MODELS = {
    "mlp": (
        lambda a, b: nn.Sequential(nn.Linear(4, a), nn.ReLU(), nn.Linear(a, b), nn.Tanh(), nn.Linear(b, 3)),
        (8, 4),
    ),
    "joined": (Joined, (8, 1, 6, 6)),
    "recurrent": (Recurrent, (8, 5, 4)),
}


def made(name, sizes, start=1, steps=100, seed=0, **options):
    make, shape = MODELS[name]
    torch.manual_seed(seed)
    model = make(*sizes).double()
    x = torch.randn(shape, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # nothing else may change a weight
    structure = ds.Structure(
        model, optimizer, example_inputs=(x,), total_steps=steps, start=start, seed=seed, **options
    )
    return model, optimizer, structure, x, before


def step(model, optimizer, structure, x):
    optimizer.zero_grad()
    model.eval()(x).square().sum().backward()  # in evaluation mode no running mean moves
    optimizer.step()
    return structure.step()


@pytest.mark.parametrize("name", [*MODELS])
@settings(max_examples=12, deadline=None)
@given(
    sizes=st.tuples(st.integers(2, 9), st.integers(2, 9)), start=st.integers(1, 2), seed=st.integers(0, 2**16)
)
def test_a_model_that_has_not_learned_is_bit_for_bit_what_it_was(name, sizes, start, seed):
    model, optimizer, structure, x, before = made(name, sizes, start, seed=seed)
    assert {width.size for width in structure.widths.values()} == {start}
    for _ in range(5):
        step(model, optimizer, structure, x)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert structure._widening is None
    assert structure.history.removed() == 0


def test_what_was_learned_on_the_way_stays_and_what_is_new_is_as_it_came():
    model, _, structure, x, before = made("mlp", (4, 4), start=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    optimizer = structure.training.optimizers[0]
    step(model, optimizer, structure, x)
    weight, old = model[2].weight.detach(), before["2.weight"]
    assert torch.equal(weight[:2, :2], old[:2, :2] + 1)
    assert torch.equal(weight[2:], old[2:])
    assert torch.equal(weight[:2, 2:], old[:2, 2:])


def test_widths_are_there_after_one_step_and_decisions_come_after():
    model, optimizer, structure, x, _ = made("mlp", (9, 4), interval=4)
    sizes = []
    for _ in range(6):
        assert structure.next_decision() == {0: 1, 4: 8, 5: 8}.get(structure.steps, 4)
        step(model, optimizer, structure, x)
        sizes.append(tuple(width.size for width in structure.widths.values()))
    assert sizes == [(9, 4)] * 6
    assert structure.criterion.tracker.observations == 1  # at step 4: the first after the sizes were there
    assert all((state.ages == 1).all() for state in structure.states.values())


def test_a_width_that_may_not_have_its_own_size_stops_below():
    rule = {"0": ds.Rule(max_units=6), "*": ds.Rule()}
    model, optimizer, structure, x, before = made("mlp", (9, 4), rule=rule)
    for _ in range(5):
        step(model, optimizer, structure, x)
    assert structure.widths["0"].size == 6
    assert torch.equal(model[0].weight, before["0.weight"][:6])


def test_a_copy_made_before_that_grows_back_too():
    model, optimizer, structure, x, before = made("joined", (6, 5))
    model, optimizer, structure = copy.deepcopy((model, optimizer, structure))
    for _ in range(4):
        step(model, optimizer, structure, x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_run_that_ends_before_that_keeps_the_sizes_that_it_has():
    _, _, structure, _, _ = made("mlp", (9, 9))
    assert [width.size for width in structure.widths.values()] == [1, 1]
    with pytest.warns(ds.StructureWarning):
        structure.finish()
