"""Convolutional networks: from pixels to image features.

The image network of the bundle is in :mod:`storyteller.nn.efficientnet`. Here is the VGG network of
2015, whose fc7 layer has 4096 units: blocks of 3x3 convolutions, each block followed by 2x2
max-pooling, then the layers fc6 and fc7; a ReLU after every layer (Simonyan and Zisserman, "Very
deep convolutional networks for large-scale image recognition", 2015). A table of widths describes
it, since earlier bundles have VGG networks of other widths.

Dimension letters: N photos, F width of the features.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from storyteller import formats
from storyteller.images import CROP, MEAN_BGR
from storyteller.layers import inference, pick_device
from storyteller.nn import efficientnet, vgg_files
from storyteller.nn.architecture import VGG19 as VGG19
from storyteller.nn.architecture import Architecture as Architecture
from storyteller.nn.packed import Conv2d

Net = dict[str, Any]


def build_convnet(path_to_vgg: str | os.PathLike[str], *, device: Any = None) -> Net:
    """Load a convolutional network.

    Parameters
    ----------
    path_to_vgg : path
        One of the files that :mod:`storyteller.nn.vgg_files` reads, Lasagne's ``vgg19.pkl`` among
        them, which may hold the layers of VGG-19 in any width; a ``.safetensors`` file of ours
        whose options hold the table of widths; or a ``.json`` file of settings for the
        EfficientNet-Lite2 of :mod:`storyteller.nn.efficientnet`, whose weights come with a package
        of their own.
    device : str or torch.device, optional
        None: the GPU if there is one, else the CPU.

    Returns
    -------
    dict
        ``dim`` (F), ``input_size`` (pixels), ``side`` (what
        :func:`storyteller.images.load_image` takes: None for the centre of a photo, a
        number for the whole), ``options`` (the table of widths, or the settings), and the network
        itself under a private key.

    Raises
    ------
    MissingFileError
        If there is no such file, or a package that brings or reads the weights is not installed.
    ModelFileError
        If the file is no such network, naming the parameter that is missing, has the wrong shape,
        or is not finite; or if the package holds other weights.
    """
    device, side = pick_device(device), side_of(path_to_vgg)
    module: nn.Module
    if side:
        module, options = efficientnet.build(path_to_vgg)
        dim = efficientnet.POOLED + efficientnet.CLASSES
        size = efficientnet.INPUT_SIZE
    else:
        architecture, params = read_params(path_to_vgg)
        module, options = build_module(architecture, params), architecture.options()
        dim, size = architecture.dim, architecture.input_size
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
    """The layer sizes and the parameters in a file of a VGG network."""
    ours = os.fspath(path).endswith('.safetensors')
    architecture, params = _read_model(path) if ours else vgg_files.read(path)
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
    with inference(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
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
    if architecture.mean != MEAN_BGR:
        layers['recentre'] = Recentre(architecture.mean)
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


class Recentre(nn.Module):
    """Photos less the mean of 2015 to photos less another one, `mean`.

    The bias of the first convolution could not do that: it pads with zeros, which are no colour of
    the photo.
    """

    offset: torch.Tensor

    def __init__(self, mean: tuple[float, ...]):
        super().__init__()
        offset = torch.from_numpy(np.float32(np.subtract(MEAN_BGR, mean)).reshape(3, 1, 1))
        self.register_buffer('offset', offset, persistent=False)

    def forward(self, im: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, S, S), BGR."""
        return im + self.offset


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


def _read_model(path: str | os.PathLike[str]) -> tuple[Architecture, dict[str, np.ndarray]]:
    """A file of ours, whose options hold the table of widths."""
    params, options = formats.read_model(path)
    fields = [key for key in Architecture.__dataclass_fields__ if key != 'mean']
    missing = [key for key in fields if key not in options]
    if missing:
        raise formats.ModelFileError(
            f'{path}: not a convolutional network: its options lack {", ".join(missing)} '
            f'(found {", ".join(options) or "none"})'
        )
    try:
        mean = options.get('mean', MEAN_BGR)
        architecture = Architecture(**{key: options[key] for key in fields}, mean=mean)
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
