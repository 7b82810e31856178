"""The fused recurrent layers against plain differentiable operations, `torch.nn` and finite differences."""

import itertools

import pytest
import torch
from helpers.kernels import CLOSE, EVERY_KERNEL, KERNELS, arguments, compare, cotangents, transposed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

SIZES = {
    "steps": st.integers(1, 6),
    "batch": st.integers(1, 9),
    "inputs": st.sampled_from([1, 2, 5, 16, 17]),
    "units": st.sampled_from([1, 3, 15, 16, 17, 37, 70]),
    "seed": st.integers(0, 2**32),
}


@settings(max_examples=60)
@given(
    st.sampled_from(list(KERNELS)),
    st.fixed_dictionaries(SIZES),
    st.booleans(),
    st.booleans(),
)
def test_equals_the_reference_at_any_size(kind, sizes, bias, states):
    results = compare(kind, arguments(kind, **sizes, bias=bias, states=states), rtol=1e-12, atol=1e-11)
    assert results[0].shape == (sizes["steps"], sizes["batch"], sizes["units"])
    assert torch.equal(results[0][-1:], results[1])


@settings(max_examples=20)
@given(st.sampled_from(list(KERNELS)), st.fixed_dictionaries(SIZES))
def test_equals_the_reference_in_single_precision(kind, sizes):
    """The reference in double precision, that is; up to rounding."""
    kernel, _ = KERNELS[kind]
    single = arguments(kind, **sizes, dtype=torch.float32)
    double = [tensor.detach().double().requires_grad_() for tensor in single]
    ours, exact = kernel(*single), kernel.reference(*double)
    grads = cotangents(ours)
    ours = [*ours, *torch.autograd.grad(ours, single, grads)]
    exact = [*exact, *torch.autograd.grad(exact, double, [grad.double() for grad in grads])]
    for mine, right in zip(ours, exact, strict=True):
        assert mine.dtype == torch.float32
        tolerance = 2e-5 * max(1.0, right.abs().max().item())
        torch.testing.assert_close(mine.double(), right, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("units", [20, 150, 300])
def test_equals_torch_where_products_are_blocked(kind, units):
    """More units, terms and sequences than a panel, a block of terms and one of rows hold."""
    kernel, _ = KERNELS[kind]
    torch.manual_seed(0)
    module = getattr(nn, kind)(150, units, dtype=torch.float64)
    x = torch.randn(3, 70, 150, dtype=torch.float64)
    weights = list(module.parameters())
    output, _ = module(x)
    gradient = torch.randn_like(output)
    expected = torch.autograd.grad(output, weights, gradient)
    ours, *_ = kernel(x, *weights, *[None] * kernel.states)
    torch.testing.assert_close(ours, output, **CLOSE)
    for mine, theirs in zip(torch.autograd.grad(ours, weights, gradient), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.filterwarnings("ignore:Please use `torch.vmap`:FutureWarning")  # PyTorch 2.6 warns of its own
@EVERY_KERNEL
def test_gradients_by_finite_differences(kind):
    assert gradcheck(KERNELS[kind][0], arguments(kind), check_batched_grad=True)


@EVERY_KERNEL
def test_second_derivatives_by_finite_differences(kind):
    assert gradgradcheck(KERNELS[kind][0], arguments(kind, steps=2, batch=1, units=2))


@EVERY_KERNEL
def test_gradients_of_only_some_arguments(kind):
    count = len(arguments(kind))
    for flags in itertools.product([True, False], repeat=count):
        if any(flags):
            tensors = arguments(kind, steps=2, units=2)
            for tensor, wanted in zip(tensors, flags, strict=True):
                tensor.requires_grad_(wanted)
            compare(kind, tensors)


@EVERY_KERNEL
def test_gradients_where_only_some_results_are_used(kind):
    kernel, _ = KERNELS[kind]
    for index in range(kernel.states + 1):
        compare(kind, arguments(kind), used=slice(index, index + 1))


@EVERY_KERNEL
def test_second_derivatives_where_an_argument_depends_on_another(kind):
    """As in a sequence that is cut in two: no path may be counted twice."""
    kernel, _ = KERNELS[kind]
    tensors, found = arguments(kind), []
    for function in (kernel, kernel.reference):
        _, *states = function(*tensors)
        results = function(*tensors[:5], *states)
        first = torch.autograd.grad(sum(r.pow(2).sum() for r in results), tensors, create_graph=True)
        squares = sum(gradient.pow(2).sum() for gradient in first)
        found.append((*first, *torch.autograd.grad(squares, tensors)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def _every_second(tensor):
    return tensor.repeat_interleave(2, dim=0)[::2]


def _negated(tensor):
    """The same numbers, with a pending negation."""
    return torch._neg_view(-tensor)


@EVERY_KERNEL
@pytest.mark.parametrize("change", [transposed, _every_second, _negated])
def test_arguments_need_not_be_contiguous(kind, change):
    for index in range(len(arguments(kind))):
        tensors = [tensor.detach() for tensor in arguments(kind)]
        if tensors[index].dim() > 1 or change is not transposed:
            tensors[index] = change(tensors[index])
        compare(kind, [tensor.requires_grad_() for tensor in tensors])


@EVERY_KERNEL
@pytest.mark.parametrize(
    "gradient",
    [
        torch.ones((), dtype=torch.float64).expand(4, 2, 3),
        torch.linspace(-1, 1, 24, dtype=torch.float64).view(2, 4, 3).transpose(0, 1),
        torch.linspace(-1, 1, 24, dtype=torch.float64).view(3, 2, 4).permute(2, 1, 0),
        torch._neg_view(torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 2, 3)),
    ],
    ids=["one number", "batch first", "reversed", "negated"],
)
def test_incoming_gradients_need_not_be_contiguous(kind, gradient):
    compare(kind, arguments(kind), used=slice(0, 1), grads=[gradient])


@EVERY_KERNEL
def test_arguments_stay_unchanged_and_no_tensors_share_memory(kind):
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind)
    results = kernel(*tensors)
    grads = cotangents(results)
    everything = [*tensors, *grads]
    before = [tensor.detach().clone() for tensor in everything]
    gradients = torch.autograd.grad(results, tensors, grads)
    assert all(torch.equal(tensor, was) for tensor, was in zip(everything, before, strict=True))
    every = [tensor.untyped_storage().data_ptr() for tensor in (*everything, *results, *gradients)]
    assert len(set(every)) == len(every)


@EVERY_KERNEL
def test_results_may_be_changed_in_place(kind):
    kernel, _ = KERNELS[kind]
    tensors, found = arguments(kind), []
    for function in (kernel, kernel.reference):
        results = [result.clone() if function is not kernel else result for result in function(*tensors)]
        total = sum(result.mul_(2).relu_().sum() for result in results)
        found.append(torch.autograd.grad(total, tensors))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@EVERY_KERNEL
def test_backward_twice_through_one_graph_gives_the_same(kind):
    tensors = arguments(kind)
    total = KERNELS[kind][0](*tensors)[0].pow(2).sum()
    first = torch.autograd.grad(total, tensors, retain_graph=True)
    second = torch.autograd.grad(total, tensors)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@EVERY_KERNEL
def test_a_weight_changed_before_backward_is_an_error(kind):
    tensors = arguments(kind)
    total = KERNELS[kind][0](*tensors)[0].sum()
    with torch.no_grad():
        tensors[2].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


@EVERY_KERNEL
def test_without_gradients_there_is_no_graph(kind):
    kernel, _ = KERNELS[kind]
    expected = kernel.reference(*arguments(kind))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            results = kernel(*arguments(kind))
        assert not any(result.requires_grad for result in results)
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours, theirs.detach(), **CLOSE)
    assert not kernel(*arguments(kind, requires_grad=False))[0].requires_grad


@EVERY_KERNEL
def test_nan_and_inf_affect_only_their_own_sequence(kind):
    """An input that is NaN makes its own sequence NaN from that step on, and no other."""
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind, steps=3, batch=5, units=17, requires_grad=False)
    tensors[0][1, 2, 0] = torch.nan
    output = kernel(*tensors)[0]
    affected = torch.zeros_like(output, dtype=torch.bool)
    affected[1:, 2] = True
    assert torch.equal(output.isnan(), affected)
    tensors[0][1, 2, 0] = torch.inf
    torch.testing.assert_close(kernel(*tensors)[0], kernel.reference(*tensors)[0], equal_nan=True, **CLOSE)
