"""Convolutional networks: a photo's pixels to its features.

The bundle sees through :mod:`storyteller.efficientnet`. What stands here beside it is the VGG of
2015, whose fc7 layer has 4096 units: blocks of 3x3 convolutions, each block followed by 2x2
max-pooling, then the layers fc6 and fc7; a ReLU after every layer (Simonyan and Zisserman, "Very
deep convolutional networks for large-scale image recognition", 2015). A table of widths describes
it, since earlier bundles hold VGG networks of other widths.

Dimension letters: N photos, F width of the features.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from storyteller import efficientnet, formats
from storyteller.images import CROP, MEAN_BGR
from storyteller.layers import pick_device
from storyteller.packed import Conv2d

Net = dict[str, Any]

CLASSIFIER = 2  # arrays of the last layer, fc8, in a Lasagne file: read, never used


@dataclass(frozen=True)
class Architecture:
    """The table of widths that describes a VGG network.

    Parameters
    ----------
    blocks : tuple of tuple of int
        The width of every convolution, block by block. 2x2 max-pooling ends each block.
    fc : tuple of int
        The widths of fc6 and fc7.
    input_size : int
        Side in pixels of the square picture that the first convolution sees, at most 224. A
        network made for fewer pixels averages areas of the 224x224 picture as its first step.

    Examples
    --------
    >>> VGG19.dim, VGG19.pooled
    (4096, 7)
    >>> Architecture(blocks=((8,), (16, 16)), fc=(32, 32), input_size=16).pooled
    4
    """

    blocks: tuple[tuple[int, ...], ...]
    fc: tuple[int, int] = (4096, 4096)
    input_size: int = CROP

    def __post_init__(self) -> None:
        object.__setattr__(self, 'blocks', tuple(tuple(block) for block in self.blocks))
        object.__setattr__(self, 'fc', tuple(self.fc))
        widths = [width for block in self.blocks for width in block] + list(self.fc)
        if not self.blocks or not all(self.blocks):
            raise ValueError(f'blocks must hold at least one width each, got {self.blocks}')
        if len(self.fc) != 2:
            raise ValueError(f'fc must hold two widths (fc6, fc7), got {self.fc}')
        if any(type(width) is not int or not 0 < width <= 65536 for width in widths):
            raise ValueError(f'widths must be integers from 1 to 65536, got {widths}')
        if type(self.input_size) is not int or not 2 ** len(self.blocks) <= self.input_size <= CROP:
            raise ValueError(
                f'input_size must be an integer from {2 ** len(self.blocks)} (one pixel after '
                f'{len(self.blocks)} poolings) to {CROP}, got {self.input_size!r}'
            )

    @property
    def dim(self) -> int:
        """F, the width of fc7."""
        return self.fc[-1]

    @property
    def pooled(self) -> int:
        """Side in pixels of the last pooling layer, which fc6 reads."""
        return self.input_size >> len(self.blocks)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter name to shape, in Lasagne's order: W then b of each layer, bottom up.

        Convolutions are (out, in, 3, 3), fully connected layers (in, out).
        """
        shapes: dict[str, tuple[int, ...]] = {}
        n_in = 3
        for i, block in enumerate(self.blocks, 1):
            for j, n_out in enumerate(block, 1):
                shapes[f'conv{i}_{j}_W'], shapes[f'conv{i}_{j}_b'] = (n_out, n_in, 3, 3), (n_out,)
                n_in = n_out
        n_in *= self.pooled**2
        for name, n_out in zip(('fc6', 'fc7'), self.fc, strict=True):
            shapes[f'{name}_W'], shapes[f'{name}_b'] = (n_in, n_out), (n_out,)
            n_in = n_out
        return shapes

    def options(self) -> dict[str, Any]:
        """The table as a dict that JSON can hold; ``Architecture(**options)`` reverses it."""
        return asdict(self)


