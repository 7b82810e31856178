"""New units begin as the paper says: small, at or below the threshold, from one generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diffstruct as ds
from diffstruct.criteria import norms
from diffstruct.criteria.initialization import AtThreshold, SmallRandom
from diffstruct.surgery import Change, operate
from diffstruct.width.layout import Axis, Fixed, Product, Sum

THRESHOLD = 0.07
LAYERS = [ds.nn.RNN, ds.nn.GRU, ds.nn.LSTM]
SHAPES = [
    pytest.param({}, id="plain"),
    pytest.param({"bidirectional": True}, id="bidirectional"),
    pytest.param({"num_layers": 2}, id="two layers"),
    pytest.param({"num_layers": 2, "bidirectional": True, "bias": False}, id="two layers, bidirectional"),
]
every_layer = pytest.mark.parametrize("layer", LAYERS)
every_shape = pytest.mark.parametrize("options", SHAPES)


INITIALIZATIONS = {"multiplier": SmallRandom(), "outgoing": AtThreshold()}
CRITERIA = {"multiplier": ds.Multipliers, "outgoing": ds.OutgoingNorm}
NORMS = {"multiplier": norms.multiplier, "outgoing": norms.outgoing}


def initializer(kind="outgoing", seed=0, threshold=THRESHOLD):
    """What writes new units, the same ones each time."""
    generator = np.random.default_rng(seed)

    def initialize(changes, values):
        thresholds = {change.width.name: threshold for change in changes}
        INITIALIZATIONS[kind](changes, values, thresholds, generator)

    return initialize


class Net(nn.Module):
    """A recurrent layer, read by linear layers, and by a multiplier if asked."""

    def __init__(self, layer, units, options, outputs=(4,), multiplier=False):
        super().__init__()
        self.rnn = layer(3, units, dtype=torch.float64, **options)
        width = units * self.directions
        self.readers = nn.ModuleList(nn.Linear(width, n, dtype=torch.float64) for n in outputs)
        if multiplier:
            self.readers.append(ds.nn.Multiplier(width, dtype=torch.float64))
        self.rnn.feeds(*self.readers)

    @property
    def directions(self) -> int:
        return 2 if self.rnn.bidirectional else 1

    def add_units(self, keep, add, seed=0, threshold=THRESHOLD):
        width = self.rnn.declare_width("rnn")
        kind = "multiplier" if any(isinstance(r, ds.nn.Multiplier) for r in self.readers) else "outgoing"
        operate([Change(width, keep, add)], initialize=initializer(kind, seed, threshold))
        return width

    def recurrent(self) -> list[Tensor]:
        """All matrices by which the layer reads itself, as [rows, blocks, units]."""
        units = self.rnn.hidden_size
        found = []
        for name, weight in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                found.append(weight.detach().unflatten(1, (1, units)))
            elif name.startswith("weight_ih") and "_l0" not in name:
                found.append(weight.detach().unflatten(1, (self.directions, units)))
        return found


def new_part(model: Net, weight: Tensor, add: int) -> Tensor:
    """The entries by which a reader reads the last `add` units, in all directions."""
    return weight.detach().unflatten(-1, (model.directions, -1))[..., -add:]


@every_layer
@every_shape
@pytest.mark.parametrize("outputs", [(4,), (2, 5, 1)], ids=["one reader", "three readers"])
@pytest.mark.parametrize(("keep", "add"), [((0, 1, 2, 3), 1), ((1, 3), 3), ((), 2)])
def test_a_new_unit_speaks_at_half_the_threshold(layer, options, outputs, keep, add):
    torch.manual_seed(0)
    model = Net(layer, 4, options, outputs)
    width = model.add_units(keep, add)
    half = torch.full((add,), THRESHOLD / 2, dtype=torch.float64)

    # sum_y |W_hy[y, new]|, over all readers and directions
    outside = sum(new_part(model, reader.weight, add).abs().sum((0, 1)) for reader in model.readers)
    torch.testing.assert_close(outside, half)
    # V * mean_j |W_hh[j, new]|: an entry's mean absolute value, by the rows that read the layer from outside
    norms_before = sum(
        weight.abs().sum((0, 1)) / (weight.shape[0] * weight.shape[1]) for weight in model.recurrent()
    )
    rows = sum(outputs) * model.directions
    torch.testing.assert_close((rows * norms_before)[-add:], half)
    torch.testing.assert_close(norms.outgoing(width)[-add:], half)


@every_layer
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_new_multiplier_is_exactly_the_threshold(layer, num_layers):
    model = Net(layer, 4, {"num_layers": num_layers}, multiplier=True)
    model.add_units((0, 2, 3), 2)
    assert model.readers[-1].weight.tolist() == [1.0, 1.0, 1.0, THRESHOLD, THRESHOLD]


@every_layer
@every_shape
@pytest.mark.parametrize("multipliers", [1, 2])
def test_a_new_unit_with_multipliers_begins_in_the_reserve_whatever_reads_it(layer, options, multipliers):
    model = Net(layer, 4, options, multiplier=True)
    for _ in range(multipliers - 1):
        model.readers.append(ds.nn.Multiplier(4 * model.directions, dtype=torch.float64))
        model.rnn.feeds(model.readers[-1])
    width = model.add_units((0, 2, 3), 2)
    importance = norms.multiplier(width)[-2:]
    torch.testing.assert_close(importance, torch.full_like(importance, THRESHOLD))
    assert (importance <= THRESHOLD).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["multiplier", "outgoing"])
def test_new_units_are_not_above_the_threshold_in_any_type(kind, dtype):
    torch.manual_seed(0)
    model = Net(ds.nn.GRU, 4, {}, multiplier=kind == "multiplier").to(dtype)
    width = model.add_units((0, 1, 2, 3), 40)
    rule = ds.Rule(threshold=THRESHOLD)
    assert not (NORMS[kind](width)[-40:] > rule.threshold).any()


@pytest.mark.parametrize("multiplier", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_other_new_weights_are_small_and_normal_and_biases_zero(layer, multiplier):
    torch.manual_seed(0)
    model = Net(layer, 2, {}, outputs=(30,), multiplier=multiplier)
    add = 150
    model.add_units((0, 1), add)
    rnn = model.rnn
    gates = rnn.weight_hh_l0.shape[0] // rnn.hidden_size
    fed = rnn.weight_ih_l0.detach().view(gates, -1, 3)[:, 2:]
    recurrent = rnn.weight_hh_l0.detach().view(gates, 2 + add, 2 + add)[
        :, 2:, :2
    ]  # of old units, by new ones
    small = {"weight_ih": fed, "rows of weight_hh": recurrent}
    if multiplier:
        small["columns of weight_hh"] = rnn.weight_hh_l0.detach()[:, 2:]
        small["readout"] = model.readers[0].weight.detach()[:, 2:]
    for name, drawn in small.items():
        draws = drawn.flatten()
        # Five standard errors of a mean, of a standard deviation and of a kurtosis: a right draw fails once
        # in 10^6 seeds, and the seed is fixed.
        count = len(draws)
        assert count >= 300
        assert abs(draws.mean()) < 5 * 0.01 / count**0.5, name
        assert abs(draws.std() / 0.01 - 1) < 5 / (2 * count) ** 0.5, name
        assert abs((draws / 0.01).pow(4).mean() - 3) < 5 * (96 / count) ** 0.5, name
        assert len(draws.unique()) == count, name
    for bias in (rnn.bias_ih_l0, rnn.bias_hh_l0):
        assert not bias.detach().view(gates, -1)[:, 2:].any()


@every_layer
@every_shape
@pytest.mark.parametrize("multiplier", [False, True])
def test_old_entries_are_untouched_and_no_new_weight_is_zero(layer, options, multiplier):
    torch.manual_seed(0)
    model = Net(layer, 4, options, outputs=(4, 2), multiplier=multiplier)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    keep, size, n = [0, 2, 3], 5, 4
    model.add_units(tuple(keep), 2)

    def old(name: str, tensor: Tensor, units: list[int], size: int) -> Tensor:
        gates = {ds.nn.RNN: 1, ds.nn.GRU: 3, ds.nn.LSTM: 4}[layer]
        if "rnn" in name:
            tensor = tensor.unflatten(0, (gates, size))[:, units].flatten(0, 1)
        if "weight_hh" in name:
            tensor = tensor[:, units]
        elif (name.startswith("readers") and "bias" not in name) or "weight_ih_l1" in name:
            tensor = tensor.unflatten(-1, (-1, size))[..., units].flatten(-2)
        return tensor

    for name, parameter in model.named_parameters():
        survived = old(name, parameter.detach(), [0, 1, 2], size)
        assert torch.equal(survived, old(name, before[name], keep, n)), name
        if "bias" not in name:
            assert parameter.all(), name


@every_layer
@every_shape
@pytest.mark.parametrize("multiplier", [False, True])
def test_one_seed_gives_the_same_new_units_and_another_seed_others(layer, options, multiplier):
    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        models.append(Net(layer, 3, options, multiplier=multiplier))
        torch.manual_seed(seed * 17 + len(models))  # the global generator does not matter
        models[-1].add_units((0, 2), 2, seed)
    first, again, other = (dict(model.named_parameters()) for model in models)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if "weight" in name and first[name].ndim > 1]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_readers_that_share_their_weight_have_half_the_threshold_together():
    torch.manual_seed(0)
    model = Net(ds.nn.RNN, 3, {}, outputs=(4, 4))
    model.readers[1].weight = model.readers[0].weight
    width = model.add_units((0, 1, 2), 2)
    half = torch.full((2,), THRESHOLD / 2, dtype=torch.float64)
    torch.testing.assert_close(norms.outgoing(width)[-2:], half)


@pytest.mark.parametrize("upper", LAYERS)
@pytest.mark.parametrize("lower_first", [True, False])
def test_widths_that_grow_at_once_have_all_new_units_at_half_the_threshold(upper, lower_first):
    torch.manual_seed(0)
    lower = ds.nn.GRU(3, 2, dtype=torch.float64)
    upper = upper(2, 3, dtype=torch.float64)
    readout = nn.Linear(3, 4, dtype=torch.float64)
    lower.feeds(upper)
    upper.feeds(readout)
    widths = [lower.declare_width("lower"), upper.declare_width("upper")]
    changes = [Change(widths[0], (0, 1), 2), Change(widths[1], (0, 2), 3)]
    operate(
        changes if lower_first else changes[::-1],
        initialize=initializer(),
    )
    for width, add in zip(widths, (2, 3), strict=True):
        half = torch.full((add,), THRESHOLD / 2, dtype=torch.float64)
        torch.testing.assert_close(norms.outgoing(width)[-add:], half)


@pytest.mark.parametrize(
    ("kind", "multiplier"), [("multiplier", True), ("outgoing", False), ("outgoing", True)]
)
def test_a_structure_initializes_new_units_to_fit_its_criterion(kind, multiplier):
    torch.manual_seed(0)
    model = Net(ds.nn.RNN, 2, {}, outputs=(100,), multiplier=multiplier)
    always = ds.Rule(threshold=THRESHOLD, reserve=2, p_add=1.0, p_spontaneous=1.0, p_delete=0.0)
    optimizer = torch.optim.SGD(model.parameters())
    structure = ds.Structure(
        model, optimizer, total_steps=10, rule=always, criterion=CRITERIA[kind](), start=None
    )
    (event,) = structure.step()
    importance = NORMS[kind](structure.widths["rnn"])[-event.added :]
    expected = THRESHOLD if kind == "multiplier" else THRESHOLD / 2
    torch.testing.assert_close(importance, torch.full_like(importance, expected))


class Branches(nn.Module):
    """Two convolutions, one behind the other in what is read, with batch norm on the first."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(1, units, 2) for units in (3, 2))
        self.norm = nn.BatchNorm2d(3)
        self.readers = nn.ModuleList([nn.Linear(4 * 5 + 3, 6), nn.Linear(3, 2)])
        self.register_buffer("table", torch.ones(2, 3))
        self.axes = Axis(3), Axis(2)
        self.to(dtype)

    def widths(self) -> list[ds.Width]:
        one, two = self.axes
        # Both, with 4 pixels for each channel, and 3 inputs of fixed number.
        both = Sum((Product((one, Fixed(4))), Product((two, Fixed(4))), Fixed(3)))
        read = ds.Slot(self.readers[0], "weight", 1, ds.Role.OUTGOING, both)
        incoming = [
            [ds.Slot(c, name, 0, ds.Role.INCOMING, axis) for name in ("weight", "bias")]
            for c, axis in zip(self.convolutions, self.axes, strict=True)
        ]
        norm = [
            ds.Slot(self.norm, name, 0, ds.Role.INCOMING, one, fill)
            for name, fill in (("weight", 1.0), ("bias", None), ("running_mean", None), ("running_var", 1.0))
        ]
        table = ds.Slot(self, "table", 1, ds.Role.INCOMING, one)
        alone = ds.Slot(self.readers[1], "weight", 1, ds.Role.OUTGOING, one)
        return [
            ds.Width("one", one, (*incoming[0], *norm, table, read, alone)),
            ds.Width("two", two, (*incoming[1], read)),
        ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1), (1, 0)])
