"""Nearest rows: the vectors with the largest dot products with a query.

Dimension letters: B queries, N vectors, E joint space.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..formats import MismatchError
from ..layers import inference
from .packed import Linear

SCORES_AT_ONCE = 1 << 20  # numbers in a block of scores: 4 MB of float32


def nearest(queries: np.ndarray, vectors: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows of `vectors` with the largest dot product with each query.

    Parameters
    ----------
    queries : (B, E) array, or (E,) for one query
    vectors : (N, E) array, `caption_index.CaptionIndex` or `stored_pool.StoredPool`
        May be mapped from disk: it is read once, a block of rows at a time.
    k : int
        1 or more; more than N gives N, with a warning.

    Returns
    -------
    indices : (B, k) int64 array, or (k,)
        Rows of `vectors`, best first; of rows with equal scores the later comes first, the order
        of a reversed ascending sort, as in 2015.
    scores : (B, k) float32 array, or (k,)
        Dot products, in [-1, 1] for unit rows.

    Raises
    ------
    ValueError
        If `k` is not a whole number of 1 or more, `vectors` is empty, or a value is not finite.
    MismatchError
        If the widths differ.

    Examples
    --------
    >>> indices, scores = nearest([1.0, 0.0], [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], k=2)
    >>> indices, scores
    (array([2, 1]), array([1., 1.], dtype=float32))
    """
    if hasattr(vectors, 'nearest'):  # which answers in the same way
        _checked_search(np.asarray(queries, np.float32), vectors, k)
        return vectors.nearest(queries, k)
    queries = np.asarray(queries, dtype=np.float32)
    vectors = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors, np.float32)
    k = _checked_search(queries, vectors, k)
    many = np.atleast_2d(queries)
    best = np.empty((len(many), 0), dtype=np.int64)
    step = max(k, SCORES_AT_ONCE // max(1, len(many)))
    products = _products(many)
    for start in range(0, len(vectors), step):
        scores = products(np.asarray(vectors[start : start + step], dtype=np.float32))
        best = _largest(np.hstack([best, _keys(scores, start, best, k)]), k)
    indices, scores = _from_keys(np.sort(best, axis=1)[:, ::-1])
    return (indices, scores) if queries.ndim == 2 else (indices[0], scores[0])


def _products(queries: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What gives the dot products (B, n) of the queries (B, E) with rows (n, E)."""
    if len(queries) == 1:  # as fast as memory is read
        return lambda rows: queries @ rows.T
    packed = Linear(torch.tensor(queries, device='cpu'))

    @inference()
    def products(rows: np.ndarray) -> np.ndarray:
        rows = rows.view()
        with contextlib.suppress(ValueError):  # memory that is read-only itself stays so
            rows.flags.writeable = True  # torch asks for it; nothing is written
        if not rows.flags.writeable:
            return queries @ rows.T
        return packed(torch.from_numpy(rows)).numpy().T

    return products


def _checked_search(queries: np.ndarray, vectors: np.ndarray, k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f'k: expected a whole number, 1 or more, found {k!r}')
    shape = vectors.shape
    if queries.ndim not in (1, 2) or len(shape) != 2 or queries.shape[-1] != shape[1]:
        raise MismatchError(
            f'queries (B, E) and vectors (N, E) must share E, found {queries.shape} and {shape}'
        )
    if not len(vectors):
        raise ValueError('vectors: expected at least one row to search, found none')
    if not np.isfinite(queries).all():
        raise ValueError('queries: a value is not finite')
    if k > len(vectors):
        warnings.warn(f'k={k}, but there are only {len(vectors)} rows: all of them', stacklevel=3)
    return min(int(k), len(vectors))


# A score and its row make one int64: the float's bits, arranged so that integers sort as the floats
# do, above the row's index. No two keys are equal, so the order of equal scores is settled without
# a stable sort, and the running best is a plain partition.


def _keys(scores: np.ndarray, first: int, best: np.ndarray, k: int) -> np.ndarray:
    """Keys of the columns of `scores` (B, n) that may still be among some query's best."""
    if np.isnan(scores).any():
        raise ValueError('vectors: a value is not finite')
    rows: np.ndarray = np.arange(first, first + scores.shape[1], dtype=np.int64)
    if best.shape[1] == k:  # nearly all columns fall away here
        worst = _from_keys(best.min(axis=1, keepdims=True))[1]
        hopeful = (scores >= worst).any(axis=0)
        scores, rows = scores[:, hopeful], rows[hopeful]
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # + 0 makes -0 into 0
    return (_sortable(bits) << 32) + rows


def _from_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bits = _sortable(keys >> 32).astype(np.int32)
    return keys & 0xFFFFFFFF, bits.view(np.float32)


def _sortable(bits: np.ndarray) -> np.ndarray:
    """Bits of a float32 to an integer of the same order, or back."""
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _largest(keys: np.ndarray, k: int) -> np.ndarray:
    if keys.shape[1] <= k:
        return keys
    return np.partition(keys, -k, axis=1)[:, -k:]
