"""Conversion between the files of 2015 and ours: the same numbers in the other format.

:func:`convert` writes either what the code of 2015 loads (Theano's ``.npz`` parameters with Python
2 pickles of options, float32 tables, Lasagne's ``vgg19.pkl``), or safetensors and plain text. The
network may come from any file that :mod:`storyteller.nn.vgg_files` reads.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import config, convnet, formats
from .embedding import IMAGE_LAYERS
from .formats import PathLike
from .images import MEAN_BGR
from .io import pickle_2015_tables
from .io.word_table import write_table
from .nn import efficientnet
from .skipthoughts import model_file
from .vocabulary import Vocabulary

BLOCK = 65536  # rows of a table that are converted at a time
TRAINED = {
    'max_epochs': 5, 'dispFreq': 1, 'decay_c': 0.0, 'grad_clip': 5.0, 'maxlen_w': 100,
    'optimizer': 'adam', 'batch_size': 64, 'saveFreq': 1000, 'reload_': False,
}  # fmt: skip
# Every option that a loader or a trainer of 2015 reads, with what its trainer took by default.
# None: it depends on the model, and is written whatever it is.
OPTIONS_2015: dict[str, dict[str, Any]] = {
    'encoder': TRAINED | {
        'encoder': 'gru', 'decoder': 'gru', 'dim': None, 'dim_word': None, 'n_words': None,
        'n_words_src': None, 'maxlen_w': 30, 'saveto': 'uni_skip.npz',
        'dictionary': 'dictionary.pkl',
    },
    'decoder': TRAINED | {
        'encoder': 'gru', 'decoder': 'gru', 'doutput': True, 'dimctx': None, 'dim': None,
        'dim_word': None, 'n_words': None, 'batch_size': 16, 'saveto': 'romance.npz',
        'dictionary': 'romance_dictionary.pkl', 'embeddings': None, 'sampleFreq': 100,
    },
    'embedding': {key: TRAINED[key] for key in TRAINED if key != 'saveFreq'} | {
        'data': 'coco', 'encoder': 'gru', 'margin': 0.2, 'dim': None, 'dim_image': None,
        'dim_word': None, 'n_words': None, 'max_epochs': 15, 'dispFreq': 10, 'grad_clip': 2.0,
        'batch_size': 128, 'saveto': 'coco_embedding.npz', 'validFreq': 100, 'lrate': 0.0002,
    },
}  # fmt: skip
_WORDS = [('n_words', 'Wemb', 0), ('dim_word', 'Wemb', 1)]
_SIZES = {  # options that are sizes of parameters
    'encoder': [*_WORDS, ('n_words_src', 'Wemb', 0), ('dim', 'encoder_Ux', 0)],
    'decoder': [*_WORDS, ('dimctx', 'ff_state_W', 0), ('dim', 'decoder_Ux', 0)],
    'embedding': [*_WORDS, ('dim_image', 'ff_image_W', 0), ('dim', 'ff_image_W', 1)],
}
CLASSES = 1000  # of the last layer of VGG-19, which the code of 2015 wants and never uses
SECOND_IMAGES = IMAGE_LAYERS[1]
OWN_IMAGES = 'ff_image_convnet'  # the layer for our network, in a file that 2015 reads


def convert(source: PathLike, out: PathLike, to: str) -> Iterator[str]:
    """Convert all models in a folder; yields what was written or left out, a line a part.

    Parameters
    ----------
    source : path-like
        A folder with files of 2015 or of ours, or both; not all parts need to be there.
    out : path-like
        Another folder; files of the same names are replaced.
    to : {'2015', 'ours'}

    Raises
    ------
    MissingFileError
        If there is nothing to convert.
    ModelFileError
        If a file is not what its name says.
    """
    source, out = Path(source), Path(out)
    if out.resolve() == source.resolve():
        raise ValueError(f'{out}: expected another folder than the models are in')
    if to not in ('2015', 'ours'):
        raise ValueError(f"to: expected '2015' or 'ours', found {to!r}")
    paths = {key: Path(path) for key, path in config.folder_paths(source).items()}
    found = False
    for part in (_encoders, _decoder, _embedding, _convnet, _plain):
        for line in part(paths, out, to == '2015'):
            found = True
            yield line
    if not found:
        raise formats.MissingFileError(f'{source}: found no model of 2015 and none of ours')


def write_2015(
    path: PathLike,
    params: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    history: bool = False,
) -> None:
    """Write the pair of 2015, float32; with the empty ``history_errs`` that some trainers left."""
    arrays: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in params.items()}
    if history:
        arrays['history_errs'] = np.array([])
    with formats.atomic_path(path) as temporary:
        np.savez(temporary, **arrays)
    formats.write_pickle(f'{path}.pkl', dict(options))


def options_2015(
    kind: str, options: Mapping[str, Any], params: Mapping[str, np.ndarray], saveto: str
) -> dict[str, Any]:
    """The options that 2015 reads: those of the model, else its sizes, else the defaults.

    Parameters
    ----------
    kind : {'encoder', 'decoder', 'embedding'}
    options : mapping
        Those that are only ours are left out.
    params : mapping of str to array
    saveto : str
        The file that is written.
    """
    sizes = {
        name: params[param].shape[axis] for name, param, axis in _SIZES[kind] if param in params
    }
    found = OPTIONS_2015[kind] | {'saveto': saveto} | sizes | dict(options)
    if found.get('n_words_src', 0) is None:  # no table lies there that could tell
        found['n_words_src'] = found['n_words']
    return {name: found[name] for name in OPTIONS_2015[kind]}


def _encoders(paths: dict[str, Path], out: Path, old: bool) -> Iterator[str]:
    folder = paths['skmodels']
    for kind in ('uni', 'bi'):
        try:
            file = model_file(folder, f'{kind}_skip')
        except formats.MissingFileError:
            continue
        params, options = formats.read_model(file)
        table = folder / f'{kind[0]}table.npy'
        if old:
            if 'Wemb' not in params and table.exists():
                rows = formats.open_table(table)[: options.get('n_words')]
                params['Wemb'], options['n_words'] = rows, len(rows)
            options = options_2015('encoder', options, params, f'{kind}_skip.npz')
            write_2015(out / f'{kind}_skip.npz', params, options, history=True)
            yield f'{kind}_skip.npz, {kind}_skip.npz.pkl'
        else:
            formats.write_model(out / f'{kind}_skip.safetensors', params, options)
            yield f'{kind}_skip.safetensors'
        if table.exists() and pickle_2015_tables.holds_objects(table):
            pickle_2015_tables.write_plain(table, out / table.name)
            yield table.name
        elif table.exists():
            rows = formats.open_table(table)
            blocks = (rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK))
            write_table(out / table.name, (len(rows), rows.shape[1]), 'float32', blocks)
            yield table.name


def _decoder(paths: dict[str, Path], out: Path, old: bool) -> Iterator[str]:
    if not paths['decmodel'].exists():
        return
    params, options = formats.read_model(paths['decmodel'])
    options.setdefault('doutput', True)  # as the loader of 2015 takes it
    words = Vocabulary.load(paths['dictionary'])
    if old:
        options = options_2015('decoder', options, params, 'romance.npz')
        write_2015(out / 'romance.npz', params, options, history=True)
        words.save(out / 'romance_dictionary.pkl')
        yield 'romance.npz, romance.npz.pkl, romance_dictionary.pkl'
    else:
        formats.write_model(out / 'decoder.safetensors', params, options)
        words.save(out / 'decoder_dictionary.txt')
        yield 'decoder.safetensors, decoder_dictionary.txt'


def _embedding(paths: dict[str, Path], out: Path, old: bool) -> Iterator[str]:
    path = paths['vsemodel']
    if not path.exists():
        return
    params, options = formats.read_model(path)
    ours = path.with_name(f'{path.stem}_dictionary.txt')
    words = Vocabulary.load(ours if path.suffix == '.safetensors' else f'{path}.dictionary.pkl')
    if old:
        params, options = _images_of(params, options, SECOND_IMAGES, OWN_IMAGES)
        options = options_2015('embedding', options, params, 'coco_embedding.npz')
        write_2015(out / 'coco_embedding.npz', params, options)
        words.save(out / 'coco_embedding.npz.dictionary.pkl')
        yield 'coco_embedding.npz, coco_embedding.npz.pkl, coco_embedding.npz.dictionary.pkl'
    else:
        params, options = _images_of(params, options, OWN_IMAGES, SECOND_IMAGES)
        formats.write_model(out / 'embedding.safetensors', params, options)
        words.save(out / 'embedding_dictionary.txt')
        yield 'embedding.safetensors, embedding_dictionary.txt'


def _images_of(
    params: dict[str, np.ndarray], options: dict[str, Any], front: str, back: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Put the image layer `front`, if there is one, where 2015 has its only one; the other back.

    The code of 2015 sees photos through VGG-19, so of two layers it wants the one for that.
    """
    if f'{front}_W' not in params:
        return params, options
    moved = {}
    for name, value in params.items():
        layer, _, kind = name.rpartition('_')
        layer = {front: 'ff_image', 'ff_image': back}.get(layer, layer)
        moved[f'{layer}_{kind}' if layer else name] = value
    return moved, options | {'dim_image': len(moved['ff_image_W'])}


