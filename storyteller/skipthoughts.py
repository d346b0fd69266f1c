"""Skip-thought vectors: sentence encoding.

The encoder of Kiros et al., "Skip-thought vectors" (arXiv:1506.06726): a GRU that reads a sentence
forwards (uni-skip), and a pair that reads it forwards and backwards (bi-skip). Their last states,
side by side, are the thought vector: 2400 + 1200 + 1200 = 4800 numbers at the published sizes.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from . import formats
from .formats import MismatchError, MissingFileError, ModelFileError
from .io.word_table import WordTable
from .layers import pick_device, require_gru, unit_rows
from .nn.packed import gru_for
from .nn.sequences import as_texts, batches, last_states
from .options import check_count
from .text import preprocess
from .vocabulary import SPECIAL

__all__ = ['Encoder', 'WordTable', 'encode', 'load_model', 'nn', 'nn_words']
__all__ += ['preprocess', 'word_features']

EOS, UNK = SPECIAL  # the words, not their indices


def load_model(
    path_to_models: str | os.PathLike,
    path_to_tables: str | os.PathLike,
    *,
    device: str | torch.device | None = None,
    precision: str = 'float32',
) -> dict[str, Any]:
    """Load the encoders and their word vectors, ours or those of 2015.

    Parameters
    ----------
    path_to_models : path of a folder
        Holds ``uni_skip`` and ``bi_skip`` as ``.safetensors``, or as ``.npz`` and ``.npz.pkl``.
    path_to_tables : path of a folder
        Holds ``utable.npy`` and ``btable.npy`` (V, W), which are mapped and not read, and
        ``dictionary.txt``: the words of their rows, one per line. Of a word that stands there twice
        the later row counts. The tables as they were published in 2015 are arrays of objects: the
        first time, which takes a while, they are converted to plain tables in the cache.
    device : str or torch.device, optional
        Where to compute; by default a GPU if there is one, else the CPU.
    precision : {'float32', 'bfloat16'}
        Of the products on a CPU: 'bfloat16' is faster where the processor has it, and coarser.

    Returns
    -------
    dict
        ``uoptions``, ``boptions``; ``utable``, ``btable`` (`WordTable`). Keys that begin with an
        underscore are the library's own.

    Raises
    ------
    MissingFileError, ModelFileError
        If a file is missing or invalid; if a table and the dictionary differ in
        length; if the words ``UNK`` and ``<eos>`` are not there.
    MismatchError
        If tables and encoders are made for words of different widths.
    ValueError
        If there is no such precision.
    """
    if precision not in ('float32', 'bfloat16'):
        raise ValueError(f"precision: expected 'float32' or 'bfloat16', found {precision!r}")
    device = pick_device(device)
    uni, bi = (model_file(path_to_models, name) for name in ('uni_skip', 'bi_skip'))
    (uparams, uoptions), (bparams, boptions) = (
        formats.read_model(path, 'encoder') for path in (uni, bi)
    )
    utable, btable = _load_tables(pathlib.Path(path_to_tables))
    model: dict[str, Any] = {'uoptions': uoptions, 'boptions': boptions}
    model |= {'utable': utable, 'btable': btable}
    parts = (
        ('_uni', uparams, 'encoder', uni, utable),
        ('_forward', bparams, 'encoder', bi, btable),
        ('_backward', bparams, 'encoder_r', bi, btable),
    )
    for key, params, prefix, path, table in parts:
        require_gru(params, prefix, path)
        if (width := len(params[f'{prefix}_Wx'])) != table.width:
            raise MismatchError(
                f'{path} reads words of width {width}, '
                f'but the tables in {path_to_tables} are {table.width} wide'
            )
        model[key] = gru_for(params, prefix, device, getattr(torch, precision))
    return model


def model_file(folder: str | os.PathLike, name: str) -> pathlib.Path:
    paths = [pathlib.Path(folder) / f'{name}{suffix}' for suffix in ('.safetensors', '.npz')]
    for path in paths:
        if path.exists():
            return path
    raise MissingFileError(f'{folder}: expected {paths[0].name} or {paths[1].name}, found neither')


def _load_tables(folder: pathlib.Path) -> tuple[WordTable, WordTable]:
    lines = formats.read_lines(folder / 'dictionary.txt')
    index = {line.strip(): row for row, line in enumerate(lines)}
    for word in (UNK, EOS):
        if word not in index:
            raise ModelFileError(f'{folder / "dictionary.txt"}: the word {word!r} is missing')
    tables = []
    for name in ('utable.npy', 'btable.npy'):
        rows = formats.open_table(folder / name)
        if len(rows) != len(lines):
            raise ModelFileError(
                f'{folder / name} has {len(rows)} rows, '
                f'but {folder / "dictionary.txt"} has {len(lines)} lines'
            )
        tables.append(WordTable(index, rows))
    return tables[0], tables[1]


def encode(
    model: dict[str, Any],
    X: str | Iterable[str],
    use_norm: bool = True,
    verbose: bool = True,
    batch_size: int = 128,
    use_eos: bool = False,
    *,
    tokenised: bool = False,
) -> np.ndarray:
    """Encode texts as thought vectors.

    Parameters
    ----------
    model : dict
        From `load_model`.
    X : iterable of N str, or str
        Each may hold several sentences. A word that is not in the tables is read as ``UNK``.
        A text without a word is read as one ``<eos>`` (2015 crashed).
    use_norm : bool, default True
        Scale the uni-skip part and the bi-skip part to length 1, each for itself.
    verbose : bool, default True
        Show progress on stderr.
    batch_size : int, default 128
        Texts at once; changes the speed, not the result.
    use_eos : bool, default False
        Read one ``<eos>`` at the end of each text.
    tokenised : bool, default False
        The texts are already tokens separated by white space; by default they are tokenised.

    Returns
    -------
    (N, D) float32 array, or (D,) for a str
        Uni-skip, then bi-skip forward, then backward.

    Raises
    ------
    TypeError
        If `X` holds something else than str.
    """
    texts = as_texts(X)
    unique = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    sentences = list(unique) if tokenised else preprocess(list(unique))
    sequences = [_rows(model, sentence.split(), use_eos) for sentence in sentences]
    uni = np.empty((len(unique), model['_uni'].hidden_size), dtype=np.float32)
    bi = np.empty((len(unique), 2 * model['_forward'].hidden_size), dtype=np.float32)
    with tqdm(total=len(unique), disable=not verbose, unit='sentence') as progress:
        for rows in batches([len(s) for s in sequences], batch_size):
            uni[rows], bi[rows] = _encode(model, [sequences[row] for row in rows])
            progress.update(len(rows))
    parts = [unit_rows(uni), unit_rows(bi)] if use_norm else [uni, bi]
    vectors = np.hstack(parts)[[unique[text] for text in texts]]
    return vectors[0] if isinstance(X, str) else vectors


def _rows(model: dict[str, Any], words: list[str], use_eos: bool) -> np.ndarray:
    index = model['utable'].index
    rows = [index.get(word, index[UNK]) for word in words]
    if use_eos or not rows:
        rows.append(index[EOS])
    return np.array(rows, dtype=np.int64)


def _encode(model: dict[str, Any], sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A batch of row sequences, longest first, to (B, D_uni) and (B, D_bi)."""
    backwards = [rows[::-1] for rows in sequences]
    uni = last_states(model['_uni'], sequences, model['utable'].gather)
    forward = last_states(model['_forward'], sequences, model['btable'].gather)
    backward = last_states(model['_backward'], backwards, model['btable'].gather)
    return uni, np.hstack([forward, backward])


