"""Convolutional networks. Shapes: B batch, C channels, H height, W width, L length."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBn(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs, outputs, kernel=3, stride=1, groups=1, conv=nn.Conv2d, norm=nn.BatchNorm2d):
        super().__init__(
            conv(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            norm(outputs),
            nn.ReLU(),
        )


class PooledClassifier(nn.Module):
    """Any trunk, then the mean over all positions, then a linear layer."""

    def __init__(self, trunk, channels, classes=5):
        super().__init__()
        self.trunk = trunk
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, H, W]
        return self.head(torch.flatten(self.pool(self.trunk(x)), 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project."""

    def __init__(self, channels, expanded):
        super().__init__()
        self.expand = ConvBn(channels, expanded, 1)
        self.depthwise = ConvBn(expanded, expanded, 3, groups=expanded)
        self.project = nn.Conv2d(expanded, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.project(self.depthwise(self.expand(x))))


class BasicBlock(nn.Module):
    def __init__(self, inputs, inner, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    def __init__(self, inputs, first, second, outputs, stride=1):
        super().__init__()
        self.reduce = ConvBn(inputs, first, 1)
        self.filter = ConvBn(first, second, 3, stride)
        self.restore = nn.Conv2d(second, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.restore(self.filter(self.reduce(x)))) + self.shortcut(x))


class PreActivation(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, inner, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(inner), nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        return x + self.conv2(F.relu(self.bn2(y)))


class DenseNet(nn.Module):
    """Each layer reads the outputs of all layers before it."""

    def __init__(self, stem=6, growths=(4, 10)):
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        channels = stem
        for growth in growths:
            self.norms.append(nn.BatchNorm2d(channels))
            self.convs.append(nn.Conv2d(channels, growth, 3, padding=1))
            channels += growth
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, dim=1)))))
        x = F.relu(self.norm(torch.cat(features, dim=1)))  # [B, stem + growths, H, W]
        return self.head(x.mean(dim=(2, 3)))


class Inception(nn.Module):
    """Parallel branches of several kernel sizes; `b3` and `b5` reduce first."""

    def __init__(self, b1=4, r3=5, b3=6, r5=7, b5=10, pool=9):
        super().__init__()
        self.branch1 = nn.Conv2d(3, b1, 1)
        self.branch3 = nn.Sequential(nn.Conv2d(3, r3, 1), nn.ReLU(), nn.Conv2d(r3, b3, 3, padding=1))
        self.branch5 = nn.Sequential(nn.Conv2d(3, r5, 1), nn.ReLU(), nn.Conv2d(r5, b5, 5, padding=2))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, pool, 1))
        self.head = nn.Linear(b1 + b3 + b5 + pool, 5)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1, self.branch3, self.branch5, self.branch_pool)
        x = F.relu(torch.cat([branch(x) for branch in branches], dim=1))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Fire(nn.Module):
    """SqueezeNet's block."""

    def __init__(self, inputs, squeeze, expand1, expand3):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand1, 1)
        self.expand3 = nn.Conv2d(squeeze, expand3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat((self.expand1(x), self.expand3(x)), dim=1))


class ShuffleUnit(nn.Module):
    """Groups of channels, mixed by a shuffle before the depthwise convolution."""

    def __init__(self, inner=8, outer=7, groups=3):
        super().__init__()
        self.groups = groups
        self.stem = nn.Conv2d(3, inner * groups, 3, padding=1)
        self.grouped = nn.Conv2d(inner * groups, outer * groups, 1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outer * groups)
        self.depthwise = nn.Conv2d(outer * groups, outer * groups, 3, padding=1, groups=outer * groups)
        self.project = nn.Conv2d(outer * groups, 5, 1)

    def shuffle(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, self.groups, channels // self.groups, height, width)
        return x.transpose(1, 2).reshape(batch, channels, height, width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.grouped(F.relu(self.stem(x)))))
        return self.project(self.depthwise(self.shuffle(x)))


class SplitShuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, the other half are worked on, both are interleaved."""

    def __init__(self, half=6, inner=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 2 * half, 3, padding=1)
        self.branch = nn.Sequential(ConvBn(half, inner, 1), ConvBn(inner, half, 3))
        self.project = nn.Conv2d(2 * half, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)
        return self.project(x)


class UNet(nn.Module):
    """Two levels, with skips; `up` by transposed convolution or by interpolation."""

    def __init__(self, top=4, middle=6, bottom=10, up2=7, up1=5, dims=2):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
        transposed = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}[dims]
        self.pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d}[dims](2)
        self.down1 = conv(3, top, 3, padding=1)
        self.down2 = conv(top, middle, 3, padding=1)
        self.bottom = conv(middle, bottom, 3, padding=1)
        self.rise = transposed(bottom, up2, 2, stride=2)
        self.up2 = conv(up2 + middle, up1, 3, padding=1)
        self.up1 = conv(up1 + top, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        top = F.relu(self.down1(x))
        middle = F.relu(self.down2(self.pool(top)))
        x = F.relu(self.bottom(self.pool(middle)))
        x = F.relu(self.up2(torch.cat([self.rise(x), middle], dim=1)))
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.up1(torch.cat([x, top], dim=1))


class SuperResolution(nn.Module):
    """A unit of `hidden` is the block of channels that the shuffle lays out as one pixel grid."""

    def __init__(self, first=6, hidden=5, scale=2):
        super().__init__()
        self.first = nn.Conv2d(3, first, 3, padding=1)
        self.up = nn.Conv2d(first, hidden * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        self.last = nn.Conv2d(hidden, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.shuffle(self.up(F.relu(self.first(x))))))


class Vgg(nn.Module):
    def __init__(self, first=6, second=10, hidden=14):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Linear(second * 4, hidden), nn.ReLU(), nn.Linear(hidden, 5))

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, 8, 8]
        x = self.features(x)  # [B, second, 2, 2]
        return self.classifier(x.view(x.size(0), -1))


class LeNetWithLiteral(nn.Module):
    """The size of the flattened image is written out in `forward`."""

    def __init__(self, first=6, hidden=14):
        super().__init__()
        self.conv1 = nn.Conv2d(3, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, 10, 3, padding=1)
        self.fc1 = nn.Linear(10 * 4, hidden)
        self.fc2 = nn.Linear(hidden, 5)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, 8, 8]
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, 40)
        return self.fc2(F.relu(self.fc1(x)))


class PooledPyramid(nn.Module):
    """Adaptive pooling to several grids, flattened side by side."""

    def __init__(self, channels=6, hidden=11):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.average, self.highest = nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d((1, 3))
        self.hidden = nn.Linear(channels * (4 + 3), hidden)
        self.head = nn.Linear(hidden, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        x = torch.cat([self.average(x).flatten(1), self.highest(x).flatten(1)], dim=1)
        return self.head(F.relu(self.hidden(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels=10, squeezed=6):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)
        self.last = nn.Conv2d(channels, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))  # [B, channels]
        return self.last(x * gate[:, :, None, None])


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels, expanded):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, expanded)
        self.project = nn.Linear(expanded, channels)
        self.gamma = nn.Parameter(0.1 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, H, W]
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # [B, H, W, channels]
        y = self.gamma * self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class GatedDilatedStack(nn.Module):
    """WaveNet: gated dilated convolutions with a residual stream, and a sum of the layers' outputs.

    As usual, nothing reads what the last layer adds to the stream; its sizes must fit all the same.
    """

    def __init__(self, residual=6, skip=10, gates=(5, 7, 9)):
        super().__init__()
        self.start = nn.Conv1d(3, residual, 1)
        self.filters, self.gates = nn.ModuleList(), nn.ModuleList()
        self.residuals, self.skips = nn.ModuleList(), nn.ModuleList()
        for layer, width in enumerate(gates):
            dilation = 2**layer
            self.filters.append(nn.Conv1d(residual, width, 2, dilation=dilation))
            self.gates.append(nn.Conv1d(residual, width, 2, dilation=dilation))
            self.residuals.append(nn.Conv1d(width, residual, 1))
            self.skips.append(nn.Conv1d(width, skip, 1))
        self.end = nn.Conv1d(skip, 5, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, L]
        x, outputs = self.start(x), []
        for read, gate, residual, skip in zip(
            self.filters, self.gates, self.residuals, self.skips, strict=True
        ):
            y = F.pad(x, (read.dilation[0], 0))
            y = torch.tanh(read(y)) * torch.sigmoid(gate(y))
            outputs.append(skip(y))
            x = x + residual(y)
        return self.end(F.relu(sum(outputs)))


class TemporalBlock(nn.Module):
    """Two causal convolutions; what they see of the future is cut off after each."""

    def __init__(self, inputs, inner, outputs, dilation):
        super().__init__()
        self.cut = 2 * dilation
        self.conv1 = nn.Conv1d(inputs, inner, 3, padding=2 * dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(inner, outputs, 3, padding=2 * dilation, dilation=dilation)
        self.match = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x)[:, :, : -self.cut])
        y = F.relu(self.conv2(y)[:, :, : -self.cut])
        return F.relu(y + self.match(x))


class TemporalConvNet(nn.Module):
    def __init__(self, inner1=6, first=10, inner2=7, second=13):
        super().__init__()
        self.blocks = nn.Sequential(
            TemporalBlock(3, inner1, first, dilation=1), TemporalBlock(first, inner2, second, dilation=2)
        )
        self.head = nn.Linear(second, 5)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, L]
        return self.head(self.blocks(x)[:, :, -1])


class FiLM(nn.Module):
    """A condition scales and shifts each channel."""

    def __init__(self, channels=6, hidden=10):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.condition = nn.Linear(4, hidden)
        self.film = nn.Linear(hidden, 2 * channels)
        self.last = nn.Conv2d(channels, 5, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # [B, 3, H, W], [B, 4]
        scale, shift = self.film(F.relu(self.condition(condition))).chunk(2, dim=1)
        x = self.norm(self.conv(x)) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return self.last(F.relu(x))
