"""Reading the pickles of 2015 without running any code.

Pickles name functions for the reader to call. The reader here looks each name up in a short list
(arrays, their types and scalars, OrderedDict) and refuses everything else, by name.
:mod:`storyteller.io.pickle_writer` writes such files.
"""

from __future__ import annotations

import codecs
import collections
import functools
import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import MissingFileError, ModelFileError, PathLike, why

# Python's own unpickler in Python, whose opcodes can be checked; its methods have no types.
PythonUnpickler: Any = pickle._Unpickler
LARGE = 1 << 16  # bytes in one piece that are counted before memory is taken for them

# How files begin that stand for others, and what they are.
_STAND_INS = {
    b'version https://git-lfs': 'a Git-LFS pointer: "git lfs pull" fetches the file itself',
    b'<!doctype html': 'a web page: the download did not give the file itself',
    b'<html': 'a web page: the download did not give the file itself',
}


def existing(path: PathLike, purpose: str) -> Path:
    """Return `path` if it is a regular file, and neither a Git-LFS pointer nor a web page.

    Where nothing, a folder, or no regular file is there, a MissingFileError is raised, and a
    ModelFileError for a pointer or a page.
    """
    path = Path(path)
    if path.is_dir():
        raise MissingFileError(f'{path}: expected {purpose}, found a folder')
    if not path.exists():
        raise MissingFileError(f'{path}: no such file (expected {purpose})')
    if not path.is_file():  # to open a pipe would wait without end
        raise MissingFileError(f'{path}: expected {purpose}, found no regular file')
    if what := stand_in(path):
        raise ModelFileError(f'{path}: expected {purpose}, found {what}')
    return path


def stand_in(path: PathLike) -> str | None:
    """What a file is instead of the expected content (a pointer, a web page), or None."""
    with open(path, 'rb') as file:
        begins = file.read(64).lstrip().lower()
    return next((what for start, what in _STAND_INS.items() if begins.startswith(start)), None)


def load_pickles(path: PathLike) -> list[Any]:
    """Read all consecutive pickles in a file without running any code.

    Byte strings, as Python 2 wrote them, are decoded as UTF-8, or Latin-1 where they are not. A
    ModelFileError says that it is no pickle, or asks for anything but arrays and plain containers;
    a MissingFileError that the file is not there.
    """
    path = existing(path, 'a pickle')
    objects = []
    try:
        with open(path, 'rb') as file:
            while file.peek(1):
                objects.append(_decoded(Unpickler(file).load()))
    except Exception as error:  # a broken pickle raises whatever its opcodes stumble over
        raise ModelFileError(f'{path}: not a readable pickle: {_trouble(path, error)}') from None
    if not objects:
        raise ModelFileError(f'{path}: the file is empty')
    return objects


def _trouble(path: Path, error: Exception) -> str:
    """Why a file cannot be read, from what its opcodes stumbled over."""
    with open(path, 'rb') as file:
        if file.read(64).lstrip().startswith(b'<'):
            return 'it is XML, or a page: the download did not give the file itself'
    if isinstance(error, (struct.error, IndexError)):  # of a number that is not there
        return 'it ends too soon, or is damaged'
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], int):
        return f'no pickle has the byte {error.args[0]} where this file has it; is it damaged?'
    return why(error)


def _allowed_globals() -> dict[tuple[str, str], Any]:
    """What a pickle may name: arrays, their types and scalars, sets, and OrderedDict."""
    allowed: dict[tuple[str, str], Any] = {
        ('collections', 'OrderedDict'): _ordered,
        ('_codecs', 'encode'): codecs.encode,
        # Arrays are made by the functions below: ndarray itself would take bytes as objects.
        ('numpy', 'ndarray'): 'numpy.ndarray',
        ('numpy', 'dtype'): np.dtype,
    }
    for builtins in ('__builtin__', 'builtins'):  # Python 2 and 3
        allowed[builtins, 'set'] = lambda items=(): set(_plain(items))
        allowed[builtins, 'frozenset'] = lambda items=(): frozenset(_plain(items))
    for core in ('numpy.core', 'numpy._core'):
        allowed[f'{core}.multiarray', '_reconstruct'] = lambda *_: np.empty(0, np.int8)
        allowed[f'{core}.multiarray', 'scalar'] = _scalar
        allowed[f'{core}.numeric', '_frombuffer'] = _from_buffer
    return allowed


def _plain(keys: Any) -> Any:
    """Keys, if they are text or numbers: to hash a tuple of tuples can take for ever."""
    for key in keys:
        if not (key is None or isinstance(key, (str, bytes, int, float, np.generic))):
            raise pickle.UnpicklingError(f'a {type(key).__name__} is the key of a container')
    return keys


