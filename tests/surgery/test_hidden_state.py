"""Hidden state that is carried through a change of its width."""

from __future__ import annotations

import pytest
import torch
from surgery.stacks import Stack

import diffstruct as ds


def test_a_structure_carries_tensors_and_tuples_and_refuses_other_sizes():
    torch.manual_seed(0)
    model = Stack(ds.nn.LSTM, ds.nn.GRU)
    optimizer = torch.optim.SGD(model.parameters())
    always = ds.Rule(p_add=1.0, p_spontaneous=1.0, p_delete=0.0)
    criterion = ds.OutgoingNorm()
    structure = ds.Structure(model, optimizer, total_steps=9, criterion=criterion, rule=always, start=2)
    h, c, up = torch.randn(1, 2, 2), torch.randn(1, 2, 2), torch.randn(2, 2)
    assert structure.carry((h, c), "lower")[0] is h  # nothing has changed yet
    structure.step()
    carried = structure.carry((h, c), "lower")
    assert isinstance(carried, tuple)
    for new, old in zip((*carried, structure.carry(up, "upper")), (h, c, up), strict=True):
        assert torch.equal(new, torch.cat([old, torch.zeros_like(old[..., :1])], -1))
    assert structure.carry(None, "lower") is None
    with pytest.raises(ds.StructureError, match="say which width"):
        structure.carry(up)
    with pytest.raises(ds.StructureError, match=r"no width 'middle': the widths are \['lower', 'upper'\]"):
        structure.carry(up, "middle")
    for bad in (torch.zeros(1, 2, 3), (h, torch.zeros(1, 2, 1)), torch.tensor(1.0)):
        with pytest.raises(ds.StructureError, match=r"must be \[\.\.\., 2\]"):
            structure.carry(bad, "lower")
