"""The LSTM's compiled loops, forward and back.

Arguments are addresses (0 for what is absent) and sizes. `kept` is `[steps, batch, 6 * padded]`: the gates
i, f, g, o, the cell state c and the hidden state h. This module needs Numba; import it only where
`kernels.available` says so.
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
    input_gradient,
    line,
    packed_back,
    packed_weight,
    pad,
    padded_rows,
    project,
    weight_gradients,
)
from diffstruct.nn.kernels.memory import array, bare, empty, zeros
from diffstruct.nn.kernels.products import multiply, multiply_gates


@compiled
def _step(rows: Any, before: Any) -> None:
    """From the gates' arguments `[batch, 6 * padded]` and the cell state before to gates and states."""
    each = before.shape[1]
    for b in range(rows.shape[0]):
        both, new, leave = (
            line(rows, b, 0, 2 * each),
            line(rows, b, 2 * each, each),
            line(rows, b, 3 * each, each),
        )
        enter, forget = line(rows, b, 0, each), line(rows, b, each, each)
        cell, state, old = (
            line(rows, b, 4 * each, each),
            line(rows, b, 5 * each, each),
            line(before, b, 0, each),
        )
        for j in range(2 * each):
            both[j] = sigmoid(both[j])
        for j in range(each):
            new[j] = tanh(new[j])
        for j in range(each):
            leave[j] = sigmoid(leave[j])
        for j in range(each):
            cell[j] = forget[j] * old[j] + enter[j] * new[j]
        for j in range(each):
            state[j] = leave[j] * tanh(cell[j])


@compiled
def _step_back(slopes: Any, later: Any, memory: Any, rows: Any, before: Any) -> None:
    """From the loss by the states, `later` and `memory` `[batch, padded]`, to that by the gates' arguments.

    Leaves in `memory` what goes to the cell state before.
    """
    each = before.shape[1]
    one = slopes.dtype.type(1)
    for b in range(rows.shape[0]):
        enter, forget = line(rows, b, 0, each), line(rows, b, each, each)
        new, leave = line(rows, b, 2 * each, each), line(rows, b, 3 * each, each)
        cell, old = line(rows, b, 4 * each, each), line(before, b, 0, each)
        grad, grad_cell = line(later, b, 0, each), line(memory, b, 0, each)
        to_enter, to_forget = line(slopes, b, 0, each), line(slopes, b, each, each)
        to_new, to_leave = line(slopes, b, 2 * each, each), line(slopes, b, 3 * each, each)
        for j in range(each):
            bounded = tanh(cell[j])
            to_leave[j] = grad[j] * bounded * leave[j] * (one - leave[j])
            grad_cell[j] += grad[j] * leave[j] * (one - bounded * bounded)
        for j in range(each):
            to_enter[j] = grad_cell[j] * new[j] * enter[j] * (one - enter[j])
            to_new[j] = grad_cell[j] * enter[j] * (one - new[j] * new[j])
        for j in range(each):
            to_forget[j] = grad_cell[j] * old[j] * forget[j] * (one - forget[j])
            grad_cell[j] *= forget[j]


@compiled
def _steps(
    rows: Any, outputs: Any, x: Any, hidden: Any, cell: Any, bias: Any, packed_x: Any, packed: Any
) -> None:
    """All steps forward, from the states `hidden` and `cell` `[batch, padded]`: write `rows`, `outputs`."""
    units, each = outputs.shape[2], cell.shape[1]
    rows, outputs, x, hidden, cell = bare(rows), bare(outputs), bare(x), bare(hidden), bare(cell)
    bias, packed_x, packed = bare(bias), bare(packed_x), bare(packed)
    cells, states = rows[:, :, 4 * each : 5 * each], rows[:, :, 5 * each :]
    for t in range(len(rows)):
        project(rows, bias, x, packed_x, t)
        before, old = (states[t - 1], cells[t - 1]) if t else (hidden[:, :each], cell[:, :each])
        multiply(rows[t][:, : 4 * each], before[:, :units], packed)
        _step(rows[t], old)
        copy_rows(outputs[t], states[t])


