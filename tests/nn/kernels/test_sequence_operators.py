"""The custom operators of the fused recurrent layers, which appear where a model is traced."""

import warnings

import pytest
import torch
from helpers.kernels import CLOSE, EVERY_KERNEL, KERNELS, arguments, cotangents, transposed
from torch._dynamo.backends.debugging import aot_eager
from torch.autograd import gradcheck, gradgradcheck

from diffstruct.nn.kernels.padding import padded


def operator(kind):
    return getattr(torch.ops.diffstruct, KERNELS[kind][0].name).default


@EVERY_KERNEL
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False, "states": False}, {"requires_grad": False, "dtype": torch.float32}],
    ids=str,
)
def test_the_operator_passes_torchs_checks(kind, options):
    with warnings.catch_warnings():
        # The check itself looks at gradients of tensors that are no leaves.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        torch.library.opcheck(operator(kind), tuple(arguments(kind, **options)))


@EVERY_KERNEL
def test_the_backward_operator_passes_torchs_checks(kind):
    kernel, _ = KERNELS[kind]
    tensors = arguments(kind, requires_grad=False)
    tensors[0] = transposed(tensors[0])
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
