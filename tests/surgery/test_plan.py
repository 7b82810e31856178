"""Surgery cuts and pads every tensor of a width, or, if anything fails, none.

What a tensor should become is worked out in NumPy, from what torch documents of each layer's layout:
unfold each dimension into (blocks, units), take the units that stay, pad with zeros, fold again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers.layouts import expected_sources, layouts, moves
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

import diffstruct as ds
from diffstruct.criteria.initialization import Newborn
from diffstruct.surgery.plan import Change, Resized, carry, operate
from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum, axes, length
from diffstruct.width.width import Attribute

GATES = {ds.nn.RNN: 1, ds.nn.GRU: 3, ds.nn.LSTM: 4}
Axes = list[tuple[int, str | None]]
"""For each dimension of a tensor, how many blocks it has, and of which width (if any) the units are."""
moderate = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Stack(nn.Module):
    """Two recurrent layers, a multiplier between them, and a readout."""

    def __init__(self, lower, upper, sizes=(3, 2), dtype=torch.float64, options=({}, {})):
        super().__init__()
        self.lower = lower(2, sizes[0], dtype=dtype, **options[0])
        heard = sizes[0] * (1 + self.lower.bidirectional)
        self.multiplier = ds.nn.Multiplier(heard, dtype=dtype)
        self.upper = upper(heard, sizes[1], dtype=dtype, **options[1])
        self.readout = nn.Linear(sizes[1] * (1 + self.upper.bidirectional), 3, dtype=dtype)
        self.lower.feeds(self.multiplier, self.upper)
        self.upper.feeds(self.readout)

    def forward(self, x: Tensor, states=(None, None), plain: bool = False) -> tuple[Tensor, list]:
        lower, upper = (layer.to_torch() if plain else layer for layer in (self.lower, self.upper))
        hidden, low = lower(x, states[0])
        hidden, up = upper(self.multiplier(hidden), states[1])
        return self.readout(hidden), [low, up]

    def axes(self) -> dict[str, Axes]:
        """What torch documents: gates of an LSTM one after the other, directions side by side."""
        found: dict[str, Axes] = {}
        heard: tuple[int, str | None] = (1, None)
        for name in ("lower", "upper"):
            layer = getattr(self, name)
            gates, directions = GATES[type(layer)], 1 + layer.bidirectional
            for number in range(layer.num_layers):
                for suffix in ("", "_reverse")[:directions]:
                    end = f"_l{number}{suffix}"
                    found[f"{name}.weight_ih{end}"] = [(gates, name), heard]
                    found[f"{name}.weight_hh{end}"] = [(gates, name), (1, name)]
                    found[f"{name}.bias_ih{end}"] = found[f"{name}.bias_hh{end}"] = [(gates, name)]
                heard = (directions, name)
            if name == "lower":
                found["multiplier.weight"] = [heard]
        return found | {"readout.weight": [(1, None), heard], "readout.bias": [(1, None)]}

    def change(self, plan: dict[str, tuple[list[int], int]]) -> list[Change]:
        return [
            Change(getattr(self, name).declare_width(name), tuple(k), add) for name, (k, add) in plan.items()
        ]


def follow(tensor: Tensor, axes: Axes, plan: dict[str, tuple[list[int], int]]) -> Tensor:
    """What becomes of `tensor` when the units of each width in `plan` are kept, and zeros appended."""
    array = tensor.detach().double().numpy()  # holds every float32 and bfloat16 exactly
    pairs = zip(axes, array.shape, strict=True)
    array = array.reshape([part for (blocks, _), n in pairs for part in (blocks, n // blocks)])
    for axis, (_, width) in enumerate(axes):
        if width in plan:
            keep, add = plan[width]
            array = array.take(np.array(keep, dtype=int), axis=2 * axis + 1)
            array = np.pad(array, [(0, add if i == 2 * axis + 1 else 0) for i in range(array.ndim)])
    shape = [array.shape[2 * i] * array.shape[2 * i + 1] for i in range(len(axes))]
    return torch.from_numpy(array.reshape(shape)).to(tensor.dtype)


def everything(model: nn.Module, *optimizers: Optimizer) -> Iterator[tuple[str, Any]]:
    """All that surgery may touch: tensors, gradients, optimizer state, sizes."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        yield name, tensor
        yield f"{name}:grad", tensor.grad
        for i, optimizer in enumerate(optimizers):
            for key, value in optimizer.state.get(tensor, {}).items():
                yield f"{name}:{i}:{key}", value
    for name, module in model.named_modules():
        for attribute in ("hidden_size", "input_size", "in_features", "num_units"):
            if hasattr(module, attribute):
                yield f"{name}.{attribute}", getattr(module, attribute)


