"""Tables of word vectors in the form of 2015: arrays of objects, as cPickle wrote them."""

from __future__ import annotations

import struct

import numpy as np


def npy_header(count, dtype='|O', align=16):
    """The header of a ``.npy`` array (count,), padded as NumPy did then."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({count},), }}".encode()
    text += b' ' * (-(len(text) + 11) % align) + b'\n'
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text


def number(value):
    if value < 1 << 16:
        return b'K' + bytes([value]) if value < 1 << 8 else b'M' + struct.pack('<H', value)
    return b'J' + struct.pack('<i', value)


def put(place):
    return b'q' + bytes([place]) if place < 256 else b'r' + struct.pack('<I', place)


def dtype(name, flags, order, first, place):
    named = b'cnumpy\ndtype\nq\x04' if first else b'h\x04'
    made = named + b'U\x02' + name + b'K\x00K\x01\x87R' + put(place)
    return made + b'(K\x03U\x01' + order + b'NNN' + b'J\xff\xff\xff\xff' * 2 + b'K' + flags + b'tb'


def beginning(count):
    """All up to the list of rows."""
    return (
        b'\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b'
        b'\x87Rq\x03(K\x01' + number(count) + b'\x85' + dtype(b'O8', b'?', b'|', True, 5)
        + b'\x89]q\x06'
    )  # fmt: skip


def row(values, i, flat):
    """The i-th row: (W,) or (1, W)."""
    size = 4 * len(values)
    made = b'h\x01h\x02K\x00\x85U\x01b\x87R' + put(7 if i == 0 else 8 + i) + b'(K\x01'
    shape = number(len(values)) + b'\x85' if flat else b'K\x01' + number(len(values)) + b'\x86'
    kind = dtype(b'f4', b'\x00', b'<', False, 8) if i == 0 else b'h\x08'
    length = b'U' + bytes([size]) if size < 256 else b'T' + struct.pack('<i', size)
    return made + shape + kind + b'\x89' + length + np.asarray(values, '<f4').tobytes() + b'tb'


def write_objects(path, table, flat, count=None, align=16):
    """Write such a file, a thousand rows at a time.

    Parameters
    ----------
    path : path
    table : callable, or (V, W) array
        Gives rows begin to end.
    flat : (V,) bool array
        Which rows are (W,) and not (1, W).
    """
    count = len(table) if count is None else count
    rows = table if callable(table) else lambda begin, end: table[begin:end]
    with open(path, 'wb') as file:
        file.write(npy_header(count, align=align) + beginning(count))
        for begin in range(0, count, 1000):
            block = rows(begin, min(begin + 1000, count))
            parts = [row(values, begin + i, flat[begin + i]) for i, values in enumerate(block)]
            several = len(parts) > 1
            file.write((b'(' if several else b'') + b''.join(parts) + (b'e' if several else b'a'))
        file.write(b'tb.')
