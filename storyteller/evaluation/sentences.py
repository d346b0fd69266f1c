"""The sentence tasks of the skip-thoughts paper, by its protocols.

Kiros et al. (2015), "Skip-Thought Vectors", section 3: vectors are taken as they are, and only a
linear classifier is trained on them. Its strength of regularisation, C, is chosen among 2^0, 2^1,
... 2^8 by cross-validation in ten parts of the training set, in an order drawn with seed 1234. All
take any encoder with ``encode``; the classifiers are scikit-learn's (extra ``eval``).

Dimension letters: N sentences or pairs, D width of a vector, G statistics of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.stats import pearsonr, spearmanr

from ..text import preprocess
from .encoders import SentenceEncoder
from .sentence_sets import PairsOfSentences, Sentences

SEED = 1234
STRENGTHS = tuple(2.0**power for power in range(9))
LOOSE = tuple(4.0**power for power in range(9))  # relatedness: the paper's does not regularise
MOST_STEPS = 200  # of the optimiser; more changes no accuracy by a tenth of a percent

Matrix = Any  # (N, D) array, or a sparse one
Features = Callable[[np.ndarray, np.ndarray], tuple[Matrix, Matrix]]
Score = Callable[[np.ndarray, np.ndarray], float]


# --- pairs: relatedness and paraphrase -----------------------------------------------------------


def relatedness(
    encoder: SentenceEncoder,
    splits: dict[str, PairsOfSentences],
    strengths: Sequence[float] = LOOSE,
) -> dict[str, float]:
    """SICK: how related two sentences are, 1 to 5, predicted from |a - b| and a * b.

    A softmax over the five grades learns the soft target of Tai et al. (2015), "Improved Semantic
    Representations From Tree-Structured Long Short-Term Memory Networks", section 4.2; its mean
    grade is the prediction. C is that with the best correlation on the ``trial`` pairs. As in the
    paper this is the one task whose sentences are encoded with an ``<eos>`` at their end.

    Gives ``pearson`` and ``spearman`` (-1 to 1) and ``mse`` of the ``test`` pairs, and ``C``.

    Parameters
    ----------
    encoder : object with ``encode``
    splits : dict
        ``train``, ``trial`` and ``test``; see `sentence_sets.read_sick`.
    strengths : sequence of float
        Values of C to choose among.
    """
    from sklearn.linear_model import LogisticRegression

    X = {split: pair_features(encoder, pairs, use_eos=True) for split, pairs in splits.items()}
    rows, grades, weights = _weighted_grades(soft_targets(splits['train'].values))
    best: tuple[float, float, Any] | None = None
    model = LogisticRegression(max_iter=MOST_STEPS, warm_start=True)
    for strength in strengths:
        model.set_params(C=strength).fit(X['train'][rows], grades, weights)
        guess = _mean_grade(model, X['trial'])
        found = float(pearsonr(guess, splits['trial'].values).statistic)
        if best is None or found > best[0]:
            best = found, strength, _mean_grade(model, X['test'])
    if best is None:
        raise ValueError('strengths: expected at least one, found none')
    _, strength, guess = best
    true = splits['test'].values
    return {
        'pearson': float(pearsonr(guess, true).statistic),
        'spearman': float(spearmanr(guess, true).statistic),
        'mse': float(np.mean((guess - true) ** 2)),
        'C': strength,
    }


def soft_targets(values: np.ndarray, grades: int = 5) -> np.ndarray:
    """Distributions (N, grades) over 1, 2, ... whose means are the values (N,).

    Examples
    --------
    >>> soft_targets(np.array([3.6, 5.0])).round(1)
    array([[0. , 0. , 0.4, 0.6, 0. ],
           [0. , 0. , 0. , 0. , 1. ]])
    """
    distance = np.abs(np.asarray(values, np.float64)[:, None] - np.arange(1, grades + 1))
    return np.maximum(0, 1 - distance)


def _weighted_grades(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, their grades, and weights, such that a weighted softmax learns the targets."""
    rows, grades = np.nonzero(targets > 1e-9)
    return rows, grades + 1, targets[rows, grades]


def _mean_grade(model: Any, X: Matrix) -> np.ndarray:
    return model.predict_proba(X) @ model.classes_


