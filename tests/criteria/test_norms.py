"""Norms against plain NumPy formulas, and the widths that modules declare for them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds
from diffstruct.couple.declared import DeclaresWidth, declared_widths
from diffstruct.criteria.norms import multiplier, outgoing
from diffstruct.width.layout import Axis, Fixed, Product, Sum, length

KINDS = {"RNN": 1, "GRU": 3, "LSTM": 4}  # and the number of their gates
CASES = [
    (kind, layers, directions, readers)
    for kind in KINDS
    for layers in (1, 2)
    for directions in (1, 2)
    for readers in ((4,), (4, 3))
]


class Net(nn.Module):
    """A recurrent layer of 5 units, and linear readers of some sizes behind a multiplier or none."""

    def __init__(self, kind="RNN", layers=1, directions=1, readers=(4,), units=5, multiplier=False):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = getattr(ds.nn, kind)(3, units, num_layers=layers, bidirectional=directions == 2)
        self.readers = nn.ModuleList(nn.Linear(directions * units, size) for size in readers)
        self.scale = ds.nn.Multiplier(directions * units) if multiplier else None
        if self.scale is not None:
            nn.init.normal_(self.scale.weight)
        self.double()


def fed(*args, **kwargs):
    net = Net(*args, **kwargs)
    net.rnn.feeds(*net.readers, *([] if net.scale is None else [net.scale]))
    return net


def width_of(net):
    return declared_widths(net)["rnn"]


def array(tensor):
    return abs(tensor.detach().numpy())


@pytest.mark.parametrize(("symbols", "units"), [(4, 5), (4, 1), (7, 3)])
def test_the_formula_of_the_paper(symbols, units):
    """`(sum_y |W_hy[y, i]| + V * sum_j |W_hh[j, i]| / N) / 2`, with V = 4 in the paper."""
    net = fed(readers=(symbols,), units=units)
    w_hy, w_hh = array(net.readers[0].weight), array(net.rnn.weight_hh_l0)
    expected = [
        0.5 * (w_hy[:, i].sum() + symbols * sum(w_hh[j, i] for j in range(units)) / units)
        for i in range(units)
    ]
    np.testing.assert_allclose(outgoing(width_of(net)), expected, rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outgoing_with_gates_layers_directions_and_readers(case):
    """The sum over all readers, and as much again for the mean of each matrix of the layer itself."""
    kind, layers, directions, readers = case
    net, n = fed(*case), 5
    expected = np.zeros(n)
    for i in range(n):
        # The outputs of unit i: one for each direction, n apart.
        mine = [direction * n + i for direction in range(directions)]
        outside = sum(array(reader.weight)[:, mine].sum() for reader in net.readers)
        inside = 0.0
        for layer in range(layers):
            for suffix in ("", "_reverse")[:directions]:
                w_hh = array(getattr(net.rnn, f"weight_hh_l{layer}{suffix}"))
                inside += w_hh[:, i].sum() / (KINDS[kind] * n)
                if layer > 0:
                    w_ih = array(getattr(net.rnn, f"weight_ih_l{layer}{suffix}"))
                    inside += w_ih[:, mine].sum() / (KINDS[kind] * n * directions)
        expected[i] = 0.5 * (outside + directions * sum(readers) * inside)
    np.testing.assert_allclose(outgoing(width_of(net)), expected, rtol=1e-12)


def test_a_recurrent_layer_can_be_the_reader():
    net = nn.ModuleDict({"low": ds.nn.GRU(3, 5), "high": ds.nn.LSTM(5, 2, bidirectional=True)})
    net["top"] = nn.Linear(4, 1)
    net["low"].feeds(net["high"])
    net["high"].feeds(net["top"])
    widths = declared_widths(net)
    assert {name: width.size for name, width in widths.items()} == {"low": 5, "high": 2}
    read = sum(array(getattr(net["high"], name)) for name in ("weight_ih_l0", "weight_ih_l0_reverse"))
    read_by = array(net["low"].weight_hh_l0)  # by its own 3 gates of 5 units; 2 * 4 gates of 2 units read it
    expected = 0.5 * (read.sum(0) + 16 * read_by.sum(0) / 15)
    np.testing.assert_allclose(outgoing(widths["low"]), expected, rtol=1e-5)


@pytest.mark.parametrize("directions", [1, 2])
def test_multiplier_is_the_absolute_factor_summed_over_directions(directions):
    net = fed(directions=directions, multiplier=True)
    expected = array(net.scale.weight).reshape(directions, 5).sum(0)
    assert (net.scale.weight < 0).any()
    np.testing.assert_allclose(multiplier(width_of(net)), expected, rtol=1e-12)


def test_two_multipliers_count_together():
    net = fed(multiplier=True)
    other = ds.nn.Multiplier(5)
    net.rnn.feeds(other)
    expected = array(net.scale.weight) + 1
    np.testing.assert_allclose(multiplier(width_of(net)), expected, rtol=1e-12)


def test_nested_readers_and_a_fan_out_of_pixels():
    """Heads of an attention: queries, keys and values, 2 entries of each, read among other inputs."""
    torch.manual_seed(0)
    heads, other = Axis(3), Axis(4)
    qkv, out = nn.Linear(5, 18), nn.Linear(4 * 2 + 3 * 2 + 1, 6)
    inside = ds.Slot(qkv, "weight", 0, ds.Role.RECURRENT, Product((Fixed(3), heads, Fixed(2))))
    layout = Sum((Product((Sum((other, heads)), Fixed(2))), Fixed(1)))
    outside = ds.Slot(out, "weight", 1, ds.Role.OUTGOING, layout)
    width = ds.Width("heads", heads, (inside, outside))
    read_by = array(out.weight)[:, 8:14].reshape(6, 3, 2).sum((0, 2))
    own = array(qkv.weight).reshape(3, 3, 2, 5)
    # 12 entries of a unit outside; the mean of the 30 of each inside.
    np.testing.assert_allclose(outgoing(width), 0.5 * (read_by + 12 * own.mean((0, 2, 3))), rtol=1e-5)
    assert ds.Width("other", other, (outside,)).size == 4
    np.testing.assert_allclose(
        outgoing(ds.Width("other", other, (outside,))),
        array(out.weight)[:, :8].reshape(6, 4, 2).sum((0, 2)),
        rtol=1e-5,
    )


def test_a_reader_declared_twice_counts_once():
    net = fed()
    once = outgoing(width_of(net))
    net.rnn.feeds(*net.readers)
    assert torch.equal(outgoing(width_of(net)), once)


@pytest.mark.parametrize("norm", [multiplier, outgoing])
def test_norms_are_pure_and_carry_no_gradient(norm):
    net = fed(multiplier=True)
    before = copy.deepcopy(net.state_dict())
    values = norm(width_of(net))
    assert values.shape == (5,)
    assert values.dtype == torch.float64
    assert not values.requires_grad
    values.fill_(-1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_without_a_multiplier_the_error_says_what_to_do():
    with pytest.raises(ds.StructureError, match=r"'rnn'.*ds\.nn\.Multiplier.*criterion=ds\.OutgoingNorm"):
        multiplier(width_of(fed()))


def test_without_readers_the_error_says_what_to_do():
    net = Net(multiplier=True)
    net.rnn.feeds(net.scale)  # which itself is no reader
    with pytest.raises(ds.StructureError, match=r"nothing reads width 'rnn'.*rnn\.feeds\("):
        outgoing(width_of(net))


def permute(net, order, gates, directions):
    """Renumber the units of a copy of `net`: new unit i is old unit `order[i]`."""
    net, n = copy.deepcopy(net), len(order)
    both = [direction * n + unit for direction in range(directions) for unit in order]
    rows = [gate * n + unit for gate in range(gates) for unit in order]
    with torch.no_grad():
        for name, tensor in net.rnn.named_parameters():
            changed = tensor[rows]
            if name.startswith("weight_hh"):
                changed = changed[:, order]
            elif name.startswith("weight_ih") and "_l0" not in name:
                changed = changed[:, both]
            tensor.copy_(changed)
        for reader in net.readers:
            reader.weight.copy_(reader.weight[:, both])
        net.scale.weight.copy_(net.scale.weight[both])
    return net


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CASES), st.permutations(range(5)))
def test_renumbering_the_units_renumbers_the_norms(case, order):
    kind, _, directions, _ = case
    net = fed(*case, multiplier=True)
    permuted = permute(net, list(order), KINDS[kind], directions)
    for norm in (outgoing, multiplier):
        before, after = norm(width_of(net)), norm(width_of(permuted))
        torch.testing.assert_close(after, before[list(order)], rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(CASES), st.integers(0, 4))
def test_a_norm_is_zero_exactly_if_nothing_reads_the_unit(case, silent):
    kind, layers, directions, _ = case
    net = fed(*case)
    for slot in (s for s in width_of(net).slots if s.role in (ds.Role.OUTGOING, ds.Role.RECURRENT)):
        with torch.no_grad():
            for position in range(silent, slot.tensor.shape[slot.dim], 5):
                slot.tensor.select(slot.dim, position).zero_()
    assert (outgoing(width_of(net)) == 0).nonzero().flatten().tolist() == [silent]
    # The network agrees: whatever is fed to the unit, no other output changes.
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    before = [reader(net.rnn(x)[0]) for reader in net.readers]
    with torch.no_grad():
        rows = [gate * 5 + silent for gate in range(KINDS[kind])]
        for layer in range(layers):
            for suffix in ("", "_reverse")[:directions]:
                getattr(net.rnn, f"weight_ih_l{layer}{suffix}")[rows] += 1
    for reader, expected in zip(net.readers, before, strict=True):
        torch.testing.assert_close(reader(net.rnn(x)[0]), expected, rtol=0, atol=1e-12)


# What modules declare


def test_widths_have_the_names_of_their_modules():
    model = nn.ModuleDict({"encoder": nn.Sequential(fed(), fed("GRU", units=2)), "head": fed("LSTM")})
    widths = declared_widths(model)
    assert {name: width.size for name, width in widths.items()} == {
        "encoder.0.rnn": 5,
        "encoder.1.rnn": 2,
        "head.rnn": 5,
    }
    assert all(width.name == name for name, width in widths.items())


def test_a_lone_layer_is_called_model():
    net = fed()
    assert list(declared_widths(net.rnn)) == ["model"]
    assert isinstance(net.rnn, DeclaresWidth)
    assert not isinstance(nn.RNN(3, 5), DeclaresWidth)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_width_knows_every_place_and_every_size(case):
    _, layers, directions, readers = case
    net = fed(*case, multiplier=True)
    width = width_of(net)
    # Of each direction of each layer: 4 of the unit's own, weight_hh as read, weight_ih as read above.
    assert len(width.slots) == directions * (5 * layers + layers - 1) + len(readers) + 1
    sizes = {width.axis: 7}
    held = [(a.module, getattr(a.module, a.name), length(a.layout, sizes)) for a in width.attributes]
    assert held == [
        (net.rnn, 5, 7),
        *[(reader, 5 * directions, 7 * directions) for reader in net.readers],
        (net.scale, 5 * directions, 7 * directions),
    ]


def test_a_model_without_learned_widths_is_refused():
    with pytest.raises(ds.StructureError, match=r"no module of Sequential.*diffstruct\.nn"):
        declared_widths(nn.Sequential(nn.RNN(3, 5), nn.Linear(5, 2)))


def test_a_layer_that_nothing_is_known_to_read_is_refused():
    with pytest.raises(ds.StructureError, match=r"'rnn'.*rnn\.feeds\(readout\)"):
        declared_widths(Net())


def test_a_tensor_shared_with_a_module_outside_the_width_is_refused():
    net = fed()
    net.other = nn.Linear(5, 4)
    net.other.weight = net.readers[0].weight
    with pytest.raises(ds.StructureError, match=r"other\.weight is shared.*feeds\(other\)"):
        declared_widths(net)
    net.rnn.feeds(net.other)
    assert width_of(net).size == 5


def test_a_recurrent_tensor_shared_with_a_plain_layer_is_refused():
    net = fed()
    net.plain = nn.RNN(3, 5)
    net.plain.weight_hh_l0 = net.rnn.weight_hh_l0
    with pytest.raises(ds.StructureError, match=r"plain\.weight_hh_l0 is shared"):
        declared_widths(net)


@pytest.mark.parametrize(
    ("reader", "directions"),
    [
        (nn.Linear(4, 2), 1),
        (nn.Linear(5, 2), 2),
        (nn.Linear(10, 2), 1),
        (ds.nn.Multiplier(6), 1),
        (ds.nn.Multiplier(5), 2),
        (ds.nn.GRU(3, 5), 1),
        (ds.nn.LSTM(5, 10, bidirectional=True), 2),
    ],
    ids=lambda value: str(value).replace("(", " "),
)
def test_a_reader_of_another_size_is_refused(reader, directions):
    layer = Net(directions=directions).rnn
    with pytest.raises(ds.StructureError, match=f"this layer has {5 * directions} outputs"):
        layer.feeds(nn.Linear(5 * directions, 1), reader)
    with pytest.raises(ds.StructureError, match="no module is known"):  # nor was the good one
        layer.declare_width("rnn")


@pytest.mark.parametrize(
    "reader", [nn.Conv1d(5, 2, 1), nn.RNN(5, 2), nn.LayerNorm(5), nn.Sequential(nn.Linear(5, 2)), nn.Tanh()]
)
def test_a_reader_of_a_kind_that_cannot_read_is_refused(reader):
    with pytest.raises(ds.StructureError, match=rf"a {type(reader).__name__} cannot.*nn\.Linear"):
        Net().rnn.feeds(reader)


def test_a_reader_that_changed_its_size_since_is_refused():
    net = fed()
    net.readers[0].weight = nn.Parameter(torch.zeros(4, 6))
    with pytest.raises(ds.StructureError, match=r"5 units.*Linear\.weight.*has 6"):
        declared_widths(net)
