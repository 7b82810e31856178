"""Structure: criterion, rule and surgery in one step, on real training."""

import copy

import pytest
import torch
from torch import nn

import diffstruct as ds
from diffstruct.surgery import Change, operate


class Tagger(nn.Module):
    """A recurrent layer with a readout at every step."""

    def __init__(self, layer=ds.nn.GRU, units=6, multiplier=False):
        super().__init__()
        self.rnn = layer(3, units)
        self.multiplier = ds.nn.Multiplier(units) if multiplier else None
        self.readout = nn.Linear(units, 2)
        self.rnn.feeds(*(m for m in (self.multiplier, self.readout) if m is not None))

    def forward(self, x, state=None):
        hidden, state = self.rnn(x, state)
        return self.readout(hidden if self.multiplier is None else self.multiplier(hidden)), state


EAGER = ds.Rule(threshold=0.05, p_add=0.5, p_delete=0.5, p_spontaneous=0.1, max_units=12)
NEVER = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, redraw_after=0)


def structured(model, optimizer, criterion=None, **options):
    options = {"rule": EAGER, "total_steps": 1000, "start": 1, **options}
    return ds.Structure(model, optimizer, criterion=criterion or ds.OutgoingNorm(), **options)


def train(model, optimizer, structure, steps, seed=0):
    """Train on random sequences with the state carried over; return the last loss."""
    generator = torch.Generator().manual_seed(seed)
    state = None
    for _ in range(steps):
        x = torch.randn(5, 4, 3, generator=generator)
        y = (x.cumsum(0)[..., 0] > 0).long()  # remembers a sum
        logits, state = model(x, state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
        detached = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        state = structure.carry(detached)
    return loss.item()


@pytest.mark.parametrize("layer", [ds.nn.RNN, ds.nn.GRU, ds.nn.LSTM])
@pytest.mark.parametrize("multiplier", [False, True])
def test_grows_from_one_unit_and_the_model_stays_consistent(layer, multiplier):
    torch.manual_seed(0)
    model = Tagger(layer, multiplier=multiplier)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    structure = structured(model, optimizer, ds.Multipliers() if multiplier else ds.OutgoingNorm())
    assert structure.widths["rnn"].size == model.rnn.hidden_size == 1
    train(model, optimizer, structure, 80)

    size = structure.widths["rnn"].size
    assert size > 1
    assert model.rnn.hidden_size == model.readout.in_features == size
    assert size == 1 + structure.history.added() - structure.history.removed()
    sizes = [event.size for event in structure.history.events]
    assert sizes[-1] == size
    assert max(sizes) <= EAGER.max_units
    # What is left behaves as the plain module does.
    x = torch.randn(7, 2, 3)
    torch.testing.assert_close(model.rnn(x)[0], model.rnn.to_torch()(x)[0])


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    torch.manual_seed(0)
    first = Tagger()
    second = copy.deepcopy(first)
    runs = []
    for model in (first, second):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        structure = structured(model, optimizer, seed=5)
        train(model, optimizer, structure, 60)
        runs.append((model.state_dict(), structure.history.events))
    assert runs[0][1] == runs[1][1]
    assert len(runs[0][1]) > 0
    assert all(torch.equal(runs[0][0][name], runs[1][0][name]) for name in runs[0][0])


def test_two_layers_learn_two_widths_and_carry_asks_which():
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.lower, self.upper = ds.nn.LSTM(3, 4), ds.nn.RNN(4, 5)
            self.readout = nn.Linear(5, 2)
            self.lower.feeds(self.upper)
            self.upper.feeds(self.readout)

        def forward(self, x):
            return self.readout(self.upper(self.lower(x)[0])[0])

    torch.manual_seed(0)
    model = Stack()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    structure = structured(model, optimizer)
    for _ in range(60):
        loss = model(torch.randn(4, 2, 3)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
    lower, upper = structure.widths["lower"].size, structure.widths["upper"].size
    assert lower > 1
    assert upper > 1
    assert (model.lower.hidden_size, model.upper.input_size) == (lower, lower)
    assert (model.upper.hidden_size, model.readout.in_features) == (upper, upper)
    with pytest.raises(ds.StructureError, match="which width"):
        structure.carry(torch.zeros(1, 2, lower))
    with pytest.raises(ds.StructureError, match="no width"):
        structure.carry(torch.zeros(1, 2, lower), "middle")


def test_a_price_paid_by_gradient_comes_before_the_optimizer_and_holds_the_floor():
    model = Tagger(multiplier=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    price = ds.L1Price(0.25, how="gradient", floor=0.02)
    structure = structured(model, optimizer, ds.Multipliers(price), rule=NEVER, start=None)
    with torch.no_grad():
        model.multiplier.weight.copy_(torch.tensor([1.0, 0.5, 0.26, 0.1, 0.03, 2.0]))
    (model.multiplier.weight.sum() * 0).backward()
    optimizer.step()
    torch.testing.assert_close(
        model.multiplier.weight.detach(), torch.tensor([0.75, 0.25, 0.01, -0.15, -0.22, 1.75])
    )
    structure.step()
    torch.testing.assert_close(
        model.multiplier.weight.detach(), torch.tensor([0.75, 0.25, 0.02, 0.02, 0.02, 1.75])
    )


def test_a_proximal_price_silences_a_unit_without_gradients():
    model = Tagger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    structure = structured(model, optimizer, ds.OutgoingNorm(ds.L1Price(0.1)), rule=NEVER, start=None)
    for _ in range(20):  # no gradient at all: only the price acts
        structure.step()
    assert torch.count_nonzero(model.readout.weight) == 0
    assert torch.count_nonzero(model.rnn.weight_hh_l0) == 0
    assert torch.count_nonzero(model.rnn.weight_ih_l0) > 0


@pytest.mark.parametrize("how", ["proximal", "sign"])
def test_nothing_happens_when_the_importance_is_not_finite(how):
    model = Tagger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    structure = structured(model, optimizer, ds.OutgoingNorm(ds.L1Price(0.1, how=how)), start=None)
    with torch.no_grad():
        model.readout.weight[0, 2] = torch.nan
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chance = structure.training.generator.bit_generator.state
    with pytest.raises(ds.DivergenceError, match="importance"):
        structure.step()
    assert structure.history.events == []
    assert structure.steps == 0
    assert structure.widths["rnn"].size == 6
    assert structure.training.generator.bit_generator.state == chance
    for name, tensor in model.state_dict().items():  # the price has not been taken either
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


def test_the_hidden_state_of_a_former_size_is_refused_by_name():
    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters())
    always = ds.Rule(p_add=1.0, p_spontaneous=1.0)
    structure = structured(model, optimizer, rule=always)
    state = torch.ones(1, 4, 1)
    structure.step()
    carried = structure.carry(state)
    assert carried.tolist() == [[[1.0, 0.0]] * 4]
    with pytest.raises(ds.StructureError, match=r"\[\.\.\., 1\], got \[1, 4, 2\]"):
        structure.carry(carried)


def test_print_is_a_table_of_widths():
    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    structure = structured(model, optimizer)
    train(model, optimizer, structure, 30)
    title, criterion, header, row = str(structure).splitlines()
    assert title == "Structure after 30 of 1000 steps"
    assert criterion == "OutgoingNorm, L1 price 0.0001 a step"
    assert header.split()[:5] == ["width", "units", "reserve", "added", "removed"]
    size = structure.widths["rnn"].size
    added, removed = structure.history.added("rnn"), structure.history.removed("rnn")
    cells = row.split()
    assert [cells[0], cells[1], cells[3], cells[4]] == ["rnn", str(size), str(added), str(removed)]
    assert "rnn.weight_hh_l0[dim 0 x3]" in row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 7}, "start must be between 1 and the 6 units"),
        ({"start": 0}, "start must be between 1"),
        ({"rule": ds.Rule(max_units=5), "start": None}, "starts with 6 units"),
        (
            {"criterion": ds.OutgoingNorm(ds.L1Price(1e-3, floor=0.05)), "rule": None},
            "threshold must be above the floor",
        ),
    ],
)
def test_bad_parameters_are_refused(options, message):
    model = Tagger()
    with pytest.raises(ds.ConfigurationError, match=message):
        structured(model, torch.optim.Adam(model.parameters()), **options)
    assert model.rnn.hidden_size == 6  # nothing was cut


