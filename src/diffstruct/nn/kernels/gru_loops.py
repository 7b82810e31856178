"""The GRU's compiled loops, forward and back.

Arguments are addresses (0 for what is absent) and sizes. `kept` is `[steps, batch, 5 * padded]`: the gates
n, r, z, then q, what the hidden state says to n, and the state h. In this order what the input reaches
(n, r, z) and what the hidden state reaches (r, z, q) each lie in one piece. This module needs Numba; import
it only where `kernels.available` says so.
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

NEWS = 2  # where n stands among the gates of a weight, r, z, n; here it comes first


@compiled
def _step(rows: Any, before: Any) -> None:
    """From the gates' arguments `[batch, 5 * padded]` and the state before to the gates and the state."""
    each = before.shape[1]
    for b in range(rows.shape[0]):
        news, reset, update = line(rows, b, 0, each), line(rows, b, each, each), line(rows, b, 2 * each, each)
        heard, state = line(rows, b, 3 * each, each), line(rows, b, 4 * each, each)
        old = line(before, b, 0, each)
        for j in range(each):
            reset[j] = sigmoid(reset[j])
        for j in range(each):
            update[j] = sigmoid(update[j])
        for j in range(each):
            news[j] = tanh(news[j] + reset[j] * heard[j])
        for j in range(each):
            state[j] = news[j] + update[j] * (old[j] - news[j])


@compiled
def _step_back(slopes: Any, later: Any, rows: Any, before: Any) -> None:
    """From `later` `[batch, padded]`, the loss by the state, to the loss by the gates' arguments and q.

    Leaves in `later` what goes to the state before, except through the weights.
    """
    each = before.shape[1]
    one = slopes.dtype.type(1)
    for b in range(rows.shape[0]):
        news, reset, update = line(rows, b, 0, each), line(rows, b, each, each), line(rows, b, 2 * each, each)
        heard, old, grad = line(rows, b, 3 * each, each), line(before, b, 0, each), line(later, b, 0, each)
        to_news, to_reset = line(slopes, b, 0, each), line(slopes, b, each, each)
        to_update, to_heard = line(slopes, b, 2 * each, each), line(slopes, b, 3 * each, each)
        for j in range(each):
            to_news[j] = grad[j] * (one - update[j]) * (one - news[j] * news[j])
        for j in range(each):
            to_update[j] = grad[j] * (old[j] - news[j]) * update[j] * (one - update[j])
            grad[j] *= update[j]
        for j in range(each):
            to_reset[j] = to_news[j] * heard[j] * reset[j] * (one - reset[j])
            to_heard[j] = to_news[j] * reset[j]


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
    slopes: Any, later: Any, grads: Any, rows: Any, hidden: Any, packed: Any, hears: bool
) -> None:
    """All steps back: from the loss by the outputs, `grads` `[steps or 0, batch, n]`, to `slopes`.

    Leaves in `later`, if the first step `hears` the state before it, what goes there.
    """
    each = hidden.shape[1]
    slopes, later, grads = bare(slopes), bare(later), bare(grads)
    rows, hidden, packed = bare(rows), bare(hidden), bare(packed)
    states = rows[:, :, 4 * each :]
    for t in range(len(rows) - 1, -1, -1):
        if len(grads):
            add_rows(later, grads[t])
        _step_back(slopes[t], later, rows[t], states[t - 1] if t else hidden[:, :each])
        if t or hears:
            multiply_gates(later, slopes[t][:, each:], packed)


@compiled
def forward(
    like: Any,
    steps: int,
    batch: int,
    inputs: int,
    units: int,
    begin: int,
    end: int,
    x: int,
    weight_ih: int,
    weight_hh: int,
    bias_ih: int,
    bias_hh: int,
    hidden: int,
    output: int,
    last: int,
    kept: int,
) -> None:
    """Sequences `begin` to `end` of the batch: writes `output`, `last` and `kept`."""
    each = pad(units)
    rows = array(kept, (steps, batch, 5 * each), like)[:, begin:end]
    outputs = array(output, (steps, batch, units), like)[:, begin:end]
    bias = zeros((4 * each,), like)
    add_bias(bias[: 3 * each], bias_ih, units, NEWS)
    add_bias(bias[each:], bias_hh, units, 0)
    x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
    packed_x = packed_weight(array(weight_ih, (3 * units, inputs), like), units, NEWS)
    packed = packed_weight(array(weight_hh, (3 * units, units), like), units, 0)
    initial = padded_rows(hidden, batch, units, begin, end, like)
    _steps(rows, outputs, x_part, initial, bias, packed_x, packed)
    copy_rows(array(last, (batch, units), like)[begin:end], rows[steps - 1][:, 4 * each :])


@compiled
def backward(
    like: Any,
    steps: int,
    batch: int,
    inputs: int,
    units: int,
    begin: int,
    end: int,
    grad_output: int,
    grad_last: int,
    x: int,
    weight_ih: int,
    weight_hh: int,
    hidden: int,
    kept: int,
    grad_x: int,
    grad_weight_ih: int,
    grad_weight_hh: int,
    grad_bias_ih: int,
    grad_bias_hh: int,
    grad_hidden: int,
) -> None:
    """The gradients of what has an address, from sequences `begin` to `end` of the batch."""
    each, count = pad(units), end - begin
    rows = array(kept, (steps, batch, 5 * each), like)[:, begin:end]
    states = rows[:, :, 4 * each :]
    packed = packed_back(array(weight_hh, (3 * units, units), like), units, 0)
    initial = padded_rows(hidden, batch, units, begin, end, like)
    slopes = empty((steps, count, 4 * each), like)  # the loss by the arguments of n, r, z, and by q
    later = zeros((count, each), like)  # the loss by the state
    if grad_last:
        add_rows(later, array(grad_last, (batch, units), like)[begin:end])
    grads = array(grad_output, (steps if grad_output else 0, batch, units), like)[:, begin:end]
    _steps_back(slopes, later, grads, rows, initial, packed, grad_hidden != 0)
    if grad_hidden:
        copy_rows(array(grad_hidden, (batch, units), like)[begin:end], later)
    heard = slopes[:, :, each:]
    if grad_weight_hh:
        result = array(grad_weight_hh, (3 * units, units), like)
        hidden_weight_gradient(result, heard, states, initial.reshape((1, count, each)), units)
    if grad_bias_hh:
        bias_gradient(grad_bias_hh, 0, heard, units, 0)
    gates = slopes[:, :, : 3 * each]
    if grad_weight_ih:
        x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
        result = array(grad_weight_ih, (3 * units, inputs), like)
        input_weight_gradient(result, gates, x_part, units, NEWS)
    if grad_bias_ih:
        bias_gradient(grad_bias_ih, 0, gates, units, NEWS)
    if grad_x:
        result_x = array(grad_x, (steps, batch, inputs), like)[:, begin:end]
        input_gradient(result_x, gates, array(weight_ih, (3 * units, inputs), like), units, NEWS)
