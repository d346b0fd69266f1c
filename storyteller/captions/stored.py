"""The vectors of a pool that come with a bundle, in bytes; what is near is compared exactly.

A row is kept as whole numbers from -127 to 127, a scale, and how far the exact row is away from
what these give. By the inequality of Cauchy and Schwarz a score cannot be further off than that
distance times the length of the query. So the captions that may be among the nearest are known;
they alone are led into the joint space, and what is found is what all exact vectors would give.

Dimension letters: B queries, N captions, E joint space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin

from .. import captions as pool
from .. import embedding
from ..errors import ModelFileError, PathLike, why
from ..io.files import atomic_path
from ..layers import inference
from ..nn.nearest import nearest

FILE = 'caption_vectors.safetensors'  # beside the captions
MOST = 127  # of a whole number
ROWS = 1024  # made floats at a time, so that they stay in the processor's cache
QUERIES = 16  # looked for at a time, which bounds the memory of their scores
ROUNDING = 1e-5  # more than what sums of 32-bit floats lose


class StoredPool(NDArrayOperatorsMixin):
    """The vectors of a pool; takes the place of ``z['cvec']``.

    As an array, in NumPy's functions, operators and methods, it is the exact one, (N, E) float32,
    which is made, with the embedding `vse`, when it is first asked for. `parts` come from
    :func:`packed`.
    """

    def __init__(
        self, vse: dict[str, Any], captions: Sequence[str], parts: Mapping[str, np.ndarray]
    ):
        self.codes, self.scales, self.away = (parts[name] for name in ('codes', 'scales', 'away'))
        self.shape, self.dtype = self.codes.shape, np.dtype(np.float32)
        self._vse, self._captions = vse, captions
        self._known = np.zeros(len(self), bool)
        self._exact = np.zeros(self.shape, np.float32)  # takes memory as its rows are filled

    def __len__(self) -> int:
        return len(self.codes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not self._known.all():
            self._exact = pool.caption_vectors(self._vse, self._captions, verbose=None)
            self._known = np.ones(len(self), bool)
        return np.array(self._exact, dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = (np.asarray(each) if isinstance(each, StoredPool) else each for each in inputs)
        return getattr(ufunc, method)(*plain, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):  # also where it is copied, before it has anything
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self)[rows]

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `storyteller.captions.nearest` over the exact vectors."""
        queries = np.asarray(queries, np.float32)
        many, found = np.atleast_2d(queries), []
        if self._known.all():
            return nearest(queries, self._exact, k)
        for start in range(0, len(many), QUERIES):
            some = many[start : start + QUERIES]
            hopeful = self._hopeful(some, min(int(k), len(self)))
            self._make(np.unique(np.concatenate(hopeful)))
            for query, rows in zip(some, hopeful, strict=True):
                best, scores = nearest(query, self._exact[rows], min(int(k), len(self)))
                found.append((rows[best], scores))
        if queries.ndim == 1:
            return found[0]
        indices, products = zip(*found, strict=True) if found else ((), ())
        return np.array(indices, np.int64), np.array(products, np.float32)

    @inference()
    def _hopeful(self, queries: np.ndarray, k: int) -> list[np.ndarray]:
        """For each of some queries the rows, in order, that may be among its `k` nearest."""
        plain: Any = {'dtype': torch.float32, 'device': 'cpu'}  # whatever is set around
        asked, codes = torch.tensor(queries.T, **plain), torch.from_numpy(self.codes)
        products = torch.empty(len(codes), len(queries), **plain)
        room = torch.empty(ROWS, codes.shape[1], **plain)  # new memory would take as long again
        for some, out in zip(codes.split(ROWS), products.split(ROWS), strict=True):
            torch.mm(room[: len(some)].copy_(some), asked, out=out)
        scores = products.numpy().T * self.scales  # (B, N)
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        off = lengths * (self.away + ROUNDING)
        least = np.partition(scores - off, -k, axis=1)[:, -k, None]
        return [np.flatnonzero(row) for row in scores + off >= least]

    def _make(self, rows: np.ndarray) -> None:
        """Lead captions into the joint space, unless they are there."""
        if len(new := rows[~self._known[rows]]):
            captions = [self._captions[row] for row in new]
            self._exact[new] = embedding.encode_sentences(self._vse, captions)
            self._known[new] = True  # last, for other threads


def packed(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Vectors (N, E) in whole numbers: ``codes`` (N, E) int8, and ``scales`` (N,) float32.

    ``away`` (N,) float32 are the lengths of what is lost.
    """
    vectors = np.asarray(vectors, np.float32)
    scales = np.abs(vectors).max(axis=1, initial=0.0) / MOST
    codes = np.rint(vectors / np.where(scales, scales, 1)[:, None]).astype(np.int8)
    lost = vectors.astype(np.float64) - codes * scales[:, None].astype(np.float64)
    away = np.linalg.norm(lost, axis=1) * (1 + 1e-6)  # rounded up
    return {'codes': codes, 'scales': scales, 'away': away.astype(np.float32)}


def write(
    path: PathLike, vse: dict[str, Any], captions: Sequence[str], vectors: np.ndarray
) -> None:
    """Write the vectors of a pool, tied to its captions and to the embedding."""
    with atomic_path(path) as temporary:
        safetensors.numpy.save_file(packed(vectors), temporary, _made_of(vse, captions))


def read(path: PathLike, vse: dict[str, Any], captions: Sequence[str]) -> StoredPool | None:
    """The vectors of a pool as they stand in a file, for an embedding and its N captions.

    None if there is no file, or one of other captions, or of another embedding; a ModelFileError
    if it is no such file.
    """
    try:
        with safetensors.safe_open(path, 'np') as file:
            if (file.metadata() or {}) != _made_of(vse, captions):
                return None
            parts = {name: file.get_tensor(name) for name in ('codes', 'scales', 'away')}
    except FileNotFoundError:
        return None
    except Exception as error:  # of many kinds, as the file is broken
        raise ModelFileError(f'{path}: not readable as vectors of a pool: {why(error)}') from None
    one, all_ = (len(captions),), (len(captions), embedding.width(vse))
    shapes = {'codes': all_, 'scales': one, 'away': one}
    for name, array in parts.items():
        kind = np.int8 if name == 'codes' else np.float32
        if array.shape != shapes[name] or array.dtype != kind:
            raise ModelFileError(
                f'{path}: {name!r} has shape {array.shape} and type {array.dtype}, expected '
                f'{shapes[name]} and {np.dtype(kind)}'
            )
        if kind == np.float32 and not (np.isfinite(array) & (array >= 0)).all():
            raise ModelFileError(f'{path}: {name!r} holds what is no length')
    return StoredPool(vse, captions, parts)


def _made_of(vse: dict[str, Any], captions: Sequence[str]) -> dict[str, str]:
    """What the vectors depend on, as it stands in the file."""
    text = '\n'.join(captions).encode('utf-8', 'surrogatepass')
    return {'captions': hashlib.sha256(text).hexdigest(), 'embedding': embedding.fingerprint(vse)}
