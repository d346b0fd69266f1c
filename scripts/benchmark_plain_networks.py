"""The convolutional networks in straightforward PyTorch, as a baseline.

One layer after the other, nothing folded or packed; of the library only its readers of files.

Dimension letters: B batch, C classes, F image feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from storyteller import convnet, formats, images
from storyteller.nn import efficientnet

Params = Mapping[str, np.ndarray]


def load_network(path: formats.PathLike) -> nn.Module:
    """Photos (B, 3, S, S) to features (B, F), from a file of any network that the library reads."""
    return (lite2 if convnet.side_of(path) else vgg)(path).eval()


def linear(params: Params, prefix: str) -> nn.Linear:
    """An affine layer from its arrays of 2015, which are (in, out)."""
    weight, bias = params[f'{prefix}_W'], params[f'{prefix}_b']
    layer = nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight.T))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def vgg(path: formats.PathLike) -> nn.Sequential:
    """Photos (B, 3, 224, 224) to fc7 (B, F), from a file that the library reads."""
    architecture, params = convnet.read_params(path)
    layers: list[nn.Module] = []
    if architecture.input_size != images.CROP:
        layers.append(nn.AdaptiveAvgPool2d(architecture.input_size))
    for i, block in enumerate(architecture.blocks, 1):
        for j in range(1, len(block) + 1):
            weight = torch.tensor(params[f'conv{i}_{j}_W'])
            convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            convolution.weight = nn.Parameter(weight)
            convolution.bias = nn.Parameter(torch.tensor(params[f'conv{i}_{j}_b']))
            layers += [convolution, nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), linear(params, 'fc6'), nn.ReLU(), linear(params, 'fc7'), nn.ReLU()]
    return nn.Sequential(*layers)


def lite2(path: formats.PathLike) -> Lite2:
    """EfficientNet-Lite2 with the settings in a file, and the weights of the installed package."""
    found = Lite2(efficientnet.read_eyes(path))
    found.load_state_dict(efficientnet.read_weights())
    return found


class Lite2(nn.Module):
    """EfficientNet-Lite2; its layers have their published names."""

    def __init__(self, eyes: efficientnet.Eyes):
        super().__init__()
        self.eyes, side, width = eyes, efficientnet.INPUT_SIZE, efficientnet.STEM
        self._conv_stem, self._bn0 = _convolution(3, width, 3, 2, side), _norm(width)
        self._blocks, side = nn.ModuleList(), math.ceil(side / 2)
        for count, kernel, stride, expansion, n_out in efficientnet.STAGES:
            for i in range(count):
                step = stride if i == 0 else 1
                self._blocks.append(_Block(width, n_out, kernel, step, expansion, side))
                width, side = n_out, math.ceil(side / step)
        head = efficientnet.POOLED
        self._conv_head, self._bn1 = _convolution(width, head, 1, 1, side), _norm(head)
        self._fc = nn.Linear(head, efficientnet.CLASSES)
        self.register_buffer('mean', torch.tensor(images.MEAN_BGR).view(3, 1, 1), persistent=False)

    def forward(self, im: Tensor) -> Tensor:
        """Features (B, F) of photos (B, 3, 260, 260): BGR, 0 to 255 less the mean."""
        x = ((im + self.mean).flip(1) - efficientnet.CENTRE) / efficientnet.SCALE
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        pooled = functional.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        chances = torch.softmax(self._fc(pooled) / self.eyes.temperature, dim=1)  # (B, C)
        sure = chances.amax(dim=1, keepdim=True).sqrt() * self.eyes.class_weight
        parts = functional.normalize(pooled, dim=1), functional.normalize(chances, dim=1) * sure
        return torch.cat(parts, dim=1)


class _Block(nn.Module):
    """Expand, convolve each channel, project; the input is added where it has the same shape."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int, side: int):
        super().__init__()
        inner, after = expansion * n_in, math.ceil(side / stride)
        if expansion > 1:
            self._expand_conv, self._bn0 = _convolution(n_in, inner, 1, 1, side), _norm(inner)
        self._depthwise_conv = _convolution(inner, inner, kernel, stride, side, groups=inner)
        self._project_conv = _convolution(inner, n_out, 1, 1, after)
        self._bn1, self._bn2 = _norm(inner), _norm(n_out)
        self.expands, self.skips = expansion > 1, stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


def _convolution(
    n_in: int, n_out: int, kernel: int, stride: int, side: int, groups: int = 1
) -> nn.Conv2d:
    """Padded as TensorFlow pads it ('SAME') for pictures of so many pixels each way."""
    padded = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return _Convolution(n_in, n_out, kernel, stride, padded, groups)


class _Convolution(nn.Conv2d):
    """Where the padding is odd, one more pixel is added below and to the right."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, padded: int, groups: int):
        even = 0 if padded % 2 else padded // 2
        super().__init__(n_in, n_out, kernel, stride, even, groups=groups, bias=False)
        self.edges = (padded // 2, padded - padded // 2) * 2 if padded % 2 else None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self.edges) if self.edges else x)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=efficientnet.NORM_EPS)
