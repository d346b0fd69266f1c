"""Measures of generated stories, from their printed text alone.

Whether a story is about its photo (:func:`own_rank`, :func:`overlap`), in which style it is
(:class:`StyleJudge`), whether it is English (:class:`FluencyJudge`), whether stories differ and go
on (:func:`variety`, :func:`repeated`), and how much is copied (:func:`longest_copied`). A figure
comes with the interval that resampling the stories gives (:func:`interval`). What a reader stumbles
over is in :mod:`storyteller.evaluation.flaws`.

Dimension letters: S stories, P photos with captions, D thought vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from nltk.lm import WittenBellInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline
from numpy.typing import ArrayLike

from ..layers import unit_rows
from .flaws import sentences_in

COMMON_WORDS = 500  # as style they count, as content they do not
TEXT_AT_ONCE = 1 << 21  # words of training text searched together


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})'


def interval(values: ArrayLike, seed: int = 0, times: int = 2000) -> Interval:
    """The mean of values and its bootstrap interval; the same for the same seed.

    Examples
    --------
    >>> interval([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    sample = np.asarray(values, np.float64)
    if not len(sample):
        raise ValueError('values: expected at least one, found none')
    rows = np.random.default_rng(seed).integers(0, len(sample), (times, len(sample)))
    low, high = np.percentile(sample[rows].mean(1), [2.5, 97.5])
    return Interval(float(sample.mean()), float(low), float(high))


# --- content -------------------------------------------------------------------------------------


def own_rank(stories: np.ndarray, captions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The rank of each story's own photo when all photos are sorted by similarity to it.

    Parameters
    ----------
    stories : (S, D) array
        Thought vectors of the stories.
    captions : (P, D) array
        Of each photo, the mean thought vector of captions that people wrote.
    own : (S,) int array
        Which photo each story was told of.

    Returns
    -------
    (S,) int array
        1 is best. By chance the mean is (P + 1) / 2. Of photos that are as like the own one comes
        last.

    Notes
    -----
    Likeness is the cosine after the mean of the stories is taken from each story, and that of the
    captions from each photo: what all stories share is style.
    """
    told = unit_rows(stories - stories.mean(0))
    seen = unit_rows(captions - captions.mean(0))
    scores = told @ seen.T
    right = scores[np.arange(len(scores)), own]
    return (scores >= right[:, None]).sum(1)


def overlap(
    stories: Sequence[str], captions: Sequence[Sequence[str]], common: frozenset[str]
) -> np.ndarray:
    """The proportion of the words of a photo's captions that occur in its story, (S,).

    Parameters
    ----------
    stories : sequence of S str
    captions : sequence of S sequences of str
        Those of each story's photo.
    common : frozenset of str
        Words that do not count; see :func:`common_words`.
    """
    found = []
    for story, texts in zip(stories, captions, strict=True):
        wanted = {w for text in texts for w in text.lower().split() if w.isalpha()} - common
        found.append(len(wanted & set(story.lower().split())) / max(1, len(wanted)))
    return np.array(found)


def common_words(texts: Iterable[str], n: int = COMMON_WORDS) -> frozenset[str]:
    """The most frequent words of texts."""
    counts = Counter(word for text in texts for word in text.lower().split())
    return frozenset(word for word, _ in counts.most_common(n))


# --- style and fluency ---------------------------------------------------------------------------


class StyleJudge:
    """A style classifier by the frequencies of the commonest words and punctuation marks.

    A logistic regression on the frequencies of the :data:`COMMON_WORDS` commonest words of all
    styles together. Needs the extra ``eval``.

    Parameters
    ----------
    texts : mapping of str to sequence of str
        Name of a style -> texts in it, of about the length of a story (see :func:`pieces`).
    seed : int
    """

    def __init__(self, texts: Mapping[str, Sequence[str]], seed: int = 0):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_score
        from sklearn.pipeline import make_pipeline

        fewest = min(map(len, texts.values()))
        if len(texts) < 2 or fewest < 2:
            found = ', '.join(f'{len(each)} of {name}' for name, each in texts.items())
            raise ValueError(f'texts: expected two of two styles at least, found {found or "none"}')
        rng = np.random.default_rng(seed)
        rows = {name: rng.permutation(len(each))[:fewest] for name, each in texts.items()}
        chosen = [texts[name][i] for name in texts for i in rows[name]]
        labels = np.repeat(list(texts), fewest)
        order = rng.permutation(len(chosen))
        chosen, labels = [chosen[i] for i in order], labels[order]
        self._model: Any = make_pipeline(
            TfidfVectorizer(analyzer=_lower_words, max_features=COMMON_WORDS, use_idf=False),
            LogisticRegression(C=10.0, max_iter=500),
        )
        self.accuracy = float(
            np.mean(cross_val_score(self._model, chosen, labels, cv=min(5, fewest)))
        )
        self._model.fit(chosen, labels)
        self.styles = list(self._model.classes_)

    def log_odds(self, texts: Sequence[str], style: str, other: str) -> np.ndarray:
        """log p(style) - log p(other) of each text, (S,)."""
        logs = self._model.predict_log_proba(list(texts))
        return logs[:, self.styles.index(style)] - logs[:, self.styles.index(other)]

    def names(self, texts: Sequence[str]) -> list[str]:
        """The most probable style of each text."""
        return list(self._model.predict(list(texts)))


def pieces(words: Iterable[str], length: int = 100) -> list[str]:
    """A text cut into pieces of a fixed number of words; the remainder is dropped."""
    words, found = iter(words), []
    while len(piece := list(islice(words, length))) == length:
        found.append(' '.join(piece))
    return found


class FluencyJudge:
    """A trigram model of texts that the decoder did not learn from (Witten-Bell, NLTK's).

    It learns `sentences`, lists of words; words seen once are unknown words.
    """

    def __init__(self, sentences: Iterable[list[str]], order: int = 3):
        self._order = order
        grams, words = padded_everygram_pipeline(order, [[w.lower() for w in s] for s in sentences])
        counts = Counter(words)
        self._model = WittenBellInterpolated(order)
        known = [word for word, count in counts.items() if count > 1]
        self._model.fit(grams, vocabulary_text=known)

    def perplexity(self, text: str) -> float:
        """Perplexity of a text per word; lower is more probable."""
        return float(np.exp(-np.mean(self._logs(text))))

    def by_sentence(self, text: str) -> float:
        """Log perplexity of each sentence of a text, averaged.

        So a short odd sentence counts as much as a long easy one. What stands before a sentence
        is seen with it.
        """
        lengths = list(map(len, sentences_in(text)))
        logs = np.split(self._logs(text), np.cumsum(lengths)[:-1])
        return float(-np.mean([each.mean() for each in logs]))

    def _logs(self, text: str) -> np.ndarray:
        """The natural logarithm of the probability of each word."""
        words = self._model.vocab.lookup(['<s>'] * (self._order - 1) + _lower_words(text))
        if len(words) < self._order:
            raise ValueError('text: expected at least one word, found none')
        logs = [
            self._model.logscore(words[i], words[i - self._order + 1 : i])
            for i in range(self._order - 1, len(words))
        ]
        return np.log(2) * np.array(logs)


def _lower_words(text: str) -> list[str]:
    return text.lower().split()


# --- variety and copying -------------------------------------------------------------------------


def repeated(story: str, n: int = 4) -> float:
    """The proportion of a story's n-grams that occurred in it before.

    Examples
    --------
    >>> repeated('a b a b a', n=2)
    0.5
    """
    runs = _runs(story, n)
    return (len(runs) - len(set(runs))) / max(1, len(runs))


def variety(stories: Sequence[str], opening: int = 5) -> dict[str, float]:
    """Diversity of a set of stories.

    Returns
    -------
    dict
        ``distinct``, share of stories that are unlike all others; ``alike``, share that begin with
        `opening` words as another one does; ``distinct_1``, ``distinct_2``, distinct words and
        pairs of words over all.
    """
    first = [tuple(story.split()[:opening]) for story in stories]
    counts, figures = Counter(first), {'distinct': len(set(stories)) / len(stories)}
    figures['alike'] = float(np.mean([counts[start] > 1 for start in first]))
    for n in (1, 2):
        runs = [run for story in stories for run in _runs(story, n)]
        figures[f'distinct_{n}'] = len(set(runs)) / max(1, len(runs))
    return figures


def _runs(story: str, n: int) -> list[tuple[str, ...]]:
    words = story.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def longest_copied(stories: Sequence[str], text: Iterable[Sequence[str]]) -> np.ndarray:
    """The length of the longest word sequence of each story that occurs in a text, (S,).

    The text comes in sentences or books of words; a run may go from one to the next.

    Notes
    -----
    Runs of growing length are looked up by a hash of 64 bits. The chance of a wrong find, for
    20,000 runs in 20 million words, is 2e-8.
    """
    index: dict[str, int] = {}
    for story in stories:
        for word in story.split():
            index.setdefault(word, len(index) + 1)
    corpus = np.fromiter((index.get(w, 0) for part in text for w in part), np.int64)
    told = [np.array([index[w] for w in story.split()], np.int64) for story in stories]
    codes = np.random.default_rng(0).integers(1, 2**63, len(index) + 1).astype(np.uint64)
    longest = np.zeros(len(stories), np.int64)
    for length in range(1, max(map(len, told), default=0) + 1):
        # A run of this length can only stand where its beginning did.
        alive = [i for i, words in enumerate(told) if longest[i] == length - 1 < len(words)]
        if not alive:
            break
        runs = [_hashes(codes[told[i]], length) for i in alive]
        wanted = np.unique(np.concatenate(runs))
        present = np.zeros(len(wanted), bool)
        for start in range(0, len(corpus), TEXT_AT_ONCE):
            part = _hashes(codes[corpus[start : start + TEXT_AT_ONCE + length - 1]], length)
            places = np.searchsorted(wanted, part).clip(max=len(wanted) - 1)
            present[places[wanted[places] == part]] = True
        for i, run in zip(alive, runs, strict=True):
            if present[np.searchsorted(wanted, run)].any():
                longest[i] = length
    return longest


def _hashes(codes: np.ndarray, length: int) -> np.ndarray:
    """A rolling hash of each n-gram of codes: a polynomial in an odd number, modulo 2^64."""
    found = np.zeros(max(0, len(codes) - length + 1), np.uint64)
    for i in range(length):
        found = found * np.uint64(0x9E3779B97F4A7C15) + codes[i : i + len(found)]
    return found
