"""From shifted thoughts to texts: the search, and which of several texts becomes the story.

Dimension letters: B stories, N texts, D thought vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import decoder, skipthoughts
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
        b. Candidates are compared by how they differ from it, since it is most of any thought; and
        it is what words are contrasted with. None: 0.
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
    b = np.zeros(np.shape(thoughts)[1], np.float32) if style is None else style
    found = tell(
        z['dec'],
        thoughts,
        way,
        options.bw,
        maxlen=options.maxlen,
        seed=options.seed,
        captions=captions,
        style=b,
    )
    if way.candidates > 1:
        encode = functools.partial(_read, z, b=b)
        found = nearest_first(found, thoughts - b, way.closeness, encode)
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


def _read(z: Mapping[str, Any], texts: list[str], b: np.ndarray) -> np.ndarray:
    """The thoughts (N, D) of told texts, words between blanks, as they differ from their style."""
    return skipthoughts.encode(z['stv'], texts, verbose=False, tokenised=True) - b
