"""Writing VGG-19 in each published form, for benchmark, tests and fuzzing.

Nothing here is shared with what reads the forms: protobuf is written byte by byte, the others by
the libraries that wrote the published files.

    params = {'conv1_1_W': ..., 'conv1_1_b': ..., ...}
    FORMS['caffe'](path, params)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from storyteller import formats
from storyteller.nn.architecture import VGG19

Params = Mapping[str, np.ndarray]  # in the layout of `storyteller.nn.architecture.Architecture`

LAYERS = [name.removesuffix('_W') for name in VGG19.shapes() if name.endswith('_W')]
CLASSES = 5  # of fc8, which nothing reads; 1000 in the published files
SCALE = 255 * np.array((0.225, 0.224, 0.229))[:, None, None]  # of torchvision's photos, BGR
TORCHVISION_MEAN = (0.406 * 255, 0.456 * 255, 0.485 * 255)  # BGR


def lasagne(path: Path, params: Params) -> None:
    """The pickle that the code of 2015 reads on a GPU."""
    values = [array for layer in whole(params) for array in layer[1:]]
    formats.write_pickle(path, {'param values': values, 'model name': 'vgg19'})


def caffe(path: Path, params: Params) -> None:
    """The Caffe model, its layers in the old form, as published."""
    with open(path, 'wb') as file:
        write_caffe(file, params, layer=2, name=4, blobs=6)


def caffe_layer(path: Path, params: Params) -> None:
    """The Caffe model as later versions of Caffe write it."""
    with open(path, 'wb') as file:
        write_caffe(file, params, layer=100, name=1, blobs=7)


def keras(path: Path, params: Params) -> None:
    """The weights of Keras: (height, width, in, out), and fc1 reads pixel by pixel."""
    import h5py

    with h5py.File(path, 'w') as root:
        for layer, W, b in whole(params):
            if W.ndim == 4:
                W = W.transpose(2, 3, 1, 0)
            if layer == 'fc6':
                channels = len(params['conv5_4_b'])
                W = W.reshape(channels, -1, W.shape[1]).swapaxes(0, 1).reshape(W.shape)
            name = {'fc6': 'fc1', 'fc7': 'fc2', 'fc8': 'predictions'}.get(layer)
            name = name or layer.replace('conv', 'block').replace('_', '_conv')
            group, names = root.create_group(name), [f'{name}_W_1:0', f'{name}_b_1:0']
            group.attrs['weight_names'] = [text.encode() for text in names]
            for text, array in zip(names, (W, b), strict=True):
                group.create_dataset(text, data=array)


def torch_older(path: Path, params: Params) -> None:
    """Caffe's weights as a state dict in the format that PyTorch had before its archives."""
    save(path, params, (1, 4, 6), archive=False)


def torchvision(path: Path, params: Params) -> None:
    """A state dict of torchvision, as an archive, whose first layer wants RGB from 0 to 1."""
    first = np.float32(params['conv1_1_W'] * SCALE)[:, ::-1]
    save(path, {**params, 'conv1_1_W': first}, (0, 3, 6), archive=True)


FORMS: dict[str, Callable[[Path, Params], None]] = {
    'lasagne': lasagne,
    'caffe': caffe,
    'keras': keras,
    'torch_older': torch_older,
    'torchvision': torchvision,
}


def whole(params: Params) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, weight and bias of each layer, and a last one."""
    for layer in LAYERS:
        yield layer, params[f'{layer}_W'], params[f'{layer}_b']
    yield 'fc8', np.zeros((len(params['fc7_b']), CLASSES), 'f4'), np.zeros(CLASSES, 'f4')


# --- protobuf ------------------------------------------------------------------------------------


def write_caffe(file: BinaryIO, params: Params, layer: int, name: int, blobs: int) -> None:
    """A network with a message for each layer, under the numbers of these fields."""
    file.write(field(1, b'VGG_ILSVRC_19_layers') + field(3, b'data'))
    for number in (10, 3, 224, 224):
        file.write(varint(4 << 3) + varint(number))
    for title, W, b in whole(params):
        arrays = (np.ascontiguousarray(W.T if W.ndim == 2 else W), b)
        heads = [field(name, title.encode()) + field(2 if layer == 100 else 3, title.encode())]
        heads += [blob_head(array, new=layer == 100) for array in arrays]
        sizes = [len(head) + array.nbytes for head, array in zip(heads[1:], arrays, strict=True)]
        starts = [varint(blobs << 3 | 2) + varint(size) for size in sizes]
        length = len(heads[0]) + sum(sizes) + sum(map(len, starts))
        file.write(varint(layer << 3 | 2) + varint(length) + heads[0])
        for start, head, array in zip(starts, heads[1:], arrays, strict=True):
            file.write(start + head)
            file.write(np.ascontiguousarray(array, '<f4').data)


def blob_head(array: np.ndarray, new: bool) -> bytes:
    """All of a blob but its numbers: its shape, of old in four fields, and their length."""
    if new:
        head = field(7, field(1, b''.join(map(varint, array.shape))))
    else:
        shape = (1,) * (4 - array.ndim) + array.shape
        head = b''.join(varint(i << 3) + varint(n) for i, n in enumerate(shape, 1))
    return head + varint(5 << 3 | 2) + varint(4 * array.size)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


# --- state dicts ---------------------------------------------------------------------------------


def save(path: Path, params: Params, classifier: tuple[int, ...], archive: bool) -> None:
    """A state dict with the numbers that torchvision gives to layers."""
    state, number, dense = OrderedDict(), 0, iter(classifier)
    for layer, W, b in whole(params):
        if W.ndim == 4:
            if layer.endswith('_1') and layer != 'conv1_1':
                number += 1  # pooling
            name, number = f'features.{number}', number + 2
        else:
            name, W = f'classifier.{next(dense)}', W.T
        state[f'{name}.weight'] = torch.from_numpy(np.array(W, np.float32, order='C'))
        state[f'{name}.bias'] = torch.from_numpy(np.array(b, np.float32))
    torch.save(state, path, _use_new_zipfile_serialization=archive)