@st.composite
def stacks(draw: Any, dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.bfloat16)):
    kinds, options, flag = st.sampled_from([*GATES]), [], st.booleans()
    for _ in range(2):
        layers = draw(st.integers(1, 2))
        options.append({"num_layers": layers, "bidirectional": draw(flag), "bias": draw(flag)})
    sizes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    torch.manual_seed(draw(st.integers(0, 99)))
    return Stack(draw(kinds), draw(kinds), sizes, draw(st.sampled_from(dtypes)), options)


def plans(draw: Any, model: Stack) -> dict[str, tuple[list[int], int]]:
    """What becomes of each width; a width that is missing stays as it is."""
    plan = {}
    for name in draw(st.sampled_from([("lower",), ("upper",), ("lower", "upper"), ("upper", "lower")])):
        keep = draw(st.sets(st.integers(0, getattr(model, name).hidden_size - 1)))
        plan[name] = sorted(keep), draw(st.integers(0 if keep else 1, 3))
    return plan


def update(model: Stack, optimizer: Optimizer, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 2, 2, generator=generator).to(model.readout.weight)
    optimizer.zero_grad()
    model(x)[0].square().sum().backward()
    optimizer.step()


@moderate
@given(model=stacks(), data=st.data())
def test_any_sequence_of_changes_does_what_numpy_does(model: Stack, data: Any):
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    axes = model.axes()
    for round in range(data.draw(st.integers(1, 4))):
        update(model, optimizer, round)
        plan = plans(data.draw, model)
        before = dict(everything(model, optimizer))
        sizes = {"lower": model.lower.hidden_size, "upper": model.upper.hidden_size}
        expected = {
            name: follow(value, axes[name.split(":")[0]], plan)
            for name, value in before.items()
            if isinstance(value, Tensor) and value.ndim
        }
        state = torch.randn(2, 2, sizes["lower"])
        changes = model.change(plan)
        operate(changes, [optimizer])

        after = dict(everything(model, optimizer))
        assert after.keys() == before.keys()
        for name, value in expected.items():
            assert after[name].dtype == before[name].dtype
            assert torch.equal(after[name], value), name
        sizes |= {name: len(keep) + add for name, (keep, add) in plan.items()}
        lower, upper = sizes["lower"], sizes["upper"]
        heard = lower * (1 + model.lower.bidirectional)
        assert (model.lower.input_size, model.lower.hidden_size) == (2, lower)
        assert (model.upper.input_size, model.upper.hidden_size) == (heard, upper)
        assert (model.multiplier.num_units, model.lower.declare_width("lower").size) == (heard, lower)
        assert model.readout.in_features == upper * (1 + model.upper.bidirectional)
        if "lower" in plan:
            (change,) = (c for c in changes if c.width.name == "lower")
            assert torch.equal(
                carry(state, change), follow(state, [(1, None), (1, None), (1, "lower")], plan)
            )

        x = torch.randn(4, 2, 2).to(model.readout.weight)
        tolerance = {"rtol": 0.05, "atol": 0.05} if x.dtype == torch.bfloat16 else {}
        torch.testing.assert_close(model(x)[0], model(x, plain=True)[0], **tolerance)
    update(model, optimizer)
    assert all(p.grad.shape == p.shape for p in model.parameters())


