"""The joint space of images and sentences.

A visual-semantic embedding (Kiros, Salakhutdinov and Zemel, "Unifying visual-semantic embeddings
with multimodal neural language models", arXiv:1411.2539): an affine map takes image features into
the space, a GRU over words (or their sum) takes sentences there, and a dot product of unit vectors
says how well a sentence describes an image.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from . import formats, layers
from .formats import MismatchError, ModelFileError
from .layers import pick_device, require_gru, unit_rows
from .nn.packed import GRU, gru_for
from .nn.sequences import as_texts, batches, last_states, states_by_prefix
from .vocabulary import EOS, SPECIAL, UNK

MANY = 128  # captions from which on it pays to look for equal beginnings
AT_ONCE = 1 << 15  # captions read so: 130 MB for states at the published E = 1024
LONGEST_CAPTION = 60  # words
IMAGE_LAYERS = ('ff_image', 'ff_image_vgg19')  # ours may hold one for each of two convnets

# White space as Python 2 saw it in byte strings: a no-break space is part of a word.
_split = re.compile(r'\S+', re.ASCII).findall


def load_model(
    path: str | os.PathLike, *, device: str | torch.device | None = None
) -> dict[str, Any]:
    """Load an embedding, ours or one of 2015.

    Parameters
    ----------
    path : path
        A ``.npz`` of 2015 with its ``.npz.pkl`` and ``.npz.dictionary.pkl`` beside it (the suffix
        may be left out), or our ``.safetensors`` with ``<stem>_dictionary.txt`` beside it.
    device : str or torch.device, optional
        Where to compute; by default a GPU if there is one, else the CPU.

    Returns
    -------
    dict
        ``options``; ``worddict`` (word to index) and ``word_idict`` (index to word, 0 is ``<eos>``
        and 1 ``UNK``). Keys that begin with an underscore are the library's own.

    Raises
    ------
    MissingFileError, ModelFileError
        If a file is missing or invalid.
    """
    path = pathlib.Path(path)
    if not path.exists() and (named := path.with_name(f'{path.name}.npz')).exists():
        path = named
    params, options = formats.read_model(path)
    beside = pathlib.Path(f'{path}.dictionary.pkl')
    if path.suffix == '.safetensors':
        beside = path.with_name(f'{path.stem}_dictionary.txt')
    worddict = formats.load_dictionary(beside)
    if worddict and min(worddict.values()) < 0:
        raise ModelFileError(f'{beside}: an index is negative')
    encoder = _checked(params, options, path)
    device = pick_device(device)
    images = [layers.affine(params, name) for name in IMAGE_LAYERS if f'{name}_W' in params]
    words = params['Wemb'][: int(options.get('n_words', len(params['Wemb'])))]
    recurrent = {n: a for n, a in params.items() if n.startswith('encoder_') and encoder == 'gru'}
    return {
        'options': options,
        'worddict': worddict,
        'word_idict': {i: w for w, i in worddict.items()} | dict(enumerate(SPECIAL)),
        '_words': words,
        '_gru': gru_for(params, 'encoder', device) if recurrent else None,
        '_fingerprint': _hash({'Wemb': words, **recurrent}, worddict),
        '_images': {layer.in_features: layer.to(device) for layer in images},
    }


def _checked(
    params: Mapping[str, np.ndarray], options: Mapping[str, Any], path: os.PathLike
) -> str:
    """Check the parameters' shapes; the name of the sentence encoder."""
    encoder = options.get('encoder', 'gru')
    if encoder not in ('gru', 'bow'):
        raise ModelFileError(f"{path}: expected encoder 'gru' or 'bow', found {encoder!r}")
    formats.require(params, {'Wemb': (None, None), 'ff_image_W': (None, None)}, path)
    n_words, joint = params['Wemb'].shape
    if encoder == 'gru':
        joint = require_gru(params, 'encoder', path, joint)
    images = [name for name in IMAGE_LAYERS if f'{name}_W' in params]
    for name in images:
        formats.require(params, {f'{name}_W': (None, joint), f'{name}_b': (joint,)}, path)
        formats.require_finite(params, (f'{name}_W', f'{name}_b'), path)
    formats.require_finite(params, ['Wemb'], path)
    if len({len(params[f'{name}_W']) for name in images}) < len(images):
        raise ModelFileError(f'{path}: two image matrices take features of the same width')
    known = options.get('n_words', n_words)
    if not isinstance(known, (int, np.integer)) or not 2 <= known <= n_words:
        raise ModelFileError(f"{path}: option n_words is {known!r}, but 'Wemb' has {n_words} rows")
    return encoder