class Encoder:
    """`encode` with the model held, as in 2015.

    Parameters
    ----------
    model : dict
        From `load_model`.
    """

    def __init__(self, model: dict[str, Any]):
        self._model = model

    def encode(
        self,
        X: str | Iterable[str],
        use_norm: bool = True,
        verbose: bool = True,
        batch_size: int = 128,
        use_eos: bool = False,
        *,
        tokenised: bool = False,
    ) -> np.ndarray:
        """Texts to thought vectors; see `storyteller.skipthoughts.encode`."""
        return encode(self._model, X, use_norm, verbose, batch_size, use_eos, tokenised=tokenised)


def nn(
    model: dict[str, Any], text: Sequence[str], vectors: np.ndarray, query: str, k: int = 5
) -> list[tuple[str, int, float]]:
    """Find the texts whose vectors are nearest to that of a query.

    Parameters
    ----------
    model : dict
        From `load_model`.
    text : sequence of N str
    vectors : (N, D) array
        Their thought vectors, from `encode`.
    query : str
    k : int, default 5
        How many, 1 or more.

    Returns
    -------
    list of (text, index, score)
        Best first; the score is the cosine, in [-1, 1]. (2015 printed them, and did not take the
        lengths of `vectors` out.)

    Raises
    ------
    MismatchError
        If `text`, `vectors` and the model are incompatible.
    """
    thought = encode(model, query, verbose=False)
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.shape != (len(text), len(thought)):
        raise MismatchError(
            f'vectors: expected {(len(text), len(thought))} for {len(text)} texts, '
            f'found {vectors.shape}'
        )
    return _best(text, unit_rows(vectors) @ unit_rows(thought), k)


