"""Fine-tuning: initialising a decoder from another, with a different vocabulary.

What a decoder knows of sentences serves any books, and takes most of the time to learn.

Dimension letters: V words, W word vectors, H states.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..decoder import read_params
from ..formats import MismatchError, PathLike
from ..vocabulary import UNK, Vocabulary
from .decoder import dictionary_path


def start_from(
    path: PathLike, words: Vocabulary, counts: np.ndarray, dimctx: int
) -> tuple[dict[str, np.ndarray], dict[str, int | bool]]:
    """The parameters of a decoder, adapted to another vocabulary, and its sizes.

    Parameters
    ----------
    path : path-like
        A decoder, ours or of 2015; its words stand beside it, see
        :func:`~.decoder.dictionary_path`.
    words : Vocabulary
        Of the new books.
    counts : (V,) array
        How often each occurs there.
    dimctx : int
        D of the encoder whose vectors it will be given.

    Returns
    -------
    params : dict of str to float32 array
        See :func:`with_words`.
    sizes : dict
        ``dim_word``, ``dim`` and ``doutput``, as in :class:`~.decoder.DecoderOptions`.

    Raises
    ------
    MissingFileError, ModelFileError
        If a file is missing or invalid.
    MismatchError
        If the decoder has more words than its dictionary, or was made for another encoder.
    """
    path = Path(path)
    params, options = read_params(path)
    if options['dimctx'] != dimctx:
        raise MismatchError(
            f'{path}: a decoder for vectors of {options["dimctx"]} numbers; those of the encoder '
            f'have {dimctx}'
        )
    known = Vocabulary.load(dictionary_path(path))
    if len(known) < options['n_words']:
        raise MismatchError(f'{path}: {options["n_words"]} words, but its dictionary {len(known)}')
    sizes = {name: options[name] for name in ('dim_word', 'dim', 'doutput')}
    return with_words(params, known, words, counts), sizes


def with_words(
    params: Mapping[str, np.ndarray], known: Vocabulary, words: Vocabulary, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Change the vocabulary of a decoder from `known` to `words`.

    A word of both keeps its vectors. A new one begins as what it was until now, UNK, and all that
    were UNK share its probability by how often they occur, so that a text costs about as much as
    before.

    Parameters
    ----------
    params : mapping of str to array
        Under the names of 2015.
    known, words : Vocabulary
        `known` may hold more words than the model: those are unknown to it.
    counts : (V,) array
        How often each of `words` occurs.
    """
    rows = np.array(known.encode(words, n_words=len(params['Wemb'])))
    shared = np.where(rows == UNK, np.maximum(np.asarray(counts, np.float64), 1), 0)
    part = np.log(shared[rows == UNK] / shared.sum())
    bias = params['ff_logit_b'][rows].copy()
    bias[rows == UNK] += part.astype(np.float32)
    return dict(params) | {
        'Wemb': params['Wemb'][rows],
        'ff_logit_W': np.ascontiguousarray(params['ff_logit_W'][:, rows]),
        'ff_logit_b': bias,
    }
