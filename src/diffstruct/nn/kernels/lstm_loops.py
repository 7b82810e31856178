"""The LSTM's compiled loops, forward and backward.

`Kernel` describes the arguments. `kept` is `[steps, batch, 6 * padded]`: the gates
i, f, g, o, the cell state c and the hidden state h. This module needs Numba; import it only where
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
    """From the gates' arguments `[batch, 6 * padded]` and the previous cell state to gates and states."""
    each = before.shape[1]
    for b in range(rows.shape[0]):
        both, cell_gate, output_gate = (
            line(rows, b, 0, 2 * each),
            line(rows, b, 2 * each, each),
            line(rows, b, 3 * each, each),
        )
        input_gate, forget_gate = line(rows, b, 0, each), line(rows, b, each, each)
        cell, state, old = (
            line(rows, b, 4 * each, each),
            line(rows, b, 5 * each, each),
            line(before, b, 0, each),
        )
        for j in range(2 * each):
            both[j] = sigmoid(both[j])
        for j in range(each):
            cell_gate[j] = tanh(cell_gate[j])
        for j in range(each):
            output_gate[j] = sigmoid(output_gate[j])
        for j in range(each):
            cell[j] = forget_gate[j] * old[j] + input_gate[j] * cell_gate[j]
        for j in range(each):
            state[j] = output_gate[j] * tanh(cell[j])


@compiled
def _step_back(grad_gates: Any, grad_h: Any, grad_c: Any, rows: Any, before: Any) -> None:
    """From `grad_h` and `grad_c` `[batch, padded]` to `grad_gates`, the gradients of the gates' arguments.

    Leaves in `grad_c` the gradient of the previous cell state.
    """
    each = before.shape[1]
    one = grad_gates.dtype.type(1)
    for b in range(rows.shape[0]):
        input_gate, forget_gate = line(rows, b, 0, each), line(rows, b, each, each)
        cell_gate, output_gate = line(rows, b, 2 * each, each), line(rows, b, 3 * each, each)
        cell, old = line(rows, b, 4 * each, each), line(before, b, 0, each)
        grad, grad_cell = line(grad_h, b, 0, each), line(grad_c, b, 0, each)
        to_input, to_forget = line(grad_gates, b, 0, each), line(grad_gates, b, each, each)
        to_cell, to_output = line(grad_gates, b, 2 * each, each), line(grad_gates, b, 3 * each, each)
        for j in range(each):
            bounded = tanh(cell[j])
            to_output[j] = grad[j] * bounded * output_gate[j] * (one - output_gate[j])
            grad_cell[j] += grad[j] * output_gate[j] * (one - bounded * bounded)
        for j in range(each):
            to_input[j] = grad_cell[j] * cell_gate[j] * input_gate[j] * (one - input_gate[j])
            to_cell[j] = grad_cell[j] * input_gate[j] * (one - cell_gate[j] * cell_gate[j])
        for j in range(each):
            to_forget[j] = grad_cell[j] * old[j] * forget_gate[j] * (one - forget_gate[j])
            grad_cell[j] *= forget_gate[j]


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
    grad_gates: Any, grad_h: Any, grad_c: Any, grads: Any, rows: Any, cell: Any, packed: Any, wanted: bool
) -> None:
    """All steps backward: from `grads` `[steps or 0, batch, n]`, that of the outputs, to `grad_gates`.

    Leaves in `grad_c` the gradient of the initial cell state and, if it is `wanted`, in `grad_h` that of the
    initial hidden state.
    """
    each = cell.shape[1]
    grad_gates, grad_h, grad_c, grads = bare(grad_gates), bare(grad_h), bare(grad_c), bare(grads)
    rows, cell, packed = bare(rows), bare(cell), bare(packed)
    cells = rows[:, :, 4 * each : 5 * each]
    for t in range(len(rows) - 1, -1, -1):
        if len(grads):
            add_rows(grad_h, grads[t])
        _step_back(grad_gates[t], grad_h, grad_c, rows[t], cells[t - 1] if t else cell[:, :each])
        if t or wanted:
            grad_h[:] = 0
            multiply_gates(grad_h, grad_gates[t], packed)


@compiled
def forward(like: Any, shape: Any, part: Any, given: Any, results: Any) -> None:
    """Sequences `begin` to `end` of the batch: writes `output`, `last`, `last_cell` and `kept`."""
    (steps, batch, inputs, units), (begin, end) = shape, part
    x, weight_ih, weight_hh, bias_ih, bias_hh, hidden, cell = given
    output, last, last_cell, kept = results
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
def backward(like: Any, shape: Any, part: Any, given: Any, results: Any) -> None:
    """Sequences `begin` to `end` of the batch: writes the gradients that have an address."""
    (steps, batch, inputs, units), (begin, end) = shape, part
    grad_output, grad_last, grad_last_cell, x, weight_ih, weight_hh, hidden, cell, kept = given
    grad_x, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, grad_hidden, grad_cell = results
    each, count = pad(units), end - begin
    rows = array(kept, (steps, batch, 6 * each), like)[:, begin:end]
    states = rows[:, :, 5 * each :]
    packed = packed_back(array(weight_hh, (4 * units, units), like), units, 0)
    grad_gates = empty((steps, count, 4 * each), like)  # gradient of the gates' arguments
    grad_h = zeros((count, each), like)  # gradient of the hidden state
    grad_c = padded_rows(grad_last_cell, batch, units, begin, end, like)  # gradient of the cell state
    if grad_last:
        add_rows(grad_h, array(grad_last, (batch, units), like)[begin:end])
    initial_cell = padded_rows(cell, batch, units, begin, end, like)
    grads = array(grad_output, (steps if grad_output else 0, batch, units), like)[:, begin:end]
    _steps_back(grad_gates, grad_h, grad_c, grads, rows, initial_cell, packed, grad_hidden != 0)
    if grad_hidden:
        copy_rows(array(grad_hidden, (batch, units), like)[begin:end], grad_h)
    if grad_cell:
        copy_rows(array(grad_cell, (batch, units), like)[begin:end], grad_c)
    x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
    if grad_weight_ih or grad_weight_hh:
        initial = padded_rows(hidden, batch, units, begin, end, like)
        weight_gradients(grad_weight_ih, grad_weight_hh, grad_gates, x_part, states, initial, units)
    if grad_x:
        result = array(grad_x, (steps, batch, inputs), like)[:, begin:end]
        input_gradient(result, grad_gates, array(weight_ih, (4 * units, inputs), like), units, 0)
    if grad_bias_ih or grad_bias_hh:
        bias_gradient(grad_bias_ih, grad_bias_hh, grad_gates, units, 0)