@moderate
@given(model=stacks(dtypes=(torch.float64,)), data=st.data())
def test_a_silent_unit_comes_and_goes_unnoticed(model: Stack, data: Any):
    name = data.draw(st.sampled_from(["lower", "upper"]))
    layer, place = getattr(model, name), int(name == "upper")
    size, directions = layer.hidden_size, 1 + layer.bidirectional
    x = torch.randn(4, 2, 2, dtype=torch.float64)

    def hidden(width: int) -> Any:
        h = torch.randn(layer.num_layers * directions, 2, width, dtype=torch.float64)
        return (h, torch.randn_like(h)) if isinstance(layer, ds.nn.LSTM) else h

    def unnoticed(state: Any, keep: list[int], add: int) -> None:
        states = [None, None]
        states[place] = state
        output = model(x, states)[0]
        (change,) = model.change({name: (keep, add)})
        operate([change])
        carried = (
            tuple(carry(part, change) for part in state) if isinstance(state, tuple) else carry(state, change)
        )
        states[place] = carried
        # Sums over another number of terms, some of them zero, are rounded in another order.
        torch.testing.assert_close(model(x, states)[0], output, rtol=0, atol=1e-12)

    guests = data.draw(st.integers(1, 3))
    unnoticed(hidden(size), [*range(size)], guests)
    # They may hear, and have a state, as long as they do not speak.
    with torch.no_grad():
        for parameter, axes in model.axes().items():
            owner, _, attribute = parameter.partition(".")
            tensor = getattr(getattr(model, owner), attribute, None)
            if tensor is None:
                assert "bias" in attribute
                continue
            blocks, width = axes[0]
            if owner == name and width == name:
                tensor.view(blocks, size + guests, -1)[:, size:] = 0.7
            for dim, (blocks, width) in enumerate(axes):
                if width == name and dim == 1:
                    tensor.view(len(tensor), blocks, -1)[..., size:] = 0
    unnoticed(hidden(size + guests), [*range(size)], 0)


