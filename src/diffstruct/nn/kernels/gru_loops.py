"""The GRU's compiled loops, forward and backward.

`Kernel` describes the arguments. `kept` is `[steps, batch, 5 * padded]`: the gates n, r, z, then q, the
part of n from the hidden state, and the state h. In this order the gates with an input part (n, r, z) and
those with a hidden part (r, z, q) are contiguous. This module needs Numba; import it only where
`kernels.available` is true.
"""

from __future__ import annotations

from typing import Any

from diffstruct.nn.kernels.blocks import sigmoid, tanh
from diffstruct.nn.kernels.compile import compiled
from diffstruct.nn.kernels.layer import (
    add_bias,
    add_rows,
    bias_gradient,
    copy_rows,
    hidden_weight_gradient,
    input_gradient,
    input_weight_gradient,
    line,
    packed_back,
    packed_weight,
    pad,
    padded_rows,
    project,
)
from diffstruct.nn.kernels.memory import array, bare, empty, zeros
from diffstruct.nn.kernels.products import multiply, multiply_gates

NEW = 2  # the place of n among the gates of a weight, r, z, n; here it comes first


@compiled
def _step(rows: Any, before: Any) -> None:
    """From the gates' arguments `[batch, 5 * padded]` and the previous state to the gates and the state."""
    each = before.shape[1]
    for b in range(rows.shape[0]):
        new, reset, update = line(rows, b, 0, each), line(rows, b, each, each), line(rows, b, 2 * each, each)
        hidden, state = line(rows, b, 3 * each, each), line(rows, b, 4 * each, each)
        old = line(before, b, 0, each)
        for j in range(each):
            reset[j] = sigmoid(reset[j])
        for j in range(each):
            update[j] = sigmoid(update[j])
        for j in range(each):
            new[j] = tanh(new[j] + reset[j] * hidden[j])
        for j in range(each):
            state[j] = new[j] + update[j] * (old[j] - new[j])


@compiled
def _step_back(grad_gates: Any, grad_state: Any, rows: Any, before: Any) -> None:
    """From `grad_state` `[batch, padded]` to `grad_gates`, the gradients of the gates' arguments and of q.

    Leaves in `grad_state` the gradient of the previous state, except for the part through the weights.
    """
    each = before.shape[1]
    one = grad_gates.dtype.type(1)
    for b in range(rows.shape[0]):
        new, reset, update = line(rows, b, 0, each), line(rows, b, each, each), line(rows, b, 2 * each, each)
        hidden, old, grad = (
            line(rows, b, 3 * each, each),
            line(before, b, 0, each),
            line(grad_state, b, 0, each),
        )
        to_new, to_reset = line(grad_gates, b, 0, each), line(grad_gates, b, each, each)
        to_update, to_hidden = line(grad_gates, b, 2 * each, each), line(grad_gates, b, 3 * each, each)
        for j in range(each):
            to_new[j] = grad[j] * (one - update[j]) * (one - new[j] * new[j])
        for j in range(each):
            to_update[j] = grad[j] * (old[j] - new[j]) * update[j] * (one - update[j])
            grad[j] *= update[j]
        for j in range(each):
            to_reset[j] = to_new[j] * hidden[j] * reset[j] * (one - reset[j])
            to_hidden[j] = to_new[j] * reset[j]


@compiled
def _steps(rows: Any, outputs: Any, x: Any, hidden: Any, bias: Any, packed_x: Any, packed: Any) -> None:
    """All steps forward, from the state `hidden` `[batch, padded]`: write `rows` and `outputs`."""
    units, each = outputs.shape[2], hidden.shape[1]
    rows, outputs, x, hidden = bare(rows), bare(outputs), bare(x), bare(hidden)
    bias, packed_x, packed = bare(bias), bare(packed_x), bare(packed)
    states = rows[:, :, 4 * each :]
    for t in range(len(rows)):
        project(rows, bias, x, packed_x, t)
        before = states[t - 1] if t else hidden[:, :each]
        multiply(rows[t][:, each : 4 * each], before[:, :units], packed)
        _step(rows[t], before)
        copy_rows(outputs[t], states[t])