@compiled
def _steps_back(
    slopes: Any, later: Any, memory: Any, grads: Any, rows: Any, cell: Any, packed: Any, hears: bool
) -> None:
    """All steps back: from the loss by the outputs, `grads` `[steps or 0, batch, n]`, to `slopes`.

    Leaves in `memory`, and if the first step `hears` the hidden state before it in `later`, what goes to the
    initial states.
    """
    each = cell.shape[1]
    slopes, later, memory, grads = bare(slopes), bare(later), bare(memory), bare(grads)
    rows, cell, packed = bare(rows), bare(cell), bare(packed)
    cells = rows[:, :, 4 * each : 5 * each]
    for t in range(len(rows) - 1, -1, -1):
        if len(grads):
            add_rows(later, grads[t])
        _step_back(slopes[t], later, memory, rows[t], cells[t - 1] if t else cell[:, :each])
        if t or hears:
            later[:] = 0
            multiply_gates(later, slopes[t], packed)


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
    cell: int,
    output: int,
    last: int,
    last_cell: int,
    kept: int,
) -> None:
    """Sequences `begin` to `end` of the batch: writes `output`, `last`, `last_cell` and `kept`."""
    each = pad(units)
    rows = array(kept, (steps, batch, 6 * each), like)[:, begin:end]
    cells, states = rows[:, :, 4 * each : 5 * each], rows[:, :, 5 * each :]
    outputs = array(output, (steps, batch, units), like)[:, begin:end]
    bias = zeros((4 * each,), like)
    add_bias(bias, bias_ih, units, 0)
    add_bias(bias, bias_hh, units, 0)
    x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
    packed_x = packed_weight(array(weight_ih, (4 * units, inputs), like), units, 0)
    packed = packed_weight(array(weight_hh, (4 * units, units), like), units, 0)
    initial = padded_rows(hidden, batch, units, begin, end, like)
    initial_cell = padded_rows(cell, batch, units, begin, end, like)
    _steps(rows, outputs, x_part, initial, initial_cell, bias, packed_x, packed)
    copy_rows(array(last, (batch, units), like)[begin:end], states[steps - 1])
    copy_rows(array(last_cell, (batch, units), like)[begin:end], cells[steps - 1])


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
    grad_last_cell: int,
    x: int,
    weight_ih: int,
    weight_hh: int,
    hidden: int,
    cell: int,
    kept: int,
    grad_x: int,
    grad_weight_ih: int,
    grad_weight_hh: int,
    grad_bias_ih: int,
    grad_bias_hh: int,
    grad_hidden: int,
    grad_cell: int,
) -> None:
    """The gradients of what has an address, from sequences `begin` to `end` of the batch."""
    each, count = pad(units), end - begin
    rows = array(kept, (steps, batch, 6 * each), like)[:, begin:end]
    states = rows[:, :, 5 * each :]
    packed = packed_back(array(weight_hh, (4 * units, units), like), units, 0)
    slopes = empty((steps, count, 4 * each), like)  # the loss by the gates' arguments
    later = zeros((count, each), like)  # the loss by the hidden state
    memory = padded_rows(grad_last_cell, batch, units, begin, end, like)  # the loss by the cell state
    if grad_last:
        add_rows(later, array(grad_last, (batch, units), like)[begin:end])
    initial_cell = padded_rows(cell, batch, units, begin, end, like)
    grads = array(grad_output, (steps if grad_output else 0, batch, units), like)[:, begin:end]
    _steps_back(slopes, later, memory, grads, rows, initial_cell, packed, grad_hidden != 0)
    if grad_hidden:
        copy_rows(array(grad_hidden, (batch, units), like)[begin:end], later)
    if grad_cell:
        copy_rows(array(grad_cell, (batch, units), like)[begin:end], memory)
    x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
    if grad_weight_ih or grad_weight_hh:
        initial = padded_rows(hidden, batch, units, begin, end, like)
        weight_gradients(grad_weight_ih, grad_weight_hh, slopes, x_part, states, initial, units)
    if grad_x:
        result = array(grad_x, (steps, batch, inputs), like)[:, begin:end]
        input_gradient(result, slopes, array(weight_ih, (4 * units, inputs), like), units, 0)
    if grad_bias_ih or grad_bias_hh:
        bias_gradient(grad_bias_ih, grad_bias_hh, slopes, units, 0)