def paraphrase(
    encoder: SentenceEncoder,
    splits: dict[str, PairsOfSentences],
    statistics: bool = False,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 10,
) -> dict[str, float]:
    """MSRP: whether one sentence says what the other says, from |a - b| and a * b.

    Gives ``accuracy`` and ``f1`` of the ``test`` pairs, in percent, and ``C``.

    Parameters
    ----------
    encoder : object with ``encode``
    splits : dict
        ``train`` and ``test``; see `sentence_sets.read_msrp`.
    statistics : bool
        Whether `pair_statistics` are added to the features.
    strengths, folds
        C is chosen by the F1 of cross-validation.
    """
    from sklearn.metrics import accuracy_score, f1_score

    X = {split: pair_features(encoder, pairs) for split, pairs in splits.items()}
    if statistics:
        X = {split: _beside(X[split], pair_statistics(splits[split])) for split in X}
    labels = splits['train'].values
    strength = choose_strength(_fixed(X['train']), labels, f1_score, strengths, folds)
    guess = _classifier(strength).fit(X['train'], labels).predict(X['test'])
    true = splits['test'].values
    return {
        'accuracy': 100 * float(accuracy_score(true, guess)),
        'f1': 100 * float(f1_score(true, guess)),
        'C': strength,
    }


def pair_features(
    encoder: SentenceEncoder, pairs: PairsOfSentences, use_eos: bool = False
) -> Matrix:
    """|a - b| and a * b side by side, (N, 2 D); sparse if the vectors are."""
    sides: Any = [encoder.encode(x, verbose=False, use_eos=use_eos) for x in (pairs.a, pairs.b)]
    a, b = sides
    if sparse.issparse(a):
        return sparse.hstack([abs(a - b), a.multiply(b)]).tocsr()
    return np.hstack([np.abs(a - b), a * b])


def pair_statistics(pairs: PairsOfSentences) -> np.ndarray:
    """What can be counted in two sentences, (N, G = 6).

    Whether they hold the same numbers or none; whether they hold the same numbers and at least
    one; whether the numbers of one are some of those of the other (these three as in Socher et al.
    2011, "Dynamic Pooling and Unfolding Recursive Autoencoders for Paraphrase Detection"); the
    share of each one's words that the other has; how alike their lengths are.
    """
    rows = []
    for a, b in zip(preprocess(pairs.a), preprocess(pairs.b), strict=True):
        words = a.split(), b.split()
        first, second = (set(side) for side in words)
        one, two = ({w for w in side if any(map(str.isdigit, w))} for side in (first, second))
        common, lengths = len(first & second), sorted(map(len, words))
        rows.append(
            [
                one == two,
                one == two and bool(one),
                one < two or two < one,
                common / max(1, len(first)),
                common / max(1, len(second)),
                lengths[0] / max(1, lengths[1]),
            ]
        )
    return np.array(rows, np.float32)


# --- sentences: classes --------------------------------------------------------------------------


def question_type(
    encoder: SentenceEncoder,
    splits: dict[str, Sentences],
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 10,
) -> dict[str, float]:
    """TREC: question classification.

    Gives ``accuracy`` of the ``test`` questions in percent, and ``C``.

    Parameters
    ----------
    encoder : object with ``encode``
    splits : dict
        ``train`` and ``test``; see `sentence_sets.read_trec`.
    strengths, folds
        C is chosen by the accuracy of cross-validation.
    """
    X = {split: encoder.encode(part.texts, verbose=False) for split, part in splits.items()}
    labels = splits['train'].labels
    strength = choose_strength(_fixed(X['train']), labels, _accuracy, strengths, folds)
    guess = _classifier(strength).fit(X['train'], labels).predict(X['test'])
    return {'accuracy': 100 * _accuracy(splits['test'].labels, guess), 'C': strength}


