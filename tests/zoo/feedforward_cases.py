"""What is to be found in the networks of `feedforward`."""

from torch import nn

from zoo import feedforward as ff
from zoo.case import case, given, ids

DEEP_SETS = {
    "inner": "phi.0.{wb}[0] phi.2.weight[1]",
    "pooled": "phi.2.{wb}[0] rho.0.weight[1]",
    "outer": "rho.0.{wb}[0] rho.2.weight[1]",
}

CASES = (
    case(
        "linear_mlp",
        ff.mlp,
        given((7, 5)),
        {"hidden": "0.{wb}[0] 2.weight[1]", "second": "2.{wb}[0] 4.weight[1]"},
        fixed={"0.weight[1]": "input", "4.{wb}[0]": "output"},
    ),
    case(
        "deep_mlp",
        ff.deep_mlp,
        given((7, 5)),
        {
            "a": "0.{wb}[0] 2.weight[1]",
            "b": "2.{wb}[0] 3.weight[0] 4.weight[1]",
            "c": "4.{wb}[0] 6.weight[1]",
            "d": "6.{wb}[0] 8.weight[1]",
        },
    ),
    case(
        "dropout_mlp",
        ff.dropout_mlp,
        given((7, 5)),
        {"hidden": "0.{wb}[0] 3.weight[1]", "second": "3.{wb}[0] 6.weight[1]"},
    ),
    case(
        "bilinear",
        ff.TwoBranchBilinear,
        given((7, 5), (7, 4)),
        {
            "left": "left.{wb}[0] joint.weight[1]",
            "right": "right.{wb}[0] joint.weight[2]",
            "joint": "joint.{wb}[0] out.weight[1]",
        },
    ),
    case(
        "batchnorm_mlp",
        ff.batchnorm_mlp,
        given((7, 5)),
        {
            "hidden": "0.weight[0] 1.{bn}[0] 3.weight[1]",
            "second": "3.{wb}[0] 4.{running_mean,running_var}[0] 6.weight[1]",
        },
    ),
    case(
        "layernorm_mlp",
        lambda first=6, second=10: ff.normed_mlp(nn.LayerNorm, first, second),
        given((7, 5)),
        {"first": "0.{wb}[0] 1.{wb}[0] 3.weight[1]", "second": "3.{wb}[0] 5.weight[1]"},
    ),
    case(
        "rmsnorm_mlp",
        lambda first=6, second=10: ff.normed_mlp(nn.RMSNorm, first, second),
        given((7, 5)),
        {"first": "0.{wb}[0] 1.weight[0] 3.weight[1]", "second": "3.{wb}[0] 5.weight[1]"},
    ),
    case(
        "swiglu",
        ff.SwiGLU,
        given((7, 6)),
        {"hidden": "{gate,up}.weight[0] down.weight[1]"},
        fixed={"{gate,up}.weight[1]": "input", "down.weight[0]": "output"},
    ),
    case(
        "gated_linear_units",
        ff.Gated,
        given((7, 5)),
        {
            "hidden": "first.{wb}[0] second.weight[1]",
            "second": "second.{wb}[0] out.weight[1]",
        },
    ),
    case(
        "highway",
        ff.Highway,
        given((7, 5)),
        {"width": "embed.{wb}[0] {plain,gates}.{0,1}.{weight[0],weight[1],bias[0]} out.weight[1]"},
    ),
    case("maxout", ff.Maxout, given((7, 5)), {"hidden": "first.{wb}[0] out.weight[1]"}),
    case(
        "mixture_of_experts",
        lambda a=6, b=10, c=14: ff.MixtureOfExperts((a, b, c)),
        given((7, 5)),
        {each: f"experts.{i}.0.{{wb}}[0] experts.{i}.2.weight[1]" for i, each in enumerate("abc")},
        fixed={"gate.{wb}[0]": "stacked"},
    ),
    case(
        "stacked_experts",
        ff.StackedExperts,
        given((9, 5)),
        {"hidden": "up[2] up_bias[2] down[1]"},
        fixed={"gate.{wb}[0] up[0] up_bias[0] down[0]": "softmax", "down[2]": "output"},
    ),
    case(
        "embedding_mean_pool",
        ff.MeanPoolClassifier,
        given(ids(11, 4, 7)),
        {"width": "embedding.weight[1] hidden.weight[1]", "hidden": "hidden.{wb}[0] out.weight[1]"},
    ),
    case("embedding_bag", ff.BagClassifier, given(ids(11, 4, 7)), {"width": "bag.weight[1] out.weight[1]"}),
    case(
        "two_towers",
        ff.TwoTowers,
        given(ids(9, 7), (7, 5)),
        {"width": "users.weight[1] items.2.{wb}[0]", "hidden": "items.0.{wb}[0] items.2.weight[1]"},
    ),
    case(
        "wide_and_deep",
        ff.WideAndDeep,
        given(ids(7, 4, 2), (4, 5)),
        {
            "first": "first.weight[1] deep.weight[1]",
            "second": "second.weight[1] deep.weight[1]",
            "hidden": "deep.{wb}[0] out.weight[1]",
        },
    ),
    case("deep_sets_sum", ff.DeepSets, given((4, 7, 5)), DEEP_SETS),
    case(
        "deep_sets_mean",
        lambda inner=6, pooled=10, outer=14: ff.DeepSets(inner, pooled, outer, mean=True),
        given((4, 7, 5)),
        DEEP_SETS,
    ),
    case(
        "graph_convolutions",
        ff.GraphConvolutions,
        given((7, 5), (7, 7)),
        {"hidden": "first.weight[0] second.weight[1]", "second": "second.weight[0] bias[0] out.weight[1]"},
    ),
    case(
        "dueling_heads",
        ff.DuelingHeads,
        given((7, 5)),
        {
            "shared": "shared.0.{wb}[0] {value,advantage}.0.weight[1]",
            "value": "value.0.{wb}[0] value.2.weight[1]",
            "advantage": "advantage.0.{wb}[0] advantage.2.weight[1]",
        },
        fixed={"advantage.2.{wb}[0]": ""},
    ),
    case(
        "mean_of_features",
        ff.MeanOfFeatures,
        given((7, 5)),
        {"hidden": "first.{wb}[0] second.weight[1]"},
        fixed={"second.{wb}[0]": "mean"},
    ),
    case(
        "soft_memory",
        ff.SoftMemory,
        given((7, 5)),
        {"width": "query.{wb}[0] keys[1]"},
        fixed={"keys[0] values.weight[1]": "softmax"},
    ),
    case(
        "mlp_mixer",
        ff.MlpMixer,
        given((2, 3, 8, 8)),
        {
            "token_hidden": "block.tokens.0.{wb}[0] block.tokens.2.weight[1]",
            "channel_hidden": "block.channels.0.{wb}[0] block.channels.2.weight[1]",
        },
        # Behind what mixes tokens, which is not linear, a silent channel is not the mean of the others.
        fixed={"block.{token_norm,channel_norm}.{wb}[0] norm.{wb}[0] patches.{wb}[0]": "silent unit"},
    ),
)