class Normalise(nn.Module):
    """Running statistics per unit, as buffers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.arange(1.0, size + 1))
        self.register_buffer("seen", torch.arange(10, size + 10))
        self.register_buffer("pairs", torch.arange(2.0 * size).view(2, size))


def test_buffers_follow():
    rnn, readout, norm = ds.nn.RNN(2, 4), nn.Linear(4, 1), Normalise(4)
    rnn.feeds(readout)
    declared = rnn.declare_width("rnn")
    slots = tuple(
        ds.Slot(norm, name, dim, ds.Role.INCOMING, declared.axis)
        for name, dim in (("mean", 0), ("seen", 0), ("pairs", 1))
    )
    width = ds.Width("rnn", declared.axis, declared.slots + slots)
    buffers = dict(norm.named_buffers())
    operate([Change(width, (1, 3), 1)])
    assert norm.mean.tolist() == [2.0, 4.0, 0.0]
    assert norm.seen.tolist() == [11, 13, 0]
    assert norm.seen.dtype == torch.int64
    assert norm.pairs.tolist() == [[1.0, 3.0, 0.0], [5.0, 7.0, 0.0]]
    assert all(norm.get_buffer(name) is buffer for name, buffer in buffers.items())
    assert rnn.weight_hh_l0.shape == (3, 3)


def test_frozen_parameters_and_hooks_live_on():
    torch.manual_seed(0)
    model, calls = Stack(ds.nn.GRU, ds.nn.LSTM), []
    model.lower.weight_hh_l0.requires_grad_(False)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    weight = model.upper.weight_hh_l0
    weight.register_hook(lambda grad: calls.append(("hook", grad.shape)))
    weight.register_post_accumulate_grad_hook(lambda p: calls.append(("after", p.grad.shape)))
    update(model, optimizer)
    calls.clear()
    operate(model.change({"lower": ([0, 2], 2), "upper": ([1], 2)}), [optimizer])
    frozen = model.lower.weight_hh_l0.clone()
    update(model, optimizer)
    assert calls == [("hook", (12, 3)), ("after", (12, 3))]
    assert model.lower.weight_hh_l0.grad is None
    assert torch.equal(model.lower.weight_hh_l0, frozen)
    assert frozen.shape == (12, 4)


# --- Nested layouts -----------------------------------------------------------------------------------------


class Nested(nn.Module):
    """Tensors laid out in any way, and integers that tell how long they are."""

    PLACES: ClassVar = {"weight": (0, 1), "cube": (1, None, 2), "bias": (2,), "mean": (0,)}
    """For each dimension of each tensor, which of the three layouts it has."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.layouts, self.stubborn = layouts, False
        lengths = [length(layout) for layout in layouts]
        self.weight = nn.Parameter(torch.randn(lengths[0], lengths[1]))
        self.cube = nn.Parameter(torch.randn(lengths[1], 2, lengths[2]))
        self.bias = nn.Parameter(torch.randn(lengths[2]))
        self.register_buffer("mean", torch.randn(lengths[0]))
        self.shape, self.in_features = tuple(lengths), lengths[1]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "in_features" and self.stubborn:
            raise AttributeError("stubborn")
        super().__setattr__(name, value)

    def widths(self, pool: Sequence[Axis]) -> dict[Axis, ds.Width]:
        """One for each axis that some dimension has."""
        slots = [
            ds.Slot(self, name, dim, ds.Role.INCOMING, self.layouts[number])
            for name, numbers in self.PLACES.items()
            for dim, number in enumerate(numbers)
            if number is not None
        ]
        attributes = [Attribute(self, "shape", layout, index) for index, layout in enumerate(self.layouts)]
        attributes.append(Attribute(self, "in_features", self.layouts[1]))
        places = {axis: tuple(slot for slot in slots if axis in axes(slot.layout)) for axis in pool}
        return {a: ds.Width("width", a, own, tuple(attributes)) for a, own in places.items() if own}

    def follow(self, name: str, value: Tensor, came_from: Sequence[list[int]]) -> Tensor:
        """What becomes of a tensor, if each layout's entries come from there, or from nowhere: -1."""
        array = value.detach().numpy()
        for dim, number in enumerate(self.PLACES[name.partition(":")[0]]):
            if number is not None:
                padded = np.pad(array, [(0, int(other == dim)) for other in range(array.ndim)])
                array = padded.take(came_from[number], axis=dim)  # the last entry is the zero
        return torch.from_numpy(array)

    def learn(self, optimizer: Optimizer) -> None:
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


@st.composite
def nested(draw: Any) -> tuple[Nested, list[Axis]]:
    pool = [Axis(draw(st.integers(1, 3))) for _ in range(3)]
    chosen = [draw(layouts(pool)) for _ in range(3)]
    torch.manual_seed(draw(st.integers(0, 99)))
    return Nested(chosen), pool


@moderate
@given(case=nested(), data=st.data())
def test_nested_layouts_of_several_widths_at_once_do_what_names_do(case: Any, data: Any):
    model, pool = case
    widths = model.widths(pool)
    assume(widths)
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    for _ in range(data.draw(st.integers(1, 3))):
        model.learn(optimizer)
        objects = dict(model.named_parameters()) | dict(model.named_buffers())
        plan = data.draw(moves([*widths]))
        came_from = [expected_sources(layout, pool, plan) for layout in model.layouts]
        expected = {
            name: model.follow(name, value, came_from)
            for name, value in everything(model, optimizer)
            if isinstance(value, Tensor) and value.ndim
        }
        assert any("exp_avg_sq" in name for name in expected)
        operate([Change(widths[axis], tuple(keep), add) for axis, (keep, add) in plan.items()], [optimizer])

        found = dict(everything(model, optimizer))
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert all(found[name] is value for name, value in objects.items())
        assert {axis: axis.size for axis in plan} == {axis: len(k) + add for axis, (k, add) in plan.items()}
        assert model.shape == tuple(map(len, came_from))
        assert model.in_features == len(came_from[1])
        if all(model.shape):
            hidden = model.weight @ model.cube[:, 0] + model.bias
            hidden.sum().backward()
    model.learn(optimizer)


