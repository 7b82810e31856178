"""Models of the transformers library (version 5 and newer) as they come, at tiny sizes, with random weights.

Their heads are read by `view(..., -1, head_dim)`. Where the scale is a number that the constructor has
computed, the features of a head are a width as well, at the same places as the heads; these cases leave
that open. Configurations do not keep key and value caches, which would make heads part of the output;
GPT-2 shows what comes by default.
"""

from importlib.metadata import version
from importlib.util import find_spec

import pytest
from torch import nn

from zoo.case import Case, case, given, ids

TOKENS = given(ids(31, 2, 7))
IMAGES = given((2, 3, 16, 16))
LARGER_IMAGES = given((2, 3, 32, 32))
VOCABULARY = {"vocab_size": 31, "max_position_embeddings": 16}


def of(prefix: str, text: str) -> str:
    """The same places in a submodule."""
    return " ".join(prefix + word for word in text.split())


def library():
    """The library, without what it logs about what it misses; where it is older, the test is skipped."""
    transformers = pytest.importorskip("transformers", minversion="5", reason="its modules had other names")
    transformers.logging.set_verbosity_error()
    return transformers


def bert(head="Model", **options):
    hf = library()
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 10}
    return getattr(hf, f"Bert{head}")(hf.BertConfig(**sizes, **options, **VOCABULARY))


def distilbert(head="Model", **options):
    hf = library()
    sizes = {"dim": 12, "n_layers": 1, "n_heads": 3, "hidden_dim": 10}
    return getattr(hf, f"DistilBert{head}")(hf.DistilBertConfig(**sizes, **options, **VOCABULARY))


def gpt2(hidden=10, **options):
    hf = library()
    sizes = {"n_embd": 12, "n_layer": 1, "n_head": 3, "n_positions": 16, "vocab_size": 31}
    return hf.GPT2LMHeadModel(hf.GPT2Config(n_inner=hidden, **sizes, **options))


def llama():
    hf = library()
    sizes = {"hidden_size": 18, "num_hidden_layers": 2, "head_dim": 4, "intermediate_size": 10}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3}
    return hf.LlamaForCausalLM(hf.LlamaConfig(use_cache=False, **sizes, **heads, **VOCABULARY))


def mistral(kv_heads=3, hidden=10, queries=2):
    hf = library()
    sizes = {"hidden_size": 14, "num_hidden_layers": 1, "head_dim": 4, "intermediate_size": hidden}
    heads = {"num_attention_heads": kv_heads * queries, "num_key_value_heads": kv_heads}
    return hf.MistralForCausalLM(hf.MistralConfig(use_cache=False, **sizes, **heads, **VOCABULARY))


def qwen2():
    hf = library()
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 10}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3}
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(use_cache=False, **sizes, **heads, **VOCABULARY))


def qwen3():
    hf = library()
    sizes = {"hidden_size": 18, "num_hidden_layers": 2, "head_dim": 6, "intermediate_size": 10}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3}
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(use_cache=False, **sizes, **heads, **VOCABULARY))


def gpt_neox():
    """A quarter of each head turns with the position."""
    hf = library()
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 10}
    rotary = {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.25}}
    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(use_cache=False, **sizes, **rotary, **VOCABULARY))


def albert(head="Model", **options):
    hf = library()
    sizes = {"embedding_size": 8, "hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 10}
    config = hf.AlbertConfig(num_attention_heads=3, **sizes, **options, **VOCABULARY)
    return getattr(hf, f"Albert{head}")(config)


def swin(**options):
    hf = library()
    sizes = {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "num_labels": 5}
    return hf.SwinForImageClassification(hf.SwinConfig(image_size=32, patch_size=4, **sizes, **options))


def convnext(**options):
    hf = library()
    sizes = {"hidden_sizes": [6, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 4, "num_labels": 5}
    return hf.ConvNextForImageClassification(hf.ConvNextConfig(**sizes, **options))


def t5():
    hf = library()
    sizes = {"d_model": 14, "d_kv": 4, "d_ff": 10, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 3}
    return hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=31, use_cache=False, **sizes))


def vit():
    hf = library()
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 10}
    images = {"image_size": 16, "patch_size": 8, "num_labels": 5}
    return hf.ViTForImageClassification(hf.ViTConfig(**sizes, **images))


def resnet():
    hf = library()
    sizes = {"embedding_size": 8, "hidden_sizes": [24, 40], "depths": [1, 1], "layer_type": "bottleneck"}
    return hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=5, **sizes))


def mobilenet_v2():
    hf = library()
    sizes = {"depth_multiplier": 0.1, "depth_divisible_by": 4, "min_depth": 4, "finegrained_output": False}
    config = hf.MobileNetV2Config(image_size=16, num_labels=5, **sizes)
    model = hf.MobileNetV2ForImageClassification(config)
    for layer in model.modules():
        # As it comes, and in evaluation mode, the signal dies on its way, and any change looks right.
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return model


def t5_inputs():
    source, target = given(ids(31, 2, 7), ids(31, 2, 5))()
    return (source, None, target)  # the mask is None


GROUPED = "{q,k,v}_proj.weight[0] o_proj.weight[1]"
SWIGLU = "{gate,up}_proj.weight[0] down_proj.weight[1]"
T5_HEADS = "SelfAttention.{q,k,v}.weight[0] SelfAttention.o.weight[1]"
T5_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight[1]"
NORMED = "convolution.weight[0] normalization.{bn}[0]"


