"""Second derivatives, frozen weights, function transforms and compilation of the recurrent layers."""

import warnings

import pytest
import torch
from helpers.recurrent import (
    BATCH,
    COMPILED_KINDS,
    EVERY_KIND,
    INPUTS,
    STEPS,
    assert_same,
    flat,
    initial,
    normal,
    pair,
    weigh,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

# Torch compiles its own rules for forward mode with a tool that it has deprecated.
TORCH_SCRIPTS = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@EVERY_KIND
@pytest.mark.parametrize("with_state", [False, True], ids=["no state", "state"])
@pytest.mark.parametrize("form", ["unbatched", "batched"])
def test_second_derivatives(kind, with_state, form):
    batch = (BATCH,) if form == "batched" else ()
    results = []
    for module in pair(kind, num_layers=2):
        x = normal(STEPS, *batch, INPUTS).requires_grad_()
        state = initial(kind, 2, 1, *batch) if with_state else None
        hx = None if state is None else (tuple(state) if len(state) == 2 else state[0])
        wanted = [x, *module.parameters()]
        first = torch.autograd.grad(weigh(flat(module(x, hx))).pow(2), wanted, create_graph=True)
        squares = sum(gradient.pow(2).sum() for gradient in first)
        second = torch.autograd.grad(squares, wanted, allow_unused=True, materialize_grads=True)
        results.append((first, second))
    assert_same(*results, rtol=1e-10, atol=1e-10)


@EVERY_KIND
def test_second_derivatives_through_a_carried_state(kind):
    results = []
    for module in pair(kind):
        x, wanted = normal(STEPS, BATCH, INPUTS), list(module.parameters())
        _, state = module(x)
        loss = weigh(flat(module(x, state)))
        first = torch.autograd.grad(loss, wanted, create_graph=True)
        second = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in first), wanted)
        results.append((first, second))
    assert_same(*results, rtol=1e-10, atol=1e-10)


@EVERY_KIND
@pytest.mark.parametrize("frozen", ["weight_ih_l0", "weight_hh_l0", "bias_hh_l0", "all"])
def test_frozen_weights_get_no_gradient_and_the_others_do(kind, frozen):
    gradients = []
    for module in pair(kind):
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(frozen not in (name, "all"))
        x = normal(STEPS, BATCH, INPUTS).requires_grad_()
        weigh(flat(module(x))).backward()
        frozen_ones = [p for p in module.parameters() if not p.requires_grad]
        assert len(frozen_ones) == (4 if frozen == "all" else 1)
        assert all(parameter.grad is None for parameter in frozen_ones)
        gradients.append([x.grad] + [p.grad for p in module.parameters() if p.requires_grad])
        assert module(x.detach())[0].requires_grad == (frozen != "all")
    assert_same(*gradients)


@EVERY_KIND
def test_without_gradients_there_is_no_graph(kind):
    ours, theirs = pair(kind)
    x = normal(STEPS, BATCH, INPUTS)
    with torch.no_grad():
        outputs = ours(x)
    assert not any(tensor.requires_grad for tensor in flat(outputs))
    assert_same(outputs, theirs(x))


@EVERY_KIND
def test_an_output_may_be_changed_in_place(kind):
    gradients = []
    for module in pair(kind):
        outputs, _ = module(normal(STEPS, BATCH, INPUTS))
        loss = weigh([torch.relu_(outputs.mul_(2))])
        gradients.append(torch.autograd.grad(loss, list(module.parameters())))
    assert_same(*gradients)


@EVERY_KIND
@TORCH_SCRIPTS
def test_function_transforms(kind):
    x, results = normal(STEPS, BATCH, INPUTS), []
    for module in pair(kind, num_layers=2):
        weights = {name: p.detach() for name, p in module.named_parameters()}

        def loss(weights, module=module):
            return weigh(flat(torch.func.functional_call(module, weights, (x,))))

        other = {name: tensor / 2 for name, tensor in weights.items()}
        gradients = torch.func.grad(loss)(other)
        tangents = torch.func.jvp(loss, (other,), (weights,))
        results.append((loss(other), list(gradients.values()), tangents))
        assert loss(other) != loss(weights)
    assert_same(*results)


@EVERY_KIND
@TORCH_SCRIPTS
def test_forward_mode_derivatives(kind):
    results = []
    for module in pair(kind):
        with forward_ad.dual_level():
            x = forward_ad.make_dual(normal(STEPS, BATCH, INPUTS), normal(STEPS, BATCH, INPUTS, seed=4))
            dual = forward_ad.unpack_dual(module(x)[0])
            results.append((dual.primal, dual.tangent))
    assert_same(*results)


@EVERY_KIND
def test_many_gradients_at_once(kind):
    jacobians = [
        torch.autograd.functional.jacobian(lambda x, m=module: m(x)[0], normal(2, 1, INPUTS), vectorize=True)
        for module in pair(kind)
    ]
    assert_same(*jacobians)


def compile_and_compare(kind, **options):
    x = normal(STEPS, BATCH, INPUTS)
    ours, theirs = pair(kind, num_layers=2)
    torch.compiler.reset()
    compiled = torch.compile(ours, backend="aot_eager", **options)
    with warnings.catch_warnings():
        # The compiler itself looks at gradients of tensors that are no leaves, and makes a Function.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
        outputs = flat(compiled(x))
        gradients = torch.autograd.grad(weigh(outputs), list(ours.parameters()))
    assert_same(outputs, theirs(x))
    assert_same(gradients, torch.autograd.grad(weigh(flat(theirs(x))), list(theirs.parameters())))


@EVERY_KIND
def test_compiled(kind):
    compile_and_compare(kind)


@COMPILED_KINDS
def test_compiled_in_one_graph(kind):
    """Torch's compiler leaves every recurrent module out of its graphs, unless it is told not to."""
    with torch._dynamo.config.patch(allow_rnn=True):
        compile_and_compare(kind, fullgraph=True)


@COMPILED_KINDS
def test_exported(kind):
    x = normal(STEPS, BATCH, INPUTS)
    ours, theirs = pair(kind)
    with torch.no_grad():
        exported = torch.export.export(ours, (x,), strict=False)
        assert f"diffstruct.{ours.kernel.name}" in exported.graph_module.code
        assert_same(exported.module()(x), theirs(x))


@COMPILED_KINDS
def test_tensors_without_memory(kind):
    ours, theirs = pair(kind)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(normal(STEPS, BATCH, INPUTS))
        outputs = flat(ours(x))
        assert [output.shape for output in outputs] == [output.shape for output in flat(theirs(x))]
    weigh(flat(ours(normal(STEPS, BATCH, INPUTS)))).backward()
