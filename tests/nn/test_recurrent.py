"""`ds.nn`'s recurrent layers and multiplier: with the structure frozen they are `torch.nn`'s."""

import copy
import io
import itertools
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import diffstruct as ds
from diffstruct.nn.kernels.sequence import Kernel
from diffstruct.nn.kernels.sizes import is_faster

STEPS, BATCH, INPUTS, UNITS = 5, 3, 3, 4
CLOSE = {"rtol": 0, "atol": 1e-12}
KINDS = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU": ("GRU", {}),
    "LSTM": ("LSTM", {}),
}
# Torch compiles its own rules for forward mode with a tool that it has deprecated.
TORCH_SCRIPTS = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def pair(kind, *args, dtype=torch.float64, **options):
    """The layer of `ds.nn` and the one of `torch.nn`, built apart, with the same weights."""
    name, more = KINDS[kind]
    torch.manual_seed(0)
    args = args or (INPUTS, UNITS)
    ours = getattr(ds.nn, name)(*args, dtype=dtype, **more, **options)
    theirs = getattr(nn, name)(*args, dtype=dtype, **more, **options)
    assert not theirs.load_state_dict(ours.state_dict()).missing_keys
    return ours, theirs


def normal(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flat(outputs):
    """The tensors in what a recurrent layer returns."""
    if isinstance(outputs, PackedSequence):
        return [outputs.data]
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flat(part)]


def weigh(tensors):
    """One number that depends on every entry in another way."""
    return sum((tensor * normal(*tensor.shape, seed=7, dtype=tensor.dtype)).sum() for tensor in tensors)


def run(module, x, state=None, pack=None):
    """Outputs, then the gradients of input, state and parameters, of leaf copies of `x` and `state`."""
    x = x.detach().clone().requires_grad_()
    states = [] if state is None else [tensor.detach().clone().requires_grad_() for tensor in state]
    arguments = [x if pack is None else pack(x)]
    if states:
        arguments.append(tuple(states) if len(states) == 2 else states[0])
    results = module(*arguments)
    if pack is not None:
        assert isinstance(results[0], PackedSequence)
    outputs = flat(results)
    return outputs, torch.autograd.grad(weigh(outputs), [x, *states, *module.parameters()])


def assert_same(ours, theirs, **close):
    for mine, yours in zip(flat(ours), flat(theirs), strict=True):
        torch.testing.assert_close(mine, yours, **(close or CLOSE))


def initial(kind, layers, directions, *batch, dtype=torch.float64):
    shape = (layers * directions, *batch, UNITS)
    return [normal(*shape, seed=seed, dtype=dtype) for seed in ((2, 3) if kind == "LSTM" else (2,))]


GRID = [
    (layers, bias, bidirectional, batch_first)
    for layers in (1, 2, 3)
    for bias, bidirectional, batch_first in itertools.product([True, False], repeat=3)
]


@EVERY_KIND
@pytest.mark.parametrize("with_state", [False, True], ids=["no state", "state"])
@pytest.mark.parametrize("form", ["unbatched", "batched", "packed"])
def test_outputs_and_gradients_equal_those_of_torch(kind, with_state, form):
    for layers, bias, bidirectional, batch_first in GRID:
        ours, theirs = pair(
            kind, num_layers=layers, bias=bias, bidirectional=bidirectional, batch_first=batch_first
        )
        shape = (BATCH, STEPS, INPUTS) if batch_first else (STEPS, BATCH, INPUTS)
        batch, pack = (BATCH,), None
        if form == "unbatched":
            shape, batch = (STEPS, INPUTS), ()
        elif form == "packed":

            def pack(x, batch_first=batch_first):
                return pack_padded_sequence(x, torch.tensor([4, 5, 2]), batch_first, enforce_sorted=False)

        state = initial(kind, layers, 1 + bidirectional, *batch) if with_state else None
        results = [run(module, normal(*shape), state, pack) for module in (ours, theirs)]
        assert_same(*results)
        assert [t.shape for t in results[0][0]] == [t.shape for t in results[1][0]]


@EVERY_KIND
def test_dropout_is_silent_in_eval_and_the_same_in_training(kind):
    ours, theirs = pair(kind, num_layers=2, dropout=0.5)
    x = normal(STEPS, BATCH, INPUTS)
    outputs = {}
    for training in (True, False):
        results = []
        for module in (ours.train(training), theirs.train(training)):
            torch.manual_seed(3)
            results.append(run(module, x))
        assert_same(*results)
        outputs[training] = results[0][0][0]
    assert not torch.allclose(outputs[True], outputs[False])


