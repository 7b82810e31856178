"""Models of the transformers library that were learned, saved and loaded by other code's means."""

from importlib.util import find_spec

import pytest
import torch
from helpers.any_module import EAGER
from zoo import libraries

import diffstruct as ds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="needs the transformers library"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


def gpt2():
    hf = libraries.library()
    sizes = {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 16, "vocab_size": 31}
    return hf.GPT2LMHeadModel(hf.GPT2Config(**sizes))


def llama():
    hf = libraries.library()
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "head_dim": 4, "intermediate_size": 20}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3}
    return hf.LlamaForCausalLM(hf.LlamaConfig(use_cache=False, **sizes, **heads, **libraries.VOCABULARY))


def bert():
    hf = libraries.library()
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    return hf.BertForMaskedLM(hf.BertConfig(**sizes, **libraries.VOCABULARY))


def vit():
    hf = libraries.library()
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    images = {"image_size": 16, "patch_size": 8, "num_labels": 5}
    return hf.ViTForImageClassification(hf.ViTConfig(**sizes, **images))


TIED = {
    "gpt2": (gpt2, libraries.TOKENS, ["*.c_fc"], ["n_inner"]),
    "llama": (
        llama,
        libraries.TOKENS,
        ["*.gate_proj", "*.groups", "*.group_size"],
        ["intermediate_size", "num_attention_heads", "num_key_value_heads"],
    ),
    "bert": (bert, libraries.TOKENS, ["*.intermediate.dense"], ["intermediate_size"]),
    "vit": (
        vit,
        libraries.IMAGES,
        ["*.fc1", "*.heads"],
        ["num_attention_heads", "intermediate_size", "head_dim"],
    ),
}
UNTIED = {
    "gpt2": (gpt2, libraries.TOKENS),
    "llama": (llama, libraries.TOKENS),
    "bert": (bert, libraries.TOKENS),
    "vit": (vit, libraries.IMAGES),
}


def learned(build, inputs, **options):
    """A model after some steps with a structure that is learned fast."""
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"criterion": ds.OutgoingNorm(), "rule": EAGER, "interval": 1, **options}
    structure = ds.Structure(model, optimizer, example_inputs=inputs, total_steps=25, **options)
    sizes = [width.size for width in structure.widths.values()]
    for _ in range(25):
        optimizer.zero_grad()
        model(*inputs).logits.square().mean().backward()
        optimizer.step()
        structure.step()
    assert [width.size for width in structure.widths.values()] != sizes
    return structure


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(*inputs).logits


@pytest.mark.parametrize("name", TIED)
def test_tied_widths_are_saved_and_loaded_by_the_library(name, tmp_path, recwarn):
    build, inputs, tie, keys = TIED[name]
    options = {"include": tie, "tie": tie}
    heads = [each for each in tie if each in ("*.heads", "*.groups", "*.group_size")]
    if heads:  # four heads divide the 24 features of Llama
        two = ds.Rule(min_units=2, max_units=2)
        options |= {"start": {**dict.fromkeys(heads, 2), "*": None}}
        options |= {"rule": {**dict.fromkeys(heads, two), "*": EAGER}}
    structure = learned(build, inputs(), **options)
    plain = structure.finish()
    assert not [each for each in recwarn if "cannot say" in str(each.message)]
    written = build().config.to_dict()
    assert {key for key, value in plain.config.to_dict().items() if written.get(key) != value} >= {*keys}
    plain.save_pretrained(tmp_path)
    loaded = type(plain).from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded, inputs()), logits(plain, inputs()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", UNTIED)
def test_widths_that_differ_by_layer_are_loaded_by_resize_to(name, tmp_path):
    build, inputs = UNTIED[name]
    structure = learned(build, inputs(), exclude=["*.head_width"])
    with pytest.warns(ds.StructureWarning, match="cannot say these sizes"):
        plain = structure.finish()
    plain.save_pretrained(tmp_path)
    torch.save(plain.state_dict(), tmp_path / "weights.pt")
    config = type(plain.config).from_pretrained(tmp_path)
    sizes = {"*.head_width": 2 if name == "llama" else 4}  # two pairs turn in each head of Llama
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    loaded = ds.resize_to(type(plain)(config), state, inputs(), sizes=sizes)
    torch.testing.assert_close(logits(loaded, inputs()), logits(plain, inputs()), rtol=0, atol=1e-6)


def test_the_librarys_own_files_are_read_too(tmp_path):
    load_file = pytest.importorskip("safetensors.torch").load_file
    inputs = libraries.TOKENS()
    plain = learned(gpt2, inputs, include=["*.c_fc"], tie=["*.c_fc"]).finish()
    plain.save_pretrained(tmp_path)  # leaves out one of the two names of the embedding
    loaded = ds.resize_to(gpt2(), load_file(tmp_path / "model.safetensors"), inputs)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    torch.testing.assert_close(logits(loaded, inputs), logits(plain, inputs), rtol=0, atol=1e-6)
