"""What is to be found in the networks of `attention` and `transformers_by_hand`."""

from zoo import attention as att
from zoo import transformers_by_hand as tr
from zoo.case import case, given, ids

SEQUENCE = given((2, 7, 5))
WIDER = given((2, 7, 6))
TOKENS = given(ids(11, 2, 7))
HEADS = "{q,k,v}.{wb}[0] out.weight[1]"
FUSED = "qkv.{wb}[0] out.weight[1]"


def of(prefix: str, text: str) -> str:
    """The same places in a submodule."""
    return " ".join(prefix + word for word in text.split())


def feedforward(prefix: str, up="mlp.0", down="mlp.2") -> str:
    return of(prefix, f"{up}.{{wb}}[0] {down}.weight[1]")


BOTH = {"heads": HEADS, "head_dim": HEADS}
"""A head more, or a feature more in each head: the same places, in other blocks."""
BOTH_FUSED = {"heads": FUSED, "head_dim": FUSED}
STREAM_OF_HEADS = (
    "embed.weight[1] {ln_1,ln_2}.{wb}[0] c_attn.{wb}[0] c_attn.weight[1] c_proj.{wb}[0] c_proj.weight[1] "
    "mlp.0.weight[1] mlp.2.{wb}[0] out.weight[1]"
)
MULTIHEAD = "in_proj_weight[0] in_proj_weight[1] in_proj_bias[0] out_proj.{wb}[0] out_proj.weight[1]"
KEY_VALUE_HEADS = "{q,k,v}.weight[0] out.weight[1]"
GROUPED_QUERIES = {"kv_heads": KEY_VALUE_HEADS, "head_dim": KEY_VALUE_HEADS}
MORE_QUERIES = {"queries": "q.weight[0] out.weight[1]"}
SWIGLU = "{gate,up}.weight[0] down.weight[1]"

