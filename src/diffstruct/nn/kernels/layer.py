"""What the compiled loops of all cells share: the input's part, and the gradients of weights and input.

Rows of units are `padded`, so that all loops over them are whole vectors; the columns beyond the units are
never a term of a product, so they have no effect. A cell may hold its gates in another order than its
weights: `first` is the gate that comes first, those after it follow, cyclically. Arrays of sequences are
`[steps, batch, columns]`, where the batch may be a part of the whole batch; its other parts may be computed
at the same time.

This module needs Numba; import it only where `kernels.available` is true.
"""

from __future__ import annotations

from typing import Any

from diffstruct.nn.kernels.compile import compiled
from diffstruct.nn.kernels.memory import array, bare, empty, zeros
from diffstruct.nn.kernels.packing import pack, pack_transposed
from diffstruct.nn.kernels.padding import padded
from diffstruct.nn.kernels.products import ROWS, add_outer, multiply_each

pad = compiled(padded)
"""`padding.padded`, in compiled code."""


@compiled
def line(rows: Any, b: int, start: int, count: int) -> Any:
    """`rows[b, start : start + count]`, in a form that the compiler knows to be contiguous."""
    place = rows.ctypes.data + b * rows.strides[0] + start * rows.itemsize
    return array(place, (count,), rows.dtype.type(0))


@compiled
def copy_rows(target: Any, source: Any) -> None:
    """Copy `source` `[batch, columns]` into `target`, of as many columns or fewer or more."""
    count = min(target.shape[1], source.shape[1])
    for b in range(target.shape[0]):
        to, found = line(target, b, 0, count), line(source, b, 0, count)
        for j in range(count):
            to[j] = found[j]


@compiled
def _copy_steps(target: Any, source: Any) -> None:
    """`copy_rows` for every step."""
    target, source = bare(target), bare(source)
    for t in range(len(target)):
        copy_rows(target[t], source[t])


@compiled
def add_rows(target: Any, source: Any) -> None:
    """Add `source` `[batch, n]` to the first `n` columns of `target`."""
    count = source.shape[1]
    for b in range(target.shape[0]):
        to, found = line(target, b, 0, count), line(source, b, 0, count)
        for j in range(count):
            to[j] += found[j]


@compiled
def padded_rows(address: int, batch: int, units: int, begin: int, end: int, like: Any) -> Any:
    """A padded copy `[end - begin, padded]` of the rows of a `[batch, units]` state, of zeros if absent."""
    rows = zeros((end - begin, pad(units)), like)
    if address:
        copy_rows(rows, array(address, (batch, units), like)[begin:end])
    return rows


@compiled
def add_bias(row: Any, address: int, units: int, first: int) -> None:
    """Add a bias `[gates * n]`, if present, to a row of gates `[gates * padded]`."""
    each = pad(units)
    gates = len(row) // each
    if address:
        bias = array(address, (gates * units,), row.dtype.type(0))
        for g in range(gates):
            source = (g + first) % gates * units
            for j in range(units):
                row[g * each + j] += bias[source + j]


@compiled
def fill(rows: Any, row: Any) -> None:
    """Write `row` into the first columns of every row of every step."""
    for t in range(rows.shape[0]):
        for b in range(rows.shape[1]):
            to = line(rows[t], b, 0, len(row))
            for j in range(len(row)):
                to[j] = row[j]


