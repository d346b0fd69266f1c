"""Reading arrays from ``.npz``, ``.npy`` and safetensors files.

What a file holds uncompressed, aligned and in float32 is mapped: it is read from disk as it is
used, and takes no memory that the system could not take back. Nothing read here can run code.
"""

from __future__ import annotations

import json
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors

from .unpickle import Unpickler

MOST_EXPANSION = 100  # times the size of an archive that its members may have together
MOST_EXPANDED = 1 << 26  # bytes that they may have in any case
PIECE = 1 << 24  # bytes that are read at a time where they are copied

# Types of numbers.
PLAIN = ['F64', 'F32', 'F16', 'I64', 'I32', 'I16', 'I8', 'U64', 'U32', 'U16', 'U8', 'BOOL']


def read_safetensors(path: Path, prefix: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file whose names begin with `prefix`, as float32, and its header's texts."""
    with safetensors.safe_open(path, 'np') as file:
        header = file.metadata() or {}
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        found = {name: file.get_slice(name) for name in names}
        for name, part in found.items():
            if part.get_dtype() not in PLAIN:  # others are read only where NumPy was taught them
                raise ValueError(f'{name} holds numbers of the type {part.get_dtype()}')
        wide = [name for name, part in found.items() if part.get_dtype() == 'F32']
        params = {name: file.get_tensor(name) for name in found if name not in wide}
    params = {name: array.astype(np.float32) for name, array in params.items()}
    params |= _mapped_tensors(path, wide)
    return {name: params[name] for name in found}, header


def _mapped_tensors(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Tensors of float32 as views of the file, whose header is known to be right."""
    names, mapped = list(names), _map(path)
    start = 8 + int.from_bytes(mapped[:8], 'little')
    header = json.loads(bytes(mapped[8:start])) if names else {}
    arrays = {}
    for name in names:
        shape, (begin, end) = header[name]['shape'], header[name]['data_offsets']
        raw = np.frombuffer(mapped[start + begin : start + end], '<f4')
        arrays[name] = np.require(raw, np.float32, ['A']).reshape(shape)
    return arrays


def _map(path: Path) -> memoryview:
    """A file's bytes, read as they are used; what is written to them stays in this process."""
    with open(path, 'rb') as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def read_npz(path: Path, prefix: str, without: str) -> dict[str, np.ndarray]:
    """The arrays of an archive whose names begin with `prefix`, as float32, one of them apart."""
    params = {}
    with zipfile.ZipFile(path) as archive:
        _check_expansion(archive, path.stat().st_size)
        mapped = _map(path)
        for member in archive.infolist():
            name = member.filename.removesuffix('.npy')
            if name != without and name.startswith(prefix):
                with archive.open(member) as file:  # which also checks the member's header
                    array = read_npy(file, member.file_size, _stored(mapped, member))
                if array.dtype.hasobject:
                    if array.ndim == 0:  # a dict or the like, which no model has as a parameter
                        continue
                    array = np.array(array.tolist(), np.float32)  # numbers, or rows of them
                params[name] = np.require(array, np.float32, ['A', 'W'])
    return params


def _stored(mapped: memoryview, member: zipfile.ZipInfo) -> memoryview | None:
    """The bytes of a member that is not compressed, checked; None if it is."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        return None
    # The local header: 30 bytes, of which the last four are the lengths of two texts behind it.
    lengths = struct.unpack_from('<HH', mapped, member.header_offset + 26)
    begin = member.header_offset + 30 + sum(lengths)
    data = mapped[begin : begin + member.file_size]
    if zlib.crc32(data) != member.CRC:
        raise ValueError(f'{member.filename} is damaged: its CRC-32 is another')
    return data


def _check_expansion(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that would fill the memory: arrays of numbers do not shrink so far."""
    whole = sum(member.file_size for member in archive.infolist())
    if whole > max(MOST_EXPANDED, MOST_EXPANSION * size):
        raise ValueError(f'it expands from {size} to {whole} bytes')


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The header of a ``.npy`` stream: the shape, whether in Fortran's order, the type."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f'.npy version {version} is not known')
    return read(file)


def read_npy(file: IO[bytes], size: int, whole: memoryview | None = None) -> np.ndarray:
    """Read a ``.npy`` stream of `size` bytes; arrays of objects go through our unpickler.

    If the bytes of the `whole` stream are at hand, the array is a view of them.
    """
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        found = Unpickler(file).load()
        if not isinstance(found, np.ndarray) or found.shape != shape:
            raise ValueError(
                f'the header declares an array of shape {shape}, found {kind_of(found)}'
            )
        return found
    if min(shape, default=0) < 0:
        raise ValueError(f'the header declares the shape {shape}')
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if wanted > size:
        raise ValueError(f'the header declares {wanted} bytes, the file has {size}')
    data = file.read(wanted) if whole is None else whole[file.tell() :][:wanted]
    if len(data) < wanted:
        raise ValueError(f'the file ends after {len(data)} of {wanted} bytes')
    raw = np.frombuffer(data, np.uint8)
    if raw.ctypes.data % dtype.alignment:  # a copy of bytes is many times as fast as one of floats
        raw = raw.copy()
    array = raw.view(dtype)
    return array.reshape(shape, order='F' if fortran else 'C')


def kind_of(value: Any) -> str:
    """What a value is, for an error message."""
    if isinstance(value, np.ndarray):
        return f'an array of shape {value.shape} and type {value.dtype}'
    return type(value).__name__


def read_into(file: Any, array: np.ndarray) -> np.ndarray:
    """Fill a contiguous array with the next bytes of a stream, and return it."""
    view, place = array.reshape(-1).view(np.uint8).data, 0
    while place < len(view):
        if not (count := file.readinto(view[place : place + PIECE])):
            raise EOFError(f'the file ends after {place} of {len(view)} bytes')
        place += count
    return array
