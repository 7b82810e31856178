"""The Elman layer's compiled loops: `h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)` and its gradients.

`Kernel` describes the arguments. `kept` is `[steps, batch, padded]`, the hidden states. This module needs
Numba; import it only where `kernels.available` is true.
"""

from __future__ import annotations

from typing import Any

from diffstruct.nn.kernels.blocks import tanh
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
from diffstruct.nn.kernels.memory import array, bare, zeros
from diffstruct.nn.kernels.products import multiply


@compiled
def _step(rows: Any) -> None:
    columns = rows.shape[1]
    for b in range(rows.shape[0]):
        row = line(rows, b, 0, columns)
        for j in range(columns):
            row[j] = tanh(row[j])


@compiled
def _step_back(grad_arguments: Any, states: Any) -> None:
    columns = grad_arguments.shape[1]
    one = grad_arguments.dtype.type(1)
    for b in range(grad_arguments.shape[0]):
        slope, state = line(grad_arguments, b, 0, columns), line(states, b, 0, columns)
        for j in range(columns):
            slope[j] *= one - state[j] * state[j]


@compiled
def _steps(states: Any, outputs: Any, x: Any, hidden: Any, bias: Any, packed_x: Any, packed: Any) -> None:
    """All steps forward, from the state `hidden` `[batch, padded]`: write `states` and `outputs`."""
    units, each = outputs.shape[2], hidden.shape[1]
    states, outputs, x, hidden = bare(states), bare(outputs), bare(x), bare(hidden)
    bias, packed_x, packed = bare(bias), bare(packed_x), bare(packed)
    for t in range(len(states)):
        project(states, bias, x, packed_x, t)
        before = states[t - 1] if t else hidden[:, :each]
        multiply(states[t], before[:, :units], packed)
        _step(states[t])
        copy_rows(outputs[t], states[t])


@compiled
def _steps_back(grad_arguments: Any, grads: Any, states: Any, packed: Any, units: int) -> None:
    """All steps backward: from `grads` `[steps or 0, batch, n]`, that of the outputs, to `grad_arguments`.

    At first the last of `grad_arguments` holds the gradient of the last state.
    """
    grad_arguments, grads, states, packed = bare(grad_arguments), bare(grads), bare(states), bare(packed)
    last = len(states) - 1
    for t in range(last, -1, -1):
        if len(grads):
            add_rows(grad_arguments[t], grads[t])
        if t < last:
            multiply(grad_arguments[t], grad_arguments[t + 1][:, :units], packed)
        _step_back(grad_arguments[t], states[t])


@compiled
def forward(like: Any, shape: Any, part: Any, given: Any, results: Any) -> None:
    """Sequences `begin` to `end` of the batch: writes `output`, `last` and `kept`."""
    (steps, batch, inputs, units), (begin, end) = shape, part
    x, weight_ih, weight_hh, bias_ih, bias_hh, hidden = given
    output, last, kept = results
    each = pad(units)
    states = array(kept, (steps, batch, each), like)[:, begin:end]
    outputs = array(output, (steps, batch, units), like)[:, begin:end]
    bias = zeros((each,), like)
    add_bias(bias, bias_ih, units, 0)
    add_bias(bias, bias_hh, units, 0)
    x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
    packed_x = packed_weight(array(weight_ih, (units, inputs), like), units, 0)
    packed = packed_weight(array(weight_hh, (units, units), like), units, 0)
    initial = padded_rows(hidden, batch, units, begin, end, like)
    _steps(states, outputs, x_part, initial, bias, packed_x, packed)
    copy_rows(array(last, (batch, units), like)[begin:end], states[steps - 1])


@compiled
def backward(like: Any, shape: Any, part: Any, given: Any, results: Any) -> None:
    """Sequences `begin` to `end` of the batch: writes the gradients that have an address."""
    (steps, batch, inputs, units), (begin, end) = shape, part
    grad_output, grad_last, x, weight_ih, weight_hh, hidden, kept = given
    grad_x, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, grad_hidden = results
    each = pad(units)
    states = array(kept, (steps, batch, each), like)[:, begin:end]
    weight = array(weight_hh, (units, units), like)
    packed = packed_back(weight, units, 0)[0]
    grad_arguments = zeros((steps, end - begin, each), like)  # gradient of the argument of tanh
    if grad_last:
        add_rows(grad_arguments[steps - 1], array(grad_last, (batch, units), like)[begin:end])
    grads = array(grad_output, (steps if grad_output else 0, batch, units), like)[:, begin:end]
    _steps_back(grad_arguments, grads, states, packed, units)
    if grad_hidden:
        total = zeros((end - begin, each), like)
        multiply(total, grad_arguments[0][:, :units], packed)
        copy_rows(array(grad_hidden, (batch, units), like)[begin:end], total)
    x_part = array(x, (steps, batch, inputs), like)[:, begin:end]
    if grad_weight_ih or grad_weight_hh:
        initial = padded_rows(hidden, batch, units, begin, end, like)
        weight_gradients(grad_weight_ih, grad_weight_hh, grad_arguments, x_part, states, initial, units)
    if grad_x:
        result = array(grad_x, (steps, batch, inputs), like)[:, begin:end]
        input_gradient(result, grad_arguments, array(weight_ih, (units, inputs), like), units, 0)
    if grad_bias_ih or grad_bias_hh:
        bias_gradient(grad_bias_ih, grad_bias_hh, grad_arguments, units, 0)
