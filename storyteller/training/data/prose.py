"""Passages worth learning from: plain prose that tells what could be seen.

A decoder writes what it has read. Names are somebody else's, speech needs speakers, and a passage
that says *I* or *you* talks to somebody: none of that belongs in a story about a stranger's photo.
So whole sentences are judged (:func:`plain_sentences`), and passages are cut from stretches in
which each sentence is plain (:func:`plain_passages`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...formats import PathLike, read_lines
from ...vocabulary import Vocabulary
from .corpus import Corpus, passages

_SPEAKERS = "i me my mine myself we us our ours ourselves you your yours yourself yourselves 'm"
_ARCHAIC = 'thee thou thy thine thyself ye hath doth hast dost art wert shalt wilt oft ere nay yea'
_LOOSE = '-- : ( ) [ ] { } * _ ... # & / \\ < > = + | @ % $'
# A photo shows what is. A sentence with one of these opposes, doubts, denies or supposes, and a
# decoder that has read many writes of nothing but what is not.
_UNREAL = """
    but however though although yet nevertheless whereas if unless seem seems seemed seeming perhaps
    not n't never no nor none nobody nothing neither cannot would should might must may can will
    shall ought 'd
"""
# A passage that begins with one of these goes on with something that was said before it.
_LEANING = """
    And But Or Nor So Yet For Then Thus Therefore However Moreover Nevertheless Besides Still Such
    This That These Those Also Hence Otherwise Whereupon Which Consequently Perhaps
