"""Approximate nearest captions in large pools: a faiss index with exact re-ranking.

An index answers with candidates; their scores are then computed from the vectors themselves, so
what it finds is scored and ordered as :func:`storyteller.captions.nearest` does, and only what it
misses is lost. Needs the extra ``scale``.

Dimension letters: N captions, E joint space, B queries.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import why
from ..formats import MismatchError, ModelFileError, PathLike, atomic_path, existing, write_text
from ..io.extras import needed
from ..nn.nearest import nearest

KINDS = ('flat', 'ivf', 'hnsw', 'opq')
AT_ONCE = 1 << 16  # vectors added between two steps of the progress bar
CANDIDATES = 4  # times k that are re-ranked
A_LIST = 39  # vectors at least, below which faiss warns that its centre is badly known
PARTS = 'captions', 'embedding'  # that a pool is made of, as `captions.made_of` names them
_OTHER = {
    'captions': 'other captions, or in another order,',
    'embedding': 'another embedding',
    'vectors': 'other vectors',
}


class CaptionIndex:
    """An index over the vectors of a pool; takes the place of ``z['cvec']``.

    Parameters
    ----------
    index : faiss.Index
    vectors : (N, E) array
        Unit rows, may be mapped from disk: the candidates' rows are read.
    kind : {'flat', 'ivf', 'hnsw', 'opq'}
    effort : int
        How much of the index is searched: lists of 'ivf' and 'opq', the width of the search of
        'hnsw'. More finds more and takes longer.
    made_of : mapping of str to str, optional
        The hashes of the captions and of the embedding: `storyteller.captions.made_of`.
    """

    def __init__(
        self,
        index: Any,
        vectors: np.ndarray,
        kind: str,
        effort: int = 64,
        made_of: Mapping[str, str] | None = None,
    ):
        if (index.ntotal, index.d) != vectors.shape:
            raise MismatchError(
                f'the index is of {index.ntotal} x {index.d} vectors, the pool has '
                f'{vectors.shape[0]} x {vectors.shape[1]}'
            )
        self.index, self.vectors, self.kind, self.effort = index, vectors, kind, effort
        self.shape, self.made_of = vectors.shape, dict(made_of or {})

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `storyteller.captions.nearest`; exact where the index finds fewer than k."""
        queries = np.asarray(queries, np.float32)
        many = np.ascontiguousarray(np.atleast_2d(queries))
        wanted = min(int(k) * CANDIDATES, len(self.vectors))
        found = self.index.search(many, wanted, params=self._effort(wanted))[1]
        indices, scores = [], []
        for query, rows in zip(many, found, strict=True):
            rows = np.sort(rows[rows >= 0])
            if len(rows) < min(k, len(self.vectors)):
                rows = np.arange(len(self.vectors))
            best, score = nearest(query, self.vectors[rows], k)
            indices.append(rows[best])
            scores.append(score)
        if queries.ndim == 1:
            return indices[0], scores[0]
        return np.stack(indices), np.stack(scores)

    def _effort(self, wanted: int) -> Any:
        faiss = needed('faiss')
        if self.kind == 'hnsw':
            return faiss.SearchParametersHNSW(efSearch=max(self.effort, wanted))
        if self.kind == 'flat':
            return None
        lists = faiss.SearchParametersIVF(nprobe=self.effort)
        if self.kind == 'opq':
            return faiss.SearchParametersPreTransform(index_params=lists)
        return lists

    def save(self, path: PathLike) -> None:
        """Write the index, and beside it its card, ``path + '.json'``: what it is, and of what."""
        card = Path(f'{os.fspath(path)}.json')
        card.unlink(missing_ok=True)  # so that none is ever beside the index of another
        with atomic_path(path) as temporary:
            needed('faiss').write_index(self.index, os.fspath(temporary))
        facts = {'kind': self.kind, 'captions': self.shape[0], 'width': self.shape[1]}
        facts |= {'effort': self.effort, 'made_of': self.made_of | {'vectors': _hash(self.vectors)}}
        write_text(card, json.dumps(facts) + '\n')


