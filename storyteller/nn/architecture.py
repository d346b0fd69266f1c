"""The layer sizes of a VGG network, independent of the file format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ModelFileError, PathLike

CROP = 224  # side in pixels of the central square that the network sees
MEAN_BGR = (103.939, 116.779, 123.68)  # mean colour of ImageNet, 0 to 255


@dataclass(frozen=True)
class Architecture:
    """The layer sizes of a VGG network.

    Parameters
    ----------
    blocks : tuple of tuple of int
        The width of every convolution, block by block. 2x2 max-pooling ends each block.
    fc : tuple of int
        The widths of fc6 and fc7.
    input_size : int
        Side in pixels of the square picture that the first convolution sees, at most 224. A
        network made for fewer pixels averages areas of the 224x224 picture as its first step.
    mean : tuple of float
        BGR, what was taken from the colours, 0 to 255, of the photos it learned from. If it is
        another than that of 2015, the network makes up for the difference as its first step.

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
    mean: tuple[float, ...] = MEAN_BGR

    def __post_init__(self) -> None:
        object.__setattr__(self, 'blocks', tuple(tuple(block) for block in self.blocks))
        object.__setattr__(self, 'fc', tuple(self.fc))
        object.__setattr__(self, 'mean', tuple(self.mean))
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
        if len(self.mean) != 3 or not all(
            isinstance(colour, (int, float)) and 0 <= colour <= 255 for colour in self.mean
        ):
            raise ValueError(f'mean must hold three numbers from 0 to 255, got {self.mean}')

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
        """The table as a dict that JSON can hold; ``Architecture(**options)`` reverses it.

        The mean stands there only if it is another than that of 2015.
        """
        table = asdict(self)
        if self.mean == MEAN_BGR:
            del table['mean']
        return table


VGG19 = Architecture(blocks=((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4))


def infer(
    params: Mapping[str, np.ndarray], path: PathLike, mean: tuple[float, ...] = MEAN_BGR
) -> Architecture:
    """The layer sizes of a network with VGG-19's layers, from the shapes of its arrays.

    `params` are under the names of `Architecture.shapes`; `mean` is as in `Architecture`.

    Raises
    ------
    ModelFileError
        If an array is missing or has another number of axes, or no table of widths fits; it names
        `path`.
    """
    for name, shape in VGG19.shapes().items():
        if name not in params:
            raise ModelFileError(f'{path}: not a VGG-19: parameter {name!r} is missing')
        if params[name].ndim != len(shape):
            raise ModelFileError(
                f'{path}: {name} should be an array of {len(shape)} axes, '
                f'found {params[name].shape}'
            )
    blocks = [
        [params[f'conv{i}_{j}_W'].shape[0] for j in range(1, len(block) + 1)]
        for i, block in enumerate(VGG19.blocks, 1)
    ]
    pooled = math.isqrt(params['fc6_W'].shape[0] // max(1, blocks[-1][-1]))
    fc = (params['fc6_W'].shape[1], params['fc7_W'].shape[1])
    try:
        return Architecture(tuple(map(tuple, blocks)), fc, pooled << len(blocks), mean)
    except ValueError as error:
        raise ModelFileError(f'{path}: not a VGG network: {error}') from error
