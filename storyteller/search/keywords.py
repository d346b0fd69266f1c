"""The words that captions share: what a photo most likely shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..text.function_words import has_content


def shares(captions: Iterable[str]) -> dict[str, float]:
    """In which part of some captions each word with content stands, in small letters.

    Examples
    --------
    >>> shares(['A dog runs .', 'The dog and a ball'])
    {'dog': 1.0, 'runs': 0.5, 'ball': 0.5}
    """
    texts = [dict.fromkeys(caption.lower().split()) for caption in captions]
    counts = Counter(word for words in texts for word in words)
    return {word: count / len(texts) for word, count in counts.items() if has_content(word)}


def by_letters(words: Mapping[str, int]) -> dict[str, list[int]]:
    """The indices of words in large and small letters, by the word in small ones.

    Examples
    --------
    >>> by_letters({'sea': 3, 'Sea': 4, 'dog': 5})
    {'sea': [3, 4], 'dog': [5]}
    """
    alike: dict[str, list[int]] = {}
    for word, index in words.items():
        alike.setdefault(word.lower(), []).append(index)
    return alike


def worth(
    captions: Iterable[str], keywords: float, words: Mapping[str, Sequence[int]]
) -> dict[int, float]:
    """What the first use of each word of a decoder is worth.

    Parameters
    ----------
    captions : iterable of str
    keywords : float
        In nats, of a word that all captions have.
    words : mapping of str to sequence of int
        The decoder's words, from :func:`by_letters`: large and small ones are worth the same.

    Returns
    -------
    dict of int to float
        Of the words that captions have.
    """
    found = shares(captions)
    return {i: keywords * part for word, part in found.items() for i in words.get(word, ())}