def test_models_without_what_is_needed_are_refused():
    linear = nn.Linear(3, 2)
    with pytest.raises(ds.StructureError, match="declares a width"):
        structured(linear, torch.optim.Adam(linear.parameters()))
    model = Tagger()
    with pytest.raises(ds.StructureError, match=r"ds\.nn\.Multiplier"):
        structured(model, torch.optim.Adam(model.parameters()), ds.Multipliers())
    assert model.rnn.hidden_size == 6


def test_a_graph_from_before_a_change_is_refused_even_at_the_same_size():
    model = Tagger(ds.nn.RNN)
    x = torch.randn(5, 2, 3)
    loss = model(x)[0].square().sum()
    operate([Change(model.rnn.declare_width("rnn"), (0, 1, 2, 4, 5), 1)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    model(x)[0].square().sum().backward()


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda right: right[:-1], r"\[5\]"),
        (lambda right: right[None], r"\[1, 6\]"),
        (lambda right: right.tolist(), "a list"),
        (lambda right: 0, "a int"),
    ],
)
def test_an_importance_of_another_shape_is_refused_with_the_width(wrong, got):
    class Wrong(ds.OutgoingNorm):
        def importance(self, width):
            right = super().importance(width)
            return wrong(right) if self.asked else right

        asked = False

        def after_step(self, step, ages):
            self.asked = True

    model = Tagger()
    structure = structured(model, torch.optim.Adam(model.parameters()), Wrong(), start=None)
    with pytest.raises(
        ds.StructureError, match=rf"of width 'rnn' must be a tensor of shape \[6\].*got {got}"
    ):
        structure.step()
    assert structure.steps == 0
