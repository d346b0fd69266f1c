"""Baseline sentence encoders.

Dimension letters: N sentences, V vocabulary, W width of word vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_array, spmatrix

from ..layers import unit_rows
from ..text import preprocess


class SentenceEncoder(Protocol):
    """The interface of an encoder under test, for instance `skipthoughts.Encoder`."""

    def encode(
        self, X: Sequence[str], *, verbose: bool = True, use_eos: bool = False
    ) -> np.ndarray | spmatrix | csr_array:
        """Texts to (N, D) rows."""


class MeanWords:
    """The mean of the words' vectors in a table, made unit length.

    Parameters
    ----------
    tables : sequence of mappings of str to (W,) array
        ``utable`` and ``btable`` of a skip-thoughts model; the means stand side by side. Words
        that are not in a table are left out; a text with none of them is zero.
    """

    def __init__(self, *tables: Mapping[str, np.ndarray]):
        self.tables = tables

    def encode(
        self, X: Sequence[str], *, verbose: bool = True, use_eos: bool = False
    ) -> np.ndarray:
        """Texts to (N, sum of W) float32."""
        texts = [text.split() for text in preprocess(list(X))]
        return np.hstack([self._mean(table, texts) for table in self.tables])

    @staticmethod
    def _mean(table: Mapping[str, np.ndarray], texts: list[list[str]]) -> np.ndarray:
        width = len(next(iter(table.values())))
        means = np.zeros((len(texts), width), np.float32)
        for row, words in zip(means, texts, strict=True):
            known = [table[word] for word in words if word in table]
            if known:
                row[:] = np.mean(known, axis=0)
        return unit_rows(means)


class TfIdf:
    """Words weighted by how few texts they stand in; what is rare is learned from `texts`.

    Needs the extra ``eval``.
    """

    def __init__(self, texts: Sequence[str]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer: Any = TfidfVectorizer(analyzer=str.split, dtype=np.float32)
        self._vectorizer.fit(preprocess(list(texts)))

    def encode(self, X: Sequence[str], *, verbose: bool = True, use_eos: bool = False) -> csr_array:
        """Texts to (N, V) sparse unit rows."""
        return csr_array(self._vectorizer.transform(preprocess(list(X))))