def test_new_units_among_other_widths_are_at_half_the_threshold(which, dtype):
    torch.manual_seed(0)
    model = Branches(dtype)
    weight = model.readers[0].weight
    old = weight.detach().clone()
    widths = model.widths()
    changes = {number: Change(widths[number], (1,), 3) for number in which}
    operate(changes.values(), initialize=initializer())

    loose = {"rtol": 0.02, "atol": 0.0} if dtype == torch.bfloat16 else {}
    new = {}
    channels = weight.detach()[:, :-3].unflatten(1, (-1, 4))  # [outputs, channels, pixels]
    before = old[:, :-3].unflatten(1, (-1, 4))
    sizes = [axis.size for axis in model.axes]
    for number, first in ((0, 0), (1, sizes[0])):
        mine = channels[:, first : first + sizes[number]]
        theirs = before[:, 3:] if number else before[:, :3]
        if number not in which:
            assert torch.equal(mine, theirs)
            continue
        assert torch.equal(mine[:, 0], theirs[:, 1])
        new[number] = mine[:, 1:].abs().sum((0, 2))
        assert mine.all()
        half = torch.full((3,), THRESHOLD / 2, dtype=dtype)
        if number == 0:
            new[number] = new[number] + model.readers[1].weight.detach()[:, -3:].abs().sum(0)
        torch.testing.assert_close(new[number], half, **loose)
        torch.testing.assert_close(norms.outgoing(widths[number])[-3:], half, **loose)
    assert torch.equal(weight[:, -3:], old[:, -3:])  # of the inputs of fixed number


