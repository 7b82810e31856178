"""A fresh model takes the number of blocks of a state dict, with their sizes, or says why not."""

import random
from importlib.util import find_spec

import pytest
import torch
from helpers.resizable import assert_untouched, everything
from torch import nn
from zoo import blocks as zoo
from zoo import libraries
from zoo.checks import outputs_of

import diffstruct as ds
from diffstruct.surgery import change_blocks, newborn, operate

LIBRARY = {"GPT-2", "Llama", "Qwen2", "ViT"}
HAS_LIBRARY = find_spec("transformers") is not None


def spoken(model):
    """All its weights, those of new blocks too, have something to say."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def learned(build, inputs, name, keep, more=0):
    """A model of which some blocks have left, copies of the last have entered, and widths have changed."""
    torch.manual_seed(1)
    model = build()
    depth = ds.find_depths(model, inputs).depths[name]
    generator = torch.Generator().manual_seed(0)
    births = [newborn(model, depth, depth.stack.blocks[-1], None, (), generator) for _ in range(more)]
    change_blocks(model, ds.Change(depth, keep, more), births)
    widths = [*ds.find_widths(model, inputs).widths.values()]
    inner = [width for width in widths if width.normalisation is None and "head" not in width.name]
    inner = [width for width in inner if "group" not in width.name and width.size > 2]
    operate([ds.Change(width, tuple(range(2 + index % 2)), 0) for index, width in enumerate(inner)])
    return spoken(model)


def shuffled(state):
    """In another order, as files may have it."""
    items = [*state.items()]
    random.Random(0).shuffle(items)
    return dict(items)


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "more"), [((0, 2), 0), ((0, 1, 2), 2)])
@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_fresh_model_gets_the_blocks_that_a_state_dict_has(name, keep, more):
    if name in LIBRARY and not HAS_LIBRARY:
        pytest.skip("transformers is not installed")
    build, inputs, container = zoo.MODELS[name]
    model = learned(build, inputs, container, keep, more)
    torch.manual_seed(2)
    fresh = ds.resize_to(build(), shuffled(model.state_dict()), inputs)
    for mine, right in zip(outputs_of(fresh, inputs), outputs_of(model, inputs), strict=True):
        assert torch.equal(mine, right)
    assert len(fresh.get_submodule(container)) == len(keep) + more
    assert repr(fresh) == repr(model)
    if name in LIBRARY:
        assert fresh.config.num_hidden_layers == len(keep) + more


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBRARY, reason="transformers is not installed")
@pytest.mark.parametrize(("keep", "more"), [((1,), 0), ((0, 1), 2)])
def test_what_is_no_block_stays_where_it_is(keep, more):
    """The first block of each stack of T5 computes what all add."""
    inputs = libraries.t5_inputs()

    def build():
        model = libraries.t5()
        model.encoder.block.append(type(model.encoder.block[1])(model.encoder.config, layer_idx=2))
        return model.eval()

    torch.manual_seed(0)
    model = learned(build, inputs, "encoder.block", keep, more)
    fresh = ds.resize_to(build(), model.state_dict(), inputs)
    assert torch.equal(outputs_of(fresh, inputs)[0], outputs_of(model, inputs)[0])
    assert len(fresh.encoder.block) == 1 + len(keep) + more


def test_a_structure_that_has_learned_its_depth_is_loaded_whole():
    build, inputs, name = zoo.MODELS["residual MLP"]
    torch.manual_seed(0)
    model, (x,) = build(), inputs
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"criterion": ds.TaylorImportance(price=50, annealing=1e-3, settling=1e9), "depth": [name]}
    options |= {"rule": {name: ds.Rule(grace_period=2), "*": ds.Rule(reserve=3, p_add=1, max_units=24)}}
    structure = ds.Structure(model, optimizer, example_inputs=inputs, total_steps=60, interval=1, **options)
    while structure.widths[name].size == 3 and structure.steps < 60:
        loss = (model(x) - x[:, :3]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
    plain = structure.finish()
    assert len(plain[1]) < 3
    fresh = ds.resize_to(build(), plain.state_dict(), inputs)
    assert torch.equal(fresh(x), plain(x))


class Window(nn.Module):
    """Its code differs from that of others with the same weights."""

    def __init__(self, shift, rate=0.0):
        super().__init__()
        self.norm, self.shift, self.rate = nn.LayerNorm(8), shift, rate
        self.up, self.down = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x):
        y = self.down(self.up(self.norm(x)).relu().roll(self.shift, 0))
        return x + nn.functional.dropout(y, self.rate, self.training)

    def extra_repr(self):
        return f"shift={self.shift}, rate={self.rate}"


def windows(*blocks):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Sequential(*(Window(*each) for each in blocks)), nn.Linear(8, 3))


def test_blocks_that_differ_in_training_alone_are_interchangeable():
    model = spoken(windows((1, 0.1), (1, 0.3))).eval()
    fresh = ds.resize_to(windows((1, 0.1), (1, 0.2), (1, 0.3)), model.state_dict(), zoo.VECTORS).eval()
    assert torch.equal(fresh(*zoo.VECTORS), model(*zoo.VECTORS))


def refused(model, state, inputs, match):
    before = everything(model)
    with pytest.raises(ds.StructureError, match=match):
        ds.resize_to(model, state, inputs)
    assert_untouched(model, before)


def test_blocks_that_compute_different_things_are_refused():
    """Even if their branches are hardly heard as the model comes."""
    fresh = windows((0,), (1,), (0,))
    for block in fresh[1]:
        nn.init.constant_(block.down.weight, 1e-7)
    match = r"blocks 2 and 1 of '1' have the same tensors and compute different things.*build the model with"
    refused(fresh, windows((0,), (1,)).state_dict(), zoo.VECTORS, match)


def test_without_inputs_nothing_is_known_of_blocks():
    build, _, name = zoo.MODELS["transformer"]
    state = learned(*zoo.MODELS["transformer"], (0, 2)).state_dict()
    refused(build(), state, None, f"number of blocks in {name}, and without a run .*give example_inputs")


def test_children_that_are_no_blocks_are_refused():
    state = zoo.Net(zoo.PostNormBlock, depth=2).state_dict()
    match = r"another number of children of 'blocks', of which blocks.0 is not the identity when"
    refused(zoo.Net(zoo.PostNormBlock), state, zoo.VECTORS, match)


def test_code_that_names_its_blocks_has_no_place_for_more():
    state = zoo.Net(depth=4).state_dict()
    refused(
        zoo.Unrolled(), state, zoo.VECTORS, "another number of children of 'blocks'|has no place for them"
    )


def test_another_architecture_is_refused_as_ever():
    state = {key: value for key, value in zoo.Net(depth=2).state_dict().items() if "blocks.1.up" not in key}
    refused(zoo.Net(), state, zoo.VECTORS, "it lacks blocks.1.up.bias")
    state = {**zoo.Net().state_dict(), "blocks.999999999.up.weight": torch.ones(12, 8)}
    refused(zoo.Net(), state, zoo.VECTORS, "the model has no blocks.999999999.up.weight")


def test_whatever_fails_afterwards_the_blocks_are_as_they_were():
    model = zoo.Net()
    state = zoo.Net(depth=2).state_dict() | {"head.bias": torch.ones(4)}
    children = [*model.blocks]
    refused(model, state, zoo.VECTORS, "head.bias")
    assert [*model.blocks] == children
    assert model.depth == 3
