"""Reconstruction of passages by a decoder from their thought vectors.

Dimension letters: N passages, D thought vectors, H states of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

from .. import decoder
from ..vocabulary import EOS, SPECIAL, UNK


def perplexity(
    dec: Mapping[str, Any], passages: Sequence[str], vectors: np.ndarray, at_once: int = 64
) -> float:
    """Perplexity of passages given vectors, per word and end symbol, without unknown words.

    Parameters
    ----------
    dec : dict
        From `storyteller.decoder.load_model`.
    passages : sequence of N str
        Tokens between blanks.
    vectors : (N, D) array
        What each is told from.
    at_once : int
        Passages in a batch.
    """
    cost = words = 0.0
    for start in range(0, len(passages), at_once):
        rows = slice(start, start + at_once)
        told = [_ids(dec, passage) for passage in passages[rows]]
        state = dec['f_init'](vectors[rows])
        last: np.ndarray = np.full(len(told), -1)
        for step in range(max(map(len, told))):
            probabilities, _, state = dec['f_next'](last, state)
            now = np.array([ids[step] if step < len(ids) else UNK for ids in told])
            counted = now != UNK
            cost -= np.log(probabilities[counted, now[counted]], dtype=np.float64).sum()
            words += counted.sum()
            last = now
    return float(np.exp(cost / words))


def _ids(dec: Mapping[str, Any], passage: str) -> list[int]:
    known = dec['options']['n_words']
    ids = [dec['worddict'].get(word, UNK) for word in [*passage.split(), SPECIAL[EOS]]]
    return [i if i < known else UNK for i in ids]


def regenerated(
    dec: Mapping[str, Any], passages: Sequence[str], vectors: np.ndarray, common: frozenset[str]
) -> dict[str, float]:
    """BLEU and F1 of passages that are decoded greedily from their vectors.

    Parameters
    ----------
    dec, passages, vectors
        As for :func:`perplexity`.
    common : frozenset of str
        Words that are not content; see `storyteller.evaluation.stories.common_words`.

    Returns
    -------
    dict
        ``bleu`` (BLEU-4 over all, NLTK's, with 0.1 in place of a count of none) and ``f1`` of the
        content words, each in percent, from the passages' own vectors; ``shuffled_bleu`` and
        ``shuffled_f1`` from those of other passages.
    """
    own, figures = [passage.split() for passage in passages], {}
    longest = 2 * max(map(len, own))
    for name, contexts in (('', vectors), ('shuffled_', np.roll(vectors, 1, axis=0))):
        texts = decoder.run_samplers(dec, contexts, 1, maxlen=longest)
        told = [text.split() if isinstance(text, str) else [] for text in texts]
        smooth = SmoothingFunction(epsilon=0.1).method1
        bleu = corpus_bleu([[words] for words in own], told, smoothing_function=smooth)
        figures[f'{name}bleu'] = 100 * float(bleu)
        pairs = zip(own, told, strict=True)
        figures[f'{name}f1'] = 100 * float(np.mean([_f1(*pair, common) for pair in pairs]))
    return figures


def _f1(own: Sequence[str], told: Sequence[str], common: frozenset[str]) -> float:
    wanted, said = ({w.lower() for w in words if w.isalpha()} - common for words in (own, told))
    return 2 * len(wanted & said) / max(1, len(wanted) + len(said))
