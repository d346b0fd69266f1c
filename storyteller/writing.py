"""From shifted thoughts to texts: the search, and which of several texts becomes the story.

Dimension letters: B stories, n passages of a style, D thought vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from . import decoder, skipthoughts, style_passages
from .errors import EmptyStoryError
from .options import SearchOptions, StoryOptions
from .search.candidates import nearest_first
from .telling import tell

Texts = list[tuple[str, float | None]]  # with what they were compared by


def texts_of(
    z: Mapping[str, Any],
    thoughts: np.ndarray,
    options: StoryOptions,
    style: np.ndarray | None = None,
    captions: Sequence[Sequence[str]] | None = None,
) -> list[Texts | EmptyStoryError]:
    """Decode thought vectors.

    Parameters
    ----------
    z : dict
        From :func:`load_all`.
    thoughts : (B, D) array
        After the shift of style.
    options : StoryOptions
        Of which the search counts, or, with a `seed`, the draw.
    style : (D,) array, optional
        b. Candidates are compared by how they differ from it, since it is most of any thought.
    captions : sequence of B sequences of str, optional
        What each thought was made of; for `keywords`.

    Returns
    -------
    list of B lists of (str, float or None), or EmptyStoryError
        Texts and what they were compared by (None for the search of 2015), the best first.
    """
    way = options.search
    if way == SearchOptions.of_2015():
        return _as_in_2015(z, thoughts, options)
    found = _candidates(z, thoughts, options, style, captions)
    if way.compared:
        b = np.zeros(1, np.float32) if style is None else style
        encode = functools.partial(_read, z, b=b)
        found = nearest_first([*map(_different, found)], thoughts - b, way.closeness, encode)
    return [
        [*texts[: way.n_best]] or EmptyStoryError('the rules leave no text for this story')
        for texts in found
    ]


def _as_in_2015(
    z: Mapping[str, Any], thoughts: np.ndarray, options: StoryOptions
) -> list[Texts | EmptyStoryError]:
    drawn = options.seed is not None
    width, length, seed = 1 if drawn else options.bw, options.maxlen, options.seed
    plain = decoder.run_samplers(z['dec'], thoughts, width, drawn, maxlen=length, seed=seed)
    return [text if isinstance(text, EmptyStoryError) else [(text, None)] for text in plain]


def _candidates(
    z: Mapping[str, Any],
    thoughts: np.ndarray,
    options: StoryOptions,
    style: np.ndarray | None,
    captions: Sequence[Sequence[str]] | None,
) -> list[list[tuple[str, float]]]:
    """What the search by rules finds for each story, from all that is decoded for it."""
    vectors = contexts(z, thoughts, style, options.search)
    each, width = vectors.shape[1:]
    found = tell(
        z['dec'],
        vectors.reshape(-1, width),
        options.search,
        options.bw,
        maxlen=options.maxlen,
        seed=options.seed,
        captions=captions and [texts for texts in captions for _ in range(each)],
    )
    return [list(chain(*found[i : i + each])) for i in range(0, len(found), each)]


def contexts(
    z: Mapping[str, Any], thoughts: np.ndarray, style: np.ndarray | None, way: SearchOptions
) -> np.ndarray:
    """What is decoded for the shifted thoughts (B, D) of stories in a style (D,).

    Returns
    -------
    (B, 1, D) array
        Or (B, 1 + n, D) with n passages, see :meth:`.style_passages.StylePassages.towards`.
    """
    known = style_passages.of_style(z.get('passages', {}), style) if way.passages else None
    if known is None:
        return np.asarray(thoughts)[:, None]
    return known.towards(thoughts, way.passages, way.blend)


def _different(found: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Each text once, as it is told best."""
    best: dict[str, float] = {}
    for text, fluency in found:
        best[text] = max(fluency, best.get(text, fluency))
    return list(best.items())


def _read(z: Mapping[str, Any], texts: list[str], b: np.ndarray) -> np.ndarray:
    """The thoughts (N, D) of told texts, words between blanks, as they differ from their style."""
    return skipthoughts.encode(z['stv'], texts, verbose=False, tokenised=True) - b
