"""A GPU's fused cells: what stands in their place computes the same, and lets their units be found."""

import pytest
import torch
from torch import nn

import diffstruct as ds
from diffstruct.couple.fused_cells import SIMPLER, gru_cell, lstm_cell
from diffstruct.couple.unfused import unfused


@pytest.mark.parametrize("bias", [True, False])
def test_cells_compute_what_those_of_torch_do(bias):
    torch.manual_seed(0)
    x, h, c = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 4)
    lstm, gru = nn.LSTMCell(3, 4, bias=bias), nn.GRUCell(3, 4, bias=bias)

    def parts(cell):
        return x @ cell.weight_ih.T, h @ cell.weight_hh.T

    def biases(cell):
        return (cell.bias_ih, cell.bias_hh) if bias else ()

    hidden, memory, workspace = lstm_cell(*parts(lstm), c, *biases(lstm))
    assert workspace.shape == (5, 16)
    for mine, right in zip((hidden, memory), lstm(x, (h, c)), strict=True):
        torch.testing.assert_close(mine, right)
    state, workspace = gru_cell(*parts(gru), h, *biases(gru))
    assert workspace.shape == (5, 20)
    torch.testing.assert_close(state, gru(x, h))


@pytest.mark.parametrize("name", SIMPLER)
def test_units_of_fused_cells_are_found(name):
    """With a kernel for the CPU, which has none of its own."""
    fused = getattr(torch.ops.aten, name)

    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = (nn.LSTMCell if "lstm" in name else nn.GRUCell)(3, 6)
            self.out = nn.Linear(6, 2)

        def forward(self, x):
            cell = self.cell
            state = memory = x.new_zeros(x.shape[0], cell.hidden_size)
            for step in x.unbind(1):
                parts = step @ cell.weight_ih.T, state @ cell.weight_hh.T
                found = fused(*parts, memory, cell.bias_ih, cell.bias_hh)
                state, memory = found[0], found[1] if "lstm" in name else found[0]
            return self.out(state)

    torch.manual_seed(0)
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl(name, SIMPLER[name], "CPU")
        found = ds.find_widths(Fused(), (torch.randn(4, 5, 3),))
    assert {name: width.size for name, width in found.widths.items()} == {"cell": 6}, found.explain()


def test_a_trace_leaves_the_switches_of_libraries_as_they_were():
    for enabled in (True, False):
        with torch.backends.cudnn.flags(enabled=enabled):
            with unfused():
                assert not torch.backends.cudnn.enabled
            assert torch.backends.cudnn.enabled is enabled