def _of_plain(code: bytes, keys: slice) -> Callable[[Any], None]:
    """A step of a pickle that refuses keys, where they lie on the stack, unless they are plain."""

    def step(reader: Any) -> None:
        _plain(reader.stack[keys])
        PythonUnpickler.dispatch[code[0]](reader)

    return step


def _ordered(items: Any = ()) -> collections.OrderedDict:
    pairs = [(key, value) for key, value in items]
    _plain([key for key, _ in pairs])
    return collections.OrderedDict(pairs)


def _scalar(dtype: np.dtype, value: Any = None) -> Any:
    from numpy._core import multiarray

    if dtype.hasobject:  # some NumPy would take bytes for a pointer
        raise pickle.UnpicklingError('it makes an object of a NumPy scalar')
    if not isinstance(value, bytes) or len(value) != dtype.itemsize:
        raise pickle.UnpicklingError(f'a NumPy scalar of {dtype} is not {dtype.itemsize} bytes')
    return multiarray.scalar(dtype, value)


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(bytes(buffer), dtype).reshape(shape, order=order)


def _check_items(shape: Any, dtype: Any, _: Any, items: Any) -> None:
    """Refuse a list of objects that is not as long as its array: NumPy would read beyond it."""
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError('it makes an array in an unknown way')
    if not dtype.hasobject:
        return  # whose bytes NumPy counts
    if dtype.kind != 'O' or not isinstance(items, list):
        raise pickle.UnpicklingError('it makes an array of objects in an unknown way')
    if len(shape) > 64 or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise pickle.UnpicklingError('it makes an array of a shape that is none')
    if math.prod(shape) != len(items):
        raise pickle.UnpicklingError(f'{len(items)} objects are no array of shape {shape}')


class Unpickler(PythonUnpickler):
    """An unpickler with an allow list in place of imports."""

    def __init__(self, file: IO[bytes]):
        # 'bytes' is the one encoding that leaves the buffers of pickled arrays whole.
        super().__init__(file, encoding='bytes')
        self._allowed = _allowed_globals()
        self._file, self._file_read = file, self._read_there

    @functools.cached_property
    def _end(self) -> int:
        place = self._file.tell()
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(place)
        return end

    def _read_there(self, size: int) -> bytes:
        """So many bytes, if the file has them: nothing else may decide what memory is taken."""
        if size > LARGE and size > (left := self._end - self._file.tell()):
            raise pickle.UnpicklingError(f'{size} bytes are announced, {left} are left')
        return self._file.read(size)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, which is not on the list of what may be loaded'
            ) from None

    def load_build(self) -> None:
        """Set the state of an array or its type; a type may not call bytes what are objects."""
        *_, target, state = self.stack
        if not isinstance(target, (np.ndarray, np.dtype)):
            raise pickle.UnpicklingError(f'it sets the state of a {type(target).__name__}')
        plain = (None, None, None)  # no fields, and flags as they are
        if isinstance(target, np.dtype) and (state[2:5], state[7]) != (plain, target.flags):
            raise pickle.UnpicklingError(f'it changes what an array of {target.name} holds')
        if isinstance(target, np.ndarray):
            _check_items(*state[-4:])
        super().load_build()

    def load_bytearray8(self) -> None:
        """A bytearray; Python's own makes room for it before it looks what there is."""
        (size,) = struct.unpack('<Q', self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch = {  # noqa: RUF012
        **PythonUnpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: _of_plain(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _of_plain(pickle.SETITEMS, slice(None, None, 2)),
        pickle.DICT[0]: _of_plain(pickle.DICT, slice(None, None, 2)),
        pickle.ADDITEMS[0]: _of_plain(pickle.ADDITEMS, slice(None)),
        pickle.FROZENSET[0]: _of_plain(pickle.FROZENSET, slice(None)),
    }


def _decoded(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Turn byte strings, at any depth of plain containers, into str.

    A container that stands in several places is turned once (`done`, by identity): a small pickle
    can nest one so that its copies would fill any memory.
    """
    if isinstance(value, bytes):
        try:
            return value.decode('utf-8')
        except UnicodeDecodeError:
            return value.decode('latin-1')
    if not isinstance(value, (dict, list, tuple, set, frozenset)):
        return value
    done = {} if done is None else done
    if id(value) not in done:
        if isinstance(value, dict):
            items = ((_decoded(key), _decoded(item, done)) for key, item in value.items())
        else:
            items = (_decoded(item, done) for item in value)
        done[id(value)] = type(value)(items)
    return done[id(value)]