VGG19 = Architecture(blocks=((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4))


def build_convnet(path_to_vgg: str | os.PathLike[str], *, device: Any = None) -> Net:
    """Load a convolutional network.

    Parameters
    ----------
    path_to_vgg : path
        Lasagne's ``vgg19.pkl``, which may hold the topology of VGG-19 in any width; a
        ``.safetensors`` file of ours whose options hold the table of widths; or a ``.json`` file
        of settings for the EfficientNet-Lite2 of :mod:`storyteller.efficientnet`, whose weights
        come with a package of their own.
    device : str or torch.device, optional
        None: the GPU if there is one, else the CPU.

    Returns
    -------
    dict
        ``dim`` (F), ``input_size`` (pixels), ``side`` (what
        :func:`storyteller.images.load_image` is to be told: None for the centre of a photo, a
        number for the whole), ``options`` (the table of widths, or the settings), and the network
        itself under a private key.

    Raises
    ------
    MissingFileError
        If there is no such file, or the package with the weights is not installed.
    ModelFileError
        If the file is no such network, naming the parameter that is missing, has the wrong shape,
        or is not finite; or if the package holds other weights.
    """
    side = side_of(path_to_vgg)
    if side:
        module, options = efficientnet.build(path_to_vgg)
        dim = efficientnet.POOLED + efficientnet.CLASSES
        size = efficientnet.INPUT_SIZE
    else:
        architecture, params = read_params(path_to_vgg)
        module, options = build_module(architecture, params), architecture.options()
        dim, size = architecture.dim, architecture.input_size
    device = pick_device(device)
    return {
        'dim': dim,
        'input_size': size,
        'side': side,
        'options': options,
        '_module': module.to(device).requires_grad_(False).eval(),
        '_device': device,
    }


def side_of(path: str | os.PathLike[str]) -> int | None:
    """The ``side`` of the network in a file, known before it is loaded."""
    return efficientnet.INPUT_SIZE if os.fspath(path).endswith('.json') else None


def read_params(path: str | os.PathLike[str]) -> tuple[Architecture, dict[str, np.ndarray]]:
    """The table of widths and the parameters in a file of a VGG network."""
    path = os.fspath(path)
    read = _read_lasagne if path.endswith(('.pkl', '.pickle')) else _read_model
    architecture, params = read(path)
    check_params(architecture, params, path)
    return architecture, params


def compute_features(net: Net, im: np.ndarray, *, batch_size: int = 16) -> np.ndarray:
    """Features of photos: of a VGG network fc7, after its ReLU and not normalised.

    Parameters
    ----------
    net : dict
        What `build_convnet` returns.
    im : (N, 3, 224, 224) array of float32, or (N, 3, S, S) where ``net['side']`` is S
        Photos as `storyteller.images.load_image` prepares them: BGR, 0 to 255 less the mean. A
        network that would rather see a whole photo takes the centre too.
    batch_size : int
        Photos that pass through the network together (VGG-19 needs about 60 MB for each).

    Returns
    -------
    (N, F) array of float32
        All values are 0 or more. The joint embedding takes rows of unit length.
    """
    im = _check_photos(im, {CROP, net.get('side') or CROP})
    if batch_size < 1:
        raise ValueError(f'batch_size must be 1 or more, got {batch_size}')
    features = np.empty((len(im), net['dim']), dtype=np.float32)
    # TF32 convolutions, cuDNN's default, would cost three digits.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for start in range(0, len(im), batch_size):
            x = torch.from_numpy(im[start : start + batch_size]).to(net['_device'])
            x = x.contiguous(memory_format=torch.channels_last)
            features[start : start + batch_size] = net['_module'](x).cpu().numpy()
    return features


def build_module(architecture: Architecture, params: Mapping[str, np.ndarray]) -> nn.Sequential:
    """The network as torch layers that share the memory of `params` (nothing is copied)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if architecture.input_size != CROP:
        layers['reduce'] = nn.AdaptiveAvgPool2d(architecture.input_size)
    with torch.device('meta'):  # no memory for weights that are replaced below
        for name, shape in architecture.shapes().items():
            if len(shape) == 4:
                block, index = name.removeprefix('conv').removesuffix('_W').split('_')
                layers[f'conv{block}_{index}'] = Conv2d(shape[1], shape[0], 3, padding=1)
                layers[f'relu{block}_{index}'] = nn.ReLU(inplace=True)
                if int(index) == len(architecture.blocks[int(block) - 1]):
                    layers[f'pool{block}'] = nn.MaxPool2d(2)
            elif len(shape) == 2:
                if name == 'fc6_W':
                    layers['flatten'] = nn.Flatten()
                layers[name[:3]] = nn.Linear(*shape)
                layers[f'relu{name[2]}'] = nn.ReLU(inplace=True)
    module = nn.Sequential(layers)
    module.load_state_dict(_state(params), assign=True)
    return module


def check_params(
    architecture: Architecture, params: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> None:
    """Raise ModelFileError unless every parameter is there, has its shape and is finite."""
    formats.require(params, architecture.shapes(), path)
    for name in architecture.shapes():
        values = torch.from_numpy(np.require(params[name], np.float32, ['W']))
        # A sum is fast and needs no memory; it may overflow where no value does.
        if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
            raise formats.ModelFileError(f'{path}: {name} holds values that are not finite')


def _state(params: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """2015 names and shapes to torch's: fc weights are turned by a view, not a copy."""
    state = {}
    for name, value in params.items():
        layer, kind = name.rsplit('_', 1)
        tensor = torch.from_numpy(np.require(value, np.float32, ['W']))
        state[f'{layer}.{"weight" if kind == "W" else "bias"}'] = (
            tensor.T if tensor.ndim == 2 else tensor
        )
    return state


def _read_lasagne(path: str) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Lasagne's pickle: a dict whose 'param values' are the arrays W, b, W, b, ... bottom up."""
    record = formats.load_pickles(path)[0]
    values = record.get('param values') if isinstance(record, dict) else None
    n_expected = 2 * sum(map(len, VGG19.blocks)) + 4 + CLASSIFIER
    if not isinstance(values, (list, tuple)) or len(values) != n_expected:
        found = f'{len(values)} values' if isinstance(values, (list, tuple)) else 'none'
        raise formats.ModelFileError(
            f"{path}: expected a dict whose 'param values' are {n_expected} arrays, found {found}"
        )
    names = list(VGG19.shapes())
    params = dict(zip(names, values[:-CLASSIFIER], strict=True))
    for name, value in params.items():
        if not isinstance(value, np.ndarray) or value.ndim != len(VGG19.shapes()[name]):
            raise formats.ModelFileError(
                f'{path}: {name} should be an array of {len(VGG19.shapes()[name])} axes, '
                f'found {getattr(value, "shape", type(value).__name__)}'
            )
    return _infer_architecture(params, path), params


def _infer_architecture(params: Mapping[str, np.ndarray], path: str) -> Architecture:
    """The widths of a network with VGG-19's topology, from the shapes of its arrays."""
    blocks = [
        [params[f'conv{i}_{j}_W'].shape[0] for j in range(1, len(block) + 1)]
        for i, block in enumerate(VGG19.blocks, 1)
    ]
    pooled = math.isqrt(params['fc6_W'].shape[0] // max(1, blocks[-1][-1]))
    fc = (params['fc6_W'].shape[1], params['fc7_W'].shape[1])
    try:
        return Architecture(tuple(map(tuple, blocks)), fc, pooled << len(blocks))
    except ValueError as error:
        raise formats.ModelFileError(f'{path}: not a VGG network: {error}') from error


def _read_model(path: str) -> tuple[Architecture, dict[str, np.ndarray]]:
    """A file of ours, whose options hold the table of widths."""
    params, options = formats.read_model(path)
    fields = Architecture.__dataclass_fields__
    missing = [key for key in fields if key not in options]
    if missing:
        raise formats.ModelFileError(
            f'{path}: not a convolutional network: its options lack {", ".join(missing)} '
            f'(found {", ".join(options) or "none"})'
        )
    try:
        architecture = Architecture(**{key: options[key] for key in fields})
    except (TypeError, ValueError) as error:
        raise formats.ModelFileError(f'{path}: bad table of widths: {error}') from error
    return architecture, {name: params[name] for name in architecture.shapes() if name in params}


def _check_photos(im: np.ndarray, sides: set[int]) -> np.ndarray:
    im = np.asarray(im)
    if im.ndim != 4 or im.shape[1:] not in {(3, side, side) for side in sides}:
        known = ' or '.join(f'(N, 3, {side}, {side})' for side in sorted(sides))
        raise ValueError(
            f'im must have the shape {known} that images.load_image gives, got {im.shape}'
        )
    if not np.issubdtype(im.dtype, np.floating):
        raise ValueError(
            f'im must be floating point, BGR less the mean {MEAN_BGR}, got {im.dtype}: '
            'pass the second result of images.load_image, not the first'
        )
    im = np.ascontiguousarray(im, dtype=np.float32)
    if not np.isfinite(im).all():
        raise ValueError('im holds values that are not finite')
    return im