"""
SPEECH = frozenset(['``', "''", '"', "'", '`', *_SPEAKERS.split(), *_ARCHAIC.split()])
LOOSE = frozenset(_LOOSE.split())
LEANING = frozenset(_LEANING.split())
UNREAL = frozenset(_UNREAL.split())
ENDS = frozenset(['.', '!', '?'])


@dataclass(frozen=True)
class Prose:
    """What makes a sentence plain."""

    left_out: Collection[str] = frozenset()  # in lower case: what may not stand in it, as slurs
    speech: bool = False  # whether quotation marks, *I* and *you*, and old words may (`SPEECH`)
    loose: bool = False  # whether dashes, colons and brackets may
    unreal: bool = False  # whether words that oppose, doubt, deny or suppose may (`UNREAL`)
    fewest: int = 3  # words
    most: int = 40

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.most:
            raise ValueError(
                f'fewest, most: expected 1 <= fewest <= most, found {self.fewest}, {self.most}'
            )


def plain_words(counts: dict[str, int], least: int = 5) -> frozenset[str]:
    """The words in lower case that occur so often that their capital at a beginning is no name.

    `counts` say how often each word occurs, as written. It must occur `least` times in lower case,
    and outweigh the capital, unless that mostly begins sentences, which ordinary words do: a tenth
    is enough.
    """
    return frozenset(
        word
        for word, count in counts.items()
        if word[0].islower() and count >= max(least, counts.get(word.capitalize(), 0) / 10)
    )


def plain_sentences(
    corpus: Corpus, vocabulary: Vocabulary, plain: Collection[str], prose: Prose
) -> np.ndarray:
    """Which sentences of a corpus are plain prose without a name: (S,) bool.

    The corpus, of which `vocabulary` is the vocabulary, has all words, see
    :meth:`Corpus.with_all_words`. A word with a capital is a name if it stands inside a sentence,
    or if it is none of the `plain` ones (:func:`plain_words`) in lower case.
    """
    words = list(vocabulary)
    banned = set(prose.left_out)
    banned |= set() if prose.speech else SPEECH
    banned |= set() if prose.loose else LOOSE
    banned |= set() if prose.unreal else UNREAL
    bad = _flags(words, lambda w: w.lower() in banned or not w.isascii() or _numeric(w))
    capital = _flags(words, lambda w: w[0].isupper() and w not in ('I', "I'm", 'O'))
    name = _flags(words, lambda w: w[0].isupper() and w.lower() not in plain and len(w) > 1)
    begins = capital | _flags(words, lambda w: w == 'I')  # with 'O', somebody is called
    ends = _flags(words, ENDS.__contains__)
    borders, lengths = corpus.sentences, np.diff(corpus.sentences)
    first, last = corpus.tokens[borders[:-1]], corpus.tokens[borders[1:] - 1]
    fits = (lengths >= prose.fewest) & (lengths <= prose.most)
    return _clean(corpus, bad | name, capital) & fits & begins[first] & ends[last]


def plain_verses(corpus: Corpus, vocabulary: Vocabulary, left_out: Collection[str]) -> np.ndarray:
    """Which verses hold no word that is left out, no name and no odd sign: (S,) bool.

    A verse begins with a capital whatever its first word is, and may speak to anybody.
    """
    words = list(vocabulary)
    bad = _flags(words, lambda w: w.lower() in left_out or not w.isascii() or _numeric(w))
    lower = set(words)
    capital = _flags(words, lambda w: w[0].isupper() and w not in ('I', 'O', 'Oh'))
    name = _flags(words, lambda w: w[0].isupper() and len(w) > 1 and w.lower() not in lower)
    return _clean(corpus, bad | name, capital)


def plain_passages(
    corpus: Corpus,
    plain: np.ndarray,
    rng: np.random.Generator,
    shortest: int,
    longest: int,
    leaning: Iterable[int] = (),
    apart: Sequence[Iterable[int]] = (),
) -> np.ndarray:
    """Cut passages, as :func:`~.corpus.passages`, of plain sentences: two or more of one document.

    Parameters
    ----------
    corpus : Corpus
    plain : (S,) bool array
        See :func:`plain_sentences`.
    rng : numpy.random.Generator
    shortest, longest : int
        Words in a passage.
    leaning : iterable of int
        Word indices that no passage begins with, see `LEANING`.
    apart : sequence of iterables of int
        Sets of word indices, such as those of *he* and of *she*; a passage holds words of one of
        them at most, so that it is clear of whom it speaks.
    """
    tokens = np.asarray(corpus.tokens)
    sets = np.stack([np.zeros(len(corpus), int), *(_holds(corpus, words) for words in apart)])
    plain = plain & (sets.sum(0) <= 1)
    opens = plain & ~np.isin(tokens[corpus.sentences[:-1]], list(leaning))
    begins = np.zeros(len(corpus), bool)
    begins[corpus.documents[:-1]] = True
    borders, inside, of = [], False, 0  # of: the set that the stretch so far speaks of; 0, none
    sentences = np.stack([plain, opens, begins, sets.argmax(0)], 1).tolist()
    for i, (is_plain, may_open, first, own) in enumerate(sentences):
        if inside and is_plain and not first and (own == of or not own or not of):
            of = of or own
            continue
        # A sentence that may not open a passage is passed over; the next may.
        inside, of = bool(is_plain and may_open), own
        borders.append(i)
    stretches = replace(corpus, documents=np.append(borders, len(corpus)))
    cut = passages(stretches, rng, shortest, longest)
    return cut[opens[cut[:, 0]] & (np.diff(cut)[:, 0] > 1)]


def read_words(path: PathLike) -> frozenset[str]:
    """The words of a list, one a line, in lower case; what follows a ``#`` is a remark."""
    lines = (line.partition('#')[0].lower().split() for line in read_lines(path))
    return frozenset(' '.join(words) for words in lines if words)


def _clean(corpus: Corpus, bad: np.ndarray, capital: np.ndarray) -> np.ndarray:
    """Which sentences hold no bad word (V,), and none with a capital (V,) but at the beginning."""
    tokens, first = np.asarray(corpus.tokens), corpus.sentences[:-1]
    found = (bad | capital)[tokens]
    found[first] = bad[tokens[first]]
    sums = np.concatenate([[0], np.cumsum(found)])
    return sums[corpus.sentences[1:]] == sums[first]


def _holds(corpus: Corpus, words: Iterable[int]) -> np.ndarray:
    """Which sentences hold one of some words: (S,) bool."""
    sums = np.concatenate([[0], np.cumsum(np.isin(corpus.tokens, list(words)))])
    return sums[corpus.sentences[1:]] > sums[corpus.sentences[:-1]]


def _numeric(word: str) -> bool:
    return any(letter.isdigit() for letter in word)


def _flags(words: list[str], test) -> np.ndarray:
    return np.fromiter((bool(test(word)) for word in words), bool, len(words))
