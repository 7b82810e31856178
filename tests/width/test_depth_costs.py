"""What blocks cost."""

import pytest
import torch
from zoo.blocks import MODELS, VECTORS, Net

import diffstruct as ds
from diffstruct.couple import FoundWidths
from diffstruct.surgery import Change, change_blocks
from diffstruct.width.cost import cost_shares


def found(build, inputs, name):
    torch.manual_seed(0)
    model = build()
    widths = ds.find_widths(model, inputs)
    depth = ds.find_depths(model, inputs).depths[name]
    return FoundWidths(model, {name: depth, **widths.widths}, [], widths.proof)


@pytest.mark.parametrize("name", ["transformer", "ResNet stage"])
@pytest.mark.parametrize("kind", ["parameters", "multiply-adds"])
def test_costs_follow_the_number_of_blocks(name, kind):
    build, inputs, depth = MODELS[name]
    every = found(build, inputs, depth)

    def cost():
        return (
            ds.MultiplyAdds(every)
            if kind == "multiply-adds"
            else ds.ParameterCount(every.model, every.widths)
        )

    before = cost()
    for keep in ((0, 2), (1,)):
        undo = change_blocks(every.model, Change(every.widths[depth], keep, 0))
        sizes = {each: width.size for each, width in every.widths.items()}
        inner = {each: w for each, w in every.widths.items() if each != depth}
        left = {*every.model.modules()}
        every.widths = {depth: every.widths[depth]}
        every.widths.update((e, w) for e, w in inner.items() if all(s.module in left for s in w.slots))
        assert before(sizes) == pytest.approx(cost()(sizes))
        assert before(sizes) < before({**sizes, depth: 3})
        every.widths = {depth: every.widths[depth], **inner}
        undo()


def test_a_block_must_be_worth_what_its_units_would_have_to_be():
    every = found(Net, VECTORS, "blocks")
    cost = ds.ParameterCount(every.model, every.widths)
    with torch.no_grad():
        shares, weights = cost_shares(cost, every.widths)
    units = sum(shares[name] * width.size for name, width in every.widths.items() if name != "blocks")
    assert units == pytest.approx(1)
    own = sum(p.numel() for p in every.model.blocks[0].parameters())
    assert shares["blocks"] == pytest.approx(
        own / max(cost({n: w.size for n, w in every.widths.items()}), 1), rel=0.6
    )
    assert weights["blocks"] == pytest.approx([1, 1, 1])
