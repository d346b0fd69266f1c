"""Image and caption retrieval in the joint space.

Two searches, as in Kiros, Salakhutdinov and Zemel, "Unifying visual-semantic embeddings with
multimodal neural language models" (arXiv:1411.2539): `i2t` looks up the captions of each image,
`t2i` the image of each caption. Both report the share of queries whose target is among the first
1, 5 and 10, and the median and mean rank of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..formats import MismatchError

SCORES_AT_ONCE = 1 << 24  # 64 MB of float32


class Ranking(NamedTuple):
    """Retrieval metrics.

    Attributes
    ----------
    r1, r5, r10 : float
        Recall: percentage of queries whose target is among the first 1, 5, 10; 0 to 100.
    median : float
        Median rank of the target, rounded down as in 2015; 1 is best.
    mean : float
        Mean rank of the target; 1 is best.
    """

    r1: float
    r5: float
    r10: float
    median: float
    mean: float


def i2t(
    images: np.ndarray,
    captions: np.ndarray,
    npts: int | None = None,
    *,
    captions_per_image: int | Sequence[int] | np.ndarray = 5,
) -> Ranking:
    """Retrieve captions for images; the best-ranked caption of an image counts.

    Parameters
    ----------
    images : (M, E) or (N, E) array
        One row per image; or, as in 2015, one row per caption, where the rows of an image are equal
        and the first of them is used.
    captions : (N, E) array
        Captions, those of one image next to each other, in the order of the images.
    npts : int, optional
        Search with the first `npts` images only. All captions are still searched.
    captions_per_image : int or (M,) sequence of int, default 5
        How many captions each image has.

    Raises
    ------
    MismatchError
        If the rows or the widths of the two do not fit.
    ValueError
        If a value is not finite, or there is nothing to search with.

    Notes
    -----
    The score is the dot product; of captions that score the same the later one comes first, as in
    2015. So vectors that have all collapsed into one rank by chance, not perfectly.

    Examples
    --------
    >>> images = np.eye(2)
    >>> captions = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])  # the 2nd and the 4th are wrong
    >>> i2t(images, captions, captions_per_image=2).r1
    50.0
    """
    images, captions, owner = _checked(images, captions, captions_per_image)
    queries = images[: _limit(npts, len(images))]
    return _search(queries, np.arange(len(queries)), captions, owner)


def t2i(
    images: np.ndarray,
    captions: np.ndarray,
    npts: int | None = None,
    *,
    captions_per_image: int | Sequence[int] | np.ndarray = 5,
) -> Ranking:
    """Retrieve the image of each caption.

    Parameters
    ----------
    images, captions, captions_per_image
        As for `i2t`, with the same errors.
    npts : int, optional
        Search with the captions of the first `npts` images only. All images are still searched.

    Examples
    --------
    >>> images = np.eye(2)
    >>> captions = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])  # the 2nd and 3rd are wrong
    >>> t2i(images, captions, captions_per_image=[1, 3])
    Ranking(r1=50.0, r5=100.0, r10=100.0, median=1.0, mean=1.5)
    """
    images, captions, owner = _checked(images, captions, captions_per_image)
    owner = owner[owner < _limit(npts, len(images))]
    return _search(captions[: len(owner)], owner, images, np.arange(len(images)))


def in_folds(
    search: Callable[..., Ranking],
    images: np.ndarray,
    captions: np.ndarray,
    folds: int = 5,
    *,
    captions_per_image: int | Sequence[int] | np.ndarray = 5,
) -> Ranking:
    """The mean over equal folds of the images, each searched by itself.

    COCO's 5,000 test images are reported in five parts of 1,000 (Karpathy and Fei-Fei 2015, "Deep
    visual-semantic alignments for generating image descriptions").

    Parameters
    ----------
    search : function
        `i2t` or `t2i`.
    images, captions, captions_per_image
        As for these, with the same errors.
    folds : int, default 5
        Must divide the number of images, else a ValueError is raised.

    Examples
    --------
    >>> images = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    >>> in_folds(i2t, images, images, 2, captions_per_image=1).r1  # alone, each finds its own
    100.0
    """
    images, captions, owner = _checked(images, captions, captions_per_image)
    if folds < 1 or len(images) % folds:
        raise ValueError(f'folds: {len(images)} images cannot be parted into {folds!r} equal parts')
    counts, size = np.bincount(owner), len(images) // folds
    found = [
        search(
            images[start : start + size],
            captions[(start <= owner) & (owner < start + size)],
            captions_per_image=counts[start : start + size],
        )
        for start in range(0, len(images), size)
    ]
    return Ranking(*np.mean(found, axis=0).tolist())


def _checked(
    images: np.ndarray, captions: np.ndarray, captions_per_image: int | Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (M, E), captions (N, E), and (N,) the image of each caption."""
    images, captions = (np.asarray(x, dtype=np.float32) for x in (images, captions))
    if images.ndim != 2 or captions.ndim != 2 or images.shape[1] != captions.shape[1]:
        raise MismatchError(
            'images and captions must be two matrices of one width, '
            f'found shapes {images.shape} and {captions.shape}'
        )
    for name, rows in (('images', images), ('captions', captions)):
        if not np.isfinite(rows).all():
            raise ValueError(f'{name}: a value is not finite')
    counts = _counts(captions_per_image, len(captions))
    first = np.cumsum(counts) - counts
    if counts.sum() == len(captions) == len(images):
        images = images[first]  # 2015: an image is repeated for each of its captions
    if counts.sum() != len(captions) or len(counts) != len(images):
        raise MismatchError(
            f'{len(images)} rows of images do not fit {len(captions)} captions '
            f'at {captions_per_image} captions an image'
        )
    return images, captions, np.repeat(np.arange(len(counts)), counts)


