"""The words that captions share: what a photo most likely shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ..text.function_words import has_content


def shares(captions: Iterable[str]) -> dict[str, float]:
    """In which part of some captions each word with content stands, in small letters.

    Examples
    --------
    >>> shares(['A dog runs .', 'The dog and a ball'])
    {'dog': 1.0, 'runs': 0.5, 'ball': 0.5}
    """
    texts = [dict.fromkeys(caption.lower().split()) for caption in captions]
    counts = Counter(word for words in texts for word in words if has_content(word))
    return {word: count / len(texts) for word, count in counts.items()}


def worth(captions: Iterable[str], keywords: float, words: Mapping[str, int]) -> dict[int, float]:
    """What the first use of each word of a decoder is worth.

    Parameters
    ----------
    captions : iterable of str
    keywords : float
        In nats, of a word that all captions have.
    words : mapping of str to int
        The indices of the decoder's words; large and small letters are worth the same.

    Returns
    -------
    dict of int to float
        Of the words that captions have.
    """
    found = shares(captions)
    return {i: keywords * part for w, i in words.items() if (part := found.get(w.lower()))}