def encode_sentences(
    model: dict[str, Any], X: str | Iterable[str], verbose: bool = False, batch_size: int = 128
) -> np.ndarray:
    """Sentences to unit vectors in the joint space.

    Parameters
    ----------
    model : dict
        From `load_model`.
    X : iterable of N str, or str
        Words separated by white space; no tokeniser. A word that is unknown, or among the rarest
        whose index is not below ``n_words``, is read as ``UNK``; one ``<eos>`` is read at the end.
    verbose : bool, default False
        Show progress on stderr.
    batch_size : int, default 128
        Sentences at once; changes the speed, not the result.

    Returns
    -------
    (N, E) float32 array, or (E,) for a str
        Unit rows; a row that is all zero stays so (2015 gave NaN).

    Raises
    ------
    TypeError
        If `X` holds something else than str.
    """
    texts = as_texts(X)
    unique = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    sequences = [_ids(model, text) for text in unique]
    vectors: np.ndarray = np.empty((len(unique), width(model)), dtype=np.float32)
    with tqdm(total=len(unique), disable=not verbose, unit='sentence') as progress:
        for rows, read in _batches(model, np.array([len(s) for s in sequences]), batch_size):
            vectors[rows] = read(model, [sequences[row] for row in rows])
            progress.update(len(rows))
    vectors = unit_rows(vectors)[[unique[text] for text in texts]]
    return vectors[0] if isinstance(X, str) else vectors


def _ids(model: dict[str, Any], text: str) -> np.ndarray:
    index, n_words = model['worddict'], len(model['_words'])
    ids = np.array([*(index.get(word, UNK) for word in _split(text)), EOS], dtype=np.int64)
    ids[ids >= n_words] = UNK
    return ids


def _batches(
    model: dict[str, Any], lengths: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, Callable[..., np.ndarray]]]:
    """Rows to encode together, and how: very many captions by beginnings, the rest by length."""
    captions = np.flatnonzero(lengths <= LONGEST_CAPTION)
    if len(captions) < MANY or not isinstance(model['_gru'], GRU):
        captions = captions[:0]
    for rows in np.array_split(captions, -(-len(captions) // AT_ONCE) or 1):
        if len(rows):
            yield rows, _encode_by_prefix
    rest = np.setdiff1d(np.arange(len(lengths)), captions)
    for rows in batches(lengths[rest], batch_size):
        yield rest[rows], _encode


def _encode_by_prefix(model: dict[str, Any], sequences: list[np.ndarray]) -> np.ndarray:
    return states_by_prefix(model['_gru'], sequences, model['_words'].__getitem__)


def _encode(model: dict[str, Any], sequences: list[np.ndarray]) -> np.ndarray:
    if model['_gru'] is not None:
        return last_states(model['_gru'], sequences, model['_words'].__getitem__)
    return np.stack([model['_words'][ids].sum(axis=0) for ids in sequences])


def encode_images(model: dict[str, Any], IM: np.ndarray) -> np.ndarray:
    """Image features to unit vectors in the joint space.

    Parameters
    ----------
    model : dict
        From `load_model`.
    IM : (N, F) array, or (F,) for one image
        Features of the convnet that the model was trained with, in unit rows (fc7 of VGG-19 has
        F = 4096). Where a model serves two convnets, F selects one.

    Returns
    -------
    (N, E) float32 array, or (E,)
        Unit rows; a row that is all zero stays so.

    Raises
    ------
    MismatchError
        If the model knows no features of width F.
    ValueError
        If a value is not finite.
    """
    features = np.asarray(IM, dtype=np.float32)
    if features.ndim not in (1, 2) or features.shape[-1] not in feature_widths(model):
        known = ' or '.join(map(str, feature_widths(model)))
        raise MismatchError(f'IM: expected (N, F) with F = {known}, found shape {features.shape}')
    if not np.isfinite(features).all():
        raise ValueError('IM: a value is not finite')
    layer = model['_images'][features.shape[-1]]
    with layers.inference():
        images = layer(torch.tensor(features, device=layer.weight.device))
    return unit_rows(images.cpu().numpy())


def width(model: dict[str, Any]) -> int:
    """E, the width of the joint space."""
    return next(iter(model['_images'].values())).out_features


def feature_widths(model: dict[str, Any]) -> list[int]:
    """The widths F of image features that the model reads."""
    return list(model['_images'])


def fingerprint(model: dict[str, Any]) -> str:
    """A hash, 64 hexadecimal digits, of everything that the vector of a sentence depends on.

    Models that differ only in their image matrices share it.
    """
    return model['_fingerprint']


def _hash(arrays: Mapping[str, np.ndarray], worddict: Mapping[str, int]) -> str:
    content = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content.update(f'{name}{array.shape}{array.dtype}'.encode())
        content.update(np.ascontiguousarray(array).data)
    content.update(repr(sorted(worddict.items())).encode('utf-8', 'surrogatepass'))
    return content.hexdigest()