CASES = (
    case(
        "attention_separate_projections",
        att.SelfAttention,
        SEQUENCE,
        BOTH,
        fixed={"{q,k,v}.weight[1]": "input", "out.{wb}[0]": "output"},
    ),
    case(
        "attention_width_over_heads",
        lambda: att.WidthOverHeads(),
        SEQUENCE,
        dict.fromkeys(("heads", "head_dim"), "{q_proj,k_proj,v_proj}.{wb}[0] out_proj.weight[1]"),
        fixed={"norm.{wb}[0] {q_proj,k_proj,v_proj}.weight[1] embed.{wb}[0] out_proj.{wb}[0]": ""},
    ),
    case(
        "attention_width_of_stream",
        lambda heads=3, head_dim=4, hidden=10: att.WidthOfStream(hidden, heads * head_dim, heads),
        TOKENS,
        dict.fromkeys(("heads", "head_dim"), STREAM_OF_HEADS) | {"hidden": feedforward("")},
    ),
    case("attention_fused_chunk", att.FusedChunk, SEQUENCE, BOTH_FUSED),
    case(
        "attention_fused_view",
        att.FusedView,
        SEQUENCE,
        dict.fromkeys(("heads", "head_dim"), "qkv.weight[0] out.weight[1]"),
        fixed={"mask[0] mask[1]": ""},
    ),
    case("attention_fused_by_head", att.FusedByHead, SEQUENCE, BOTH_FUSED),
    case("attention_stored_scale", att.StoredScale, SEQUENCE, BOTH),
    case(
        "attention_key_and_value_widths",
        lambda heads=3, key=4, value=5: att.KeysAndValues(heads, key, value, scale=0.3),
        WIDER,
        {
            "heads": "{q,v}.{wb}[0] k.weight[0] out.weight[1]",
            "key": "q.{wb}[0] k.weight[0]",
            "value": "v.{wb}[0] out.weight[1]",
        },
    ),
    case(
        "attention_scale_from_size",
        att.KeysAndValues,
        WIDER,
        {
            "heads": "{q,v}.{wb}[0] k.weight[0] out.weight[1]",
            "key": "q.{wb}[0] k.weight[0]",
            "value": "v.{wb}[0] out.weight[1]",
        },
    ),
    case(
        "linear_attention", att.LinearAttention, WIDER, {"heads": HEADS, "value": "v.{wb}[0] out.weight[1]"}
    ),
    case("grouped_query_attention", att.GroupedQueries, SEQUENCE, GROUPED_QUERIES, allowed=MORE_QUERIES),
    case(
        "rotary_from_buffers",
        lambda heads=3, pairs=2: att.RotaryCached(heads=heads, head_dim=2 * pairs),
        SEQUENCE,
        {"heads": HEADS, "pairs": HEADS + " cos[1] sin[1]"},
    ),
    case(
        "rotary_computed",
        lambda kv_heads=3, pairs=2, queries=2: att.RotaryComputed(kv_heads, queries, 2 * pairs),
        SEQUENCE,
        {"kv_heads": KEY_VALUE_HEADS, "pairs": KEY_VALUE_HEADS + " inv_freq[0]"},
        allowed=MORE_QUERIES,
    ),
    case("alibi", att.Alibi, SEQUENCE, {"heads": HEADS + " slopes[0]", "head_dim": HEADS}),
    case(
        "relative_position_bias",
        att.RelativeBias,
        SEQUENCE,
        {"heads": HEADS + " bias.weight[1]", "head_dim": HEADS},
    ),
    case(
        "normed_queries_and_keys",
        att.NormedQueries,
        SEQUENCE,
        {"heads": HEADS, "head_dim": HEADS + " {q,k}_norm.weight[0]"},
    ),
    case(
        "talking_heads",
        att.TalkingHeads,
        SEQUENCE,
        {
            "heads": HEADS + " before.weight[1] after.{wb}[0]",
            "head_dim": HEADS,
            "mixed": "before.weight[0] after.weight[1]",
        },
    ),
    case(
        "cross_attention",
        att.CrossAttention,
        given((2, 7, 5), (2, 9, 8)),
        dict.fromkeys(("heads", "head_dim"), "{q,kv}.{wb}[0] out.weight[1]")
        | {"memory": "memory.{wb}[0] kv.weight[1]"},
    ),
    case(
        "graph_attention",
        att.GraphAttention,
        given((6, 5), ids(6, 2, 15)),
        {
            "heads": "project.weight[0] source[0] target[0] out.weight[1]",
            "head_dim": "project.weight[0] source[1] target[1] out.weight[1]",
        },
    ),
    case(
        "attention_pooling",
        att.AttentionPooling,
        SEQUENCE,
        {"width": "features.{wb}[0] query[0] out.weight[1]"},
    ),
    case(
        "gpt_tied",
        lambda heads0=3, head_dim0=4, heads1=5, head_dim1=4, hidden0=10, hidden1=14, width=6: tr.Gpt(
            (heads0, heads1), (head_dim0, head_dim1), (hidden0, hidden1), width
        ),
        TOKENS,
        {f"{each}{i}": of(f"blocks.{i}.attention.", FUSED) for i in (0, 1) for each in ("heads", "head_dim")}
        | {f"hidden{i}": feedforward(f"blocks.{i}.") for i in (0, 1)}
        | {
            "width": "{tokens,places}.weight[1] norm.{wb}[0] "
            + of("blocks.{0,1}.", "{norm1,norm2,attention.out,mlp.2}.{wb}[0] {attention.qkv,mlp.0}.weight[1]")
        },
        fixed={"tokens.weight[0]": "output"},
    ),
    case(
        "llama_like",
        lambda kv0=3, kv1=2, pairs0=2, pairs1=2, hidden0=10, hidden1=14, width=6, queries0=2, queries1=4: (
            tr.LlamaLike(
                (kv0, kv1), (queries0, queries1), (2 * pairs0, 2 * pairs1), (hidden0, hidden1), width
            )
        ),
        TOKENS,
        {f"kv{i}": of(f"blocks.{i}.attention.", KEY_VALUE_HEADS) for i in (0, 1)}
        | {f"pairs{i}": of(f"blocks.{i}.attention.", KEY_VALUE_HEADS + " inv_freq[0]") for i in (0, 1)}
        | {f"hidden{i}": of(f"blocks.{i}.mlp.", SWIGLU) for i in (0, 1)}
        | {
            "width": "tokens.weight[1] norm.weight[0] head.weight[1] "
            + of("blocks.{0,1}.", "{norm1,norm2,attention.out,mlp.down}.weight[0]")
            + " "
            + of("blocks.{0,1}.", "{attention.q,attention.k,attention.v,mlp.gate,mlp.up}.weight[1]")
        },
        allowed={f"queries{i}": of(f"blocks.{i}.attention.", MORE_QUERIES["queries"]) for i in (0, 1)},
    ),
    case(
        "vision_transformer",
        tr.VisionTransformer,
        given((2, 3, 8, 8)),
        {
            "heads": of("block.attention.", FUSED),
            "head_dim": of("block.attention.", FUSED),
            "hidden": feedforward("block."),
            "width": "patches.{wb}[0] class_token[2] places[2] norm.{wb}[0] head.weight[1] "
            + of("block.", "{norm1,norm2,attention.out,mlp.2}.{wb}[0] {attention.qkv,mlp.0}.weight[1]"),
        },
    ),
    case(
        "transformer_without_norms",
        tr.UnnormedTransformer,
        TOKENS,
        {
            "width": "tokens.weight[1] places[1] attention.{q,k,v}.weight[1] attention.out.{wb}[0] "
            "up.weight[1] down.{wb}[0] head.weight[1]",
            "heads": of("attention.", HEADS),
            "head_dim": of("attention.", HEADS),
            "hidden": feedforward("", "up", "down"),
        },
    ),
    case(
        "multihead_attention",
        tr.MultiheadClassifier,
        SEQUENCE,
        dict.fromkeys(("heads", "head_dim"), "embed.{wb}[0] head.weight[1] " + of("attention.", MULTIHEAD)),
    ),
    case(
        "multihead_attention_on_other_widths",
        tr.MultiheadOnOtherWidths,
        given((4, 2, 12), (7, 2, 5)),
        {
            "key": "keys.{wb}[0] attention.k_proj_weight[1]",
            "value": "values.{wb}[0] attention.v_proj_weight[1]",
        },
        fixed={"attention.{q,k,v}_proj_weight[0] attention.out_proj.weight[1]": "input"},
    ),
    case(
        "multihead_attention_by_itself",
        tr.MultiheadByItself,
        given((4, 2, 5), (7, 2, 5)),
        dict.fromkeys(
            ("heads", "head_dim"),
            "embed.{wb}[0] head.weight[1] attention.{bias_k,bias_v}[2] "
            + of(
                "attention.",
                MULTIHEAD.replace(
                    "in_proj_weight[0] in_proj_weight[1]", "{q,k,v}_proj_weight[0] q_proj_weight[1]"
                ),
            ),
        )
        | {"key": "keys.{wb}[0] attention.{k,v}_proj_weight[1]"},
    ),
    case(
        "transformer_encoder_layers",
        lambda heads=2, head_dim=4, a=10, b=14: tr.EncoderClassifier((a, b), heads, head_dim),
        TOKENS,
        dict.fromkeys(
            ("heads", "head_dim"),
            "embed.weight[1] head.weight[1] "
            + of(
                "layers.{0,1}.",
                "{norm1,norm2,linear2}.{wb}[0] linear1.weight[1] " + of("self_attn.", MULTIHEAD),
            ),
        )
        | {each: feedforward(f"layers.{i}.", "linear1", "linear2") for i, each in enumerate("ab")},
    ),
    case(
        "transformer_decoder_layer",
        tr.Decoder,
        given(ids(11, 2, 7), (2, 5, 8)),
        {"hidden": feedforward("layer.", "linear1", "linear2")},
        fixed={
            "layer.norm{1,2,3}.{wb}[0]": "input",
            "layer.{self_attn,multihead_attn}.in_proj_weight[0]": "input",
        },
    ),
    case(
        "transformer_encoder_and_decoder",
        lambda heads=2, head_dim=4, encoder=10, first=10, second=10: tr.Translator(
            heads, head_dim, (encoder, first, second)
        ),
        given(ids(11, 2, 7), ids(13, 2, 5)),
        dict.fromkeys(
            ("heads", "head_dim"),
            "{source,target}.weight[1] head.weight[1] transformer.{encoder,decoder}.norm.{wb}[0] "
            + of(
                "transformer.encoder.layers.0.",
                "{norm1,norm2,linear2}.{wb}[0] linear1.weight[1] " + of("self_attn.", MULTIHEAD),
            )
            + " "
            + of(
                "transformer.decoder.layers.{0,1}.",
                "{norm1,norm2,norm3,linear2}.{wb}[0] linear1.weight[1] "
                + of("{self_attn,multihead_attn}.", MULTIHEAD),
            ),
        )
        | {
            "encoder": feedforward("transformer.encoder.layers.0.", "linear1", "linear2"),
            "first": feedforward("transformer.decoder.layers.0.", "linear1", "linear2"),
            "second": feedforward("transformer.decoder.layers.1.", "linear1", "linear2"),
        },
    ),
)
