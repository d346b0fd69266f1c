"""The word tables published in 2015, arrays of Python objects, converted to plain arrays.

The plain table is made once, into the cache, under a hash of the file; from then on it is mapped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from ..errors import ModelFileError, PathLike, why
from . import arrays
from .checksums import sha256
from .files import atomic_path, cache_folder
from .pickle_2015 import ObjectRows, Stream

LEAST_ROW = 30  # bytes of a row in a file, at the very least
HOUR = 3600  # seconds after which a file that nobody finished is nobody's


def holds_objects(path: PathLike) -> bool:
    """Whether a file is a ``.npy`` array of Python objects, according to its header."""
    with open(path, 'rb') as file:
        try:
            return arrays.read_header(file)[2].hasobject
        except Exception:  # a broken header raises whatever it stumbles over
            return False


def write_plain(path: PathLike, out: PathLike) -> None:
    """Write a table of Python objects as a plain (V, W) float32 ``.npy``, as a stream, atomically.

    The table is a ``.npy`` array (V,) of objects, each an array (W,) or (1, W) of floats; a
    ModelFileError says that the file holds anything else.
    """
    with atomic_path(out) as temporary, open(temporary, 'wb') as file:
        _copy_rows(path, file)


def open_plain(path: PathLike) -> np.ndarray:
    """Open the plain form of a table of Python objects, converting it if it is not cached.

    It is a (V, W) float32 array, mapped and read-only. Without a cache that can be written, it is
    made for this process alone, with a warning. A ModelFileError says that the file holds anything
    else, or that there is no room.
    """
    trouble = 'there is no folder for a cache'
    if folder := cache_folder():
        try:
            return _cached(Path(path), folder)
        except OSError as error:  # read-only or full
            trouble = f'{folder}: {error}'
    try:
        with tempfile.TemporaryFile() as file:
            _copy_rows(path, file)
            file.flush()
            file.seek(0)
            shape, _, dtype = arrays.read_header(file)
            warnings.warn(
                f'{path}: a table of Python objects, made plain anew each time ({trouble}); '
                'STORYTELLER_CACHE names a folder to keep it in',
                stacklevel=2,
            )
            return np.memmap(file, dtype, 'r', file.tell(), shape)
    except OSError as error:
        raise ModelFileError(
            f'{path}: a table of Python objects, but there is no room to make it plain, neither in '
            f'{folder or "a cache"} nor in {tempfile.gettempdir()} ({error}); STORYTELLER_CACHE '
            'names another folder, and scripts/convert_models.py makes plain tables for good'
        ) from None


def _copy_rows(path: PathLike, out: BinaryIO) -> None:
    """Read a table of objects and write the plain one, as it comes."""
    path, size = Path(path), os.path.getsize(path)

    def write(width: int, data: bytes) -> None:
        if not out.tell():
            header = {'descr': '<f4', 'fortran_order': False, 'shape': (count, width)}
            np.lib.format.write_array_header_1_0(out, header)
        out.write(data)

    # The bar is shown if stderr is a terminal and it takes more than a second.
    looks: dict[str, Any] = {'unit': 'B', 'unit_scale': True, 'delay': 1, 'disable': None}
    bar = tqdm(total=size, desc=f'{path.name}, the first time', **looks)
    with open(path, 'rb', buffering=0) as file, bar:
        try:
            shape, _, dtype = arrays.read_header(file)
            count = shape[0] if len(shape) == 1 and dtype.kind == 'O' else -1
            if not 0 < count <= size // LEAST_ROW:
                raise ValueError(
                    f'the header declares shape {shape} and type {dtype}, the file has {size} bytes'
                )
            ObjectRows(Stream(file, bar.update), count, write).read_rows()
        except OSError:
            raise
        except Exception as error:  # a broken pickle raises whatever its steps stumble over
            raise ModelFileError(
                f'{path}: no readable table of Python objects: {why(error)}'
            ) from None


# --- the cache -----------------------------------------------------------------------------------


def _cached(path: Path, folder: Path) -> np.ndarray:
    """The plain table from the cache, mapped; made if it is not there."""
    now = _identity(path)
    note = folder / f'table-{now}.txt'  # so that the file itself need not be read again
    plain = _noted(note)
    if plain is None:
        digest = sha256(path)
        file = folder / f'table-{digest}.npy'
        if (plain := _mapped(file)) is None:
            _clear(folder)
            write_plain(path, file)
            if _identity(path) != now:
                file.unlink()
                raise ModelFileError(f'{path}: the file changed while it was read')
            plain = np.load(file, mmap_mode='r', allow_pickle=False)
        with atomic_path(note) as temporary:
            temporary.write_text(digest)
    return plain


def _identity(path: Path) -> str:
    """What changes whenever a file does: its place on the disk, its size and its times."""
    stat = path.stat()
    told = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _noted(note: Path) -> np.ndarray | None:
    try:
        digest = note.read_text()
    except (OSError, ValueError):
        return None
    return _mapped(note.parent / f'table-{digest}.npy') if digest.isalnum() else None


def _mapped(file: Path) -> np.ndarray | None:
    """A table from the cache, or None if it is missing or is not whole."""
    try:
        table = np.load(file, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(table, np.memmap) and table.ndim == 2 and table.dtype == np.dtype('<f4')
    return table if whole and file.stat().st_size == table.offset + table.nbytes else None


def _clear(folder: Path) -> None:
    """Remove what killed processes left half written: it is as large as a table."""
    for file in folder.glob('.table-*.npy'):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > HOUR:
                file.unlink()
