from __future__ import annotations

import collections
import io
import json
import os
import pickle
import pickletools
import shutil
import stat
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller import formats
from storyteller.formats import MissingFileError, ModelFileError

PICKLES = sorted(REFERENCE.rglob('*.pkl'))
MODELS = [path for path in sorted(REFERENCE.rglob('*.npz')) if path.with_suffix('.npz.pkl').exists()]
TABLES = sorted(REFERENCE.rglob('*.npy'))


def name_of(path):
    return str(path.relative_to(REFERENCE))


def pairs(path):
    """The ordered [word, index, ...] rows of a .json twin, as word -> index."""
    rows = json.loads((REFERENCE / path).read_text(encoding='utf-8'))
    return {row[0]: row[1] for row in rows}


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


# --- the files of 2015 ---------------------------------------------------------------------------


def test_the_reference_files_are_here():
    assert len(PICKLES) >= 15 and len(MODELS) >= 10 and len(TABLES) >= 4


@pytest.mark.parametrize('path', PICKLES, ids=name_of)
def test_every_pickle_of_2015_is_read_as_text(path):
    def leaves(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from (key, *leaves(item))
        else:
            yield value

    objects = formats.load_pickles(path)
    assert objects and all(isinstance(item, dict) for item in objects)
    assert {type(leaf) for item in objects for leaf in leaves(item)} <= {
        str, int, float, bool, type(None)
    }  # fmt: skip


@pytest.mark.parametrize(
    ('path', 'twin'),
    [
        ('decoder/romance_dictionary.pkl', 'decoder/romance_dictionary.json'),
        ('decoder/romance_dictionary_plain.pkl', 'decoder/romance_dictionary.json'),
        ('decoder/romance_dictionary_unicode.pkl', 'decoder/romance_dictionary.json'),
        ('embedding/coco_embedding.npz.dictionary.pkl', 'embedding/dictionary.json'),
        ('embedding/coco_embedding_bow.npz.dictionary.pkl', 'embedding/dictionary.json'),
        ('embedding/dictionary_plain_protocol2.pkl', 'embedding/dictionary.json'),
    ],
)
def test_dictionaries_of_2015_equal_their_twins(path, twin):
    words, expected = formats.load_dictionary(REFERENCE / path), pairs(twin)
    assert type(words) is dict and words == expected
    assert all(type(index) is int for index in words.values())
    if 'plain' not in path and 'unicode' not in path:  # an OrderedDict keeps the order
        assert list(words) == list(expected)
    if path.startswith('decoder'):
        assert 'café' in words  # UTF-8 in a byte string of Python 2


def test_a_file_may_hold_two_pickles_of_which_the_first_is_the_dictionary():
    path = REFERENCE / 'training' / 'vocab_saved.pkl'
    twin = json.loads((path.parent / 'vocab.json').read_text(encoding='utf-8'))['captions']
    worddict, wordcount = formats.load_pickles(path)
    assert isinstance(worddict, collections.OrderedDict)
    assert list(worddict.items()) == [tuple(row) for row in twin['worddict']]
    assert list(wordcount.items()) == [tuple(row) for row in twin['wordcount']]
    assert formats.load_dictionary(path) == dict(worddict)


@pytest.mark.parametrize('path', MODELS, ids=name_of)
def test_every_model_of_2015_is_read(path):
    params, options = formats.read_model(path)
    with np.load(path, allow_pickle=False) as arrays:
        assert set(params) == set(arrays.files) - {'history_errs'}
        for name, array in params.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, arrays[name])
    with open(f'{path}.pkl', 'rb') as file:
        assert options == pickle.load(file, encoding='utf-8')
    assert params['Wemb'].shape[1] == options['dim_word']


@pytest.mark.parametrize('path', TABLES, ids=name_of)
def test_every_array_of_2015_is_read(path):
    array = formats.read_array(path)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.load(path))


def test_a_table_is_mapped_and_not_read():
    table = formats.open_table(REFERENCE / 'skipthoughts' / 'utable.npy')
    assert isinstance(table, np.memmap) and table.shape == (443, 20)
    assert not table.flags.writeable


def test_npy_headers_of_python_2_may_hold_long_integers(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': True, 'shape': (2L, 3L), }".ljust(117) + b'\n'
    data = np.arange(6, dtype='<f4').tobytes()
    path = written(
        tmp_path, 'a.npy', b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + data
    )
    with pytest.warns(UserWarning, match='Python 2'):
        np.testing.assert_array_equal(formats.read_array(path), [[0, 2, 4], [1, 3, 5]])


# --- what pickles of 2015 may hold ---------------------------------------------------------------

# Python 2 wrote arrays and scalars so: names of NumPy 1, and byte strings for their data.
DTYPE_F4 = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntS"
    + DTYPE_F4.replace(b'c', b'X', 1)
)
SCALAR = b'cnumpy.core.multiarray\nscalar\n(' + DTYPE_F4 + b"S'\\x00\\x00\\x20@'\ntR."


def array_of_python_2(core=b'numpy.core'):
    """The pickle of [2.5, -1.0] as Python 2 and NumPy 1.16 write it, protocol 0."""
    return (
        b'c' + core + b"\nmultiarray\n".replace(b'\nmulti', b'.multi')
        + b"_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt" + DTYPE_F4
        + b"I00\nS'\\x00\\x00\\x20@\\x00\\x00\\x80\\xbf'\ntb."
    )  # fmt: skip