@moderate
@given(case=nested(), data=st.data())
def test_nested_layouts_are_undone_when_the_last_step_fails(case: Any, data: Any):
    model, pool = case
    widths = model.widths(pool)
    assume(widths)
    optimizer = torch.optim.Adam(model.parameters())
    model.learn(optimizer)
    plan = data.draw(moves([*widths]))
    changes = [Change(widths[axis], tuple(keep), add) for axis, (keep, add) in plan.items()]
    sizes, shape = [axis.size for axis in pool], model.shape
    with untouched(AttributeError, model, optimizer, "stubborn"):
        model.stubborn = True
        operate(changes, [optimizer])
    assert ([axis.size for axis in pool], model.shape) == (sizes, shape)
    assert length(model.layouts[1]) == model.weight.shape[1]
    model.stubborn = False
    operate(changes, [optimizer])
    assert [axis.size for axis in plan] == [len(keep) + add for keep, add in plan.values()]


def test_a_convolution_and_another_concatenated_and_flattened():
    """Linear behind flatten(cat(a, b)): both change at once, and each pixel goes with its channel."""
    one, two, pixels = Axis(3), Axis(2), Fixed(4)
    convolutions, linear = [nn.Conv2d(1, axis.size, 2) for axis in (one, two)], nn.Linear(20, 2)
    heard = Product((Sum((one, two)), pixels))
    size = Attribute(linear, "in_features", heard)
    read = ds.Slot(linear, "weight", 1, ds.Role.OUTGOING, heard)
    changes = [
        Change(
            ds.Width(
                name,
                axis,
                (
                    ds.Slot(convolution, "weight", 0, ds.Role.INCOMING, axis),
                    ds.Slot(convolution, "bias", 0, ds.Role.INCOMING, axis),
                    read,
                ),
                (Attribute(convolution, "out_channels", axis), size),
            ),
            keep,
            add,
        )
        for name, axis, convolution, keep, add in (
            ("one", one, convolutions[0], (0, 2), 0),
            ("two", two, convolutions[1], (1,), 2),
        )
    ]
    x = torch.randn(5, 1, 3, 3)

    def output(channels: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bcp,ocp->bo", channels.flatten(2), weight.view(2, -1, 4)) + linear.bias

    def channels() -> Tensor:
        return torch.cat([convolution(x) for convolution in convolutions], 1)

    expected = output(channels()[:, [0, 2, 4]], linear.weight.view(2, 5, 4)[:, [0, 2, 4]].flatten(1))
    operate(changes)
    assert [c.out_channels for c in convolutions] == [2, 3]
    assert linear.in_features == linear.weight.shape[1] == 20
    torch.testing.assert_close(linear(channels().flatten(1)), expected)


def test_a_parametrization_that_keeps_its_tensors_is_cut_there():
    linear, axis = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), Axis(4)
    own = linear.parametrizations.weight
    slots = [ds.Slot(own, name, 0, ds.Role.INCOMING, axis) for name in ("original0", "original1")]
    slots.append(ds.Slot(linear, "bias", 0, ds.Role.INCOMING, axis))
    assert str(slots[0]) == "ParametrizationList.original0[dim 0]"
    x = torch.randn(2, 3)
    expected = linear(x)[:, [1, 3]]
    operate([Change(ds.Width("rows", axis, tuple(slots)), (1, 3), 0)])
    torch.testing.assert_close(linear(x), expected)


# --- All or nothing -----------------------------------------------------------------------------------------


class Fussy(nn.Linear):
    """Its size cannot be set once it has been made."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "in_features" and name in vars(self):
            raise AttributeError("fussy")
        super().__setattr__(name, value)


class Locked(dict):
    """State that cannot be replaced."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise OSError("locked")


