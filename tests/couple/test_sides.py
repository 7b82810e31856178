"""Where one side of a product of two activations lies in the weights that compute it."""

import torch

from diffstruct.couple.sides import occurrences, others
from diffstruct.couple.terms import Leaf, product_of, sum_of
from diffstruct.width.canonical import canonical
from diffstruct.width.layout import Axis, owners
from diffstruct.width.parts import meant, whole


def found(term, wanted, *free):
    """Which entries each occurrence means, one string each."""
    axes = {leaf: Axis(leaf.size) for leaf in free}
    layouts = [*occurrences(term, wanted, axes)]
    for layout in layouts:
        assert whole(layout) == whole(layouts[0])
        assert torch.equal(meant(canonical(others(layout))), ~meant(layout))
        if wanted in axes:
            assert torch.equal(owners(layout, axes[wanted]) >= 0, meant(layout))
    return ["".join(".x"[int(each)] for each in meant(layout)) for layout in layouts]


def test_queries_keys_and_values_one_behind_the_other():
    heads, width, three = Leaf(2), Leaf(2), Leaf(3, "three")
    each = product_of([heads, width])
    expected = ["xxxx........", "....xxxx....", "........xxxx"]
    assert found(sum_of([each, each, each]), width, heads, width) == expected
    assert found(product_of([three, each]), width, heads, width) == expected


def test_queries_keys_and_values_of_each_head_side_by_side():
    heads, width, three = Leaf(2), Leaf(2), Leaf(3, "three")
    term = product_of([heads, three, width])
    assert found(term, width, heads, width) == ["xx....xx....", "..xx....xx..", "....xx....xx"]


def test_a_head_of_which_a_part_turns_is_found_as_a_whole():
    turning, passing = Leaf(2), Leaf(3)
    head = sum_of([turning, turning, passing])
    term = sum_of([head, head])
    assert found(term, head, turning, passing) == ["xxxxxxx.......", ".......xxxxxxx"]


def test_a_number_of_heads_that_is_fixed_is_not_taken_for_queries_keys_and_values():
    heads, width, three = Leaf(2, "fixed"), Leaf(2), Leaf(3, "three")
    first, second, third, *_ = found(product_of([heads, three, width]), width, width)
    assert (first, second, third) == ("xx....xx....", "..xx....xx..", "....xx....xx")


def test_what_is_not_there_is_not_found():
    one, other, third = Leaf(2), Leaf(3), Leaf(2)
    assert found(sum_of([one, other]), third, one, other, third) == []
