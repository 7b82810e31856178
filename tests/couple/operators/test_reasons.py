"""What an operator does to a dimension decides whether the units of a layer can be learned."""

import pytest
import torch
from torch import nn

import diffstruct as ds


class Between(nn.Module):
    """An operator between two layers: `[4, 7, 5]` to `[4, 7, 8]`, of which the last dimension are units."""

    def __init__(self, operator):
        super().__init__()
        self.first, self.operator, self.second = nn.Linear(5, 8), operator, nn.Linear(8, 3)

    def forward(self, x):
        return self.second(self.operator(self.first(x)))


def found_with(operator):
    torch.manual_seed(0)
    return ds.find_widths(Between(operator), (torch.randn(4, 7, 5),))


@pytest.mark.parametrize(
    "operator",
    [
        lambda h: h.roll(1, 1),
        lambda h: h.roll((1, 2), (0, -2)),
        lambda h: h.flip(0),
        lambda h: h.flip([]),
        lambda h: h.clone().cumsum_(1),
        lambda h: h.gather(1, torch.zeros_like(h, dtype=torch.long)),
        lambda h: h * torch.tensor(2.0).gather(0, torch.tensor(0)),
        lambda h: h + h.detach().mean(1, keepdim=True),
        lambda h: h.softmax(-2),
    ],
    ids=["roll", "rolls", "flip", "no_flip", "cumsum_", "gather", "gather_number", "mean", "softmax"],
)
def test_units_come_through(operator):
    found = found_with(operator)
    assert {name: width.size for name, width in found.widths.items()} == {"first": 8}


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        (lambda h: h.roll(1), "is rolled"),
        (lambda h: h.roll(1, -1), "is rolled"),
        (lambda h: h.flip(-1), "is flipped"),
        (lambda h: h.clone().cumsum_(-1), "is summed up in order"),
        (lambda h: h.softmax(-1), "softmax is taken over it"),
        (lambda h: h.gather(-1, torch.zeros_like(h, dtype=torch.long)), "is looked up by gather"),
        (lambda h: h / h.var(dim=-1, keepdim=True), "the variance is taken over it"),
    ],
    ids=["roll_all", "roll", "flip", "cumsum_", "softmax", "gather", "var"],
)
def test_units_that_meet_are_fixed(operator, reason):
    found = found_with(operator)
    assert found.widths == {}
    (refusal,) = [each for each in found.refused if "first.weight[0]" in each.places]
    assert refusal.reason.startswith(reason)


def test_roll_without_dims_fixes_every_dimension():
    class Rolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(3, 6, 1), nn.Conv1d(6, 2, 1)

        def forward(self, x):
            return self.second(self.first(x).roll(7))

    torch.manual_seed(0)
    found = ds.find_widths(Rolled(), (torch.randn(2, 3, 7),))  # by all entries of a channel: others pass
    assert found.widths == {}
    assert any(each.reason.startswith("is rolled") for each in found.refused)
