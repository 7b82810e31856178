"""Streams and heads of whole transformers: exact, learned, and a plain model is left."""

import math
import re
from importlib.util import find_spec
from typing import NamedTuple

import pytest
import torch
from helpers import streams
from torch import nn
from zoo import libraries, transformers_by_hand
from zoo.case import given, ids
from zoo.checks import assert_finite, assert_same, exported, learn, outputs_of, silent_units_come_and_go

import diffstruct as ds
from diffstruct.surgery import Change, operate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
    pytest.mark.filterwarnings(r"ignore:\w+ cannot say these sizes:diffstruct.StructureWarning"),
]

TOKENS, IMAGES = libraries.TOKENS, libraries.IMAGES
EXACT, ROUNDED = 1e-12, 1e-6
"""The latter where a model in float64 computes norms or angles in float32."""
HEADS, GROUPS = {"heads": 1, "head_width": 1}, {"groups": 1, "group_size": 1, "head_width": 1}
TWICE = {"heads": 2, "head_width": 2}


class Whole(NamedTuple):
    """A model, and what is to be found in it.

    Args:
        build: the model.
        inputs: example inputs.
        streams: names of its streams that are widths of their own.
        kinds: how many widths of each kind its heads have.
        rtol: how exact surgery is in float64, as a share of the largest output.
    """

    build: object
    inputs: object
    streams: tuple[str, ...]
    kinds: dict[str, int]
    rtol: float = EXACT


def by_hand(post):
    return streams.network(norm=nn.LayerNorm, post=post, size=8)


def classifying(build):
    return lambda: build("ForSequenceClassification")


WHOLE = {
    "bert": Whole(
        classifying(libraries.bert), TOKENS, ("bert.embeddings.word_embeddings", "bert.pooler.dense"), TWICE
    ),
    "distilbert": Whole(
        classifying(libraries.distilbert),
        TOKENS,
        ("distilbert.embeddings.word_embeddings", "pre_classifier"),
        HEADS,
    ),
    "albert": Whole(
        classifying(libraries.albert),
        TOKENS,
        ("albert.embeddings.word_embeddings", "albert.encoder.embedding_hidden_mapping_in", "albert.pooler"),
        HEADS,
    ),
    "gpt2": Whole(lambda: libraries.gpt2(use_cache=False), TOKENS, ("transformer.wte",), HEADS),
    "gpt_neox": Whole(
        libraries.gpt_neox, TOKENS, ("gpt_neox.embed_in",), {"heads": 2, "head_width": 3}, ROUNDED
    ),
    "llama": Whole(
        libraries.llama,
        TOKENS,
        ("model.embed_tokens",),
        {"groups": 2, "group_size": 2, "head_width": 1},
        ROUNDED,
    ),
    "mistral": Whole(libraries.mistral, TOKENS, ("model.embed_tokens",), GROUPS, ROUNDED),
    "qwen2": Whole(libraries.qwen2, TOKENS, ("model.embed_tokens",), GROUPS, ROUNDED),
    "qwen3": Whole(
        libraries.qwen3,
        TOKENS,
        ("model.embed_tokens",),
        {"groups": 2, "group_size": 2, "head_width": 1},
        ROUNDED,
    ),
    "t5": Whole(libraries.t5, libraries.t5_inputs, ("shared",), {"heads": 3, "head_width": 4}, ROUNDED),
    "vit": Whole(libraries.vit, IMAGES, ("vit.embeddings.patch_embeddings.projection",), HEADS),
    "swin": Whole(
        libraries.swin, libraries.LARGER_IMAGES, ("swin.encoder.layers.0.downsample.reduction",), TWICE
    ),
    "convnext": Whole(libraries.convnext, IMAGES, (), {"pwconv1": 2}),
    "nn.Transformer": Whole(transformers_by_hand.Translator, given(ids(11, 2, 7), ids(13, 2, 5)), (), HEADS),
    "pre-norm by hand": Whole(lambda: by_hand(False), lambda: (streams.TOKENS,), ("tokens",), {"up": 2}),
    "post-norm by hand": Whole(lambda: by_hand(True), lambda: (streams.TOKENS,), ("tokens",), {"up": 2}),
}
EACH = pytest.mark.parametrize("name", WHOLE)


def of_interest(widths, whole):
    """The streams and heads among some widths, which must be all that there are to be."""
    kinds = {each: each.rpartition(".")[2] for each in widths}
    assert {each for each in widths if each in whole.streams} == {*whole.streams}
    heads = [each for each in widths if kinds[each] in whole.kinds and each not in whole.streams]
    assert {kind: sum(kinds[each] == kind for each in heads) for kind in whole.kinds} == whole.kinds
    return {each: widths[each] for each in (*whole.streams, *heads)}