@compiled
def _steps_back(
    grad_gates: Any, grad_state: Any, grads: Any, rows: Any, hidden: Any, packed: Any, wanted: bool
) -> None:
    """All steps backward: from `grads` `[steps or 0, batch, n]`, that of the outputs, to `grad_gates`.

    Leaves in `grad_state` the gradient of the initial state, if it is `wanted`.
    """
    each = hidden.shape[1]
    grad_gates, grad_state, grads = bare(grad_gates), bare(grad_state), bare(grads)
    rows, hidden, packed = bare(rows), bare(hidden), bare(packed)
    states = rows[:, :, 4 * each :]
    for t in range(len(rows) - 1, -1, -1):
        if len(grads):
            add_rows(grad_state, grads[t])
        _step_back(grad_gates[t], grad_state, rows[t], states[t - 1] if t else hidden[:, :each])
        if t or wanted:
            multiply_gates(grad_state, grad_gates[t][:, each:], packed)


@compiled
def forward(like: Any, shape: Any, part: Any, given: Any, results: Any) -> None:
    """Sequences `begin` to `end` of the batch: writes `output`, `last` and `kept`."""
    (steps, batch, inputs, units), (begin, end) = shape, part
    x, weight_ih, weight_hh, bias_ih, bias_hh, hidden = given
    output, last, kept = results
    each = pad(units)
    rows = array(kept, (steps, batch, 5 * each), like)[:, begin:end]
    outputs = array(output, (steps, batch, units), like)[:, begin:end]
    bias = zeros((4 * each,), like)
    add_bias(bias[: 3 * each], bias_ih, units, NEW)
    add_bias(bias[each:], bias_hh, units, 0)
    x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
    packed_x = packed_weight(array(weight_ih, (3 * units, inputs), like), units, NEW)
    packed = packed_weight(array(weight_hh, (3 * units, units), like), units, 0)
    initial = padded_rows(hidden, batch, units, begin, end, like)
    _steps(rows, outputs, x_part, initial, bias, packed_x, packed)
    copy_rows(array(last, (batch, units), like)[begin:end], rows[steps - 1][:, 4 * each :])


@compiled
def backward(like: Any, shape: Any, part: Any, given: Any, results: Any) -> None:
    """Sequences `begin` to `end` of the batch: writes the gradients that have an address."""
    (steps, batch, inputs, units), (begin, end) = shape, part
    grad_output, grad_last, x, weight_ih, weight_hh, hidden, kept = given
    grad_x, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, grad_hidden = results
    each, count = pad(units), end - begin
    rows = array(kept, (steps, batch, 5 * each), like)[:, begin:end]
    states = rows[:, :, 4 * each :]
    packed = packed_back(array(weight_hh, (3 * units, units), like), units, 0)
    initial = padded_rows(hidden, batch, units, begin, end, like)
    grad_gates = empty((steps, count, 4 * each), like)  # gradient of the arguments of n, r, z, and of q
    grad_state = zeros((count, each), like)  # gradient of the state
    if grad_last:
        add_rows(grad_state, array(grad_last, (batch, units), like)[begin:end])
    grads = array(grad_output, (steps if grad_output else 0, batch, units), like)[:, begin:end]
    _steps_back(grad_gates, grad_state, grads, rows, initial, packed, grad_hidden != 0)
    if grad_hidden:
        copy_rows(array(grad_hidden, (batch, units), like)[begin:end], grad_state)
    grad_hidden_gates = grad_gates[:, :, each:]
    if grad_weight_hh:
        result = array(grad_weight_hh, (3 * units, units), like)
        hidden_weight_gradient(result, grad_hidden_gates, states, initial.reshape((1, count, each)), units)
    if grad_bias_hh:
        bias_gradient(grad_bias_hh, 0, grad_hidden_gates, units, 0)
    gates = grad_gates[:, :, : 3 * each]
    if grad_weight_ih:
        x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
        result = array(grad_weight_ih, (3 * units, inputs), like)
        input_weight_gradient(result, gates, x_part, units, NEW)
    if grad_bias_ih:
        bias_gradient(grad_bias_ih, 0, gates, units, NEW)
    if grad_x:
        result_x = array(grad_x, (steps, batch, inputs), like)[:, begin:end]
        input_gradient(result_x, gates, array(weight_ih, (3 * units, inputs), like), units, NEW)