def test_a_fill_is_what_new_entries_begin_with_and_buffers_begin_at_zero():
    torch.manual_seed(0)
    model = Branches(torch.float64)
    operate(
        [Change(model.widths()[0], (0, 2), 2)],
        initialize=initializer(),
    )
    assert model.norm.weight.tolist() == model.norm.running_var.tolist() == [1.0] * 4
    assert not model.norm.bias.any()
    assert not model.norm.running_mean.any()
    assert model.table.tolist() == [[1.0, 1.0, 0.0, 0.0]] * 2
    assert not model.convolutions[0].bias[2:].any()
    small = model.convolutions[0].weight[2:]
    assert small.all()
    assert small.abs().max() < 0.05


@pytest.mark.parametrize("role", [ds.Role.OUTGOING, ds.Role.RECURRENT, ds.Role.MULTIPLIER])
@pytest.mark.parametrize("kind", ["multiplier", "outgoing"])
def test_a_fill_holds_for_every_role(role, kind):
    linear, axis = nn.Linear(4, 2), Axis(2)
    slot = ds.Slot(linear, "weight", 1, role, Product((axis, Fixed(2))), fill=0.25)
    change = Change(ds.Width("width", axis, (slot,)), (1,), 1)
    operate([change], initialize=initializer(kind))
    assert linear.weight[:, 2:].tolist() == [[0.25, 0.25]] * 2


def test_multipliers_of_each_pixel_are_the_threshold_together():
    multiplier, axis = ds.nn.Multiplier(6, dtype=torch.float64), Axis(2)
    slot = ds.Slot(multiplier, "weight", 0, ds.Role.MULTIPLIER, Product((axis, Fixed(3))))
    width = ds.Width("width", axis, (slot,))
    operate(
        [Change(width, (1,), 2)],
        initialize=initializer("multiplier"),
    )
    importance = norms.multiplier(width)
    torch.testing.assert_close(importance, torch.tensor([3.0, THRESHOLD, THRESHOLD], dtype=torch.float64))
