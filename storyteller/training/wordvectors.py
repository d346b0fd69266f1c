"""Pre-trained word vectors: for initialisation, and to expand a vocabulary.

An encoder that was trained on some 20,000 words can read any word that word2vec or GloVe knows: a
linear map, fitted to the words that both know, takes the vectors of the others into the encoder's
space (Kiros et al. 2015, "Skip-Thought Vectors", section 2.2).

Needs gensim, which comes with the extra ``expand``.

Dimension letters: V words, W the encoder's width of words, G that of the vectors from elsewhere.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import formats
from ..formats import MismatchError, ModelFileError, PathLike
from ..io.extras import needed
from ..io.word_table import write_table
from ..vocabulary import SPECIAL, Vocabulary

FEWEST = 2  # words in common for each dimension of a map that is fitted to them


def read_vectors(path: PathLike):
    """Read word vectors of word2vec or GloVe, as float32 `gensim.models.KeyedVectors`.

    Parameters
    ----------
    path : path-like
        ``.bin`` or ``.bin.gz`` is word2vec's binary form; anything else is text, a word and its
        numbers a line, with word2vec's line of two numbers before them or without; ``.gz`` too.

    Raises
    ------
    MissingExtraError
        If gensim is not installed.
    MissingFileError, ModelFileError
        If there is no such file, or it holds no word vectors.
    """
    KeyedVectors = needed('gensim.models').KeyedVectors
    path = formats.existing(path, 'word vectors')
    binary = path.name.removesuffix('.gz').endswith('.bin')
    try:
        bare = not binary and len(_first_line(path).split()) != 2
        vectors = KeyedVectors.load_word2vec_format(
            str(path), binary=binary, no_header=bare, unicode_errors='replace'
        )
    except (OSError, ValueError, EOFError, IndexError, TypeError) as error:
        raise ModelFileError(f'{path}: not readable as word vectors: {error}') from None
    if not len(vectors) or not vectors.vector_size:
        raise ModelFileError(f'{path}: expected word vectors, found none')
    return vectors


def _first_line(path: Path) -> bytes:
    with (gzip.open if path.suffix == '.gz' else open)(path, 'rb') as file:
        return file.readline()


def start_from(table: np.ndarray, words: Vocabulary, path: PathLike) -> tuple[np.ndarray, int]:
    """Initialise a table (V, W) of word vectors from pre-trained ones.

    Returns
    -------
    table : (V, W) array
        A new one; words that the file lacks keep their rows.
    known : int
        How many words it has.

    Raises
    ------
    MismatchError
        If the vectors are of another width.
    """
    vectors = read_vectors(path)
    if vectors.vector_size != table.shape[1]:
        raise MismatchError(
            f'{path}: vectors of width {vectors.vector_size}, expected {table.shape[1]}: '
            f'train with --dim-word {vectors.vector_size}'
        )
    table, known = table.copy(), 0
    for row, word in enumerate(words):
        if row > 1 and word in vectors:
            table[row] = vectors[word]
            known += 1
    return table, known


def fit_map(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares matrix (G, W) and intercept (W,) from (n, G) to (n, W)."""
    x = np.concatenate([inputs.astype(np.float64), np.ones((len(inputs), 1))], axis=1)
    solution = np.linalg.lstsq(x, outputs.astype(np.float64), rcond=None)[0]
    return solution[:-1], solution[-1]


def expand(
    tables: dict[str, np.ndarray],
    words: Sequence[str],
    path: PathLike,
    out: PathLike,
    *,
    dtype: str = 'float32',
    block: int = 16384,
) -> int:
    """Expand the word tables of an encoder by a file of word vectors; gives V of the new ones.

    The words of the encoder come first and keep their vectors; then come those of the file, in its
    order. Words with an underscore, which are phrases, are left out, as in 2015, and so are those
    that cannot be a line of a dictionary.

    Parameters
    ----------
    tables : dict of str to (V, W) array
        File name (``utable.npy``) to the table.
    words : sequence of V str
        Of their rows; of a word that stands there twice the later row counts, as at loading.
    path : path-like
        See :func:`read_vectors`.
    out : path-like
        A folder, gets the tables and ``dictionary.txt``.
    dtype : {'float32', 'float16'}
    block : int
        Rows that are mapped at a time.

    Raises
    ------
    MismatchError
        If too few words are in both to fit a map, or a table has not as many rows as words.
    """
    for name, table in tables.items():
        if len(table) != len(words):
            raise MismatchError(f'{name}: {len(table)} rows, but {len(words)} words')
    vectors, index = read_vectors(path), {word: row for row, word in enumerate(words)}
    shared = [word for word in index if word in vectors and word not in SPECIAL]
    wanted = FEWEST * (vectors.vector_size + 1)
    if len(shared) < wanted:
        raise MismatchError(
            f'{path}: {len(shared)} words in common with the encoder, expected at least {wanted}'
        )
    known = vectors[shared]
    rows = [index[word] for word in shared]
    new = [word for word in vectors.index_to_key if _is_new(word, index)]
    for name, table in tables.items():
        matrix, intercept = fit_map(known, np.asarray(table[rows], np.float32))
        shape = (len(words) + len(new), table.shape[1])
        starts = tqdm(range(0, len(new), block), desc=name, unit=' blocks')
        parts = (vectors[new[first : first + block]].astype(np.float64) for first in starts)
        mapped = (part @ matrix + intercept for part in parts)
        write_table(Path(out) / name, shape, dtype, itertools.chain([table], mapped))
    formats.write_text(Path(out) / 'dictionary.txt', ''.join(f'{w}\n' for w in (*words, *new)))
    return len(words) + len(new)


def _is_new(word: str, words: Mapping[str, int]) -> bool:
    plain = word.strip() == word and word.isprintable() and '\ufffd' not in word
    return bool(word) and plain and '_' not in word and word not in words
