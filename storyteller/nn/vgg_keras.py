"""VGG-19 from Keras's ``.h5`` file of weights.

Only arrays that lie in the file itself, in one piece, are read. So no filter runs, no other file is
opened, and no size is believed that the file does not fill.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingFileError
from ..io.extras import way_to
from .architecture import MEAN_BGR, VGG19

BEGINS = b'\x89HDF\r\n\x1a\n'
MOST_MEMBERS = 100  # of a group; the published file has 26
MOST_DEPTH = 3  # of groups in the group of a layer
KERNEL = (3, 2, 0, 1)  # (height, width, in, out) to (out, in, height, width)
LAST = 'conv5_4_b'


def read(path: Path) -> tuple[dict[str, np.ndarray], tuple[float, ...]]:
    """The arrays of a file of Keras in our layout, and the mean of its photos.

    Its kernels are (height, width, in, out), for photos in BGR; fc6 reads pixel by pixel. A
    MissingFileError says that h5py is not installed; a file that is no such model raises errors of
    many kinds.
    """
    try:
        import h5py
    except ImportError:
        raise MissingFileError(
            f'{path}: to read an HDF5 file takes h5py: {way_to("keras")}'
        ) from None
    params: dict[str, np.ndarray] = {}
    with h5py.File(path, 'r') as root:
        size = path.stat().st_size
        for name, shape in VGG19.shapes().items():
            layer = name.removesuffix('_W').removesuffix('_b')
            group = layer.replace('conv', 'block').replace('_', '_conv').replace('fc6', 'fc1')
            array = _array(h5py, root, group.replace('fc7', 'fc2'), len(shape))
            if math.prod(array.shape) * array.dtype.itemsize > size:
                raise ValueError(f'{name} has the shape {array.shape}, the file has {size} bytes')
            if name == 'fc6_W':
                params[name] = _by_channels(array, len(params[LAST]))
            else:
                numbers = array[()].transpose(KERNEL) if len(shape) == 4 else array[()]
                params[name] = np.ascontiguousarray(numbers, np.float32)
    return params, MEAN_BGR


def _array(h5py: Any, root: Any, name: str, rank: int) -> Any:
    """The only array with `rank` axes in the group of a layer."""
    if not isinstance(group := _member(h5py, root, name), h5py.Group):
        raise ValueError(f'it holds no layer {name!r}')
    found = [array for array in _arrays(h5py, group) if len(array.shape or ()) == rank]
    if len(found) != 1:
        raise ValueError(f'{name} holds {len(found)} arrays of {rank} axes, expected one')
    (array,) = found
    if array.dtype.kind != 'f':
        raise ValueError(f'{name} holds an array of {array.dtype}, expected floats')
    if array.external or array.id.get_offset() is None:  # a file may say both, and mean the first
        raise ValueError(f'{name} holds an array that is compressed, in pieces or in another file')
    return array


def _arrays(h5py: Any, group: Any, depth: int = 0) -> Iterator[Any]:
    """The arrays in a group, and in groups in it: Keras has put them there in several ways."""
    if len(group) > MOST_MEMBERS or depth > MOST_DEPTH:
        raise ValueError('its groups are no layers')
    for name in group:
        item = _member(h5py, group, name)
        if isinstance(item, h5py.Dataset):
            yield item
        elif isinstance(item, h5py.Group):
            yield from _arrays(h5py, item, depth + 1)


def _member(h5py: Any, group: Any, name: str) -> Any:
    """What lies in a group under a name; None if it lies elsewhere, in another file say."""
    if name not in group or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    return group[name]


def _by_channels(array: Any, channels: int) -> np.ndarray:
    """Rows for (height, width, channel) read as rows for (channel, height, width)."""
    rows, width = array.shape
    if not channels or rows % channels:
        raise ValueError(f'fc1 has {rows} rows, expected some for each of {channels} channels')
    found = np.empty((channels, rows // channels, width), np.float32)
    for pixel in range(rows // channels):
        found[:, pixel] = array[pixel * channels : (pixel + 1) * channels]
    return found.reshape(rows, width)
