"""Blocks are found by what they do, proved by surgery, and refused for the true reason."""

import warnings

import pytest
import torch
from torch import nn
from zoo.blocks import (
    MODELS,
    VECTORS,
    Backwards,
    InPlaceBlock,
    MLPBlock,
    Net,
    PostNormBlock,
    ResNetBlock,
    Shared,
    TransformerBlock,
    Unrolled,
    residual_mlp,
)
from zoo.checks import assert_unchanged, outputs_of, snapshot

import diffstruct as ds
from diffstruct.nn.outputs import tensors_in
from diffstruct.surgery import Change, change_blocks, newborn, silence
from diffstruct.width.depth import children_of

every_model = pytest.mark.parametrize(("build", "inputs", "name"), MODELS.values(), ids=[*MODELS])


def made(build):
    torch.manual_seed(0)
    return build()


def same_to_the_bit(found, expected):
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@every_model
def test_all_blocks_are_found_and_the_model_is_as_it_was(build, inputs, name):
    model = made(build)
    before = snapshot(model)
    found = ds.find_depths(model, inputs)
    assert_unchanged(model, before)
    assert {title: depth.size for title, depth in found.depths.items()} == {name: 3}
    assert all(block.copies for block in found.depths[name].stack.blocks)
    assert found.depths[name].stack.front


@every_model
def test_a_newborn_is_the_identity_to_the_bit_wherever_it_stands_and_gets_a_gradient(build, inputs, name):
    model = made(build).eval()
    depth = ds.find_depths(model, inputs).depths[name]
    expected = outputs_of(model, inputs)
    generator = torch.Generator().manual_seed(1)
    children = children_of(depth.stack.container)
    for block, before in zip(
        [*depth.stack.blocks, depth.stack.blocks[0]], [*children[1:], None, children[0]], strict=True
    ):
        birth = newborn(model, depth, block, before, (), generator)
        undo = change_blocks(model, Change(depth, tuple(range(depth.size)), 1), [birth])
        assert len(children_of(depth.stack.container)) == 4
        assert same_to_the_bit(outputs_of(model, inputs), expected)
        model.zero_grad()
        logits = max(tensors_in(model(*inputs)), key=lambda tensor: tensor.requires_grad)
        logits.square().mean().backward()
        last = [getattr(module, tensor) for module, tensor in birth.block.last]
        assert any(tensor.grad.count_nonzero() for tensor in last)
        undo()
        assert children_of(depth.stack.container) == children
        assert same_to_the_bit(outputs_of(model, inputs), expected)


@every_model
def test_without_a_silent_block_the_model_is_the_same_to_the_bit(build, inputs, name):
    model = made(build)
    depth = ds.find_depths(model, inputs).depths[name]
    for unit in range(3):
        loud = silence(depth.stack.blocks[unit])
        expected = outputs_of(model, inputs)
        keep = tuple(other for other in range(3) if other != unit)
        undo = change_blocks(model, Change(depth, keep, 0))
        assert len(children_of(depth.stack.container)) == 2
        assert same_to_the_bit(outputs_of(model, inputs), expected)
        undo()
        loud()


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Net(PostNormBlock), "is not the identity when its branches are silent"),
        (Unrolled, "without it the model fails: IndexError"),
        (Shared, "is called 3 times, with the same weights"),
        (Backwards, "is called in another order than it stands in"),
        (lambda: frozen(Net()), "has last weights that are frozen"),
    ],
)
def test_blocks_are_refused_for_the_true_reason(build, reason):
    found = ds.find_depths(made(build), VECTORS)
    assert not found.depths
    assert reason in found.explain()


def test_a_block_whose_gradient_fails_is_refused():
    found = ds.find_depths(made(lambda: Net(InPlaceBlock)), VECTORS)
    assert found.depths["blocks"].size == 1
    assert "blocks.0 (1): its gradient fails: RuntimeError: one of the variables needed" in found.explain()


def frozen(model):
    for block in model.blocks:
        block.down.requires_grad_(False)
    return model