def word_features(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """All word vectors of a table, scaled to length 1.

    Parameters
    ----------
    table : mapping of str to (W,) array
        ``utable`` or ``btable`` of a model.

    Returns
    -------
    (V, W) float32 array
        In the order of the table's keys; in memory, 2.3 GB for the published tables.

    Examples
    --------
    >>> word_features({'dog': np.array([3.0, 4.0]), 'cat': np.array([0.0, 2.0])})
    array([[0.6, 0.8],
           [0. , 1. ]], dtype=float32)
    """
    if not table:
        raise ValueError('table: expected at least one word, found none')
    features = np.empty((len(table), len(next(iter(table.values())))), dtype=np.float32)
    for row, vector in enumerate(table.values()):
        features[row] = vector
    lengths = np.sqrt(np.einsum('vw,vw->v', features, features))
    features /= np.maximum(lengths, 1e-30)[:, None]  # in place: there may be no room for a copy
    return features


def nn_words(
    table: Mapping[str, np.ndarray], wordvecs: np.ndarray, query: str, k: int = 10
) -> list[tuple[str, int, float]]:
    """Find the words nearest to a word.

    Parameters
    ----------
    table : mapping of str to (W,) array
        ``utable`` or ``btable`` of a model.
    wordvecs : (V, W) array
        From `word_features`.
    query : str
        A word of the table.
    k : int, default 10
        How many, 1 or more.

    Returns
    -------
    list of (word, index, score)
        Best first, the query itself among them; the score is the cosine. (2015 printed them.)

    Raises
    ------
    KeyError
        If the query is not in the table.
    MismatchError
        If `wordvecs` is not of this table.

    Examples
    --------
    >>> table = {'dog': np.array([3.0, 4.0]), 'cat': np.array([0.0, 2.0])}
    >>> nn_words(table, word_features(table), 'cat', k=1)
    [('cat', 1, 1.0)]
    """
    if query not in table:
        raise KeyError(f'{query!r} is not in the table')
    vector = np.asarray(table[query], dtype=np.float32)
    if np.shape(wordvecs) != (len(table), len(vector)):
        raise MismatchError(
            f'wordvecs: expected {(len(table), len(vector))}, found {np.shape(wordvecs)}'
        )
    return _best(list(table), wordvecs @ unit_rows(vector), k)


def _best(names: Sequence[str], scores: np.ndarray, k: int) -> list[tuple[str, int, float]]:
    check_count('k', k)
    order = np.argsort(scores, kind='stable')[::-1][:k]
    return [(names[i], int(i), float(scores[i])) for i in order]
