"""The fused Elman kernel against plain differentiable operations and finite differences."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from diffstruct.kernels.elman import elman, reference

CLOSE = {"rtol": 0, "atol": 1e-12}


def arguments(steps=4, batch=2, units=3, seed=0, requires_grad=(True, True, True)):
    """Projected inputs `[steps, batch, n]`, weight `[n, n]` and initial state `[batch, n]`."""
    chance = torch.Generator().manual_seed(seed)
    shapes = (steps, batch, units), (units, units), (batch, units)
    tensors = [torch.randn(shape, generator=chance, dtype=torch.float64) for shape in shapes]
    return [tensor.requires_grad_(wanted) for tensor, wanted in zip(tensors, requires_grad, strict=True)]


def compare(tensors, cotangent=None):
    """Assert equal states and gradients of `elman` and `reference`; return the states."""
    results = []
    for function in (elman, reference):
        states = function(*tensors)
        if cotangent is None:
            chance = torch.Generator().manual_seed(9)
            cotangent = torch.randn(states.shape, generator=chance, dtype=states.dtype)
        wanted = [tensor for tensor in tensors if tensor.requires_grad]
        results.append((states, *torch.autograd.grad(states, wanted, cotangent)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    return results[0][0]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32))
def test_equals_the_reference_at_any_shape(steps, batch, units, seed):
    assert compare(arguments(steps, batch, units, seed)).shape == (steps, batch, units)


def test_one_step_is_one_cell():
    inputs, weight, initial = arguments(steps=1)
    expected = torch.tanh(inputs[0] + initial @ weight.T)
    torch.testing.assert_close(elman(inputs, weight, initial)[0], expected, **CLOSE)


def test_gradients_by_finite_differences():
    assert gradcheck(elman, arguments(), check_batched_grad=False)


def test_second_derivatives_by_finite_differences():
    assert gradgradcheck(elman, arguments(steps=3, batch=2, units=2))


SOME = [flags for flags in itertools.product([True, False], repeat=3) if any(flags)]


@pytest.mark.parametrize("requires_grad", SOME)
def test_gradients_where_only_some_arguments_want_them(requires_grad):
    compare(arguments(requires_grad=requires_grad))


@pytest.mark.parametrize("requires_grad", SOME)
def test_second_derivatives_where_only_some_arguments_want_them(requires_grad):
    assert gradgradcheck(elman, arguments(steps=2, batch=1, units=2, requires_grad=requires_grad))


def test_second_derivatives_where_the_initial_state_depends_on_the_weight():
    """As in a sequence that is cut in two: no path may be counted twice."""
    inputs, weight, initial = arguments()
    results = []
    for function in (elman, reference):
        states = function(inputs, weight, function(inputs, weight, initial)[-1])
        first = torch.autograd.grad(states.pow(2).sum(), (inputs, weight, initial), create_graph=True)
        squares = sum(gradient.pow(2).sum() for gradient in first)
        results.append((*first, *torch.autograd.grad(squares, (inputs, weight, initial))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


LAYOUTS = {
    "inputs, batch first": (lambda x: x.transpose(0, 1).contiguous().transpose(0, 1), 0),
    "inputs, units first": (lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0), 0),
    "inputs, every second": (lambda x: x.repeat_interleave(2, dim=0)[::2], 0),
    "inputs, one step for all": (lambda x: x[:1].expand_as(x), 0),
    "weight, transposed": (lambda w: w.t().contiguous().t(), 1),
    "initial, one row for all": (lambda h: h[:1].expand_as(h), 2),
    "initial, transposed": (lambda h: h.t().contiguous().t(), 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arguments_need_not_be_contiguous(layout):
    change, index = LAYOUTS[layout]
    tensors = [tensor.detach() for tensor in arguments()]
    tensors[index] = change(tensors[index])
    assert not tensors[index].is_contiguous()
    compare([tensor.requires_grad_() for tensor in tensors])


@pytest.mark.parametrize(
    "cotangent",
    [
        torch.ones((), dtype=torch.float64).expand(4, 2, 3),
        torch.linspace(-1, 1, 24, dtype=torch.float64).view(2, 4, 3).transpose(0, 1),
        torch.linspace(-1, 1, 24, dtype=torch.float64).view(3, 2, 4).permute(2, 1, 0),
    ],
    ids=["one number", "batch first", "reversed"],
)
def test_incoming_gradients_need_not_be_contiguous(cotangent):
    assert not cotangent.is_contiguous()
    compare(arguments(), cotangent)


def test_nothing_handed_in_is_changed():
    tensors = arguments()
    cotangent = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 2, 3)
    before = [tensor.detach().clone() for tensor in (*tensors, cotangent)]
    torch.autograd.grad(elman(*tensors), tensors, cotangent)
    for tensor, was in zip((*tensors, cotangent), before, strict=True):
        assert torch.equal(tensor, was)


def test_backward_twice_through_one_graph_gives_the_same():
    tensors = arguments()
    loss = elman(*tensors).pow(2).sum()
    first = torch.autograd.grad(loss, tensors, retain_graph=True)
    second = torch.autograd.grad(loss, tensors)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("wanted", [0, -1], ids=["first", "last"])
def test_gradient_of_a_single_state(wanted):
    results = [
        torch.autograd.grad(function(*tensors)[wanted].sum(), tensors)
        for tensors in [arguments()]
        for function in (elman, reference)
    ]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_other_types_of_number(dtype, close):
    tensors = [tensor.detach().to(dtype).requires_grad_() for tensor in arguments()]
    states = elman(*tensors)
    assert states.dtype == dtype
    torch.testing.assert_close(states, reference(*tensors), rtol=0, atol=close)
    gradients = torch.autograd.grad(states.sum(), tensors)
    expected = torch.autograd.grad(reference(*tensors).sum(), tensors)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=close, atol=close)


def test_without_gradients_there_is_no_graph():
    with torch.no_grad():
        assert not elman(*arguments()).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(elman(*arguments()), reference(*arguments()), **CLOSE)
    assert not elman(*arguments(requires_grad=(False, False, False))).requires_grad
