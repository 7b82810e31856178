"""Layouts of which a slot means only a part."""

import pytest
import torch
from helpers.layouts import layouts
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds
from diffstruct.surgery import Change, operate
from diffstruct.width.canonical import canonical
from diffstruct.width.follows import Rescaled
from diffstruct.width.layout import (
    Axis,
    Fixed,
    Product,
    Sum,
    Unowned,
    axes,
    copies,
    length,
    only,
    owners,
    sources,
    unit_sums,
)
from diffstruct.width.parts import meant, positions, whole

HEADS, WIDTH = Axis(2), Axis(3)
EACH = Product((HEADS, WIDTH))
QUERIES = Sum((EACH, Unowned(EACH), Unowned(EACH)))  # one behind the other
BY_HEAD = Product((HEADS, Sum((Unowned(WIDTH), WIDTH, Unowned(WIDTH)))))  # side by side, the keys


def test_units_own_only_what_is_meant():
    assert owners(QUERIES, WIDTH).tolist() == [0, 1, 2] * 2 + [-1] * 12
    assert owners(BY_HEAD, WIDTH).tolist() == ([-1] * 3 + [0, 1, 2] + [-1] * 3) * 2
    assert owners(BY_HEAD, HEADS).tolist() == [0] * 9 + [1] * 9
    assert meant(QUERIES).tolist() == [True] * 6 + [False] * 12
    assert meant(BY_HEAD).tolist() == ([False] * 3 + [True] * 3 + [False] * 3) * 2
    assert unit_sums(torch.arange(18.0), BY_HEAD, WIDTH).tolist() == [15.0, 17.0, 19.0]
    assert [copies(each, WIDTH) for each in (QUERIES, BY_HEAD)] == [2, 2]
    assert length(only(QUERIES, WIDTH)) == 6


@pytest.mark.parametrize("layout", [QUERIES, BY_HEAD])
def test_all_entries_change_with_the_size(layout):
    moves = {WIDTH: torch.tensor([0, 2, -1, -1])}
    assert torch.equal(sources(layout, moves), sources(whole(layout), moves))
    assert length(layout, {WIDTH: 5}) == 30


def test_the_whole_and_the_canonical_form():
    assert whole(QUERIES) == canonical(Product((Fixed(3), EACH)))
    assert whole(BY_HEAD) == canonical(Product((HEADS, Fixed(3), WIDTH)))
    assert canonical(canonical(QUERIES)) == canonical(QUERIES) != whole(QUERIES)
    assert torch.equal(meant(canonical(QUERIES)), meant(QUERIES))


@given(data=st.data())
def test_positions_are_where_owners_say(data):
    pool = data.draw(st.lists(st.builds(Axis, st.integers(1, 4)), min_size=1, max_size=3))
    layout, axis = data.draw(layouts(pool)), pool[0]
    assume(axis in axes(layout))
    sizes = {each: data.draw(st.integers(1, 5)) for each in pool}
    first = data.draw(st.integers(0, 5))
    expected = (owners(layout, axis, sizes) >= first).nonzero()[:, 0]
    assert torch.equal(positions(layout, axis, first, sizes), expected)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(5, 18)


def test_two_slots_may_share_a_dimension_and_rescaling_changes_a_part():
    units, heads = Axis(3), Axis(2)
    each = Product((heads, units))
    module = Attention()
    read, fed = Sum((each, Unowned(each), Unowned(each))), Sum((Unowned(each), each, each))
    slots = (
        ds.Slot(module.qkv, "weight", 0, ds.Role.INCOMING, fed),
        ds.Slot(module.qkv, "weight", 0, ds.Role.OUTGOING, read),
    )
    rescaled = (Rescaled(module.qkv, "weight", units, 0.5, part=(0, canonical(read))),)
    width = ds.Width(
        "width", units, slots, (ds.Attribute(module.qkv, "out_features", whole(read)),), rescaled
    )
    assert [*width.having(ds.Role.INCOMING, ds.Role.OUTGOING)] == [*slots]
    before = module.qkv.weight.detach().clone()
    undo = operate([Change(width, (0, 1, 2), 9)])  # two times as wide in the root
    assert module.qkv.out_features == len(module.qkv.weight) == 72
    after = module.qkv.weight.detach().unflatten(0, (3, 2, 12))
    assert not after[:, :, 3:].any()
    factors = torch.tensor([2.0, 1.0, 1.0])[:, None, None, None]
    torch.testing.assert_close(after[:, :, :3], factors * before.unflatten(0, (3, 2, 3)), rtol=1e-6, atol=0)
    undo()
    assert torch.equal(module.qkv.weight, before)
