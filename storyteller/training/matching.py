"""Which captions of a pool describe a photo, judged by the words of the photo's own captions.

A joint space learns from photos with captions of their own; the captions it is searched for later
may be written in another manner, with words that no photo of the training set has. Matches give
them photos, and what matches a photo least can stand against it (:class:`Distractors`).

Dimension letters: P photos, N captions of the pool, B batch, K distractors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .corpus import padded


@dataclass(frozen=True)
class Matches:
    """How well the captions of a pool fit photos.

    Attributes
    ----------
    similarity : (P, N) scipy.sparse.csr_array of float32
        The cosine of the words' tf-idf weights, 0 to 1.
    covered : (P, N) scipy.sparse.csr_array of float32
        The share of the pool caption's words that the photo's captions have; same sparsity.
    """

    similarity: object
    covered: object

    @classmethod
    def of(
        cls,
        own: Sequence[Sequence[str]],
        pool: Sequence[str],
        words: Callable[[str], Sequence[str]],
    ) -> Matches:
        """Match a pool to photos.

        Parameters
        ----------
        own : sequence of sequences of str
            The captions of each photo.
        pool : sequence of str
        words : function
            A caption -> the words that carry its meaning.

        Notes
        -----
        Needs scikit-learn, which comes with the extra ``eval``.
        """
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

        counter = CountVectorizer(analyzer=lambda captions: [w for c in captions for w in words(c)])
        counts = counter.fit_transform([*own, *([caption] for caption in pool)])
        weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts).astype(np.float32)
        photos, captions = weights[: len(own)], weights[len(own) :]
        known = (counts > 0).astype(np.float32)
        lengths = np.maximum(np.asarray(known[len(own) :].sum(1)).ravel(), 1)
        shared = known[: len(own)] @ known[len(own) :].multiply(1 / lengths[:, None]).T.tocsr()
        return cls((photos @ captions.T).tocsr(), shared.tocsr())

    def best(
        self, most: int = 8, similarity: float = 0.3, covered: float = 0.6
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best captions of each photo that reach both limits: rows of photos, and of the pool.

        Returns
        -------
        two (n,) int arrays
            At most `most` pairs for a photo, the most similar first.
        """
        photos, captions = [], []
        for photo in range(self.similarity.shape[0]):
            part = slice(*self.similarity.indptr[photo : photo + 2])
            columns, values = self.similarity.indices[part], self.similarity.data[part]
            share = self.covered[[photo]].toarray()[0, columns]
            good = np.flatnonzero((values >= similarity) & (share >= covered))
            chosen = columns[good[np.argsort(-values[good], kind='stable')[:most]]]
            photos += [photo] * len(chosen)
            captions += chosen.tolist()
        return np.array(photos, np.int64), np.array(captions, np.int64)


class Distractors:
    """Captions of a pool to stand against the photos of a batch that they do not describe.

    Parameters
    ----------
    captions : sequence of int arrays
        The pool as word indices.
    matches : Matches
        Of the photos in training with the pool.
    count : int
        K, how many are drawn for a batch.
    below : float
        A caption as similar to a photo as this does not stand against it.
    """

    def __init__(
        self,
        captions: Sequence[np.ndarray],
        matches: Matches,
        count: int = 128,
        below: float = 0.05,
    ):
        self.captions, self.matches, self.count, self.below = captions, matches, count, below

    def draw(self, photos: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """For photos (B,): words (T, K), their mask (T, K), and which stand against which (B, K).

        Drawn by torch's generator, so that a training that goes on draws the same.
        """
        rows = torch.randint(len(self.captions), (self.count,)).numpy()
        x, mask = padded([self.captions[i] for i in rows])
        similar = self.matches.similarity[photos][:, rows].toarray()
        wrong = (similar < self.below).astype(np.float32)
        x, mask, wrong = (torch.from_numpy(array).to(device) for array in (x, mask, wrong))
        return x, mask, wrong
