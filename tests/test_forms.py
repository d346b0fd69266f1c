"""Files in the forms that Python 2.7 and NumPy 1.16 gave them: see `forms/write_forms.py`."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE

from storyteller import convert, formats, style

FORMS = Path(__file__).parent / 'forms'
NUMBERS = np.arange(36, dtype=np.float32).reshape(12, 3) / 8
OPTIONS = {
    'n_words': 12, 'dim': 3, 'dim_word': 3, 'lrate': 0.5, 'decay_c': 0.25, 'reload_': False,
    'encoder': 'gru', 'decoder': 'gru', 'saveto': 'café.npz', 'embeddings': None,
    'maxlen_w': 2**40, 'batch_size': 16, 'data': 'café', 'sizes': [1, 2, (3, True)],
    'shape': [2, 3],
}  # fmt: skip


@pytest.mark.parametrize('protocol', [0, 1, 2])
def test_options_with_numpy_s_scalars_are_plain(tmp_path, protocol):
    np.savez(tmp_path / 'm.npz', Wemb=NUMBERS)
    shutil.copyfile(FORMS / f'options_{protocol}.pkl', tmp_path / 'm.npz.pkl')
    options = formats.read_model(tmp_path / 'm.npz')[1]
    assert options == OPTIONS
    kinds = {name: type(value) for name, value in options.items()}
    assert kinds == {name: type(value) for name, value in OPTIONS.items()}
    formats.write_model(tmp_path / 'm.safetensors', {}, options)
    formats.write_pickle(tmp_path / 'again.pkl', options)
    assert formats.load_pickles(tmp_path / 'again.pkl') == [OPTIONS]


def test_arrays_of_objects_among_parameters():
    params, _ = formats.read_model(FORMS / 'objects.npz')
    assert set(params) == {'Wemb', 'encoder_b'}  # without the history, and without a dict
    np.testing.assert_array_equal(params['Wemb'], NUMBERS)
    assert params['encoder_b'].tolist() == [0.5, 1.5, 2.0]
    assert all(array.dtype == np.float32 for array in params.values())


@pytest.mark.parametrize('items', [[[1.0, 2.0], [3.0]], ['a', 'b'], [{}]])
def test_objects_that_are_no_numbers_are_no_parameter(tmp_path, items):
    array = np.empty(len(items), object)
    array[:] = items
    np.savez(tmp_path / 'm.npz', Wemb=array)
    formats.write_pickle(tmp_path / 'm.npz.pkl', {})
    with pytest.raises(formats.ModelFileError, match=r'm\.npz'):
        formats.read_model(tmp_path / 'm.npz')


@pytest.mark.parametrize('protocol', [0, 2])
def test_dictionaries_with_bytes_and_text_for_words(protocol):
    path = FORMS / f'dictionary_{protocol}.pkl'
    words = formats.load_dictionary(path)
    assert list(words.items()) == [('<eos>', 0), ('UNK', 1), ('café', 2), ('déjà', 3)]
    assert all(type(index) is int for index in words.values())
    assert list(formats.load_pickles(path)[1].values()) == [10, 9, 8, 7]


@pytest.mark.parametrize('name', ['style_row', 'style_column_order'])
def test_styles_that_are_one_row(name):
    found = style.load_style(FORMS / f'{name}.npy', 4)
    assert found.dtype == np.float32 and found.tolist() == [0, 0.25, 0.5, 0.75]


def test_a_model_with_such_options_is_converted_both_ways(tmp_path):
    (tmp_path / 'a').mkdir()
    for name in ('romance.npz', 'romance_dictionary.pkl'):
        shutil.copyfile(REFERENCE / 'decoder' / name, tmp_path / 'a' / name)
    options = formats.load_pickles(REFERENCE / 'decoder' / 'romance.npz.pkl')[0]
    numbers = {name: value for name, value in options.items() if isinstance(value, (int, float))}
    held = options | {name: np.array(value)[()] for name, value in numbers.items()}
    (tmp_path / 'a' / 'romance.npz.pkl').write_bytes(pickle.dumps(held, 2))
    list(convert.convert(tmp_path / 'a', tmp_path / 'ours', 'ours'))
    list(convert.convert(tmp_path / 'ours', tmp_path / 'back', '2015'))
    assert formats.load_pickles(tmp_path / 'back' / 'romance.npz.pkl')[0] == options