@contextmanager
def untouched(error: type[BaseException], model: Stack, optimizer: Optimizer, match: str | None = None):
    """Expect `error` in the body, and after it all as before: each object the same one, bit for bit."""
    objects = dict(everything(model, optimizer))
    values = {name: v.detach().clone() if isinstance(v, Tensor) else v for name, v in objects.items()}
    with pytest.raises(error, match=match):
        yield
    now = dict(everything(model, optimizer))
    assert now.keys() == objects.keys()
    for name, value in values.items():
        if isinstance(value, Tensor):
            assert now[name] is objects[name], name
            assert torch.equal(now[name], value), name
        else:
            assert now[name] == value, name


PLAN = {"lower": ([0, 2], 2), "upper": ([1], 2)}


def trained(updates: int = 2) -> tuple[Stack, Optimizer]:
    torch.manual_seed(0)
    model = Stack(ds.nn.GRU, ds.nn.LSTM)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for seed in range(updates):
        update(model, optimizer, seed)
    return model, optimizer


def assert_trains_on(model: Stack, optimizer: Optimizer) -> None:
    """The failure leaves no trace in later updates, and the surgery that failed can be done now."""
    twin, other = trained()
    for pair in ((model, optimizer), (twin, other)):
        update(*pair, 7)
        operate(pair[0].change(PLAN), [pair[1]], Newborn(defaultdict(lambda: 0.05), np.random.default_rng(0)))
        update(*pair, 8)
    ours, theirs = dict(everything(model, optimizer)), dict(everything(twin, other))
    assert all(torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name])) for name in theirs)


def test_a_failing_initialisation_changes_nothing():
    model, optimizer = trained()

    def fails(changes: Any, values: Any) -> None:
        for value in values.values():
            value.fill_(9.0)
        raise KeyboardInterrupt

    with untouched(KeyboardInterrupt, model, optimizer):
        operate(model.change(PLAN), [optimizer], fails)
    assert_trains_on(model, optimizer)


@pytest.mark.parametrize("done", [False, True], ids=["before the swap", "after it"])
@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_failure_among_the_tensors_is_undone(at, done, monkeypatch):
    model, optimizer = trained()
    swap, calls = Resized.swap, []

    def fails_once(self: Resized) -> None:
        calls.append(self)
        if done or len(calls) != at + 1:
            swap(self)
        if len(calls) == at + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Resized, "swap", fails_once)
    with untouched(KeyboardInterrupt, model, optimizer):
        operate(model.change(PLAN), [optimizer])
    assert_trains_on(model, optimizer)


def test_a_state_that_cannot_be_replaced_is_undone():
    model, optimizer = trained()
    last = model.readout.weight
    optimizer.state[last] = Locked(optimizer.state[last])
    with untouched(OSError, model, optimizer, "locked"):
        operate(model.change(PLAN), [optimizer])
    optimizer.state[last] = dict(optimizer.state[last])
    assert_trains_on(model, optimizer)


def test_a_size_that_cannot_be_set_is_undone():
    model, optimizer = trained()
    model.readout.__class__ = Fussy
    with untouched(AttributeError, model, optimizer, "fussy"):
        operate(model.change(PLAN), [optimizer])
    model.readout.__class__ = nn.Linear
    assert_trains_on(model, optimizer)


class ThirdParty(Optimizer):
    """An optimizer whose state surgery cannot know."""

    def __init__(self, params: Any, make: Any) -> None:
        super().__init__(params, {})
        self.make = make

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["own"] = self.make(parameter.grad)


STATES = {
    "a matrix of rows": lambda g: torch.ones(g.shape[0], g.shape[0] + 1),
    "flat": lambda g: g.flatten()[1:].clone(),
    "a list": lambda g: [g.clone(), g.clone()],
    "a dict": lambda g: {"mean": g.clone()},
}


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_state_of_unknown_shape_is_refused_before_anything_changes(make):
    model, _ = trained()
    optimizer = ThirdParty(model.parameters(), make)
    update(model, optimizer)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    with pytest.raises(ds.StructureError, match="ThirdParty keeps state 'own'"):
        operate(model.change(PLAN), [optimizer])
    for start in (1, None):
        with pytest.raises(ds.StructureError, match="ThirdParty keeps state 'own'"):
            ds.Structure(model, optimizer, salience="outgoing", start=start)
    assert {name: p.shape for name, p in model.named_parameters()} == shapes
    assert model.lower.hidden_size == 3