def build(
    vectors: np.ndarray,
    kind: str = 'ivf',
    *,
    seed: int = 0,
    verbose: bool = True,
    made_of: Mapping[str, str] | None = None,
) -> CaptionIndex:
    """Build an index.

    Parameters
    ----------
    vectors : (N, E) float32 array
        Unit rows.
    kind : {'flat', 'ivf', 'hnsw', 'opq'}
        All vectors; lists of vectors near to a centre ('flat' for very few); a graph of
        neighbours; lists of vectors in an eighth to a thirty-second of their size (products of
        quantisers after a rotation).
    seed : int
        Random seed of what centres and quantisers learn from.
    verbose : bool
        Show progress on stderr.
    made_of : mapping of str to str, optional
        See `CaptionIndex`; without it, only these very vectors are known again.

    Raises
    ------
    ValueError
        If the kind is none of these, or there are fewer vectors than it needs.
    MissingExtraError
        If faiss is not installed.
    """
    faiss = needed('faiss')
    if kind not in KINDS:
        raise ValueError(f'kind: expected one of {", ".join(KINDS)}, found {kind!r}')
    n, width = vectors.shape
    if not n:
        raise ValueError('vectors: expected at least one, found none')
    if kind == 'ivf' and n < A_LIST:
        kind = 'flat'  # which is what a single list is
    lists = round(4 * math.sqrt(n)) if n < 1 << 22 else 1 << 15
    lists = max(1, min(lists, n // A_LIST))
    if kind == 'opq' and (n < 10_000 or width % 8):
        raise ValueError(
            f"kind 'opq' needs 10,000 vectors of a width in eights, found {n} x {width}"
        )
    described = {
        'flat': 'Flat',
        'ivf': f'IVF{lists},Flat',
        'hnsw': 'HNSW32,Flat',
        'opq': f'OPQ{width // 8},IVF{lists},PQ{width // 8}x8',
    }
    index = faiss.index_factory(width, described[kind], faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(n)[: max(64 * lists, 20_000)])
        index.train(np.ascontiguousarray(vectors[chosen], np.float32))
    with tqdm(total=n, disable=not verbose, unit='caption') as progress:
        for start in range(0, n, AT_ONCE):
            block = np.ascontiguousarray(vectors[start : start + AT_ONCE], np.float32)
            index.add(block)
            progress.update(len(block))
    return CaptionIndex(index, vectors, kind, made_of=made_of)


def load(
    path: PathLike, vectors: np.ndarray, made_of: Mapping[str, str] | None = None
) -> CaptionIndex:
    """Load an index for the vectors that it was built from.

    faiss reads the file in C++ and trusts it: load none from strangers.

    Parameters
    ----------
    path : path-like
        The index; its card is ``path + '.json'``.
    vectors : (N, E) array
    made_of : mapping of str to str, optional
        What the vectors were made of, see `CaptionIndex`. Without it, or where the card does not
        say it, the vectors themselves are compared, which on another machine differ in last digits.

    Raises
    ------
    MissingFileError, ModelFileError
        If the index, or the file beside it, is missing or invalid.
    MismatchError
        If it is of another pool: of other captions, or in another order, or of another embedding.
    MissingExtraError
        If faiss is not installed.
    """
    faiss = needed('faiss')
    path, facts = existing(path, 'an index'), existing(f'{os.fspath(path)}.json', 'what it is')
    try:
        described = json.loads(Path(facts).read_text(encoding='utf-8'))
        kind, effort = described['kind'], int(described['effort'])
        known = dict(described.get('made_of', {}))
        index = faiss.read_index(os.fspath(path))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelFileError(f'{path}: not an index of captions: {why(error)}') from None
    if kind not in KINDS:
        raise ModelFileError(f'{facts}: {kind!r} is none of {", ".join(KINDS)}')
    try:
        found = CaptionIndex(index, vectors, kind, effort, known)
        _check_pool(known, vectors, made_of)
    except MismatchError as error:
        raise MismatchError(
            f'{path}: {error}; build one with python scripts/build_caption_index.py'
        ) from None
    return found


def _check_pool(
    known: Mapping[str, str], vectors: np.ndarray, made_of: Mapping[str, str] | None
) -> None:
    """Refuse an index whose card says that it is of another pool, or does not say of which."""
    if 'vectors' not in known:
        raise MismatchError('its card does not say of which captions it is')
    if made_of is None or not known.keys() >= set(PARTS):
        made_of = {'vectors': _hash(vectors)}
    if differing := [name for name, value in made_of.items() if known[name] != value]:
        which = ' and '.join(f'of {_OTHER[name]}' for name in differing)
        raise MismatchError(f'the index is {which} than the pool')


def _hash(vectors: np.ndarray) -> str:
    content = hashlib.sha256()
    for start in range(0, len(vectors), AT_ONCE):
        content.update(np.ascontiguousarray(vectors[start : start + AT_ONCE], '<f4').data)
    return content.hexdigest()


def recall(index: CaptionIndex, queries: np.ndarray, k: int) -> float:
    """Recall of the k exact nearest captions, over queries (B, E)."""
    found, true = index.nearest(queries, k)[0], nearest(queries, index.vectors, k)[0]
    return float(np.mean([len(np.intersect1d(*pair)) / len(pair[1]) for pair in zip(found, true)]))  # noqa: B905
