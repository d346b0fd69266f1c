"""Writing pickles for the code of 2015, in the format of Python 2 and NumPy 1."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import types
from typing import Any, BinaryIO

import numpy as np

# Python's own pickler in Python, whose methods can be replaced; they have no types.
PythonPickler: Any = pickle._Pickler


class Pickler(PythonPickler):
    """A pickler of plain containers, numbers, text and arrays, for Python 2 and NumPy 1.

    Text becomes byte strings in UTF-8, as it was in 2015.
    """

    def __init__(self, file: BinaryIO | io.BytesIO):
        super().__init__(file, protocol=2)

    def save_text(self, value: str | bytes) -> None:
        data = value.encode('utf-8') if isinstance(value, str) else value
        if len(data) > 2**31 - 1:
            raise pickle.PicklingError(f'{len(data)} bytes in one piece are more than fit')
        self.write(pickle.BINSTRING + struct.pack('<i', len(data)) + data)

    def save_array(self, array: np.ndarray) -> None:
        if array.dtype.kind not in 'fiub':
            raise pickle.PicklingError(f'an array of {array.dtype} is not plain')
        self._save_call('numpy.core.multiarray', '_reconstruct')
        self.write(pickle.MARK)
        self._save_call('numpy', 'ndarray')
        self.save((0,))
        self.save('b')
        self.write(pickle.TUPLE + pickle.REDUCE + pickle.MARK)
        self.save(1)
        self.save(array.shape)
        self._save_call('numpy', 'dtype')
        self.save((array.dtype.str[1:], 0, 1))
        self.write(pickle.REDUCE)
        order = '<' if array.dtype.itemsize > 1 else '|'
        self.save((3, order, None, None, None, -1, -1, 0))
        self.write(pickle.BUILD)
        self.save(False)
        data = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
        self.save(data.tobytes())
        self.write(pickle.TUPLE + pickle.BUILD)

    def save_ordered(self, value: collections.OrderedDict) -> None:
        self._save_call('collections', 'OrderedDict')
        self.save(([list(item) for item in value.items()],))
        self.write(pickle.REDUCE)

    def _save_call(self, module: str, name: str) -> None:
        self.write(pickle.GLOBAL + f'{module}\n{name}\n'.encode())

    def save_reduce(self, func: Any, args: Any, *rest: Any, obj: Any = None, **more: Any) -> None:
        raise pickle.PicklingError(f'a {type(obj).__name__} is not plain')

    def save_global(self, obj: Any, name: str | None = None) -> None:
        raise pickle.PicklingError(f'{obj!r} is not plain')

    dispatch = {  # noqa: RUF012
        **PythonPickler.dispatch,
        collections.OrderedDict: save_ordered,
        types.FunctionType: save_global,
        str: save_text,
        bytes: save_text,
        np.ndarray: save_array,
    }
