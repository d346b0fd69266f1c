"""VGG-19 from a ``.caffemodel``, Caffe's file of weights, which the CPU mode of 2015 read.

Such a file is one protobuf message, a network, with a message for each layer in it. The network's
own fields are walked here, so that one layer at a time is in memory; a layer is parsed by the
protobuf runtime, told of the few fields that matter. Layers come in two forms: ``layers``, the old
one, of which the published file is, and ``layer``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import MissingFileError
from ..io.extras import way_to
from .architecture import MEAN_BGR, VGG19

# A network that begins with its name, a layer, or an input: the tags of these fields.
BEGINS = b'\x0a', b'\x12', b'\x1a', b'\xa2\x06'
SHAPE = 7  # the field of a blob
MOST_AXES_BYTES = 100  # of a shape: eight axes or so
MOST_FIELDS = 1000  # of a network, and of a layer; the published ones have some fifty and ten

# Message -> field -> number and type. The data of a blob are packed floats: declared as bytes,
# which look the same in a file, they are not made into as many Python numbers.
_FIELDS = {
    'Shape': {'dim': (1, 'packed')},
    'Blob': {
        'num': (1, 'int'), 'channels': (2, 'int'), 'height': (3, 'int'), 'width': (4, 'int'),
        'data': (5, 'bytes'), 'shape': (7, 'Shape'),
    },
    'OldLayer': {'name': (4, 'string'), 'blobs': (6, 'Blob')},
    'Layer': {'name': (1, 'string'), 'blobs': (7, 'Blob')},
}  # fmt: skip
_LAYERS = {2: 'OldLayer', 100: 'Layer'}  # fields of a network
_BLOBS = {2: 6, 100: 7}  # the field of each in which its blobs stand
_REPEATED = 'dim', 'blobs'


def read(path: Path) -> tuple[dict[str, np.ndarray], tuple[float, ...]]:
    """The arrays of a Caffe model in our layout, and the mean of its photos.

    Caffe's photos are BGR and its kernels (out, in, height, width), as Lasagne's; its fully
    connected layers are (out, in), and fc6 reads channel by channel. A MissingFileError says that
    protobuf is not installed; a file that is no such model raises errors of many kinds.
    """
    ranks = {name: len(shape) for name, shape in VGG19.shapes().items()}
    params = {}
    with open(path, 'rb') as file:
        layers = [field for field in _fields(file, path.stat().st_size) if field[0] in _LAYERS]
        for number, begin, length in layers:
            file.seek(begin)  # many empty blobs would take more memory than the file
            for part, first, size in list(_fields(file, begin + length)):
                if part == _BLOBS[number]:
                    _check_axes(file, first, size)
        if not layers:
            raise ValueError('it holds no layers')
        messages = _messages(path)
        for number, begin, length in layers:
            file.seek(begin)
            layer = messages[_LAYERS[number]].FromString(file.read(length))
            name, blobs = layer.name, [(_shape(blob), blob.data) for blob in layer.blobs]
            del layer  # of three copies of a layer two are in memory at a time
            for kind in ('W', 'b'):
                if f'{name}_{kind}' in ranks and blobs:
                    shape, data = blobs.pop(0)
                    array = _array(f'{name}_{kind}', shape, data, ranks[f'{name}_{kind}'])
                    params[f'{name}_{kind}'] = array
    return params, MEAN_BGR


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and length of a message's fields that have one, from here to `end`."""
    for _ in range(MOST_FIELDS):
        if file.tell() >= end:
            return
        tag = _varint(file)
        number, kind, length = tag >> 3, tag & 7, 0
        if kind == 0:
            _varint(file)
        elif kind in (1, 2, 5):
            length = _varint(file) if kind == 2 else {1: 8, 5: 4}[kind]
        else:
            raise ValueError('it is no message of protobuf')
        begin = file.tell()
        if length > end - begin:
            raise ValueError(f'{length} bytes are announced, {end - begin} are left')
        if kind == 2:
            yield number, begin, length
        file.seek(begin + length)
    raise ValueError(f'more than {MOST_FIELDS} fields')


def _varint(file: BinaryIO) -> int:
    """A whole number, seven bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 64, 7):
        if not (byte := file.read(1)):
            raise EOFError('it ends in the middle of a number')
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError('it is no message of protobuf')


def _check_axes(file: BinaryIO, begin: int, length: int) -> None:
    """Refuse a blob with a shape of very many axes, which would take far more memory than they."""
    file.seek(begin)
    for part, _, size in _fields(file, begin + length):
        if part == SHAPE and size > MOST_AXES_BYTES:
            raise ValueError(f'a shape of {size} bytes, expected {MOST_AXES_BYTES} at most')


def _shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField('shape'):
        return tuple(blob.shape.dim)
    return blob.num, blob.channels, blob.height, blob.width


def _array(name: str, shape: tuple[int, ...], data: bytes, rank: int) -> np.ndarray:
    """An array with `rank` axes, without the leading axes of length 1 of the old blob format."""
    surplus = len(shape) - rank
    if any(length != 1 for length in shape[: max(0, surplus)]) or surplus < 0:
        raise ValueError(f'{name} has the shape {shape}, expected {rank} axes')
    values = np.frombuffer(data, '<f4')
    wanted = int(np.prod(shape, dtype=object))
    if min(shape) < 0 or values.size != wanted:
        raise ValueError(f'{name} has {values.size} numbers, its shape {shape} wants {wanted}')
    array = np.array(values.reshape(shape[max(0, surplus) :]), np.float32)
    return array.T if rank == 2 else array


@functools.cache
def _classes() -> dict[str, Any]:
    """The messages as classes, from descriptions that the runtime is given."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    types = {'int': kinds.TYPE_INT32, 'packed': kinds.TYPE_INT64}
    types |= {'bytes': kinds.TYPE_BYTES, 'string': kinds.TYPE_STRING}
    package = 'storyteller.caffe'
    file = descriptor_pb2.FileDescriptorProto(name=f'{package}.proto', package=package)
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number)
            field.type = types.get(kind, kinds.TYPE_MESSAGE)
            field.label = kinds.LABEL_REPEATED if name in _REPEATED else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                field.type_name = f'.{package}.{kind}'
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f'{package}.{name}') for name in _FIELDS}
    return {name: message_factory.GetMessageClass(found[name]) for name in found}


def _messages(path: Path) -> dict[str, Any]:
    try:
        return _classes()
    except ImportError:
        raise MissingFileError(
            f'{path}: to read a Caffe model takes protobuf: {way_to("caffe")}'
        ) from None
