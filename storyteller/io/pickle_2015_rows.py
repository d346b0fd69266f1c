"""Helpers of the reader of object tables: a stream, and a pattern of many rows."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

BUFFER = 1 << 22  # bytes that are read from the file at a time
MOST_BYTES = 1 << 24  # of a row: they are far smaller
MOST_READS = 1000  # for a row, which takes about sixty


class Stream:
    """A file that is read in large blocks, with look-ahead.

    `told` is called with the number of bytes of each piece that is read.
    """

    def __init__(self, file: BinaryIO, told: Callable[[int], Any]):
        self._file, self._told = file, told
        self.buffer, self.place = b'', 0
        self._reads = self._bytes = 0  # since the last row

    def fill(self, size: int) -> bool:
        """Whether at least `size` bytes follow; if so, they are in the buffer."""
        while len(self.buffer) - self.place < size:
            if not (more := self._file.read(BUFFER)):
                return False
            self.buffer, self.place = self.buffer[self.place :] + more, 0
            self._told(len(more))
        return True

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        self._count(size)
        if not self.fill(size):
            raise EOFError('the file ends too soon')
        begin, self.place = self.place, self.place + size
        return self.buffer[begin : self.place]

    def readline(self) -> bytes:
        """The next bytes up to a line's end."""
        looked = 0
        while (end := self.buffer.find(b'\n', self.place + looked)) < 0:
            looked = len(self.buffer) - self.place
            if looked > MOST_BYTES or not self.fill(looked + 1):
                raise EOFError('a line has no end')
        self._count(end - self.place)
        begin, self.place = self.place, end + 1
        return self.buffer[begin : self.place]

    def begin_row(self) -> None:
        """Count anew how much is read: no more is kept in memory than belongs to a row."""
        self._reads = self._bytes = 0

    def _count(self, size: int) -> None:
        self._reads, self._bytes = self._reads + 1, self._bytes + size
        if self._reads > MOST_READS or self._bytes > MOST_BYTES:
            raise pickle.UnpicklingError(
                f'no row of numbers within {self._reads} steps and {self._bytes} bytes'
            )


class Form(NamedTuple):
    """How a row stands in its pickle."""

    numbers: np.dtype
    flat: bool  # of shape (W,), else (1, W)


def row_pattern(
    forms: Iterable[Form], width: int, places: Mapping[Any, Iterable[int]], taken: Iterable[int]
) -> re.Pattern[bytes]:
    """The steps of one row in protocol 2, in any of some forms.

    The pattern has a group for each form: the bytes of the row's numbers.

    Parameters
    ----------
    forms : iterable of Form
    width : int
    places : mapping
        Memo indices: ``'array'``, the function that makes an empty
        one, ``'ndarray'``, ``'letter'``, and types of numbers, each with its places.
    taken : iterable of int
        The places where something was put that stays; no row puts anything there.
    """
    again = {name: _calls(keys) for name, keys in places.items()}
    none = b'(?!)'
    held = [b'r' + struct.pack('<I', key) for key in taken]
    held += [b'q' + step[1:2] for step in held if step.endswith(b'\0\0\0')]
    put = b'(?:(?!' + _any(held) + b')(?:q.|r....))?'
    letter = b'(?:U\x01b|' + again.get('letter', none) + b')'
    empty = [
        again.get('array', none), again.get('ndarray', none), rb'K\x00\x85', put, letter, rb'\x87',
        put, b'R', put,
    ]  # fmt: skip
    ways = []
    for form in forms:
        size = width * form.numbers.itemsize
        length = b'U' + bytes([size]) if size < 256 else b'T' + struct.pack('<i', size)
        shape = _number(width) + rb'\x85' if form.flat else rb'K\x01' + _number(width) + rb'\x86'
        ways.append(b''.join([
            *empty, rb'\(K\x01', shape, put, again.get(form.numbers, none), rb'[\x88\x89]',
            re.escape(length), b'(.{%d})' % size, put, b't', put, b'b',
        ]))  # fmt: skip
    return re.compile(b'(?:' + b'|'.join(ways) + b')', re.DOTALL)


def _calls(keys: Iterable[int]) -> bytes:
    """To take something up again from any of some places."""
    ways = [b'j' + struct.pack('<I', key) for key in keys]
    return _any([*ways, *(b'h' + way[1:2] for way in ways if way.endswith(b'\0\0\0'))])


def _number(value: int) -> bytes:
    """How a number may stand in a pickle of protocol 2."""
    ways = [b'J' + struct.pack('<i', value)]
    ways += [b'K' + struct.pack('<B', value)] if value < 1 << 8 else []
    ways += [b'M' + struct.pack('<H', value)] if value < 1 << 16 else []
    long = pickle.encode_long(value)  # as where Python 2's ints are short
    return _any([*ways, b'\x8a' + bytes([len(long)]) + long])


def _any(texts: Iterable[bytes]) -> bytes:
    return b'(?:' + b'|'.join(map(re.escape, texts)) + b')'


def float32(data: bytes, numbers: np.dtype) -> bytes:
    """The bytes of numbers as those of little-endian float32."""
    if numbers == np.dtype('<f4'):
        return data
    with np.errstate(over='ignore'):  # too large is infinite
        return np.frombuffer(data, numbers).astype('<f4').tobytes()
