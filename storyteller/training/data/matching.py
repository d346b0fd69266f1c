"""Which captions of a pool describe a photo, according to the words of its own captions.

A joint space learns from photos with captions of their own; the captions it is searched for later
may be written in another manner, with words that no photo of the training set has. So photos also
learn to choose among the captions of the pool (:func:`choice_cost`): those that fit best by their
words (:class:`Matches`) shall be nearest.

Dimension letters: P photos, N captions of the pool, B batch, K captions drawn from the pool,
T time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from .corpus import padded


@dataclass(frozen=True)
class Matches:
    """How well the captions of a pool fit photos."""

    similarity: Any  # (P, N) scipy.sparse.csr_array: the cosine of the words' tf-idf, 0 to 1
    sharpness: float = 0.05  # a share of a photo grows e-fold when similarity grows by this

    @classmethod
    def of(
        cls,
        own: Sequence[Sequence[str]],
        pool: Sequence[str],
        words: Callable[[str], Sequence[str]],
    ) -> Matches:
        """Match a pool to photos, of each of which `own` holds the captions.

        `words` gives the words of a caption that carry its meaning. Needs scikit-learn, which comes
        with the extra ``eval``.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            analyzer=lambda captions: [w for caption in captions for w in words(caption)],
            sublinear_tf=True,
            dtype=np.float32,
        )
        weights = vectorizer.fit_transform([*own, *([caption] for caption in pool)])
        return cls((weights[: len(own)] @ weights[len(own) :].T).tocsr())

    def shares(self, photos: np.ndarray, captions: np.ndarray | slice = slice(None)) -> Tensor:
        """How much each caption fits each photo, among these captions: (B, K), rows sum to one."""
        similar = torch.from_numpy(self.similarity[photos][:, captions].toarray())
        return torch.softmax(similar / self.sharpness, 1)


class Candidates:
    """Captions of a pool, as word indices, as candidates for the photos of a batch.

    `matches` are those of the photos in training with the pool; `count` captions are sampled at
    random for a batch, beside one for each photo that fits it.
    """

    def __init__(self, captions: Sequence[np.ndarray], matches: Matches, count: int = 128):
        self.captions, self.matches, self.count = captions, matches, count
        similarity = matches.similarity
        self.sums = np.zeros(len(similarity.data) + 1)  # of how well the captions before fit
        np.cumsum(np.exp(similarity.data / matches.sharpness, dtype=np.float64), out=self.sums[1:])

    def draw(self, photos: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """For photos (B,): words (T, K), their mask (T, K), and the photos' shares (B, K).

        Drawn by torch's generator, so that a training that goes on draws the same.
        """
        chosen = [self.fitting(photos), torch.randint(len(self.captions), (self.count,)).numpy()]
        rows = np.unique(np.concatenate(chosen))
        x, mask = padded([self.captions[i] for i in rows])
        shares = self.matches.shares(photos, rows)
        return torch.from_numpy(x).to(device), torch.from_numpy(mask).to(device), shares.to(device)

    def fitting(self, photos: np.ndarray) -> np.ndarray:
        """For each photo one caption with words in common, sampled by similarity.

        None for a photo that no caption has a word in common with.
        """
        begin, end = (self.matches.similarity.indptr[photos + i] for i in (0, 1))
        begin, end = begin[end > begin], end[end > begin]
        points = torch.rand(len(begin), dtype=torch.float64).numpy()
        points = self.sums[begin] + points * (self.sums[end] - self.sums[begin])
        found = np.clip(np.searchsorted(self.sums, points, side='right') - 1, begin, end - 1)
        return self.matches.similarity.indices[found]


def choice_cost(scores: Tensor, shares: Tensor) -> Tensor:
    """The sum over rows of KL(shares || softmax(scores)), a () tensor.

    The scores (B, K) make a photo choose a caption: their cosine over a temperature. The shares
    (B, K) are the right choice; rows sum to one.
    """
    return (torch.xlogy(shares, shares) - shares * log_softmax(scores, 1)).sum()