def test_a_structure_whose_surgery_fails_carries_nothing_and_goes_on():
    model, optimizer = trained()
    always = ds.Rule(p_add=1.0, p_spontaneous=1.0, p_delete=0.0)
    structure = ds.Structure(
        model, optimizer, salience="outgoing", rule=always, start=None, price=ds.L1Price(0.0)
    )
    state = torch.ones(1, 2, 3)
    model.readout.__class__ = Fussy
    with untouched(AttributeError, model, optimizer, "fussy"):
        structure.step()
    assert structure.history.events == []
    assert structure.carry(state, "lower") is state
    model.readout.__class__ = nn.Linear
    structure.step()
    carried = structure.carry(state, "lower")
    assert carried.shape[-1] == model.lower.hidden_size > 3
    with torch.no_grad():
        model.readout.weight[0, 0] = torch.nan
    with pytest.raises(ds.DivergenceError):
        structure.step()
    assert structure.carry(carried, "lower") is carried


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "add", "message"),
    [
        ((1, 0), 0, "ascending"),
        ((0, 0), 0, "ascending"),
        ((0, 3), 0, "ascending indices below 3"),
        ((-1, 0), 0, "ascending"),
        ((0,), -1, "-1 to add"),
        ((), 0, "at least one unit"),
        ((0, 1, 2), -2, "-2 to add"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(keep, add, message):
    width = Stack(ds.nn.RNN, ds.nn.RNN).lower.declare_width("lower")
    with pytest.raises(ds.StructureError, match=message):
        Change(width, keep, add)


def test_a_change_made_for_a_former_size_is_refused():
    model, optimizer = trained()
    stale = model.change({"upper": ([0, 1], 2)})
    operate(stale, [optimizer])
    with untouched(ds.StructureError, model, optimizer):
        operate(stale, [optimizer])


@pytest.mark.parametrize("add", [0, 1])
def test_two_widths_that_claim_one_dimension_are_refused(add):
    model, optimizer = trained()
    width = model.lower.declare_width("lower")
    axis = Axis(3)
    other = ds.Width("other", axis, (ds.Slot(model.multiplier, "weight", 0, ds.Role.MULTIPLIER, axis),))
    with untouched(ds.StructureError, model, optimizer, "let one width cover both"):
        operate([Change(width, (0, 1), add), Change(other, (0, 1), add)], [optimizer])


def test_one_width_changed_twice_at_once_is_refused():
    model, optimizer = trained()
    with untouched(ds.StructureError, model, optimizer, "'lower' is changed twice"):
        operate(model.change({"lower": ([0, 1], 0)}) + model.change({"lower": ([0], 3)}), [optimizer])


def test_two_layouts_of_one_dimension_are_refused_and_one_written_in_two_ways_is_not():
    linear, one, two = nn.Linear(12, 1), Axis(3), Axis(3)

    def change(axis: Axis, layout: Layout) -> Change:
        slot = ds.Slot(linear, "weight", 1, ds.Role.OUTGOING, layout)
        return Change(ds.Width("width", axis, (slot,)), (0, 1), 0)

    both = Product((Sum((one, two)), Fixed(2)))
    for other in (Product((Sum((two, one)), Fixed(2))), Product((Fixed(2), Sum((one, two))))):
        with pytest.raises(ds.StructureError, match="or one layout mention both"):
            operate([change(one, both), change(two, other)])
    again = Sum((Product((one, Fixed(2))), Product((two, Fixed(2)))))
    operate([change(one, both), change(two, again)])
    assert linear.weight.shape == (1, 8)


def test_a_tensor_that_changed_its_size_since_is_refused():
    model, optimizer = trained()
    changes = model.change(PLAN)
    model.readout.weight = nn.Parameter(torch.zeros(3, 4))
    with untouched(
        ds.StructureError, model, optimizer, r"'upper' has 2 units.*must have 2 entries, but has 4"
    ):
        operate(changes, [optimizer])


def test_a_dimension_counted_from_the_end_is_no_other_dimension():
    readout = nn.Linear(3, 2)

    def claim(dim: int) -> Change:
        axis = Axis(3)
        slot = ds.Slot(readout, "weight", dim, ds.Role.OUTGOING, axis)
        return Change(ds.Width(str(dim), axis, (slot,)), (0, 1), 0)

    with pytest.raises(ds.StructureError):
        operate([claim(1), claim(-1)])
    assert readout.weight.shape == (2, 3)


def test_a_tensor_that_is_computed_from_others_is_refused():
    model = Stack(ds.nn.RNN, ds.nn.RNN)
    nn.utils.parametrizations.weight_norm(model.readout)
    with pytest.raises(ds.StructureError):
        ds.Structure(model, torch.optim.SGD(model.parameters()), salience="outgoing")
    assert model.upper.hidden_size == model.readout.in_features == 2


def test_a_width_needs_slots_and_they_agree():
    model, axis = Stack(ds.nn.LSTM, ds.nn.RNN), Axis(3)

    def slot(module: nn.Module, name: str, dim: int, layout: Layout = axis) -> ds.Slot:
        return ds.Slot(module, name, dim, ds.Role.INCOMING, layout)

    rows, readout = (
        slot(model.lower, "weight_hh_l0", 0, Product((Fixed(4), axis))),
        slot(model.readout, "weight", 0),
    )
    with pytest.raises(ds.StructureError, match="at least one slot"):
        ds.Width("none", axis, ())
    for other, found in ((slot(model.readout, "weight", 1), 2), (slot(model.lower, "weight_hh_l0", 0), 12)):
        with pytest.raises(
            ds.StructureError, match=rf"'lower' has 3 units, so .* 3 entries, but has {found}"
        ):
            ds.Width("lower", axis, (rows, other))
    with pytest.raises(ds.StructureError, match="does not contain the width's axis"):
        ds.Width("lower", axis, (rows, slot(model.readout, "weight", 0, Axis(3))))
    with pytest.raises(ds.StructureError, match=r"weight\[dim 0: 3 x \(1 \+ 3\)\] has every unit"):
        slot(model.readout, "weight", 0, Product((axis, Sum((Fixed(1), axis)))))
    assert ds.Width("lower", axis, (rows, readout)).size == 3


def test_carry_takes_tensors_tuples_and_none_and_refuses_what_does_not_fit():
    torch.manual_seed(0)
    model = Stack(ds.nn.LSTM, ds.nn.GRU)
    optimizer = torch.optim.SGD(model.parameters())
    always = ds.Rule(p_add=1.0, p_spontaneous=1.0, p_delete=0.0)
    structure = ds.Structure(model, optimizer, salience="outgoing", rule=always, start=2)
    h, c, up = torch.randn(1, 2, 2), torch.randn(1, 2, 2), torch.randn(2, 2)
    assert structure.carry((h, c), "lower")[0] is h  # nothing has changed yet
    structure.step()
    carried = structure.carry((h, c), "lower")
    assert isinstance(carried, tuple)
    for new, old in zip((*carried, structure.carry(up, "upper")), (h, c, up), strict=True):
        assert torch.equal(new, torch.cat([old, torch.zeros_like(old[..., :1])], -1))
    assert structure.carry(None, "lower") is None
    with pytest.raises(ds.StructureError, match="say which width"):
        structure.carry(up)
    with pytest.raises(ds.StructureError, match=r"no width 'middle': the widths are \['lower', 'upper'\]"):
        structure.carry(up, "middle")
    for bad in (torch.zeros(1, 2, 3), (h, torch.zeros(1, 2, 1)), torch.tensor(1.0)):
        with pytest.raises(ds.StructureError, match=r"must be \[\.\.\., 2\]"):
            structure.carry(bad, "lower")