@EACH
def test_streams_and_heads_come_and_go_and_change_nothing(name):
    whole = WHOLE[name]
    torch.manual_seed(0)
    model = whole.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # as they come, all that is attended to is attended to alike
            parameter.add_(0.3 * torch.randn_like(parameter))
        for module in model.modules():
            if "Norm" in type(module).__name__:
                for gain in module.parameters(recurse=False):
                    gain.fill_(gain.mean())
    inputs = tuple(
        each.double() if torch.is_tensor(each) and each.is_floating_point() else each
        for each in whole.inputs()
    )
    ours = of_interest(ds.find_widths(model, inputs).widths, whole)
    silent_units_come_and_go(model, inputs, ours.values(), whole.rtol)
    # Where it is kept as a number, the scale is that of the new width, as the model's class would have it.
    wider = [width for each, width in ours.items() if each.endswith((".head_width", ".group_size"))]
    operate([Change(width, tuple(range(width.size)), 1) for width in wider])
    for module in model.modules():
        size = getattr(module, "head_dim", getattr(module, "attention_head_size", None))
        if size is not None and isinstance(getattr(module, "scaling", None), float):
            assert math.isclose(module.scaling, size**-0.5)
        if hasattr(module, "num_key_value_groups"):  # not needed by all ways to compute attention
            heads = module.q_proj.out_features // module.k_proj.out_features
            assert module.num_key_value_groups == heads


class Restless(ds.OutgoingNorm):
    """Importance by chance, so that units of all widths come and go all the time."""

    def __init__(self):
        super().__init__()
        self.chance = torch.Generator().manual_seed(0)

    def importance(self, width):
        return torch.rand(width.size, generator=self.chance)


@EACH
def test_they_are_trained_through_ten_changes_of_each_reloaded_and_exported(name):
    whole = WHOLE[name]
    torch.manual_seed(0)
    model, inputs = whole.build(), whole.inputs()
    patterns = [*whole.streams, *(f"*.{kind}" for kind in whole.kinds)]
    found = ds.find_widths(model, inputs, include=patterns)
    ours = of_interest(found.widths, whole)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rule = ds.Rule(threshold=0.3, reserve=2, p_add=0.9, p_delete=0.9, p_spontaneous=0.4, max_units=64)
    options = {"criterion": Restless(), "rule": rule, "start": None, "interval": 1, "total_steps": 60}
    structure = ds.Structure(model, optimizer, widths=found, **options)

    def changes():
        return {each: sum(event.width == each for event in structure.history.events) for each in ours}

    while structure.steps < 60 and min(changes().values()) < 10:
        learn(model, inputs, optimizer, structure, 1)
    assert min(changes().values()) >= 10
    plain = structure.finish()
    outputs = outputs_of(plain, inputs)
    assert_finite(outputs)
    torch.manual_seed(1)
    sizes = {each: width.size for each, width in structure.widths.items()}
    state = plain.state_dict() | dict(plain.named_buffers())  # with the frequencies of rotary embeddings
    again = ds.resize_to(whole.build(), state, inputs, sizes=sizes)
    assert_same(outputs_of(again, inputs), outputs, ROUNDED)
    assert_same(outputs_of(exported(plain, inputs), inputs), outputs, 1e-5)


UNTIED = (
    r"LayerNorm .* behind (gelu|tanh) in .*, where no channel is the mean of the others; untied, \S+ and \S+ "
)
OUTPUT = r"is a dimension of the output; it can be learned with a layer behind the model"
INPUT = r"is a dimension of the input; it can be learned with a layer in front of the model"
MERGED = (
    r"LayerNorm takes the mean over it in \S+downsample\.norm .*over 4 copies side by side, whose own means"
)
DEPTHWISE = (
    r"LayerNorm .* behind a convolution in groups in \S+dwconv .*, where no channel is the mean of the others"
)
REFUSED = {
    "BERT's masked-LM head": (
        lambda: libraries.bert("ForMaskedLM"),
        TOKENS,
        "word_embeddings.weight[1]",
        UNTIED,
    ),
    "DistilBERT's": (
        lambda: libraries.distilbert("ForMaskedLM"),
        TOKENS,
        "word_embeddings.weight[1]",
        UNTIED,
    ),
    "ALBERT's": (lambda: libraries.albert("ForMaskedLM"), TOKENS, "word_embeddings.weight[1]", UNTIED),
    "BERT without a head": (libraries.bert, TOKENS, "word_embeddings.weight[1]", OUTPUT),
    "Swin's first stage": (
        libraries.swin,
        libraries.LARGER_IMAGES,
        "patch_embeddings.projection.weight[0]",
        MERGED,
    ),
    "ConvNeXt": (libraries.convnext, IMAGES, "patch_embeddings.weight[0]", DEPTHWISE),
    "nn.Transformer without embeddings": (
        lambda: nn.Transformer(8, 2, 1, 1, 6, batch_first=True),
        lambda: (torch.randn(2, 5, 8), torch.randn(2, 4, 8)),
        "norm1.weight[0]",
        INPUT,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_streams_that_cannot_be_changed_exactly_are_refused_with_the_reason_and_what_to_do(name):
    build, inputs, place, reason = REFUSED[name]
    torch.manual_seed(0)
    found = ds.find_widths(build(), inputs())
    reasons = {each.reason for each in found.refused if any(shown.endswith(place) for shown in each.places)}
    assert len(reasons) == 1
    assert re.search(reason, *reasons)


@pytest.mark.parametrize(
    ("build", "stream"),
    [
        (libraries.bert, "bert.embeddings.word_embeddings"),
        (libraries.distilbert, "distilbert.embeddings.word_embeddings"),
        (libraries.albert, "albert.embeddings.word_embeddings"),
    ],
)
def test_with_a_head_that_is_not_tied_they_are_learned(build, stream):
    torch.manual_seed(0)
    model = build("ForMaskedLM", tie_word_embeddings=False)
    assert stream in ds.find_widths(model, TOKENS(), include=["*embeddings"]).widths
