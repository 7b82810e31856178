"""What is to be found in the networks of `convolutional`, and in stacks of layers of torch.nn."""

from torch import nn

from zoo import convolutional as conv
from zoo.case import case, given
from zoo.convolutional import ConvBn, PooledClassifier

IMAGES = given((2, 3, 8, 8))
SIGNALS = given((2, 3, 17))


def conv1d(first=6, second=10):
    return nn.Sequential(
        *(nn.Conv1d(3, first, 5, padding=2), nn.BatchNorm1d(first), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(first, second, 3), nn.ELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        nn.Linear(second, 5),
    )


def conv2d(first=6, second=10):
    return nn.Sequential(
        *(nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU6()),
        *(nn.Conv2d(first, second, 3, stride=2, padding=1), nn.PReLU(second), nn.Dropout2d(0.1)),
        nn.Conv2d(second, 5, 1),
    )


def conv3d(first=6, second=10):
    return nn.Sequential(
        *(nn.Conv3d(2, first, 3, padding=1), nn.BatchNorm3d(first), nn.ReLU(), nn.MaxPool3d(2)),
        *(nn.Conv3d(first, second, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()),
        nn.Linear(second, 5),
    )


def grouped(groups=5, inputs=2, outputs=3):
    return nn.Sequential(
        *(nn.Conv2d(3, groups * inputs, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(groups * inputs, groups * outputs, 3, padding=1, groups=groups), nn.ReLU()),
        nn.Conv2d(groups * outputs, 4, 1),
    )


def depthwise_separable(first=6, second=10):
    return nn.Sequential(
        ConvBn(3, first),
        ConvBn(first, first, groups=first),
        ConvBn(first, second, 1),
        nn.Conv2d(second, second, 3, padding=1, groups=second),
        nn.Conv2d(second, 5, 1),
    )


def mobilenet(channels=6, first=18, second=22):
    blocks = conv.InvertedResidual(channels, first), conv.InvertedResidual(channels, second)
    return PooledClassifier(nn.Sequential(ConvBn(3, channels, stride=2), *blocks), channels)


def signal_autoencoder(first=6, code=10, last=7):
    return nn.Sequential(
        *(nn.Conv1d(3, first, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv1d(first, code, 4, stride=2, padding=1), nn.Tanh()),
        *(nn.ConvTranspose1d(code, last, 4, stride=2, padding=1), nn.BatchNorm1d(last), nn.ReLU()),
        nn.ConvTranspose1d(last, 3, 4, stride=2, padding=1),
    )


def generator(first=10, second=6):
    """As of a DCGAN: noise as an image of one pixel."""
    return nn.Sequential(
        nn.Unflatten(1, (9, 1, 1)),
        *(nn.ConvTranspose2d(9, first, 4, bias=False), nn.BatchNorm2d(first), nn.ReLU()),
        *(nn.ConvTranspose2d(first, second, 4, 2, 1, bias=False), nn.BatchNorm2d(second), nn.ReLU()),
        *(nn.ConvTranspose2d(second, 3, 4, 2, 1), nn.Tanh()),
    )


def resnet(stem=6, inner1=7, inner2=9, wide=10):
    trunk = nn.Sequential(
        ConvBn(3, stem), conv.BasicBlock(stem, inner1, stem), conv.BasicBlock(stem, inner2, wide, stride=2)
    )
    return PooledClassifier(trunk, wide)


def bottleneck_resnet(stem=8, a=4, b=5, c=6, d=7, wide=18):
    trunk = nn.Sequential(
        ConvBn(3, stem),
        conv.Bottleneck(stem, a, b, stem),
        conv.Bottleneck(stem, c, d, wide, stride=2),
    )
    return PooledClassifier(trunk, wide)


def preactivation_resnet(stem=6, first=7, second=10):
    blocks = conv.PreActivation(stem, first), conv.PreActivation(stem, second)
    return PooledClassifier(
        nn.Sequential(nn.Conv2d(3, stem, 3, padding=1), *blocks, nn.BatchNorm2d(stem)), stem
    )


def squeezenet(stem=7, squeeze=4, expand1=6, expand3=10):
    trunk = nn.Sequential(nn.Conv2d(3, stem, 3), conv.Fire(stem, squeeze, expand1, expand3))
    return PooledClassifier(trunk, expand1 + expand3)


def group_norm(groups=4, second=10):
    return nn.Sequential(
        *(nn.Conv2d(3, groups * 3, 3, padding=1), nn.GroupNorm(groups, groups * 3), nn.SiLU()),
        *(nn.Conv2d(groups * 3, second, 3), nn.GroupNorm(1, second), nn.SiLU()),
        nn.Conv2d(second, 5, 1),
    )


def instance_norm(first=6, second=10):
    return nn.Sequential(
        *(nn.Conv2d(3, first, 3, padding=1), nn.InstanceNorm2d(first, affine=True), nn.ReLU()),
        *(nn.Conv2d(first, second, 3), nn.InstanceNorm2d(second), nn.ReLU()),
        nn.Conv2d(second, 5, 1),
    )


def convnext(expanded=18, channels=6):
    trunk = nn.Sequential(
        nn.Conv2d(3, channels, 2, stride=2), conv.ConvNeXtBlock(channels, expanded), nn.ReLU()
    )
    return PooledClassifier(trunk, channels)


U_NET = {
    "top": "down1.{wb}[0] down2.weight[1] up1.weight[1]",
    "middle": "down2.{wb}[0] bottom.weight[1] up2.weight[1]",
    "bottom": "bottom.{wb}[0] rise.weight[0]",
    "up2": "rise.weight[1] rise.bias[0] up2.weight[1]",
    "up1": "up2.{wb}[0] up1.weight[1]",
}

CASES = (
    case(
        "conv1d",
        conv1d,
        SIGNALS,
        {"first": "0.{wb}[0] 1.{bn}[0] 4.weight[1]", "second": "4.{wb}[0] 8.weight[1]"},
    ),
    case(
        "conv2d",
        conv2d,
        IMAGES,
        {"first": "0.weight[0] 1.{bn}[0] 3.weight[1]", "second": "3.{wb}[0] 4.weight[0] 6.weight[1]"},
        fixed={"0.weight[1]": "input", "6.{wb}[0]": "output"},
    ),
    case(
        "conv3d",
        conv3d,
        given((2, 2, 4, 6, 8)),
        {"first": "0.{wb}[0] 1.{bn}[0] 4.weight[1]", "second": "4.{wb}[0] 8.weight[1]"},
    ),
    case(
        "grouped_conv",
        grouped,
        IMAGES,
        {"groups": "0.{wb}[0] 2.{wb}[0] 4.weight[1]"},
        allowed={"inputs": "0.{wb}[0] 2.weight[1]", "outputs": "2.{wb}[0] 4.weight[1]"},
    ),
    case(
        "depthwise_separable",
        depthwise_separable,
        IMAGES,
        {
            "first": "0.0.weight[0] 0.1.{bn}[0] 1.0.weight[0] 1.1.{bn}[0] 2.0.weight[1]",
            "second": "2.0.weight[0] 2.1.{bn}[0] 3.{wb}[0] 4.weight[1]",
        },
    ),
    case(
        "mobilenet_inverted_residuals",
        mobilenet,
        IMAGES,
        {
            "channels": "trunk.0.0.weight[0] trunk.0.1.{bn}[0] trunk.{1,2}.expand.0.weight[1] "
            "trunk.{1,2}.project.weight[0] trunk.{1,2}.norm.{bn}[0] head.weight[1]",
            "first": "trunk.1.{expand,depthwise}.0.weight[0] trunk.1.{expand,depthwise}.1.{bn}[0] "
            "trunk.1.project.weight[1]",
            "second": "trunk.2.{expand,depthwise}.0.weight[0] trunk.2.{expand,depthwise}.1.{bn}[0] "
            "trunk.2.project.weight[1]",
        },
    ),
    case(
        "transposed_conv1d_autoencoder",
        signal_autoencoder,
        given((2, 3, 16)),
        {
            "first": "0.{wb}[0] 2.weight[1]",
            "code": "2.{wb}[0] 4.weight[0]",
            "last": "4.weight[1] 4.bias[0] 5.{bn}[0] 7.weight[0]",
        },
        fixed={"7.weight[1] 7.bias[0]": "output"},
    ),
    case(
        "transposed_conv2d_generator",
        generator,
        given((2, 9)),
        {"first": "1.weight[1] 2.{bn}[0] 4.weight[0]", "second": "4.weight[1] 5.{bn}[0] 7.weight[0]"},
    ),
    case(
        "resnet_basic",
        resnet,
        IMAGES,
        {
            "stem": "trunk.0.0.weight[0] trunk.0.1.{bn}[0] trunk.1.conv1.weight[1] trunk.1.conv2.weight[0] "
            "trunk.1.bn2.{bn}[0] trunk.2.{conv1,downsample.0}.weight[1]",
            "inner1": "trunk.1.conv1.weight[0] trunk.1.bn1.{bn}[0] trunk.1.conv2.weight[1]",
            "inner2": "trunk.2.conv1.weight[0] trunk.2.bn1.{bn}[0] trunk.2.conv2.weight[1]",
            "wide": "trunk.2.{conv2,downsample.0}.weight[0] trunk.2.{bn2,downsample.1}.{bn}[0] "
            "head.weight[1]",
        },
    ),
    case(
        "resnet_bottleneck",
        bottleneck_resnet,
        IMAGES,
        {
            "stem": "trunk.0.0.weight[0] trunk.0.1.{bn}[0] trunk.1.reduce.0.weight[1] "
            "trunk.1.restore.weight[0] trunk.1.norm.{bn}[0] trunk.2.{reduce.0,shortcut}.weight[1]",
            "a": "trunk.1.reduce.0.weight[0] trunk.1.reduce.1.{bn}[0] trunk.1.filter.0.weight[1]",
            "b": "trunk.1.filter.0.weight[0] trunk.1.filter.1.{bn}[0] trunk.1.restore.weight[1]",
            "c": "trunk.2.reduce.0.weight[0] trunk.2.reduce.1.{bn}[0] trunk.2.filter.0.weight[1]",
            "d": "trunk.2.filter.0.weight[0] trunk.2.filter.1.{bn}[0] trunk.2.restore.weight[1]",
            "wide": "trunk.2.{restore,shortcut}.weight[0] trunk.2.shortcut.bias[0] trunk.2.norm.{bn}[0] "
            "head.weight[1]",
        },
    ),
    case(
        "resnet_preactivation",
        preactivation_resnet,
        IMAGES,
        {
            "stem": "trunk.0.{wb}[0] trunk.{1,2}.bn1.{bn}[0] trunk.{1,2}.conv1.weight[1] "
            "trunk.{1,2}.conv2.{wb}[0] trunk.3.{bn}[0] head.weight[1]",
            "first": "trunk.1.conv1.{wb}[0] trunk.1.bn2.{bn}[0] trunk.1.conv2.weight[1]",
            "second": "trunk.2.conv1.{wb}[0] trunk.2.bn2.{bn}[0] trunk.2.conv2.weight[1]",
        },
    ),
    case(
        "densenet_block",
        lambda stem=6, first=4, second=10: conv.DenseNet(stem, (first, second)),
        IMAGES,
        {
            "stem": "stem.{wb}[0] {norms.0,norms.1,norm}.{bn}[0] {convs.0,convs.1,head}.weight[1]",
            "first": "convs.0.{wb}[0] {norms.1,norm}.{bn}[0] {convs.1,head}.weight[1]",
            "second": "convs.1.{wb}[0] norm.{bn}[0] head.weight[1]",
        },
    ),
    case(
        "inception",
        conv.Inception,
        IMAGES,
        {
            "b1": "branch1.{wb}[0] head.weight[1]",
            "r3": "branch3.0.{wb}[0] branch3.2.weight[1]",
            "b3": "branch3.2.{wb}[0] head.weight[1]",
            "r5": "branch5.0.{wb}[0] branch5.2.weight[1]",
            "b5": "branch5.2.{wb}[0] head.weight[1]",
            "pool": "branch_pool.1.{wb}[0] head.weight[1]",
        },
    ),
    case(
        "squeezenet_fire",
        squeezenet,
        IMAGES,
        {
            "stem": "trunk.0.{wb}[0] trunk.1.squeeze.weight[1]",
            "squeeze": "trunk.1.squeeze.{wb}[0] trunk.1.{expand1,expand3}.weight[1]",
            "expand1": "trunk.1.expand1.{wb}[0] head.weight[1]",
            "expand3": "trunk.1.expand3.{wb}[0] head.weight[1]",
        },
    ),
    case(
        "shufflenet_unit",
        conv.ShuffleUnit,
        IMAGES,
        {
            "groups": "stem.{wb}[0] grouped.weight[0] norm.{bn}[0] depthwise.{wb}[0] project.weight[1]",
        },
        allowed={
            "inner": "stem.{wb}[0] grouped.weight[1]",
            "outer": "grouped.weight[0] norm.{bn}[0] depthwise.{wb}[0] project.weight[1]",
        },
    ),
    case(
        "shufflenet_v2_unit",
        conv.SplitShuffle,
        IMAGES,
        {
            "half": "stem.{wb}[0] branch.0.0.weight[1] branch.1.0.weight[0] branch.1.1.{bn}[0] "
            "project.weight[1]",
            "inner": "branch.0.0.weight[0] branch.0.1.{bn}[0] branch.1.0.weight[1]",
        },
    ),
    case("unet_2d", conv.UNet, IMAGES, U_NET),
    case(
        "unet_1d",
        lambda top=4, middle=6, bottom=10, up2=7, up1=5: conv.UNet(top, middle, bottom, up2, up1, dims=1),
        given((2, 3, 16)),
        U_NET,
    ),
    case(
        "pixel_shuffle_super_resolution",
        conv.SuperResolution,
        IMAGES,
        {"first": "first.{wb}[0] up.weight[1]", "hidden": "up.{wb}[0] last.weight[1]"},
    ),
    case(
        "vgg_flatten",
        conv.Vgg,
        IMAGES,
        {
            "first": "features.0.{wb}[0] features.3.weight[1]",
            "second": "features.3.{wb}[0] classifier.0.weight[1]",
            "hidden": "classifier.0.{wb}[0] classifier.2.weight[1]",
        },
    ),
    case(
        "literal_in_view",
        conv.LeNetWithLiteral,
        IMAGES,
        {"first": "conv1.{wb}[0] conv2.weight[1]", "hidden": "fc1.{wb}[0] fc2.weight[1]"},
        fixed={"conv2.{wb}[0] fc1.weight[1]": ""},
    ),
    case(
        "adaptive_pooling",
        conv.PooledPyramid,
        IMAGES,
        {"channels": "conv.{wb}[0] hidden.weight[1]", "hidden": "hidden.{wb}[0] head.weight[1]"},
    ),
    case(
        "squeeze_and_excitation",
        conv.SqueezeExcite,
        IMAGES,
        {
            "channels": "conv.{wb}[0] squeeze.weight[1] excite.{wb}[0] last.weight[1]",
            "squeezed": "squeeze.{wb}[0] excite.weight[1]",
        },
    ),
    case(
        "group_norm",
        group_norm,
        IMAGES,
        {"groups": "0.{wb}[0] 1.{wb}[0] 3.weight[1]"},
    ),
    case(
        "instance_norm",
        instance_norm,
        IMAGES,
        {"first": "0.{wb}[0] 1.{wb}[0] 3.weight[1]", "second": "3.{wb}[0] 6.weight[1]"},
    ),
    case(
        "convnext_block",
        convnext,
        IMAGES,
        {"expanded": "trunk.1.expand.{wb}[0] trunk.1.project.weight[1]"},
        # Each channel has a kernel of its own before the norm, and none makes the mean of the others.
        fixed={
            "trunk.0.{wb}[0] trunk.1.norm.{wb}[0] trunk.1.gamma[0] trunk.1.project.{wb}[0]": "silent unit",
        },
    ),
    case(
        "wavenet",
        lambda residual=6, skip=10, a=5, b=7, c=9: conv.GatedDilatedStack(residual, skip, (a, b, c)),
        SIGNALS,
        {
            "residual": "start.{wb}[0] {filters,gates}.{0,1,2}.weight[1] residuals.{0,1,2}.{wb}[0]",
            "skip": "skips.{0,1,2}.{wb}[0] end.weight[1]",
            **{
                each: f"{{filters,gates}}.{i}.{{wb}}[0] {{residuals,skips}}.{i}.weight[1]"
                for i, each in enumerate("abc")
            },
        },
    ),
    case(
        "temporal_conv_net",
        conv.TemporalConvNet,
        SIGNALS,
        {
            "inner1": "blocks.0.conv1.{wb}[0] blocks.0.conv2.weight[1]",
            "first": "blocks.0.{conv2,match}.{wb}[0] blocks.1.{conv1,match}.weight[1]",
            "inner2": "blocks.1.conv1.{wb}[0] blocks.1.conv2.weight[1]",
            "second": "blocks.1.{conv2,match}.{wb}[0] head.weight[1]",
        },
    ),
    case(
        "film",
        conv.FiLM,
        given((2, 3, 8, 8), (2, 4)),
        {
            "channels": "conv.{wb}[0] norm.{running_mean,running_var}[0] film.{wb}[0] last.weight[1]",
            "hidden": "condition.{wb}[0] film.weight[1]",
        },
    ),
)
