"""The fused recurrent layers against plain differentiable operations, `torch.nn` and finite differences."""

import itertools
import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.backends.debugging import aot_eager
from torch.autograd import gradcheck, gradgradcheck

from diffstruct.nn.kernels import threads
from diffstruct.nn.kernels.elman import elman
from diffstruct.nn.kernels.gru import gru
from diffstruct.nn.kernels.lstm import lstm
from diffstruct.nn.kernels.padding import padded
from diffstruct.nn.kernels.sequence import _sizes

CLOSE = {"rtol": 0, "atol": 1e-12}
KERNELS = {"RNN": (elman, 1), "GRU": (gru, 3), "LSTM": (lstm, 4)}
EVERY_KERNEL = pytest.mark.parametrize("kind", KERNELS)


def arguments(
    kind,
    steps=4,
    batch=2,
    inputs=3,
    units=3,
    bias=True,
    states=True,
    seed=0,
    dtype=torch.float64,
    requires_grad=True,
):
    """What the kernel takes, all leaves; None for what is to be absent.

    The recurrent weights are scaled so that a step does not magnify the rounding of the one before it.
    """
    kernel, gates = KERNELS[kind]
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (scale * torch.randn(shape, generator=chance, dtype=dtype)).requires_grad_(requires_grad)

    rows = gates * units
    return [
        normal(steps, batch, inputs),
        normal(rows, inputs),
        normal(rows, units, scale=units**-0.5),
        *([normal(rows), normal(rows)] if bias else [None, None]),
        *(normal(1, batch, units) if states else None for _ in range(kernel.states)),
    ]


def present(tensors):
    return [tensor for tensor in tensors if tensor is not None]


def cotangents(results, seed=9):
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(result.shape, generator=chance, dtype=result.dtype) for result in results]


def compare(kind, tensors, used=slice(None), grads=None, **close):
    """Assert equal results and gradients of the kernel and its reference; return the results."""
    kernel, _ = KERNELS[kind]
    wanted = [tensor for tensor in present(tensors) if tensor.requires_grad]
    found = []
    for function in (kernel, kernel.reference):
        results = function(*tensors)
        chosen = results[used]
        incoming = cotangents(chosen) if grads is None else grads
        gradients = torch.autograd.grad(chosen, wanted, incoming, allow_unused=True, materialize_grads=True)
        found.append((*results, *gradients))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **(close or CLOSE))
    return found[0][: len(results)]


SIZES = {
    "steps": st.integers(1, 6),
    "batch": st.integers(1, 9),
    "inputs": st.sampled_from([1, 2, 5, 16, 17]),
    "units": st.sampled_from([1, 3, 15, 16, 17, 37, 70]),
    "seed": st.integers(0, 2**32),
}


@settings(deadline=None, max_examples=60)
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


@settings(deadline=None, max_examples=20)
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


@EVERY_KERNEL
def test_gradients_by_finite_differences(kind):
    assert gradcheck(KERNELS[kind][0], arguments(kind), check_batched_grad=True)


@EVERY_KERNEL
def test_second_derivatives_by_finite_differences(kind):
    assert gradgradcheck(KERNELS[kind][0], arguments(kind, steps=2, batch=1, units=2))


@EVERY_KERNEL
def test_gradients_where_only_some_arguments_want_them(kind):
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


def _transposed(tensor):
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def _every_second(tensor):
    return tensor.repeat_interleave(2, dim=0)[::2]


def _negated(tensor):
    """The same numbers, with a sign that is still to be changed."""
    return torch._neg_view(-tensor)


@EVERY_KERNEL
@pytest.mark.parametrize("change", [_transposed, _every_second, _negated])
def test_arguments_may_lie_in_memory_as_they_like(kind, change):
    for index in range(len(arguments(kind))):
        tensors = [tensor.detach() for tensor in arguments(kind)]
        if tensors[index].dim() > 1 or change is not _transposed:
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
def test_incoming_gradients_may_lie_in_memory_as_they_like(kind, gradient):
    compare(kind, arguments(kind), used=slice(0, 1), grads=[gradient])


@EVERY_KERNEL
def test_nothing_handed_in_is_changed_and_nothing_shares_memory(kind):
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
def test_a_weight_changed_before_backward_is_noticed(kind):
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
def test_numbers_that_are_none_reach_what_they_should(kind):
    """A broken input spoils its own sequence from there on, and no other."""
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind, steps=3, batch=5, units=17, requires_grad=False)
    tensors[0][1, 2, 0] = torch.nan
    output = kernel(*tensors)[0]
    spoiled = torch.zeros_like(output, dtype=torch.bool)
    spoiled[1:, 2] = True
    assert torch.equal(output.isnan(), spoiled)
    tensors[0][1, 2, 0] = torch.inf
    torch.testing.assert_close(kernel(*tensors)[0], kernel.reference(*tensors)[0], equal_nan=True, **CLOSE)


