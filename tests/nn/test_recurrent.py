"""The recurrent layers with a fixed structure are `torch.nn`'s: same numbers, same refusals."""

import itertools

import pytest
import torch
from helpers.recurrent import (
    BATCH,
    EVERY_KIND,
    INPUTS,
    STEPS,
    UNITS,
    assert_same,
    flat,
    initial,
    normal,
    pair,
    run,
    weigh,
)
from torch.nn.utils.rnn import pack_padded_sequence

import diffstruct as ds

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
def test_dropout_is_off_in_eval_and_the_same_in_training(kind):
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
def test_inputs_need_not_be_contiguous_and_outputs_have_torchs_strides(kind, batch_first):
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
        try:
            expected = theirs(x)
        except RuntimeError:  # oneDNN has no LSTM in bfloat16 on processors without AVX-512
            with pytest.raises(RuntimeError, match="could not create a primitive"):
                ours(x)
        else:
            assert_same(ours(x), expected, rtol=0, atol=0)
    with torch.inference_mode():
        assert_same(ours(x), theirs(x), rtol=0, atol=1e-6)


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
def test_what_torch_refuses_is_refused_with_the_same_error(kind, wrong):
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