def _convnet(paths: dict[str, Path], out: Path, old: bool) -> Iterator[str]:
    path = paths['vgg']
    if not path.exists():
        return
    if path.suffix == '.json':
        if old:
            yield f'left out: {path.name} is not a VGG-19, the only network that 2015 can build'
        else:
            efficientnet.write_eyes(out / path.name, efficientnet.read_eyes(path))
            yield path.name
        return
    architecture, params = convnet.read_params(path)
    if not old:
        formats.write_model(out / 'convnet.safetensors', params, architecture.options())
        yield 'convnet.safetensors'
    elif [len(block) for block in architecture.blocks] != [len(b) for b in convnet.VGG19.blocks]:
        yield f'left out: {path.name} is not a VGG-19, the only network that 2015 can build'
    elif architecture.mean != MEAN_BGR:
        yield f'left out: {path.name} wants photos less another mean than that of 2015'
    else:
        last = np.zeros((architecture.dim, CLASSES), np.float32), np.zeros(CLASSES, np.float32)
        values = [params[name] for name in architecture.shapes()]
        record = {'model name': 'vgg19', 'param values': [*values, *last]}
        record |= {'mean value': list(MEAN_BGR), 'synset words': []}
        formats.write_pickle(out / 'vgg19.pkl', record)
        yield 'vgg19.pkl'


def _plain(paths: dict[str, Path], out: Path, old: bool) -> Iterator[str]:
    """What both sides read: captions, styles, the words of the tables."""
    names = {'dictionary.txt': 'dictionary.txt'}
    names[paths['captions'].name] = 'coco_train_caps.txt' if old else 'captions.txt'
    styles = config.style_files(paths['skmodels'])
    names |= {f'{name}_style.npy': f'{name}_style.npy' for name in styles}
    for name, new in names.items():
        if (file := paths['skmodels'] / name).exists():
            with formats.atomic_path(out / new) as temporary:
                shutil.copyfile(file, temporary)
            yield new
