"""What is to be found in the networks of `plumbing`."""

from zoo import plumbing as wired
from zoo.case import case, given, ids


def nested_inputs():
    x, y = given((7, 5), (7, 4))()
    return ({"left": x, "right": y},)


ORIGINAL = "parametrizations.weight.original"
VECTOR = "parametrizations.weight.0"

CASES = (
    case(
        "residual_mlp",
        wired.ResidualMlp,
        given((7, 5)),
        {
            "width": "embed.{wb}[0] blocks.{0,1}.{0.weight[1],3.weight[0],3.bias[0]} out.weight[1]",
            "first": "blocks.0.0.{wb}[0] blocks.0.1.{bn}[0] blocks.0.3.weight[1]",
            "second": "blocks.1.0.{wb}[0] blocks.1.1.{bn}[0] blocks.1.3.weight[1]",
        },
    ),
    case(
        "residual_on_input",
        wired.ResidualOnInput,
        given((7, 5)),
        {"hidden": "inner.{wb}[0] outer.weight[1]"},
        fixed={"outer.{wb}[0] {inner,out}.weight[1]": "input"},
    ),
    case(
        "concat_skip",
        wired.ConcatSkip,
        given((7, 5)),
        {"first": "first.{wb}[0] {second,out}.weight[1]", "second": "second.{wb}[0] out.weight[1]"},
    ),
    case(
        "tied_autoencoder",
        wired.TiedAutoencoder,
        given((4, 7)),
        {"first": "first.{wb}[0] second.weight[1] bias1[0]", "code": "second.{wb}[0]"},
        fixed={"first.weight[1] bias0[0]": ""},
    ),
    case(
        "siamese",
        wired.Siamese,
        given((7, 5), (7, 5)),
        {"hidden": "encoder.0.{wb}[0] encoder.2.weight[1]", "code": "encoder.2.{wb}[0] out.weight[1]"},
    ),
    case(
        "shared_at_two_depths",
        wired.SharedDepth,
        given((7, 5)),
        {"width": "{embed,shared}.{wb}[0] norm.{bn}[0] {shared,out}.weight[1]"},
    ),
    case(
        "neural_ode",
        wired.NeuralOde,
        given((7, 5)),
        {
            "state": "embed.{wb}[0] field.0.weight[1] field.2.{wb}[0] out.weight[1]",
            "hidden": "field.0.{wb}[0] field.2.weight[1]",
        },
    ),
    case(
        "autoencoder_dict",
        wired.Autoencoder,
        given((4, 7)),
        {
            "inner": "encoder.0.{wb}[0] encoder.2.weight[1]",
            "outer": "decoder.0.{wb}[0] decoder.2.weight[1]",
        },
        fixed={"encoder.2.{wb}[0] decoder.0.weight[1]": "output"},
    ),
    case(
        "variational_autoencoder",
        wired.VariationalAutoencoder,
        given((4, 7)),
        {
            "inner": "encoder.{wb}[0] {mean,log_variance}.weight[1]",
            "outer": "decoder.0.{wb}[0] decoder.2.weight[1]",
        },
        fixed={"{mean,log_variance}.{wb}[0] decoder.0.weight[1]": "output"},
    ),
    case(
        "tuple_output",
        wired.ActorCritic,
        given((7, 5)),
        {"shared": "shared.{wb}[0] {actor.0,critic}.weight[1]", "actor": "actor.0.{wb}[0] actor.2.weight[1]"},
        fixed={"actor.2.{wb}[0]": ""},
    ),
    case(
        "named_tuple_output",
        wired.Heteroscedastic,
        given((7, 5)),
        {"hidden": "hidden.{wb}[0] {value,spread}.weight[1]"},
    ),
    case(
        "two_inputs",
        wired.ImageAndQuestion,
        given((2, 3, 8, 8), ids(11, 2, 5)),
        {
            "channels": "image.{wb}[0] from_image.weight[1]",
            "words": "words.weight[1] from_words.weight[1]",
            "joint": "{from_image,from_words}.{wb}[0] out.weight[1]",
        },
    ),
    case(
        "dict_input",
        wired.NestedInputs,
        nested_inputs,
        {
            "left": "layers.left.{wb}[0] out.weight[1]",
            "right": "layers.right.{wb}[0] out.weight[1]",
        },
    ),
    case(
        "unequal_split",
        wired.UnequalSplit,
        given((7, 5)),
        {
            "passed": "first.{wb}[0] out.weight[1]",
            "worked": "first.{wb}[0] work.0.weight[1]",
            "hidden": "work.0.{wb}[0] work.2.weight[1]",
        },
    ),
    case(
        "masked_weights",
        wired.MaskedAutoregression,
        given((7, 5)),
        {
            "first": "layers.0.{wb}[0] mask0[0] layers.1.weight[1] mask1[1]",
            "second": "layers.1.{wb}[0] mask1[0] out.weight[1] mask2[1]",
        },
    ),
    case(
        "parameters_and_constants_per_feature",
        wired.LayerScale,
        given((7, 5)),
        {"width": "first.{wb}[0] scale[0] phase[0] out.weight[1]"},
    ),
    case(
        "stacked_and_flattened",
        wired.StackedViews,
        given((7, 5)),
        {"width": "{left,right}.{wb}[0] hidden.weight[1]", "hidden": "hidden.{wb}[0] out.weight[1]"},
    ),
    case(
        "data_dependent_loop",
        wired.Refined,
        given((7, 5)),
        {"width": "{embed,refine}.{wb}[0] {refine,out}.weight[1]"},
        exports=False,
    ),
    case(
        "unit_vectors",
        wired.UnitVectors,
        given((7, 5)),
        {"hidden": "hidden.{wb}[0] scaled.weight[1]"},
        allowed={"scaled": "scaled.{wb}[0] out.weight[1]"},
    ),
    case(
        "weight_norm",
        wired.weight_normed,
        given((7, 5)),
        {
            "first": f"0.{ORIGINAL}{{0,1}}[0] 0.bias[0] 2.{ORIGINAL}1[1]",
            "second": f"2.{ORIGINAL}{{0,1}}[0] 2.bias[0] 4.weight[1]",
        },
    ),
    # While it trains, the norm is of the whole matrix: one may refuse.
    case(
        "spectral_norm",
        wired.spectrally_normed,
        given((7, 5)),
        allowed={
            "first": f"0.{ORIGINAL}[0] 0.{VECTOR}._u[0] 0.bias[0] 2.weight[1]",
            "second": f"2.{{wb}}[0] 4.{ORIGINAL}[1] 4.{VECTOR}._v[0]",
        },
    ),
)