@EVERY_KIND
@pytest.mark.parametrize("part", ["output", "state"])
def test_gradients_where_only_a_part_is_used(kind, part):
    gradients = []
    for module in pair(kind, num_layers=2):
        outputs, state = module(normal(STEPS, BATCH, INPUTS))
        used = [outputs] if part == "output" else flat(state)
        gradients.append(torch.autograd.grad(weigh(used), list(module.parameters())))
    assert_same(*gradients)


@EVERY_KIND
def test_a_sequence_in_two_parts_is_the_whole_sequence(kind):
    ours, theirs = pair(kind, num_layers=2)
    x = normal(STEPS, BATCH, INPUTS)
    first, state = ours(x[:2])
    second, state = ours(x[2:], state)
    whole, last = theirs(x)
    assert_same((torch.cat([first, second]), state), (whole, last))
    # Through the seam, too.
    gradients = torch.autograd.grad(weigh(flat(state)), list(ours.parameters()))
    assert_same(gradients, torch.autograd.grad(weigh(flat(last)), list(theirs.parameters())))


@EVERY_KIND
@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_need_not_be_contiguous_and_outputs_lie_as_torch_lays_them(kind, batch_first):
    ours, theirs = pair(kind, batch_first=batch_first)
    for order in itertools.permutations(range(3)):
        x = normal(STEPS, STEPS, INPUTS).permute(order).contiguous()
        x = x.permute([order.index(dim) for dim in range(3)])
        assert_same(run(ours, x), run(theirs, x))
        mine, yours = flat(ours(x)), flat(theirs(x))
        assert [tensor.stride() for tensor in mine] == [tensor.stride() for tensor in yours]


@EVERY_KIND
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_other_types_of_number(kind, dtype, close):
    ours, theirs = pair(kind, num_layers=2, dtype=dtype)
    x, state = normal(STEPS, BATCH, INPUTS, dtype=dtype), initial(kind, 2, 1, BATCH, dtype=dtype)
    results = [run(module, x, state) for module in (ours, theirs)]
    assert all(tensor.dtype == dtype for tensor in flat(results[0]))
    assert_same(*results, rtol=close, atol=close)


def test_complex_numbers():
    results = []
    for module in pair("tanh", dtype=torch.complex128):
        outputs = module(normal(STEPS, BATCH, INPUTS, dtype=torch.complex128) / 10)[0]
        loss = outputs.abs().pow(2).sum()
        results.append((outputs, torch.autograd.grad(loss, list(module.parameters()))))
    assert_same(*results)