def _counts(captions_per_image: int | Sequence[int] | np.ndarray, n_captions: int) -> np.ndarray:
    """(M,) number of captions of each image."""
    counts = np.asarray(captions_per_image)
    if counts.ndim > 1 or counts.dtype.kind not in 'iu' or (counts < 1).any():
        raise ValueError(f'captions_per_image: expected 1 or more, found {captions_per_image!r}')
    if counts.ndim == 0:
        counts = np.full(n_captions // int(counts), int(counts))
    if len(counts) == 0:
        raise ValueError('there is no image to search with')
    return counts.astype(np.int64)


def _limit(npts: int | None, n_images: int) -> int:
    if npts is None:
        return n_images
    if npts < 1:
        raise ValueError(f'npts: expected 1 or more, found {npts!r}')
    return min(int(npts), n_images)


def _search(
    queries: np.ndarray, wanted: np.ndarray, candidates: np.ndarray, owner: np.ndarray
) -> Ranking:
    """Look for the candidates (N, E) of an owner (N,) that each query (M, E) wants (M,).

    The score matrix is made in bands, so that it never stands whole in memory.
    """
    step = max(1, SCORES_AT_ONCE // len(candidates))
    bands = [slice(start, start + step) for start in range(0, len(queries), step)]
    found = [_ranks(queries[b] @ candidates.T, owner == wanted[b, None]) for b in bands]
    ranks = np.concatenate(found)
    r1, r5, r10 = (100.0 * float(np.mean(ranks < n)) for n in (1, 5, 10))
    return Ranking(r1, r5, r10, float(np.floor(np.median(ranks)) + 1), float(ranks.mean() + 1))


def _ranks(scores: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """(B,) zero-based rank of the best target in each row of `scores` (B, N).

    Counting what comes before the target gives its place without a sort.
    """
    best = np.where(is_target, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    last_target = scores.shape[1] - 1 - np.argmax((tied & is_target)[:, ::-1], axis=1)
    later = np.arange(scores.shape[1]) > last_target[:, None]
    return (scores > best).sum(axis=1) + (tied & later).sum(axis=1)