def bert_layer(layer: int) -> dict[str, str]:
    prefix = f"encoder.layer.{layer}."
    heads = "attention.self.{query,key,value}.{wb}[0] attention.output.dense.weight[1]"
    return {
        f"heads{layer}": of(prefix, heads),
        f"hidden{layer}": of(prefix, "intermediate.dense.{wb}[0] output.dense.weight[1]"),
    }


def llama_layer(layer: int) -> dict[str, str]:
    prefix = f"model.layers.{layer}."
    return {
        f"kv_heads{layer}": of(prefix + "self_attn.", GROUPED),
        f"hidden{layer}": of(prefix + "mlp.", SWIGLU),
    }


def resnet_stage(stage: int, after: str) -> dict[str, str]:
    """Widths of a stage of one bottleneck; `after` is what reads its output."""
    prefix = f"resnet.encoder.stages.{stage}.layers.0."
    inner = [
        of(prefix + f"layer.{i}.", NORMED) + f" {prefix}layer.{i + 1}.convolution.weight[1]" for i in (0, 1)
    ]
    return {
        f"reduced{stage}": inner[0],
        f"filtered{stage}": inner[1],
        f"wide{stage}": f"{of(prefix + '{shortcut,layer.2}.', NORMED)} {after}",
    }


RESNET_FIRST = "resnet.encoder.stages.{}.layers.0.{{shortcut,layer.0}}.convolution.weight[1]"


def library_cases() -> tuple[Case, ...]:
    """The cases, where the transformers library is installed, and names its modules so."""
    if find_spec("transformers") is None or int(version("transformers").partition(".")[0]) < 5:
        return ()
    return (
        case(
            "transformers_bert",
            bert,
            TOKENS,
            bert_layer(0) | bert_layer(1),
            fixed={
                "encoder.layer.{0,1}.output.LayerNorm.{wb}[0]": "output",
                "pooler.dense.{wb}[0]": "output",
            },
            complete=False,
        ),
        case(
            "transformers_distilbert",
            distilbert,
            TOKENS,
            {
                "heads": of("transformer.layer.0.attention.", "{q,k,v}_lin.{wb}[0] out_lin.weight[1]"),
                "hidden": of("transformer.layer.0.ffn.", "lin1.{wb}[0] lin2.weight[1]"),
            },
            fixed={"transformer.layer.0.output_layer_norm.{wb}[0]": "output"},
            complete=False,
        ),
        case(
            "transformers_gpt2",
            gpt2,
            TOKENS,
            {"hidden": "transformer.h.0.mlp.c_fc.{weight[1],bias[0]} transformer.h.0.mlp.c_proj.weight[0]"},
            complete=False,
            exports=False,  # its cache of keys and values is no type that export knows
        ),
        case(
            "transformers_llama",
            llama,
            TOKENS,
            llama_layer(0) | llama_layer(1),
            fixed={"lm_head.weight[0]": "output"},
            complete=False,
        ),
        case(
            "transformers_mistral",
            mistral,
            TOKENS,
            {
                "kv_heads": of("model.layers.0.self_attn.", GROUPED),
                "hidden": of("model.layers.0.mlp.", SWIGLU),
            },
            allowed={"queries": of("model.layers.0.self_attn.", "q_proj.weight[0] o_proj.weight[1]")},
            complete=False,
        ),
        case(
            "transformers_qwen2",
            qwen2,
            TOKENS,
            {
                "kv_heads": of("model.layers.0.self_attn.", GROUPED + " {q,k,v}_proj.bias[0]"),
                "hidden": of("model.layers.0.mlp.", SWIGLU),
            },
            complete=False,
        ),
        case(
            "transformers_t5",
            t5,
            t5_inputs,
            {
                # All layers of a stack add the position bias of the first, a number for each head.
                "encoder_heads": of("encoder.block.{0,1}.layer.0.", T5_HEADS) + " " + T5_BIAS,
                "decoder_heads": of("decoder.block.0.layer.0.", T5_HEADS)
                + " "
                + T5_BIAS.replace("encoder", "decoder"),
                **{
                    f"hidden{i}": f"{place}.DenseReluDense.wi.weight[0] {place}.DenseReluDense.wo.weight[1]"
                    for i, place in enumerate(
                        ("encoder.block.0.layer.1", "encoder.block.1.layer.1", "decoder.block.0.layer.2")
                    )
                },
            },
            allowed={
                "cross_heads": of("decoder.block.0.layer.1.", T5_HEADS.replace("Self", "EncDec")),
            },
            complete=False,
        ),
        case(
            "transformers_vit",
            vit,
            IMAGES,
            {
                "heads": of("vit.layers.0.attention.", "{q,k,v}_proj.{wb}[0] o_proj.weight[1]"),
                "hidden": of("vit.layers.0.mlp.", "fc1.{wb}[0] fc2.weight[1]"),
            },
            complete=False,
        ),
        case(
            "transformers_resnet",
            resnet,
            IMAGES,
            {
                "embedding": of("resnet.embedder.embedder.", NORMED) + " " + RESNET_FIRST.format(0),
                **resnet_stage(0, RESNET_FIRST.format(1)),
                **resnet_stage(1, "classifier.1.weight[1]"),
            },
        ),
        case(
            "transformers_mobilenet_v2",
            mobilenet_v2,
            IMAGES,
            {
                f"expanded{i}": of(f"mobilenet_v2.layer.{i}.{{expand_1x1,conv_3x3}}.", NORMED)
                + f" mobilenet_v2.layer.{i}.reduce_1x1.convolution.weight[1]"
                for i in range(16)
            },
            complete=False,
        ),
    )
