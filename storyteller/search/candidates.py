"""The best of several texts by their own thoughts.

A search knows how probable a text is, not what it says. Encoded again, a text shows how much of the
thought it came from is still there.

Dimension letters: B stories, D thought vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..layers import unit_rows

Scored = list[tuple[str, float]]  # texts and what they are compared by


def nearest_first(
    found: Sequence[Scored],
    thoughts: np.ndarray,
    closeness: float,
    encode: Callable[[list[str]], np.ndarray],
) -> list[Scored]:
    """Order the candidates of each story by fluency and by what they say.

    Parameters
    ----------
    found : sequence of B lists of (str, float)
        Texts and the mean log-probability of their words, in nats.
    thoughts : (B, D) array
        What was to be told.
    closeness : float
        What a cosine of 1 is worth.
    encode : callable
        Texts to thought vectors; called once, with all texts.

    Returns
    -------
    list of B lists of (str, float)
        The texts with ``mean log-probability + closeness * cosine(encode(text), thought)``, the
        highest first; of equal ones, the earlier.

    Examples
    --------
    >>> vectors = {'a dog': [1.0, 0.0], 'the sea': [0.6, 0.8]}
    >>> found = [[('a dog', -2.0), ('the sea', -2.5)]]
    >>> nearest_first(found, np.array([[0.0, 3.0]]), 1.0, lambda texts: [vectors[t] for t in texts])
    [[('the sea', -1.7), ('a dog', -2.0)]]
    """
    texts = [text for each in found for text, _ in each]
    if not texts:
        return [list(each) for each in found]
    owners = np.repeat(np.arange(len(found)), [len(each) for each in found])
    told = unit_rows(np.asarray(encode(texts), np.float64))
    asked = unit_rows(np.asarray(thoughts, np.float64))[owners]
    cosines = iter((told * asked).sum(1).tolist())
    scored = [
        [(text, fluency + closeness * next(cosines)) for text, fluency in each] for each in found
    ]
    return [sorted(each, key=lambda pair: -pair[1]) for each in scored]