def polarity(
    encoder: SentenceEncoder,
    sentences: Sentences,
    ngrams: bool = False,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 10,
    jobs: int = 1,
) -> dict[str, float]:
    """MR, CR, SUBJ, MPQA: two classes, by nested cross-validation.

    Each of the parts is told apart by a classifier trained on the others, whose C was chosen by
    cross-validation within those others.

    Gives ``accuracy``, the mean over the parts, and ``deviation``, in percent.

    Parameters
    ----------
    encoder : object with ``encode``
    sentences : Sentences
        See `sentence_sets.read_polarity`.
    ngrams : bool
        Whether words and pairs of words are added to the vectors, weighted by their log ratio in
        the two classes (Wang and Manning 2012, "Baselines and Bigrams: Simple, Good Sentiment and
        Topic Classification"), counted in what is trained on.
    strengths : sequence of float
    folds : int
        Of the outer and of the inner cross-validation.
    jobs : int
        Processes for the outer one.
    """
    from joblib import Parallel, delayed
    from sklearn.model_selection import KFold

    order = np.random.RandomState(SEED).permutation(len(sentences.texts))
    texts, labels = [sentences.texts[i] for i in order], sentences.labels[order]
    vectors = encoder.encode(texts, verbose=False)
    features = _with_ngrams(vectors, texts, labels) if ngrams else _fixed(vectors)

    def part(rows: np.ndarray, unseen: np.ndarray) -> float:
        def within(train, test):
            return features(rows[train], rows[test])

        strength = choose_strength(within, labels[rows], _accuracy, strengths, folds)
        X, Y = features(rows, unseen)
        return _accuracy(labels[unseen], _classifier(strength).fit(X, labels[rows]).predict(Y))

    splits = KFold(folds).split(np.arange(len(texts)))
    found = Parallel(jobs)(delayed(part)(*split) for split in splits)
    return {'accuracy': 100 * float(np.mean(found)), 'deviation': 100 * float(np.std(found))}


def choose_strength(
    features: Features,
    labels: np.ndarray,
    score: Score,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 10,
) -> float:
    """The C with the best mean cross-validation score; among equals the smallest.

    Parameters
    ----------
    features : function
        Rows to train on, and others -> the features of both.
    labels : (N,) array
    score : function
        True labels, predicted ones -> what shall be large.
    strengths : sequence of float
    folds : int
    """
    from sklearn.model_selection import KFold

    order = np.random.RandomState(SEED).permutation(len(labels))
    scores = np.zeros(len(strengths))
    for train, test in KFold(folds).split(order):
        train, test = order[train], order[test]
        X, Y = features(train, test)
        model = _classifier(strengths[0])
        for i, strength in enumerate(strengths):
            model.set_params(C=strength).fit(X, labels[train])
            scores[i] += score(labels[test], model.predict(Y))
    return strengths[int(scores.argmax())]


def _classifier(strength: float) -> Any:
    """Starts a fit where the one before ended: for a larger C that is not far away."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=MOST_STEPS, tol=1e-3, warm_start=True)


def _accuracy(true: np.ndarray, guess: np.ndarray) -> float:
    return float(np.mean(true == guess))


def _fixed(X: Matrix) -> Features:
    """Features that do not depend on what is trained on."""
    return lambda train, test: (X[train], X[test])


def _with_ngrams(vectors: Matrix, texts: Sequence[str], labels: np.ndarray) -> Features:
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        token_pattern=r'\S+', ngram_range=(1, 2), binary=True, lowercase=False, dtype=np.float32
    )
    present = sparse.csr_array(counter.fit_transform(preprocess(list(texts))))

    def features(train, test):
        ratio = log_count_ratio(present[train], labels[train])
        return tuple(
            _beside(vectors[rows], present[rows] * ratio[None, :]) for rows in (train, test)
        )

    return features


def log_count_ratio(present: sparse.csr_array, labels: np.ndarray) -> np.ndarray:
    """Log ratio of the n-gram frequencies in class 1 and class 0, (V,).

    `present` (N, V) says which n-grams stand in which sentence. Counts start at one.
    """
    one, other = (1 + present[labels == label].sum(axis=0) for label in (1, 0))
    return (np.log(one / one.sum()) - np.log(other / other.sum())).astype(np.float32)


def _beside(X: Matrix, more: Matrix) -> Matrix:
    if sparse.issparse(X) or sparse.issparse(more):
        return sparse.hstack([sparse.csr_array(X), sparse.csr_array(more)]).tocsr()
    return np.hstack([X, more])