# Threads


@EVERY_KERNEL
@pytest.mark.parametrize("count", [2, 3, 7])
def test_parts_of_a_batch_at_once_give_the_same(kind, count, monkeypatch):
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind, batch=7, inputs=5, units=20)

    def run():
        results = kernel(*tensors)
        return [*results, *torch.autograd.grad(results, tensors, cotangents(results))]

    alone = run()
    cuts = [(7 * part // count, 7 * (part + 1) // count) for part in range(count)]
    monkeypatch.setattr(threads, "parts", lambda batch, work: cuts)
    assert _sizes(tensors)[1] == cuts
    together = run()
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
    assert all(torch.equal(one, other) for one, other in zip(together, run(), strict=True))


def test_a_batch_is_cut_only_where_each_part_has_enough_to_do():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert threads.parts(32, threads.ENOUGH) == [(0, 32)]
        assert threads.parts(32, 3 * threads.ENOUGH) == [(0, 10), (10, 21), (21, 32)]
        assert threads.parts(32, 99 * threads.ENOUGH) == [(0, 8), (8, 16), (16, 24), (24, 32)]
        assert threads.parts(2, 99 * threads.ENOUGH) == [(0, 1), (1, 2)]
        assert threads.parts(1, 99 * threads.ENOUGH) == [(0, 1)]
        torch.set_num_threads(1)
        assert threads.parts(32, 99 * threads.ENOUGH) == [(0, 32)]
    finally:
        torch.set_num_threads(before)


def test_an_error_in_another_thread_comes_back():
    def fail(part):
        if part:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.run(fail, [(0,), (1,)])


FORKED = """
import os, sys, warnings
from diffstruct.nn.kernels import threads
warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads: just that
calls = [(part,) for part in range(3)]
done = []
threads.run(done.append, calls)
child = os.fork()
if not child:
    done.clear()
    threads.run(done.append, calls)
    os._exit(sorted(done) != [0, 1, 2])
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_are_started_anew_in_a_forked_process():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


def test_two_threads_may_use_a_kernel_at_once():
    expected, found = [], {}
    tensors = [arguments("LSTM", batch=8, units=20, seed=seed, requires_grad=False) for seed in range(2)]
    expected = [lstm(*each)[0] for each in tensors]

    def work(index):
        found[index] = [lstm(*tensors[index])[0] for _ in range(50)]

    workers = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index in range(2):
        assert all(torch.equal(output, expected[index]) for output in found[index])


# Operators


def operator(kind):
    return getattr(torch.ops.diffstruct, KERNELS[kind][0].name).default


@EVERY_KERNEL
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False, "states": False}, {"requires_grad": False, "dtype": torch.float32}],
    ids=str,
)
def test_the_operator_is_registered_as_it_should_be(kind, options):
    with warnings.catch_warnings():
        # The check itself looks at gradients of tensors that are no leaves.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        torch.library.opcheck(operator(kind), tuple(arguments(kind, **options)))


@EVERY_KERNEL
def test_the_backward_operator_is_registered_as_it_should_be(kind):
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind, requires_grad=False)
    tensors[0] = _transposed(tensors[0])
    *results, kept = operator(kind)(*tensors)
    grads = [*cotangents(results)[:-1], None]
    needs = [index % 2 == 0 for index in range(len(tensors))]
    backward = getattr(torch.ops.diffstruct, f"{kernel.name}_backward").default
    torch.library.opcheck(backward, (grads, kept, tensors, needs))


@EVERY_KERNEL
def test_the_operator_has_the_same_derivatives(kind):
    def results(*tensors):
        return operator(kind)(*tensors)[:-1]

    tensors = arguments(kind, steps=2, batch=1, units=2)
    kept = operator(kind)(*tensors)[-1]
    assert kept.shape == (2, 1, KERNELS[kind][0].blocks * padded(2))
    assert not kept.requires_grad
    assert gradcheck(results, tensors)
    assert gradgradcheck(results, tensors)


@EVERY_KERNEL
def test_compiled_in_one_graph(kind):
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind)
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    compiled = torch.compile(lambda *tensors: kernel(*tensors), backend=backend, fullgraph=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        results = compiled(*tensors)
        gradients = torch.autograd.grad(results, tensors, cotangents(results))
    (graph,) = graphs
    assert f"diffstruct.{kernel.name}" in graph.code
    expected = kernel(*tensors)
    assert all(torch.equal(one, other) for one, other in zip(results, expected, strict=True))
    right = torch.autograd.grad(expected, tensors, cotangents(expected))
    for ours, theirs in zip(gradients, right, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
