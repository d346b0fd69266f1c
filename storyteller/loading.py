"""Loading all that a story needs, and checking that the parts fit together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import captions as pool
from . import config, decoder, embedding, layers, skipthoughts
from . import style as styling
from .captions import stored as stored_pool
from .convnet import build_convnet
from .formats import MismatchError, ModelFileError, PathLike
from .io import bundle
from .io.files import at_home
from .options import PRECISIONS, check_count
from .search.rules import Rules
from .telling import words_of


def load_all(
    paths: PathLike | Sequence[PathLike] | Mapping[str, PathLike] | None = None,
    device: Any = None,
    *,
    caption_index: PathLike | None = None,
    precision: str = 'float32',
    threads: int | None = None,
) -> dict[str, Any]:
    """Load all that a story needs.

    Parameters
    ----------
    paths : path-like, sequence of path-like, mapping or None
        A folder of models, or the address of a bundle on a hub, ``hf://OWNER/NAME`` or
        ``hf://OWNER/NAME@REVISION``; or several of these, where each part is taken from the first
        that has it; or a mapping that overrides entries of ``config.paths``; None leaves these as
        they are.
    device : str, torch.device or None
        None: a GPU if there is one, else the CPU.
    caption_index : path-like, optional
        An index made by `scripts/build_caption_index.py`, for large caption pools.
    precision : {'float32', 'bfloat16'}
        On a CPU, 'bfloat16' encodes captions faster, with small deviations from 2015.
    threads : int, optional
        Number of CPU threads of torch in the whole process. None: unchanged.

    Returns
    -------
    dict
        With the keys of 2015: ``stv`` (skip-thoughts), ``dec`` (decoder), ``vse`` (embedding),
        ``net`` (convolutional network), ``cap`` (list of N captions), ``cvec`` ((N, E) float32,
        or, where a bundle brings them, a `storyteller.captions.stored.StoredPool`, which converts
        to such an array); ``bneg`` and ``bpos`` ((D,) float32: the styles c and b); ``styles``,
        name -> vector; and ``search``, the default `storyteller.options.SearchSettings` of the
        decoder.

    Raises
    ------
    MissingFileError, ModelFileError
        If a file is missing or invalid.
    MismatchError
        If two parts are incompatible; the message names both files.
    ValueError
        If there is no such precision or device, or `threads` is not 1 or more.
    """
    if precision not in PRECISIONS:
        gone = ', which is there no more: it told some stories otherwise' * (precision == 'int8')
        raise ValueError(f'precision: expected one of {PRECISIONS}, found {precision!r}{gone}')
    if threads is not None:
        check_count('threads', threads)
        torch.set_num_threads(int(threads))
    device = layers.pick_device(device)  # at once, and in this thread
    files = config.resolve(paths)
    bundle.check(config.folders(files))
    suiting = bundle.search_settings(files['decmodel'])
    parts: dict[str, Callable[[], Any]] = {
        'stv': lambda: skipthoughts.load_model(
            files['skmodels'], files['sktables'], device=device, precision=precision
        ),
        'dec': lambda: decoder.load_model(files['decmodel'], files['dictionary'], device=device),
        'vse': lambda: embedding.load_model(files['vsemodel'], device=device),
        'net': lambda: build_convnet(files['vgg'], device=device),
        'cap': lambda: pool.load_captions(files['captions']),
    }
    # Most of the time goes to disks and to copying. More threads would keep more memory.
    with ThreadPoolExecutor(2) as workers:
        loading = {name: workers.submit(load) for name, load in parts.items()}
        joint, captions = loading['vse'], loading['cap']
        vectors = workers.submit(
            lambda: _known_vectors(joint.result(), captions.result(), files['captions'])
        )
        wait([*loading.values(), vectors])  # an interrupt of a join would leave threads running
    z = {name: part.result() for name, part in loading.items()}
    try:
        Rules.of(suiting.telling, words_of(z['dec']))
    except ValueError as error:
        beside = Path(files['decmodel']).with_name(bundle.CARD)
        raise ModelFileError(f'{beside}: search: {error}') from None
    z['search'] = suiting
    width = _checked_widths(z, files)
    for key, entry in (('bneg', 'negbias'), ('bpos', 'posbias')):
        z[key] = _fitting_style(files[entry], width, files['skmodels'])
    z['styles'] = _styles_beside(files, width)
    z['cvec'] = vectors.result()
    if z['cvec'] is None:
        z['cvec'] = pool.caption_vectors(z['vse'], z['cap'], verbose=None)
    if caption_index is not None:
        from .captions.index import load

        made_of = pool.made_of(z['vse'], z['cap'])
        z['cvec'] = load(at_home(caption_index), np.asarray(z['cvec']), made_of)
    return z


def _known_vectors(
    vse: dict[str, Any], captions: list[str], path: PathLike
) -> stored_pool.StoredPool | np.ndarray | None:
    """The vectors of the pool, if they lie beside it or in the cache."""
    stored = stored_pool.read(Path(path).with_name(stored_pool.FILE), vse, captions)
    return pool.cached_vectors(vse, captions) if stored is None else stored


def _checked_widths(z: Mapping[str, Any], files: Mapping[str, str]) -> int:
    """D, once it is known that encoder and decoder, network and embedding agree."""
    thought = skipthoughts.encode(z['stv'], [], verbose=False).shape[1]
    context = z['dec']['options']['dimctx']
    if thought != context:
        raise MismatchError(
            f'{files["decmodel"]}: the decoder reads vectors of width {context}, '
            f'the encoder in {files["skmodels"]} gives {thought}; one for this encoder is made by '
            f'{_training("decoder", files["skmodels"])}'
        )
    feature, known = z['net']['dim'], embedding.feature_widths(z['vse'])
    if feature not in known:
        raise MismatchError(
            f'{files["vgg"]}: the network gives features of width {feature}, '
            f'the embedding {files["vsemodel"]} reads {" or ".join(map(str, known))}; one for this '
            f'network is made by {_training("embedding", files["vgg"])}'
        )
    return thought


def _fitting_style(path: PathLike, width: int, encoder: PathLike) -> np.ndarray:
    """A style vector (D,); the error names the encoder that it does not fit."""
    try:
        return styling.load_style(path, width)
    except MismatchError as error:
        name = Path(path).name
        # c is the mean of captions, b that of passages.
        text = '--captions CAPTIONS' if name == 'caption_style.npy' else '--text BOOKS'
        raise MismatchError(
            f'{error}; the encoder in {encoder} gives {width}; one for this encoder is made by '
            f'python scripts/make_style.py --models {encoder} {text} --out OUT/{name}'
        ) from None


def _training(part: str, made_for: PathLike) -> str:
    """The command that trains a part for another."""
    data = {'decoder': '--text BOOKS', 'embedding': '--captions CAPTIONS --photo-folder PHOTOS'}
    return (
        f'python scripts/train_{part}.py --models {made_for} {data[part]} --work WORK '
        f'--out OUT/{part}.safetensors'
    )


def _styles_beside(files: Mapping[str, PathLike], width: int) -> dict[str, np.ndarray]:
    """The styles in the folders of ``negbias`` and ``posbias``; what cannot be used is left out."""
    found: dict[str, np.ndarray] = {}
    for entry in ('negbias', 'posbias'):
        for name, file in config.style_files(Path(files[entry]).parent).items():
            try:
                found[name] = _fitting_style(file, width, files['skmodels'])
            except (MismatchError, ModelFileError, OSError) as error:
                warnings.warn(f'a style is left out: {error}', stacklevel=3)
    return found