@compiled
def packed_weight(weight: Any, units: int, first: int) -> Any:
    """A weight `[gates * n, terms]` packed for `multiply`, whose result is gates `[gates * padded]`."""
    rows, terms = weight.shape
    packed = empty((terms, rows // units * pad(units)), weight.dtype.type(0))
    pack_transposed(packed, weight, units, first)
    return packed


@compiled
def packed_back(weight: Any, units: int, first: int) -> Any:
    """A weight packed for `multiply` backward, each gate by itself: `[gates, n, padded(terms)]`."""
    rows, terms = weight.shape
    gates = rows // units
    packed = empty((gates, units, pad(terms)), weight.dtype.type(0))
    for g in range(gates):
        source = (g + first) % gates * units
        pack(packed[g], weight[source : source + units])
    return packed


@compiled
def project(gates: Any, bias: Any, inputs: Any, packed: Any, t: int) -> None:
    """Write the part of the gates that comes from bias and inputs, once the steps written so far are used up.

    Some steps at a time: enough rows for the product to be efficient, few enough to stay in the cache until
    the hidden state's part is added.

    Args:
        gates: `[steps, batch, gates * padded]`, or more columns, which are left as they are.
        bias: `[all columns with a part from the inputs or the state]`, written first.
        inputs: `[steps, batch, inputs]`.
        packed: From `packed_weight`.
        t: The step that is about to be used.
    """
    span = max(1, ROWS // max(1, inputs.shape[1]))
    if t % span == 0:
        part = gates[t : t + span]
        fill(part, bias)
        multiply_each(part[:, :, : packed.shape[1]], inputs[t : t + span], packed)


@compiled
def input_gradient(result: Any, grad_gates: Any, weight: Any, units: int, first: int) -> None:
    """The gradient of the inputs, from that of the gates, `grad_gates` `[steps, batch, gates * padded]`."""
    steps, batch, inputs = result.shape
    each, packed = pad(units), packed_back(weight, units, first)
    total = zeros((steps, batch, pad(inputs)), weight.dtype.type(0))
    for g in range(len(packed)):
        multiply_each(total, grad_gates[:, :, g * each : g * each + units], packed[g])
    _copy_steps(result, total)


@compiled
def input_weight_gradient(result: Any, grad_gates: Any, inputs: Any, units: int, first: int) -> None:
    """The gradient of the weight `[gates * n, inputs]` of the inputs."""
    steps, batch, count = inputs.shape
    each, gates = pad(units), result.shape[0] // units
    wide = zeros((steps, batch, pad(count)), result.dtype.type(0))
    _copy_steps(wide, inputs)
    total = empty((units, pad(count)), result.dtype.type(0))
    for g in range(gates):
        total[:] = 0
        add_outer(total, grad_gates[:, :, g * each : g * each + units], wide)
        target = (g + first) % gates * units
        copy_rows(result[target : target + units], total)


@compiled
def hidden_weight_gradient(result: Any, grad_gates: Any, states: Any, initial: Any, units: int) -> None:
    """The gradient of the weight `[gates * n, n]` of the hidden states, each of which enters the next step.

    Args:
        result: `[gates * n, n]`, written.
        grad_gates: `[steps, batch, gates * padded]`, in the order of the weight's gates.
        states: `[steps, batch, padded]`, the hidden states after each step.
        initial: `[1, batch, padded]`, the state before the first.
        units: `n`.
    """
    each = pad(units)
    total = empty((units, each), result.dtype.type(0))
    for g in range(result.shape[0] // units):
        total[:] = 0
        gate = grad_gates[:, :, g * each : g * each + units]
        add_outer(total, gate[:1], initial)
        add_outer(total, gate[1:], states[:-1])
        copy_rows(result[g * units : (g + 1) * units], total)


@compiled
def _side_by_side(joined: Any, inputs: Any, states: Any, initial: Any, units: int) -> None:
    """Write to each `joined[t]` the state before the step and, from column `units` on, its inputs."""
    joined, inputs, states, initial = bare(joined), bare(inputs), bare(states), bare(initial)
    for t in range(len(joined)):
        copy_rows(joined[t], states[t - 1] if t else initial[:, :])
        copy_rows(joined[t][:, units:], inputs[t])


@compiled
def weight_gradients(
    to_input: int, to_hidden: int, grad_gates: Any, inputs: Any, states: Any, initial: Any, units: int
) -> None:
    """The gradients of both weights, if all gates depend on both the input and the hidden state.

    In one product: the inputs of a small layer have room in the columns that pad its units.

    Args:
        to_input: Where to write that of `[gates * n, inputs]`, or 0.
        to_hidden: Where to write that of `[gates * n, n]`, or 0.
        grad_gates: `[steps, batch, gates * padded]`, in the order of the weights' gates.
        inputs: `[steps, batch, inputs]`.
        states: `[steps, batch, padded]`, the hidden states after each step.
        initial: `[batch, padded]`, the state before the first.
        units: `n`.
    """
    steps, batch, count = inputs.shape
    like, each = grad_gates.dtype.type(0), pad(units)
    joined = zeros((steps, batch, pad(units + count)), like)
    _side_by_side(joined, inputs, states, initial, units)
    total = empty((units, joined.shape[2]), like)
    for g in range(grad_gates.shape[2] // each):
        total[:] = 0
        add_outer(total, grad_gates[:, :, g * each : g * each + units], joined)
        if to_input:
            place = to_input + g * units * count * total.itemsize
            copy_rows(array(place, (units, count), like), total[:, units:])
        if to_hidden:
            place = to_hidden + g * units * units * total.itemsize
            copy_rows(array(place, (units, units), like), total)


@compiled
def bias_gradient(address: int, other: int, grad_gates: Any, units: int, first: int) -> None:
    """The gradient of a bias `[gates * n]`, and of `other`, which is as large: the sum of `grad_gates`."""
    steps, batch, columns = grad_gates.shape
    like, each = grad_gates.dtype.type(0), pad(units)
    gates = columns // each
    total = zeros((1, columns), like)
    sums = line(total, 0, 0, columns)
    for t in range(steps):
        for b in range(batch):
            row = line(grad_gates[t], b, 0, columns)
            for j in range(columns):
                sums[j] += row[j]
    for target in (address, other):
        if target:
            result = array(target, (gates, units), like)
            for g in range(gates):
                to, found = line(result, (g + first) % gates, 0, units), line(total, 0, g * each, units)
                for j in range(units):
                    to[j] = found[j]
