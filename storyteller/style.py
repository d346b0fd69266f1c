"""The style shift: vector arithmetic from the style of captions to that of stories.

The formula is the one of the neural-storyteller project (Kiros, 2015,
https://github.com/ryankiros/neural-storyteller): with x the thought vector of an image's
captions, c the mean thought vector of captions and b that of passages in the wanted style,

    F(x) = x - c + b

keeps the content of the caption and replaces its style. This module works on vectors only.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from .formats import MismatchError, MissingFileError, ModelFileError, read_array
from .io.files import at_home

PASSAGES_AT_ONCE = 1024

Style = str | os.PathLike | np.ndarray | Mapping[str, float]


class SentenceEncoder(Protocol):
    """What `mean_vector` needs, for instance a `skipthoughts.Encoder`."""

    def encode(self, X: list[str], *, verbose: bool) -> np.ndarray:
        """Texts to (N, D) float32."""


def shift(x: np.ndarray, c: np.ndarray, b: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Move thought vectors from one style to another: F(x) = x - s (c - b).

    Parameters
    ----------
    x : (D,) or (B, D) array
        Thought vectors, for instance the mean over an image's nearest captions.
    c : (D,) array
        The style to subtract.
    b : (D,) array
        The style to add.
    strength : float, default 1.0
        s: 0 leaves `x` as it is, 1 is the formula of 2015, more exaggerates.

    Returns
    -------
    (D,) or (B, D) float32 array
        Not normalised again, as in 2015.

    Raises
    ------
    MismatchError
        If the widths differ.
    ValueError
        If `strength` is not finite.

    Examples
    --------
    >>> shift([1.0, 0.0], c=[0.5, 0.0], b=[0.0, 2.0])
    array([0.5, 2. ], dtype=float32)
    >>> shift([1.0, 0.0], c=[0.5, 0.0], b=[0.0, 2.0], strength=0)
    array([1., 0.], dtype=float32)
    """
    x, c, b = (np.asarray(v, dtype=np.float32) for v in (x, c, b))
    if x.ndim not in (1, 2) or c.shape != x.shape[-1:] or b.shape != x.shape[-1:]:
        raise MismatchError(
            f'x (D,) or (B, D) and c, b (D,) must share D, found {x.shape}, {c.shape}, {b.shape}'
        )
    if not np.isfinite(strength):
        raise ValueError(f'strength: expected a finite number, found {strength!r}')
    return x - np.float32(strength) * (c - b)


def mean_vector(
    encoder: SentenceEncoder, passages: Iterable[str], min_words: int = 0
) -> np.ndarray:
    """Mean thought vector of many texts: c from captions, b from passages of a style.

    Parameters
    ----------
    encoder : object with ``encode(list of str, verbose=False) -> (N, D)``
        For instance `skipthoughts.Encoder`.
    passages : iterable of str
        Any number of texts; read once, a block at a time, so a generator over a corpus will do.
    min_words : int, default 0
        Passages of fewer words (separated by white space) are skipped. Long passages make long
        stories: 2015 took those of more than 100 words for b, and every caption for c.

    Returns
    -------
    (D,) float32 array

    Raises
    ------
    TypeError
        If `passages` is one string or holds something else than strings.
    ValueError
        If no passage is left, or the mean is not finite.

    Examples
    --------
    >>> class Lengths:
    ...     def encode(self, X, verbose=False):
    ...         return np.array([[len(x), 1.0] for x in X])
    >>> mean_vector(Lengths(), ['a b', 'a b c d', 'a'], min_words=2)
    array([5., 1.], dtype=float32)
    """
    if isinstance(passages, (str, bytes)):
        raise TypeError('passages: expected many texts, found one')
    kept = _long_enough(passages, min_words)
    total, n = np.zeros(0), 0
    while block := list(itertools.islice(kept, PASSAGES_AT_ONCE)):
        summed = encoder.encode(block, verbose=False).sum(axis=0, dtype=np.float64)
        total = total + summed if n else summed
        n += len(block)
    if not n:
        raise ValueError(f'no passage of at least {min_words} words: nothing to take the mean of')
    if not np.isfinite(total).all():
        raise ValueError('the mean is not finite: the encoder gave NaN or infinity')
    return (total / n).astype(np.float32)


def _long_enough(passages: Iterable[str], min_words: int) -> Iterable[str]:
    for i, passage in enumerate(passages):
        if not isinstance(passage, str):
            raise TypeError(f'passages[{i}]: expected str, found {type(passage).__name__}')
        if len(passage.split()) >= min_words:
            yield passage


