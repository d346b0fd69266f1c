"""A decoder goes on with other words."""

from __future__ import annotations

import numpy as np
import pytest

from storyteller import decoder, formats
from storyteller.training.decoder import DecoderOptions, initial_params
from storyteller.training.fine_tuning import start_from, with_words
from storyteller.vocabulary import Vocabulary

KNOWN = Vocabulary(('<eos>', 'UNK', 'a', 'dog', 'ran', 'home', '.'))
WORDS = Vocabulary(('<eos>', 'UNK', '.', 'ran', 'wolf', 'a', 'ice'))
COUNTS = np.array([0, 2, 9, 3, 5, 8, 1])
OPTIONS = DecoderOptions(dim_word=5, dim=6)


def save(folder, options=OPTIONS, words=KNOWN, suffix='.safetensors', n_words=None):
    """A random decoder with its dictionary; the path of the decoder."""
    params = initial_params(options, n_words or len(words), 4, seed=3)
    params['ff_logit_b'] = np.linspace(-1, 1, n_words or len(words)).astype(np.float32)
    path = folder / f'tales{suffix}'
    formats.write_model(path, params, {'doutput': options.doutput})
    if suffix == '.npz':
        dictionary = {word: words[word] for word in words}
        formats.write_pickle(folder / 'tales_dictionary.pkl', dictionary)
    else:
        words.save(folder / 'tales_dictionary.txt')
    return path


def first_words(params, words, folder):
    """The probability of each word to be the first of a story."""
    formats.write_model(folder / 'new.npz', params, {'doutput': 'ff_hid_W' in params})
    words.save(folder / 'new.txt')
    dec = decoder.load_model(folder / 'new.npz', folder / 'new.txt', device='cpu')
    probs, _, _ = dec['f_next'](np.array([-1]), dec['f_init'](np.ones((1, 4), np.float32)))
    return dict(zip(words, probs[0], strict=True))


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz'])
@pytest.mark.parametrize('doutput', [False, True])
def test_with_the_same_words_it_is_the_same_decoder(tmp_path, suffix, doutput):
    options = DecoderOptions(dim_word=5, dim=6, doutput=doutput)
    path = save(tmp_path, options, suffix=suffix)
    params, sizes = start_from(path, KNOWN, np.ones(len(KNOWN)), 4)
    assert sizes == {'dim_word': 5, 'dim': 6, 'doutput': doutput}
    before, _ = formats.read_model(path)
    assert params.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(params[name], array)


def test_words_of_both_are_as_probable_beside_each_other_as_before(tmp_path):
    params, _ = formats.read_model(save(tmp_path))
    before = first_words(params, KNOWN, tmp_path)
    after = first_words(with_words(params, KNOWN, WORDS, COUNTS), WORDS, tmp_path)
    for word in ('<eos>', 'a', 'ran'):
        assert after[word] / after['.'] == pytest.approx(before[word] / before['.'], rel=1e-5)


def test_new_words_share_the_probability_of_unknown_ones(tmp_path):
    params, _ = formats.read_model(save(tmp_path))
    before = first_words(params, KNOWN, tmp_path)
    after = first_words(with_words(params, KNOWN, WORDS, COUNTS), WORDS, tmp_path)
    new = [after[word] for word in ('UNK', 'wolf', 'ice')]
    assert sum(new) / after['.'] == pytest.approx(before['UNK'] / before['.'], rel=1e-5)
    np.testing.assert_allclose(np.array(new) / sum(new), np.array([2, 5, 1]) / 8, rtol=1e-5)


def test_words_beyond_those_of_the_model_are_unknown_to_it(tmp_path):
    path = save(tmp_path, n_words=5)  # 'home' and '.' are in the dictionary alone
    params, _ = start_from(path, KNOWN, np.ones(len(KNOWN)), 4)
    np.testing.assert_array_equal(params['Wemb'][5:], params['Wemb'][[1, 1]])


def test_what_does_not_fit_is_refused(tmp_path):
    path = save(tmp_path)
    with pytest.raises(formats.MismatchError, match=r'4 numbers.*have 7'):
        start_from(path, WORDS, COUNTS, 7)
    Vocabulary(('<eos>', 'UNK', 'a')).save(tmp_path / 'tales_dictionary.txt')
    with pytest.raises(formats.MismatchError, match=r'7 words.*dictionary 3'):
        start_from(path, WORDS, COUNTS, 4)
    (tmp_path / 'tales_dictionary.txt').unlink()
    with pytest.raises(formats.MissingFileError, match='tales_dictionary'):
        start_from(path, WORDS, COUNTS, 4)