@EVERY_KIND
def test_autocast_and_inference_mode(kind):
    ours, theirs = pair(kind, dtype=torch.float32)
    x = normal(STEPS, BATCH, INPUTS, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert_same(ours(x), theirs(x), rtol=0, atol=0)
    with torch.inference_mode():
        assert_same(ours(x), theirs(x), rtol=0, atol=1e-6)


# Shapes that do not fit

WRONG = {
    "input size": [normal(STEPS, BATCH, INPUTS + 1)],
    "input size, unbatched": [normal(STEPS, INPUTS + 1)],
    "one dimension": [normal(INPUTS)],
    "four dimensions": [normal(2, STEPS, BATCH, INPUTS)],
    "no steps": [normal(0, BATCH, INPUTS)],
    "no steps, unbatched": [normal(0, INPUTS)],
    "state of other layers": [normal(STEPS, BATCH, INPUTS), normal(2, BATCH, UNITS)],
    "state of another batch": [normal(STEPS, BATCH, INPUTS), normal(1, BATCH + 1, UNITS)],
    "state of a batch of one": [normal(STEPS, BATCH, INPUTS), normal(1, 1, UNITS)],
    "state of another size": [normal(STEPS, BATCH, INPUTS), normal(1, BATCH, UNITS + 1)],
    "state without batch": [normal(STEPS, BATCH, INPUTS), normal(1, UNITS)],
    "state with batch": [normal(STEPS, INPUTS), normal(1, 1, UNITS)],
    "state of another size, unbatched": [normal(STEPS, INPUTS), normal(1, UNITS + 1)],
    "state of four dimensions": [normal(STEPS, BATCH, INPUTS), normal(1, 1, BATCH, UNITS)],
    "state of another type": [normal(STEPS, BATCH, INPUTS), normal(1, BATCH, UNITS).float()],
    "input of another type": [normal(STEPS, BATCH, INPUTS).float()],
    "whole numbers": [torch.ones(STEPS, BATCH, INPUTS, dtype=torch.int64)],
    "no tensor": [[[1.0] * INPUTS]],
    "state that is no tensor": [normal(STEPS, BATCH, INPUTS), 0],
}


@EVERY_KIND
@pytest.mark.parametrize("wrong", WRONG)
def test_what_torch_refuses_is_refused_alike(kind, wrong):
    x, *state = WRONG[wrong]
    if kind == "LSTM" and state and isinstance(state[0], torch.Tensor):
        state = [(state[0], state[0])]
    errors = []
    for module in pair(kind):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the type is compared below
            module(x, *state)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


@EVERY_KIND
def test_a_batch_of_no_sequences(kind):
    results = [run(module, torch.zeros(STEPS, 0, INPUTS, dtype=torch.float64)) for module in pair(kind)]
    assert_same(*results)
    assert results[0][0][0].shape == (STEPS, 0, UNITS)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_projections_are_refused(kind):
    with pytest.raises((ds.StructureError, ValueError), match="proj_size"):
        getattr(ds.nn, kind)(INPUTS, UNITS, proj_size=2)
    with pytest.raises(ValueError, match="hidden_size"):
        getattr(ds.nn, kind)(INPUTS, 0)


# Derivatives of other kinds


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
def test_frozen_weights_get_no_gradient_and_the_others_theirs(kind, frozen):
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


@pytest.mark.parametrize("kind", ["tanh", "GRU", "LSTM"])
def test_compiled_in_one_graph(kind):
    """Torch's compiler leaves every recurrent module out of its graphs, unless it is told not to."""
    with torch._dynamo.config.patch(allow_rnn=True):
        compile_and_compare(kind, fullgraph=True)


@pytest.mark.parametrize("kind", ["tanh", "GRU", "LSTM"])
def test_exported(kind):
    x = normal(STEPS, BATCH, INPUTS)
    ours, theirs = pair(kind)
    with torch.no_grad():
        exported = torch.export.export(ours, (x,))
        assert f"diffstruct.{ours.kernel.name}" in exported.graph_module.code
        assert_same(exported.module()(x), theirs(x))


@pytest.mark.parametrize("kind", ["tanh", "GRU", "LSTM"])
def test_tensors_without_memory(kind):
    ours, theirs = pair(kind)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(normal(STEPS, BATCH, INPUTS))
        outputs = flat(ours(x))
        assert [output.shape for output in outputs] == [output.shape for output in flat(theirs(x))]
    weigh(flat(ours(normal(STEPS, BATCH, INPUTS)))).backward()


# Which way a call goes


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list that grows by one at each call of a kernel."""
    calls, call = [], Kernel.__call__

    def counted(self, *tensors):
        calls.append(self.name)
        return call(self, *tensors)

    monkeypatch.setattr(Kernel, "__call__", counted)
    return calls


@pytest.mark.parametrize("kind", ["tanh", "GRU", "LSTM"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_layer_is_one_call_of_a_kernel(kind, dtype, kernel_calls):
    ours, _ = pair(kind, num_layers=3, dtype=dtype, dropout=0.5)
    for x in (normal(STEPS, BATCH, INPUTS, dtype=dtype), normal(STEPS, INPUTS, dtype=dtype)):
        ours.eval()(x)
        assert kernel_calls == 3 * [ours.kernel.name]
        kernel_calls.clear()
    ours.train()(x)  # dropout between the layers
    assert not kernel_calls


@pytest.mark.parametrize("kind", ["tanh", "GRU", "LSTM"])
def test_without_numba_torch_does_the_same(kind, kernel_calls, monkeypatch):
    ours, theirs = pair(kind)
    with_kernel = run(ours, normal(STEPS, BATCH, INPUTS))
    assert len(kernel_calls) == 1
    monkeypatch.setattr("diffstruct.nn.kernels.available", False)
    without = run(ours, normal(STEPS, BATCH, INPUTS))
    assert len(kernel_calls) == 1
    assert_same(with_kernel, without)
    assert_same(without, run(theirs, normal(STEPS, BATCH, INPUTS)), rtol=0, atol=0)


def test_the_package_imports_without_numba():
    code = (
        "import sys; sys.modules['numba'] = None; import diffstruct as ds, torch;"
        "import diffstruct.nn.kernels as kernels; kernels.available = False;"
        "print(ds.nn.LSTM(2, 3)(torch.ones(4, 1, 2))[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "torch.Size([4, 1, 3])\n"


def test_numba_is_imported_when_a_kernel_first_runs():
    code = (
        "import sys, torch, diffstruct as ds; layer = ds.nn.GRU(2, 3); print('numba' in sys.modules);"
        "layer(torch.ones(4, 1, 2)); print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_large_products_are_left_to_torch(kernel_calls):
    for batch, calls in ((1, 1), (64, 0)):
        kernel_calls.clear()
        layer = ds.nn.LSTM(INPUTS, 100)
        with torch.no_grad():
            layer(normal(1, batch, INPUTS, dtype=torch.float32))
        assert len(kernel_calls) == calls
    assert is_faster(4, 37, 32, torch.float32)
    assert is_faster(4, 512, 64, torch.float64)
    assert is_faster(1, 512, 64, torch.float32)


# To torch.nn, and copies


@EVERY_KIND
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 3, "bias": False},
        {"bidirectional": True, "batch_first": True, "num_layers": 2, "dropout": 0.25},
        {"dtype": torch.float32},
    ],
    ids=str,
)
def test_to_torch_gives_the_plain_module(kind, options):
    ours, theirs = pair(kind, **options)
    ours.eval()
    ours.weight_hh_l0.requires_grad_(False)
    randomness = torch.get_rng_state()
    plain = ours.to_torch()
    assert torch.equal(torch.get_rng_state(), randomness)

    assert type(plain) is type(theirs)
    assert repr(plain) == repr(theirs) == repr(ours)
    assert plain.training is False
    assert ours.train().to_torch().training is True
    assert vars(plain).keys() == vars(theirs).keys()  # nothing of ours is left
    for name, parameter in ours.named_parameters():
        copied = getattr(plain, name)
        assert isinstance(copied, nn.Parameter)
        assert torch.equal(copied, parameter)
        assert copied.dtype == parameter.dtype
        assert copied.requires_grad == (name != "weight_hh_l0")
    x = normal(STEPS, BATCH, INPUTS, dtype=options.get("dtype", torch.float64))
    assert_same(plain(x), theirs.eval()(x), rtol=0, atol=0)


@EVERY_KIND
def test_to_torch_copies(kind):
    ours, _ = pair(kind)
    plain, before = ours.to_torch(), copy.deepcopy(ours.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
    x = normal(STEPS, BATCH, INPUTS)
    weigh(flat(plain(x))).backward()
    optimizer.step()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert not torch.equal(tensor, plain.state_dict()[name])
        assert getattr(ours, name).grad is None


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = pair(kind)[0]
        self.readout = nn.Linear(UNITS, 2, dtype=torch.float64)
        self.rnn.feeds(self.readout)

    def forward(self, x):
        return self.readout(self.rnn(x)[0])


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@EVERY_KIND
@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle, through_torch_save])
def test_a_copy_is_whole_and_its_own(kind, duplicate):
    model = Model(kind)
    twin = duplicate(model)
    x = normal(STEPS, BATCH, INPUTS)
    assert_same(twin(x), model(x), rtol=0, atol=0)
    modules = {slot.module for slot in twin.rnn.declare_width("rnn").slots}
    assert modules == {twin.rnn, twin.readout}  # its own readout, not the first model's
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert model(x).abs().sum() > 0


@EVERY_KIND
def test_state_dicts_go_both_ways(kind):
    ours, theirs = pair(kind, num_layers=2, bidirectional=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(2)
    ours.load_state_dict(theirs.state_dict())
    x = normal(STEPS, BATCH, INPUTS)
    assert_same(ours(x), theirs(x))


@EVERY_KIND
def test_readers_are_no_children(kind):
    model = Model(kind)
    assert list(model.rnn.children()) == []
    assert repr(model.rnn) == repr(pair(kind)[1])


# The multiplier


def test_multiplier_scales_each_unit():
    layer = ds.nn.Multiplier(UNITS, dtype=torch.float64)
    x = normal(STEPS, BATCH, UNITS).requires_grad_()
    assert torch.equal(layer(x), x)  # it begins at one
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5]))
    assert torch.equal(layer(x), x * torch.tensor([1.0, -2.0, 0.0, 0.5]))
    gradient = normal(STEPS, BATCH, UNITS, seed=2)
    layer(x).backward(gradient)
    torch.testing.assert_close(layer.weight.grad, (x * gradient).sum((0, 1)).detach(), **CLOSE)
    assert repr(layer) == f"Multiplier(num_units={UNITS})"


@pytest.mark.parametrize(("units", "inputs"), [(4, 3), (4, 1), (1, 4)])
def test_multiplier_refuses_inputs_of_another_size(units, inputs):
    """Broadcasting would hide that a width of one unit does not fit."""
    with pytest.raises(RuntimeError):
        ds.nn.Multiplier(units)(torch.ones(2, inputs))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiplier_folds_into_its_reader(bias, dtype):
    layer = ds.nn.Multiplier(UNITS, dtype=dtype)
    nn.init.normal_(layer.weight)
    reader = nn.Linear(UNITS, 2, bias=bias, dtype=dtype)
    before = copy.deepcopy(reader.state_dict())
    randomness = torch.get_rng_state()
    folded = layer.fold_into(reader)
    assert torch.equal(torch.get_rng_state(), randomness)

    assert type(folded) is nn.Linear
    assert repr(folded) == repr(reader)
    assert folded.weight.dtype == dtype
    x = normal(STEPS, BATCH, UNITS, dtype=dtype)
    torch.testing.assert_close(folded(x), reader(layer(x)), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in reader.state_dict().items())
