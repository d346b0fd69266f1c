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
from ..topk import topk
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
    best, rows = np.empty((len(many), 0), np.float32), np.empty((len(many), 0), np.int64)
    step = max(k, SCORES_AT_ONCE // max(1, len(many)))
    products = _products(many)
    for start in range(0, len(vectors), step):
        scores = products(np.asarray(vectors[start : start + step], dtype=np.float32))
        if np.isnan(scores).any():
            raise ValueError('vectors: a value is not finite')
        # Nearly all columns fall away here. The later ones first: of equal scores these are taken.
        hopeful = (scores >= best[:, -1:]).any(axis=0) if best.shape[1] == k else slice(None)
        new: np.ndarray = np.arange(start, start + scores.shape[1])[hopeful][::-1]
        scores = np.hstack([scores[:, hopeful][:, ::-1], best])
        rows = np.hstack([np.broadcast_to(new, (len(many), len(new))), rows])
        found, places = topk(torch.from_numpy(scores), k)
        best, rows = found.numpy(), np.take_along_axis(rows, places.numpy(), axis=1)
    return (rows, best) if queries.ndim == 2 else (rows[0], best[0])


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