def mix(styles: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Weighted mean of several styles: b = sum(w_i b_i) / sum(w_i).

    Only the proportions of the weights count, so the mixture stays among the styles that it is
    made of; how far a story moves towards it is `shift`'s `strength`.

    Parameters
    ----------
    styles : mapping of str to (D,) array
        The styles there are.
    weights : mapping of str to float
        Name of a style to its weight, 0 or more.

    Returns
    -------
    (D,) float32 array

    Raises
    ------
    ValueError
        If a name is unknown, a weight is negative or not finite, or all are zero.
    MismatchError
        If the styles have different widths.

    Examples
    --------
    >>> styles = {'romance': [1.0, 0.0], 'lyric': [0.0, 1.0]}
    >>> mix(styles, {'romance': 3, 'lyric': 1})
    array([0.75, 0.25], dtype=float32)
    """
    if unknown := [name for name in weights if name not in styles]:
        raise ValueError(f'no style called {unknown[0]!r}; there are {", ".join(sorted(styles))}')
    w = np.array([_weight(name, weights[name]) for name in weights])
    if not w.sum() > 0:
        raise ValueError(f'weights: expected at least one above zero, found {dict(weights)!r}')
    vectors = {name: np.asarray(styles[name], dtype=np.float64) for name in weights}
    if len({v.shape for v in vectors.values()}) > 1:
        shapes = ', '.join(f'{name} {v.shape}' for name, v in vectors.items())
        raise MismatchError(f'styles of different widths cannot be mixed: {shapes}')
    return (w / w.sum() @ np.stack(list(vectors.values()))).astype(np.float32)


def _weight(name: str, weight: float) -> float:
    try:
        number = float(weight)
    except (TypeError, ValueError):
        number = float('nan')
    if not 0 <= number < float('inf'):
        raise ValueError(
            f'weights[{name!r}]: expected a finite number, 0 or more, found {weight!r}'
        )
    return number


def load_style(path: str | os.PathLike, dim: int) -> np.ndarray:
    """Read a style vector, ours or one of 2015.

    Parameters
    ----------
    path : path of a ``.npy`` file
        Holds (D,) or (1, D) numbers.
    dim : int
        D, the width of the thought vectors that it is to shift.

    Returns
    -------
    (D,) float32 array

    Raises
    ------
    MissingFileError
        If there is no such file.
    ModelFileError
        If it is no ``.npy`` file of finite numbers.
    MismatchError
        If its width is not `dim`.
    """
    with np.errstate(over='ignore'):  # a float64 beyond float32 is reported as not finite
        stored = read_array(path)
    if stored.ndim not in (1, 2) or stored.size != stored.shape[-1]:
        raise ModelFileError(f'{path}: expected (D,) numbers, found shape {stored.shape}')
    if stored.size != dim:
        raise MismatchError(f'{path}: expected a style vector of width {dim}, found {stored.size}')
    return stored.reshape(dim)


def choose(
    styles: Mapping[str, np.ndarray], default: np.ndarray, style: Style | None
) -> np.ndarray:
    """The style vector b (D,) that a user's argument stands for.

    Parameters
    ----------
    styles : mapping of str to (D,) array
        The styles there are.
    default : (D,) array
        What None stands for.
    style : str, path, (D,) array, mapping or None
        A name among `styles`, a ``.npy`` file, a vector (D,) or (1, D), or weights for names.

    Raises
    ------
    MissingFileError, ModelFileError
        If it is neither a name nor a file, or a file that cannot be read.
    MismatchError
        If it has another width than `default`.
    ValueError
        If weights are not what `mix` takes.
    """
    if style is None:
        return default
    if isinstance(style, Mapping):
        return mix(styles, style)
    if isinstance(style, (str, os.PathLike)):
        if str(style) in styles:
            return styles[str(style)]
        file = at_home(style)
        if not os.path.isfile(file):
            names = ', '.join(styles) or 'none'
            raise MissingFileError(f'style {str(style)!r}: no such file, nor a style of {names}')
        return load_style(file, len(default))
    try:
        vector = np.asarray(style, dtype=np.float32)
    except (TypeError, ValueError):
        raise MismatchError(f'style: expected {len(default)} numbers, found {style!r}') from None
    if vector.shape == (1, len(default)):  # as some style files have it
        vector = vector[0]
    if vector.shape != np.shape(default):
        raise MismatchError(f'style: expected {len(default)} numbers, found shape {vector.shape}')
    if not np.isfinite(vector).all():
        raise MismatchError('style: expected finite numbers, found NaN or infinity')
    return vector


def label(style: Style | None) -> str | dict[str, float] | None:
    """How a style is recorded: as None, a name or path, weights, or ``'a vector'``."""
    if isinstance(style, Mapping):
        return {name: float(weight) for name, weight in style.items()}
    if style is None or isinstance(style, (str, os.PathLike)):
        return None if style is None else str(style)
    return 'a vector'