def test_a_block_of_its_own_kind_stays_while_the_others_are_units():
    """T5's first block computes the position bias that all others use."""
    hf = pytest.importorskip("transformers")
    sizes = {"num_layers": 3, "d_model": 16, "num_heads": 2, "d_kv": 8, "d_ff": 12, "vocab_size": 31}
    torch.manual_seed(0)
    model = hf.T5ForConditionalGeneration(hf.T5Config(decoder_start_token_id=0, **sizes))
    ids = torch.randint(31, (2, 7), generator=torch.Generator().manual_seed(0))
    found = ds.find_depths(model, {"input_ids": ids, "decoder_input_ids": ids})
    assert {name: depth.size for name, depth in found.depths.items()} == {
        "encoder.block": 2,
        "decoder.block": 2,
    }
    assert "encoder.block.0 (1): without it the model is another than with it silent" in found.explain()


def transformer():
    with warnings.catch_warnings():  # of nested tensors, which no pre-norm encoder uses
        warnings.simplefilter("ignore")
        return nn.Transformer(8, 2, 2, 3, 12, batch_first=True, norm_first=True)


def stages():
    def stage(before, after, count):
        first = nn.Sequential(nn.Conv2d(before, after, 1, 2), nn.ReLU())
        return nn.Sequential(first, *[ResNetBlock(after) for _ in range(count)])

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(stage(3, 6, 2), stage(6, 8, 3), *head)


@pytest.mark.parametrize(
    ("build", "inputs", "depths"),
    [
        (transformer, (torch.ones(2, 5, 8), torch.ones(2, 4, 8)), {"encoder.layers": 2, "decoder.layers": 3}),
        (stages, MODELS["ResNet stage"][1], {"0": 2, "1": 3}),
    ],
)
def test_several_depths(build, inputs, depths):
    found = ds.find_depths(made(build), inputs)
    assert {name: depth.size for name, depth in found.depths.items()} == depths
    assert all(block.copies for depth in found.depths.values() for block in depth.stack.blocks)


def test_layers_that_keep_the_shape_are_no_blocks():
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    found = ds.find_depths(model, VECTORS)
    assert not found.depths
    assert not found.refused


def test_blocks_within_blocks_are_left_to_these():
    pairs = [nn.Sequential(MLPBlock(), MLPBlock()) for _ in range(3)]
    model = nn.Sequential(nn.Linear(5, 8), nn.Sequential(*pairs), nn.Linear(8, 3))
    found = ds.find_depths(model, VECTORS)
    assert {name: depth.size for name, depth in found.depths.items()} == {"1": 3}
    assert "1.0 (2): lies in the blocks of 1" in found.explain()


def test_last_weights_are_those_that_an_optimizer_can_revive():
    block = (
        ds.find_depths(made(MODELS["ResNet stage"][0]), MODELS["ResNet stage"][1]).depths["2"].stack.blocks[0]
    )
    assert {(module, name) for module, name in block.last} == {
        (block.module.bn2, "weight"),
        (block.module.bn2, "bias"),
    }
    block = ds.find_depths(made(lambda: Net(TransformerBlock)), MODELS["transformer"][1]).depths["blocks"]
    block = block.stack.blocks[0]
    owners = {module for module, _ in block.last}
    assert owners == {block.module.project, block.module.mlp[2]}


def test_numbers_of_blocks_follow():
    model = made(MODELS["Qwen2"][0])
    depth = ds.find_depths(model, MODELS["Qwen2"][1]).depths["model.layers"]
    undo = change_blocks(model, Change(depth, (0, 2), 0))
    assert model.config.num_hidden_layers == 2
    assert len(model.config.layer_types) == 2
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    undo()
    assert model.config.num_hidden_layers == 3
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]


def test_patterns_and_the_printed_table():
    with pytest.raises(ds.ConfigurationError, match="nothing"):
        ds.find_depths(residual_mlp(), VECTORS, include=["nothing"])
    found = ds.find_depths(residual_mlp(), VECTORS, exclude=["1"])
    assert not found.depths
    assert "1 (3): is excluded by name" in str(found)
    assert "1.0, 1.1, 1.2" in str(ds.find_depths(residual_mlp(), VECTORS))
    with pytest.raises(ds.StructureError, match="does not run"):
        ds.find_depths(residual_mlp(), (torch.ones(2, 4),))
