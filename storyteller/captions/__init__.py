"""The caption pool: reading, embedding and caching; :func:`nearest` retrieves captions.

Embedding a large pool takes minutes, so the vectors are kept on disk under a hash of all they
depend on: a changed model or caption file gives another name, never a stale answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import embedding
from ..formats import ModelFileError, read_lines
from ..io.files import atomic_path, cache_folder
from ..nn.nearest import nearest as nearest
from ..nn.sequences import as_texts

CAPTIONS_AT_ONCE = 1 << 15  # captions embedded between two writes
LOOKED_AT = 1000  # captions that a pool is judged by
LARGE_POOL = 100_000  # captions from which on each block is kept until all are there


def load_captions(path: str | os.PathLike) -> list[str]:
    """Read a caption pool: UTF-8 text, one caption per line.

    Parameters
    ----------
    path : path
        A byte order mark and Windows line ends do no harm.

    Returns
    -------
    list of str
        Without white space on either side. Blank lines are dropped (2015 kept them as captions
        without a word).

    Raises
    ------
    MissingFileError
        If there is no such file.
    ModelFileError
        If it is not UTF-8, or holds no caption.
    """
    captions = [caption for line in read_lines(path) if (caption := line.strip())]
    if not captions:
        raise ModelFileError(f'{path}: expected one caption a line, found none')
    return captions


def caption_vectors(
    vse: dict[str, Any],
    captions: Sequence[str],
    *,
    cache: str | os.PathLike | bool | None = True,
    verbose: bool | None = False,
) -> np.ndarray:
    """Embed a caption pool, or read its vectors from the cache.

    With a cache, embedding a large pool resumes where it was interrupted.

    Parameters
    ----------
    vse : dict
        A model of `embedding.load_model`.
    captions : sequence of N str
    cache : path or bool, default True
        The folder to keep the vectors in; True: `cache_folder()`; False or None: none. A folder
        that cannot be written, or has no room, is no error: the vectors are then made anew each
        time, with a warning.
    verbose : bool or None, default False
        Show progress on stderr; None: if that is a terminal and it takes more than a second.

    Returns
    -------
    (N, E) float32 array
        Unit rows, mapped from disk and read-only if they are cached.
    """
    captions = as_texts(captions)
    _warn_of_marks(vse, captions)
    path = _cache_path(vse, captions, cache)
    shape = (len(captions), embedding.width(vse))
    vectors = _read_cached(path, shape) if path else None
    if path and vectors is None:
        vectors = _made_and_kept(vse, captions, verbose, path, shape)
    elif vectors is None:
        if cache is True and captions:
            warnings.warn(f'there is no folder for a cache: {_ANEW}', stacklevel=2)
        vectors = embedding.encode_sentences(vse, captions, verbose=bool(verbose))
    return vectors


_ANEW = 'the captions are read anew each time; STORYTELLER_CACHE names a folder to keep vectors in'


def _made_and_kept(
    vse: dict[str, Any],
    captions: list[str],
    verbose: bool | None,
    path: pathlib.Path,
    shape: tuple[int, int],
) -> np.ndarray:
    """Embed a pool and write it to the cache; where that cannot be, say so."""
    parts = path.with_suffix('.parts')
    blocks: Iterable[np.ndarray] | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(path.parent, shape)
        blocks = _embedded(vse, captions, verbose, parts)
        if len(captions) <= LARGE_POOL:
            blocks = list(blocks)  # of no use again only if all goes well
        _write_cached(path, shape, blocks)
        vectors = _read_cached(path, shape)
    except OSError as error:  # read-only or full
        warnings.warn(f'{path.parent}: nothing can be kept there ({error}): {_ANEW}', stacklevel=3)
        vectors = None
    shutil.rmtree(parts, ignore_errors=True)
    if vectors is None and isinstance(blocks, list):
        vectors = np.concatenate(blocks)
    elif vectors is None:
        vectors = embedding.encode_sentences(vse, captions, verbose=bool(verbose))
    return vectors


def _check_room(folder: pathlib.Path, shape: tuple[int, int]) -> None:
    """Refuse to begin what would end with a full disk; a large pool is there twice for a while."""
    wanted = 4 * shape[0] * shape[1] * (2 if shape[0] > LARGE_POOL else 1)
    if (left := shutil.disk_usage(folder).free) < wanted:
        raise OSError(f'{wanted / 1e6:,.0f} MB are needed, {left / 1e6:,.0f} are left')


def cached_vectors(
    vse: dict[str, Any], captions: Sequence[str], *, cache: str | os.PathLike | bool | None = True
) -> np.ndarray | None:
    """The result of :func:`caption_vectors` if it is cached, else None."""
    captions = as_texts(captions)
    path = _cache_path(vse, captions, cache)
    shape = (len(captions), embedding.width(vse))
    vectors = _read_cached(path, shape) if path else None
    if vectors is not None:
        _warn_of_marks(vse, captions)
    return vectors


def _warn_of_marks(vse: dict[str, Any], captions: Sequence[str]) -> None:
    """Warn of captions whose last word is unknown only because a mark hangs on it ("sofa.")."""
    known, some = vse['worddict'], captions[:: max(1, len(captions) // LOOKED_AT)]
    last = [caption.split()[-1] for caption in some if caption.strip()]
    hanging = [w for w in last if w not in known and w.rstrip('.!?,;:') in known]
    if len(hanging) > len(last) / 10:
        warnings.warn(
            f'of {len(last)} captions, {len(hanging)} end in a word with a mark on it, such as '
            f'{hanging[0]!r}, which the joint space reads as UNK: part them by a blank, "sofa ."',
            stacklevel=3,
        )


def made_of(vse: dict[str, Any], captions: Sequence[str]) -> dict[str, str]:
    """Hashes of what the vectors of a pool depend on: ``captions``, in order, and ``embedding``."""
    return {
        'captions': _content_hash('', as_texts(captions)),
        'embedding': embedding.fingerprint(vse),
    }


def _cache_path(
    vse: dict[str, Any], captions: list[str], cache: str | os.PathLike | bool | None
) -> pathlib.Path | None:
    folder = cache_folder() if cache is True else cache
    if not folder or not captions:
        return None
    return (
        pathlib.Path(folder) / f'captions-{_content_hash(embedding.fingerprint(vse), captions)}.npy'
    )


def _content_hash(before: str, captions: list[str]) -> str:
    content = hashlib.sha256(before.encode())
    for start in range(0, len(captions), CAPTIONS_AT_ONCE):
        part = json.dumps(captions[start : start + CAPTIONS_AT_ONCE], ensure_ascii=False)
        content.update(part.encode('utf-8', 'surrogatepass'))
    return content.hexdigest()


def _embedded(
    vse: dict[str, Any], captions: list[str], verbose: bool | None, parts: pathlib.Path
) -> Iterator[np.ndarray]:
    """Blocks of vectors; those of a large pool are kept in `parts`, and taken from there."""
    hidden, delay = (None, 1) if verbose is None else (not verbose, 0)
    keep = len(captions) > LARGE_POOL
    with tqdm(total=len(captions), disable=hidden, delay=delay, unit='caption') as progress:
        for start in range(0, len(captions), CAPTIONS_AT_ONCE):
            block = captions[start : start + CAPTIONS_AT_ONCE]
            shape = (len(block), embedding.width(vse))
            vectors = _read_cached(parts / f'{start}.npy', shape) if keep else None
            if vectors is None:
                vectors = embedding.encode_sentences(vse, block)
                if keep:
                    with contextlib.suppress(OSError):  # another process may just clear them away
                        _write_cached(parts / f'{start}.npy', shape, [vectors])
            yield vectors
            progress.update(len(block))


def _write_cached(path: pathlib.Path, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> None:
    """Write a ``.npy`` file and behind it four bytes that readers of ``.npy`` never look at:
    the CRC-32 of the numbers."""
    header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
    crc = 0
    # Written, not mapped: a full disk then raises an error instead of ending the process.
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            raw = np.ascontiguousarray(block, dtype='<f4').tobytes()
            crc = zlib.crc32(raw, crc)
            file.write(raw)
        file.write(struct.pack('<I', crc))


def _read_cached(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The mapped vectors, or None if they are missing or damaged."""
    try:
        # Mapped as what could be written to, which torch asks for, and then not to be written to.
        vectors = np.lib.format.open_memmap(path, mode='c')
        vectors.flags.writeable = False
        with open(path, 'rb') as file:
            file.seek(-4, os.SEEK_END)
            crc = struct.unpack('<I', file.read())[0]
    except (OSError, ValueError, EOFError):
        return None
    if vectors.shape != shape or vectors.dtype != np.dtype('<f4'):
        return None
    if path.stat().st_size != vectors.offset + vectors.nbytes + 4:
        return None
    return vectors if zlib.crc32(vectors.reshape(-1).data) == crc else None
