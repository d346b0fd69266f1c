"""Passages of a style, by their thoughts: what stories are drawn towards.

F(x) has the direction of what captions say, but it is the thought of no passage, and a decoder
tells best what it learned from. So those passages of a style are found whose thoughts lie nearest
to F(x), each as it differs from the style's mean b, and these are told as well. What is told best,
and is nearest to F(x) when encoded again, becomes the story (`storyteller.search.candidates`).
Only vectors are kept, no words of a passage.

Dimension letters: B stories, N passages of a style, n nearest of them, D thought vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from .errors import MismatchError, ModelFileError, PathLike, why
from .io.files import atomic_path
from .layers import unit_rows

FILE = 'style_passages.safetensors'  # beside the styles
MOST = 127  # of a whole number


@dataclass(frozen=True)
class StylePassages:
    """The passages of one style, as they differ from its mean, in bytes.

    Attributes
    ----------
    mean : (D,) float32 array
        b, the mean thought of the style.
    codes : (N, D) int8 array
    scales : (N,) float32 array
        Passage i is ``mean + scales[i] * codes[i]``.
    """

    mean: np.ndarray
    codes: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, mean: np.ndarray) -> StylePassages:
        """Round the thoughts (N, D) of passages."""
        away = np.asarray(vectors, np.float32) - mean
        scales = np.maximum(np.abs(away).max(1), np.finfo(np.float32).tiny) / MOST
        codes = np.rint(away / scales[:, None]).astype(np.int8)
        return cls(np.asarray(mean, np.float32), codes, scales.astype(np.float32))

    @cached_property
    def directions(self) -> np.ndarray:
        """Unit rows (N, D) float32."""
        return unit_rows(self.codes.astype(np.float32))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The thoughts of some passages: rows of any shape, then D."""
        return self.mean + self.scales[rows][..., None] * self.codes[rows]

    def towards(self, thoughts: np.ndarray, n: int, blend: float = 1.0) -> np.ndarray:
        """What is decoded for each story: F(x), and F(x) drawn towards its nearest passages.

        Parameters
        ----------
        thoughts : (B, D) array
            F(x).
        n : int
            Passages; fewer, if there are not so many.
        blend : float
            Share of the passage, 0 to 1.

        Returns
        -------
        (B, 1 + n, D) float32 array
            F(x) first, then those of the passages, the nearest first; of equally near ones, the
            earlier.

        Examples
        --------
        >>> known = StylePassages.of([[1.0, 3.0], [1.0, -1.0], [3.0, 1.0]], np.ones(2))
        >>> known.towards(np.array([[1.25, 1.75]]), 2, 0.5)[0].tolist()
        [[1.25, 1.75], [1.125, 2.375], [2.125, 1.375]]
        """
        thoughts = np.asarray(thoughts, np.float32)
        near = (thoughts - self.mean) @ self.directions.T
        rows = np.argsort(-near, axis=1, kind='stable')[:, :n]
        drawn = blend * self.vectors(rows) + (1 - blend) * thoughts[:, None]
        return np.concatenate([thoughts[:, None], drawn], 1).astype(np.float32)


def write(path: PathLike, styles: Mapping[str, StylePassages]) -> None:
    """Write the passages of several styles to one file, atomically."""
    arrays = {
        f'{style}.{part}': np.ascontiguousarray(getattr(known, part))
        for style, known in styles.items()
        for part in ('mean', 'codes', 'scales')
    }
    with atomic_path(path) as temporary:
        safetensors.numpy.save_file(arrays, temporary)


def read(path: PathLike, width: int) -> dict[str, StylePassages]:
    """Read a file of passages, if there is one.

    Parameters
    ----------
    path : path-like
    width : int
        D of the encoder.

    Returns
    -------
    dict of str to StylePassages
        By style; empty without a file.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or does not hold such passages.
    MismatchError
        If they are of another width.
    """
    if not Path(path).is_file():
        return {}
    try:
        arrays = safetensors.numpy.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelFileError(f'{path}: not a readable file of passages: {why(error)}') from None
    found = {}
    for style in sorted({name.rpartition('.')[0] for name in arrays}):
        parts = [arrays.get(f'{style}.{part}') for part in ('mean', 'codes', 'scales')]
        known = _checked(path, style, parts)
        if known.mean.shape != (width,):
            raise MismatchError(
                f'{path}: {style}: passages of width {len(known.mean)}, the encoder gives {width}'
            )
        found[style] = known
    return found


def _checked(path: PathLike, style: str, parts: list[np.ndarray | None]) -> StylePassages:
    """The parts as they must be: shapes that fit, and numbers that are finite."""
    mean, codes, scales = parts
    if mean is not None and codes is not None and scales is not None:
        kinds = mean.dtype, codes.dtype, scales.dtype
        fit = codes.shape == (len(np.atleast_1d(scales)), *mean.shape) and mean.ndim == 1
        right = fit and kinds == (np.float32, np.int8, np.float32) and len(codes) > 0
        if right and np.isfinite(mean).all() and np.isfinite(scales).all():
            return StylePassages(mean, codes, scales)
    raise ModelFileError(
        f'{path}: {style}: expected mean (D,) and scales (N,) of finite float32, codes (N, D) int8'
    )


def of_style(known: Mapping[str, StylePassages], style: np.ndarray | None) -> StylePassages | None:
    """The passages whose mean a style vector is; None for other vectors, such as mixtures."""
    if style is None:
        return None
    return next((each for each in known.values() if np.array_equal(each.mean, style)), None)
