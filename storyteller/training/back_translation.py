"""Back-translation: the vectors that the style shift would make of passages, to tell them from.

A decoder that learns to tell passages from their own thought vectors is, when it tells a story,
given F(x) = x - c + b of an image's captions, a kind of vector that it has never seen. So each
passage is translated back into captions, as for translation by Sennrich et al. (2016, "Improving
Neural Machine Translation Models with Monolingual Data") and for style transfer by Prabhumoye et
al. (2018, "Style Transfer Through Back-Translation"), and is told from what the shift makes of
those. With c the mean thought vector of captions, b that of passages, and v the vector of a
passage p, its captions are the k of a pool whose x_i - c have the largest cosines with v - b, and

    F_hat(p) = x_hat - s (c - b),    x_hat the mean of these x_i,

at strength s. The mean of the k cosines says how much of p could be seen in a photo.

Dimension letters: P passages, N captions of the pool, D thought vector, B passages at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from ..formats import MismatchError, PathLike, write_array
from ..layers import unit_rows
from ..nn.nearest import nearest
from ..skipthoughts import Encoder
from .data.passages import read_rows


@dataclass(frozen=True)
class BackTranslation:
    """Passages as captions would say them, and how to shift those to the style of passages."""

    content: np.ndarray  # (P, D) float16: x_hat - c of each passage; may be memory-mapped
    # (P,) float32: the mean cosine of each with its captions, in [-1, 1]; NaN: it has none, and is
    # told from its own vector
    match: np.ndarray
    c: np.ndarray  # (D,) float32: the mean vector of captions
    b: np.ndarray  # (S, D) float32: the mean vector of passages, for each of S styles
    style: np.ndarray  # (P,) int: the style of each passage, a row of `b`

    @classmethod
    def joined(cls, parts: Sequence[BackTranslation]) -> BackTranslation:
        """Passages of several styles, one part after the other; c is that of the first."""
        first = np.cumsum([0, *(len(part.b) for part in parts)])
        return cls(
            np.concatenate([part.content for part in parts]),
            np.concatenate([part.match for part in parts]),
            parts[0].c,
            np.concatenate([part.b for part in parts]),
            np.concatenate([part.style + n for part, n in zip(parts, first[:-1], strict=True)]),
        )

    def vectors(self, rows: np.ndarray, strength: float | np.ndarray = 1.0) -> np.ndarray:
        """F_hat (n, D), float32, of some passages, at one strength or one for each (n,)."""
        s = np.asarray(strength, np.float32)[..., None]
        return read_rows(self.content, rows) + self.c - s * (self.c - self.b[self.style[rows]])

    def take(self, rows: np.ndarray) -> BackTranslation:
        """That of some passages alone."""
        some = self.content[rows], self.match[rows]
        return BackTranslation(*some, self.c, self.b, self.style[rows])


def back_translate(
    passages: np.ndarray,
    captions: np.ndarray,
    c: np.ndarray,
    b: np.ndarray,
    k: int = 100,
    *,
    block: int = 1024,
) -> BackTranslation:
    """Find the k nearest captions of each passage, as many as a story is told of; take their mean.

    Parameters
    ----------
    passages : (P, D) array
        Thought vectors; may be memory-mapped and of half width.
    captions : (N, D) array
        Those of the pool.
    c, b : (D,) array
        The mean vectors of captions and of passages.
    block : int
        Passages at once; changes the speed, not the result.

    Raises
    ------
    MismatchError
        If the widths differ.
    ValueError
        If `k` is below 1, there are no captions, or a value is not finite.
    """
    c, b = (np.asarray(v, np.float32) for v in (c, b))
    shapes = [np.shape(v) for v in (passages, captions, c, b)]
    if [len(shape) for shape in shapes] != [2, 2, 1, 1] or len({s[-1] for s in shapes}) > 1:
        raise MismatchError(
            f'passages (P, D), captions (N, D) and c, b (D,) must share D, found {shapes}'
        )
    centred = np.asarray(captions, np.float32) - c
    directions, table = unit_rows(centred), torch.from_numpy(centred)
    content = np.empty(shapes[0], np.float16)
    match = np.empty(len(passages), np.float32)
    blocks = range(0, len(passages), block)
    for first in tqdm(blocks, desc='passages to captions', unit=' blocks', delay=1):
        here = slice(first, first + block)
        wanted = unit_rows(np.asarray(passages[here], np.float32) - b)
        rows, cosines = nearest(wanted, directions, k)
        content[here] = functional.embedding_bag(torch.from_numpy(rows), table, mode='mean')
        match[here] = cosines.mean(1)
    return BackTranslation(content, match, c, b[None], np.zeros(len(passages), np.int64))


def best_rows(match: np.ndarray, best: float) -> np.ndarray:
    """The ``ceil(best * P)`` passages with the best `match` (P,), as rows in order of the passages.

    `best` is above 0, and at most 1, which keeps all. Of equals at the border, the first are kept.

    Examples
    --------
    >>> best_rows(np.array([0.1, 0.9, 0.3, 0.8]), 0.5)
    array([1, 3])
    """
    if not 0 < best <= 1:
        raise ValueError(f'best: expected a share above 0, at most 1, found {best!r}')
    kept = math.ceil(best * len(match))
    return np.sort(np.argsort(-np.asarray(match), kind='stable')[:kept])


def encode_captions(
    captions: Sequence[str], encoder: Encoder, fingerprint: str, folder: PathLike
) -> np.ndarray:
    """The thought vectors of a pool (N, D), float32, kept in `folder`.

    Those of other captions, or of an encoder with another `fingerprint`, stand there under another
    name.
    """
    facts = json.dumps([fingerprint, *captions]).encode()
    path = Path(folder) / f'captions-{hashlib.sha256(facts).hexdigest()[:16]}.npy'
    if not path.exists():
        write_array(path, encoder.encode(captions, verbose=False))
    return np.load(path)
