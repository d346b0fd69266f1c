"""VGG-19 from a state dict that PyTorch has saved, by its present format or the one before.

``torch.load``, with ``weights_only=True`` too, takes as much memory as a file announces, and as
much time as its pickle asks for. So the pickle goes through our own unpickler, and gives the places
of the numbers in the file, which are read once it is known that they are there.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import reprlib
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from ..io.arrays import kind_of, read_into
from ..io.unpickle import Unpickler
from .architecture import MEAN_BGR, VGG19

MAGIC = 0x1950A86A20F9469CFC6C  # which the older format begins with
BEGINS = b'PK\x03\x04', b'\x80\x02\x8a\n' + MAGIC.to_bytes(10, 'little')
PROTOCOL = 1001
MOST_PICKLE = 1 << 20  # bytes; that of VGG-19 has 5,000
TYPES = {'FloatStorage': '<f4', 'HalfStorage': '<f2', 'DoubleStorage': '<f8'}

# Where the fully connected layers stand: in torchvision, and before, when it had a dropout first.
CLASSIFIERS = {'torchvision': (0, 3), 'Caffe': (1, 4)}
# The photos of torchvision are RGB, 0 to 1, less this mean, divided by this deviation.
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read(path: Path) -> tuple[dict[str, np.ndarray], tuple[float, ...]]:
    """The arrays of a state dict in our layout, and the mean of its photos.

    Kernels are (out, in, height, width), fully connected layers (out, in), and fc6 reads channel by
    channel. Weights that come from Caffe want photos in BGR, 0 to 255; torchvision's first layer is
    turned and scaled so that it wants them too, less a mean of its own. A file that is no such
    model raises errors of many kinds.
    """
    size = path.stat().st_size
    with open(path, 'rb') as file:
        is_zip = file.read(len(BEGINS[0])) == BEGINS[0]
        file.seek(0)
        state, stream = _open_zip(file) if is_zip else _open_older(file, size)
        made_by = 'Caffe' if 'classifier.1.weight' in state else 'torchvision'
        names = _names(CLASSIFIERS[made_by])
        found = {name: state[theirs] for name, theirs in names.items() if theirs in state}
        wanted = sum(tensor.size * tensor.dtype.itemsize for tensor in found.values())
        if wanted > size:
            raise ValueError(f'its tensors have {wanted} bytes, the file has {size}')
        params = {name: _read(tensor, stream) for name, tensor in found.items()}
    if made_by == 'Caffe':
        return params, MEAN_BGR
    first = params.get('conv1_1_W', np.empty(0))
    if first.ndim == 4 and first.shape[1] == 3:  # what else it may be is refused as it is
        scale = 255 * np.array(TORCHVISION_STD[::-1])[:, None, None]
        params['conv1_1_W'] = (first[:, ::-1] / scale).astype(np.float32)
    return params, tuple(255 * colour for colour in TORCHVISION_MEAN[::-1])


def _names(classifier: tuple[int, int]) -> dict[str, str]:
    """Our names of the parameters to those of a state dict, which number the layers."""
    names, number = {}, 0
    for i, block in enumerate(VGG19.blocks, 1):
        for j in range(1, len(block) + 1):
            names[f'conv{i}_{j}'], number = f'features.{number}', number + 2  # with its ReLU
        number += 1  # pooling
    names |= {f'fc{6 + i}': f'classifier.{number}' for i, number in enumerate(classifier)}
    kinds = {'W': 'weight', 'b': 'bias'}
    return {f'{a}_{k}': f'{b}.{kinds[k]}' for a, b in names.items() for k in kinds}


# --- the two formats -----------------------------------------------------------------------------

Stream = Callable[['_Tensor'], contextlib.AbstractContextManager[IO[bytes]]]


def _open_zip(file: BinaryIO) -> tuple[dict[str, _Tensor], Stream]:
    """The tensors of an archive with a pickle and a member for each storage, and a way to these."""
    archive = zipfile.ZipFile(file)
    members = {member.filename: member for member in archive.infolist()}
    if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
        raise ValueError('an archive of PyTorch is not compressed, this one is')
    folders = [name.removesuffix('data.pkl') for name in members if name.endswith('/data.pkl')]
    if len(folders) != 1:
        raise ValueError('it holds no data.pkl, so PyTorch has not saved it')
    (folder,) = folders
    if f'{folder}byteorder' in members and archive.read(f'{folder}byteorder') != b'little':
        raise ValueError('its numbers have their highest byte first')
    if members[f'{folder}data.pkl'].file_size > MOST_PICKLE:
        raise ValueError(f'its pickle has more than {MOST_PICKLE} bytes')
    state = _StateDict(io.BytesIO(archive.read(f'{folder}data.pkl'))).load()
    return _state(state), lambda tensor: archive.open(f'{folder}data/{tensor.key}')


def _open_older(file: BinaryIO, size: int) -> tuple[dict[str, _Tensor], Stream]:
    """The tensors of five pickles with the storages, each after its length, behind them."""
    pickles = io.BytesIO(file.read(MOST_PICKLE))
    magic, protocol = (_StateDict(pickles).load() for _ in range(2))
    system = _StateDict(pickles).load()
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(system, dict):
        raise ValueError('it is not of the format that PyTorch used before its archives')
    if not {_text(name): value for name, value in system.items()}.get('little_endian'):
        raise ValueError('its numbers have their highest byte first')
    reader = _StateDict(pickles)
    state, places = reader.load(), {}
    keys = [_text(key) for key in _StateDict(pickles).load()]
    file.seek(pickles.tell())
    for key in keys:
        count = int.from_bytes(file.read(8), 'little')
        places[key], known = file.tell(), reader.storages[key]
        length = count * known.dtype.itemsize
        if count != known.count or length > size - places[key]:
            raise ValueError(
                f'a storage of {count} numbers is announced, the file has {size} bytes'
            )
        file.seek(length, io.SEEK_CUR)

    def stream(tensor: _Tensor) -> contextlib.AbstractContextManager[BinaryIO]:
        file.seek(places[tensor.key])
        return contextlib.nullcontext(file)

    return _state(state), stream


# --- tensors -------------------------------------------------------------------------------------


@dataclass
class _Tensor:
    """Where the numbers of a tensor lie: in a storage, after `offset` others."""

    key: str
    dtype: np.dtype
    count: int
    offset: int = 0
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=object))


def _rebuild(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
    """A tensor, as the pickle calls for it; only those that lie in one piece."""
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, _Tensor) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError('it holds a tensor without numbers')
    tensor = _Tensor(storage.key, storage.dtype, storage.count, offset, tuple(shape))
    step = 1
    for length, found in reversed(list(zip(shape, stride, strict=True))):
        if length != 1 and found != step:
            raise pickle.UnpicklingError('it holds a tensor that does not lie in one piece')
        step *= length
    if offset + tensor.size > storage.count:
        raise pickle.UnpicklingError(f'a tensor of shape {shape} is larger than its storage')
    return tensor


class _StateDict(Unpickler):
    """Reads the pickle of a state dict: names and tensors, and nothing else."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        ordered = 'collections', 'OrderedDict'
        self._allowed = {('torch', name): name for name in TYPES} | {
            ordered: self._allowed[ordered],
            ('torch._utils', '_rebuild_tensor'): _rebuild,
            ('torch._utils', '_rebuild_tensor_v2'): _rebuild,
            ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
        }
        self.storages: dict[str, _Tensor] = {}

    def persistent_load(self, found: Any) -> _Tensor:
        """A storage: its type, key, device and length; in the older format what it is part of."""
        kind, dtype, key, _, count, *part = map(_text, found)
        texts = all(isinstance(item, str) for item in (kind, dtype, key))
        if not texts or kind != 'storage' or dtype not in TYPES:
            raise pickle.UnpicklingError('it holds something that is no storage of floats')
        if part not in ([], [None]):
            raise pickle.UnpicklingError('it holds a storage that is part of another')
        if type(count) is not int or count < 0:
            raise pickle.UnpicklingError(f'it holds a storage of {reprlib.repr(count)} numbers')
        return self.storages.setdefault(key, _Tensor(key, np.dtype(TYPES[dtype]), count))

    def load_build(self) -> None:
        """The versions of layers, which a state dict carries as an attribute, are passed over."""
        if not isinstance(self.stack[-2], OrderedDict):
            raise pickle.UnpicklingError(f'it sets the state of a {type(self.stack[-2]).__name__}')
        self.stack.pop()

    dispatch = {**Unpickler.dispatch, pickle.BUILD[0]: load_build}  # noqa: RUF012


def _text(value: Any) -> Any:
    """Python 2 wrote text as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _state(state: Any) -> dict[str, _Tensor]:
    """The tensors of a state dict by name."""
    if not isinstance(state, dict):
        raise ValueError(f'expected a state dict, found {kind_of(state)}')
    return {_text(name): item for name, item in state.items() if isinstance(item, _Tensor)}


def _read(tensor: _Tensor, stream: Stream) -> np.ndarray:
    """The numbers of a tensor; matrices turned, by a view, to (in, out)."""
    with stream(tensor) as file:
        file.seek(tensor.offset * tensor.dtype.itemsize, io.SEEK_CUR)
        array = read_into(file, np.empty(tensor.shape, tensor.dtype))
    array = np.asarray(array, np.float32)
    return array.T if array.ndim == 2 else array
