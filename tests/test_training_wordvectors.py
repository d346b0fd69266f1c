"""Word vectors from elsewhere: read, put into a table, mapped into an encoder's space."""

from __future__ import annotations

import gzip
import runpy
import shutil
import sys

import numpy as np
import pytest
from conftest import REFERENCE

from storyteller import formats, skipthoughts
from storyteller.training import wordvectors
from storyteller.vocabulary import Vocabulary

gensim = pytest.importorskip('gensim')
WORDS = ['dog', 'cat', 'New_York', 'café', 'boat', 'house', 'tree', 'river', 'sky', 'snow']


@pytest.fixture(scope='module')
def vectors():
    keyed = gensim.models.KeyedVectors(3)
    keyed.add_vectors(WORDS, np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32))
    return keyed


def save(vectors, path):
    """As word2vec's binary or text, or as GloVe's text, plain or gzip, by the name."""
    plain = path.with_name(path.name.removesuffix('.gz'))
    binary, header = plain.suffix == '.bin', 'glove' not in path.name
    vectors.save_word2vec_format(str(plain), binary=binary, write_header=header)
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


@pytest.mark.parametrize('name', ['a.bin', 'a.bin.gz', 'a.txt', 'a.txt.gz', 'glove.txt'])
def test_every_form_is_read(tmp_path, vectors, name):
    found = wordvectors.read_vectors(save(vectors, tmp_path / name))
    assert found.index_to_key == WORDS
    np.testing.assert_allclose(found[WORDS], vectors[WORDS], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('content', [b'', b'\x00\xff\x80', b'a b\nc d\n', b'3 2\ndog 1 2\n'])
def test_what_is_no_file_of_vectors(tmp_path, content):
    (tmp_path / 'a.txt').write_bytes(content)
    with pytest.raises(formats.ModelFileError, match=r'a\.txt'):
        wordvectors.read_vectors(tmp_path / 'a.txt')
    with pytest.raises(formats.MissingFileError, match=r'b\.bin'):
        wordvectors.read_vectors(tmp_path / 'b.bin')


def test_a_table_starts_from_what_is_known(tmp_path, vectors):
    words = Vocabulary(('<eos>', 'UNK', 'cat', 'unicorn', 'dog'))
    table = np.zeros((5, 3), np.float32)
    path = save(vectors, tmp_path / 'a.bin')
    found, known = wordvectors.start_from(table, words, path)
    assert known == 2 and not table.any() and not found[[0, 1, 3]].any()
    np.testing.assert_array_equal(found[[2, 4]], vectors[['cat', 'dog']])
    with pytest.raises(formats.MismatchError, match=r'width 3, expected 4.*--dim-word 3'):
        wordvectors.start_from(np.zeros((5, 4)), words, path)


def test_the_map_is_least_squares_with_an_intercept():
    rng = np.random.default_rng(0)
    inputs, matrix, intercept = (rng.normal(size=size) for size in ((40, 3), (3, 5), 5))
    found = wordvectors.fit_map(inputs, inputs @ matrix + intercept)
    np.testing.assert_allclose(found[0], matrix, atol=1e-9)
    np.testing.assert_allclose(found[1], intercept, atol=1e-9)
    noisy = inputs @ matrix + rng.normal(size=(40, 5))
    found = wordvectors.fit_map(inputs, noisy)
    left = noisy - inputs @ found[0] - found[1]
    np.testing.assert_allclose(inputs.T @ left, 0, atol=1e-9)  # what is left is orthogonal
    np.testing.assert_allclose(left.sum(0), 0, atol=1e-9)


def test_tables_grow_by_the_mapped_words(tmp_path, vectors):
    rng = np.random.default_rng(1)
    words = ['UNK', 'dog', *WORDS[3:], '<eos>', 'dog', 'unicorn']  # as files of 2015 may be
    matrix, intercept = rng.normal(size=(3, 4)), rng.normal(size=4)
    table = rng.normal(size=(len(words), 4)).astype(np.float32)
    for row, word in enumerate(words):
        if word in WORDS and row != 1:  # of 'dog' the later row counts
            table[row] = vectors[word] @ matrix + intercept
    path = save(vectors, tmp_path / 'a.bin')
    size = wordvectors.expand({'utable.npy': table}, words, path, tmp_path / 'out', block=1)
    found = np.load(tmp_path / 'out' / 'utable.npy')
    lines = formats.read_lines(tmp_path / 'out' / 'dictionary.txt')
    assert lines == [*words, 'cat'] and len(found) == size == len(lines)  # New_York left out
    np.testing.assert_array_equal(found[:-1], table)
    np.testing.assert_allclose(found[-1], vectors['cat'] @ matrix + intercept, atol=1e-5)


def test_too_little_in_common(tmp_path, vectors):
    path = save(vectors, tmp_path / 'a.bin')
    words = ['<eos>', 'UNK', 'dog', 'cat']
    with pytest.raises(formats.MismatchError, match=r'a\.bin: 2 words in common.*at least 8'):
        wordvectors.expand({'u': np.zeros((4, 3))}, words, path, tmp_path)
    with pytest.raises(formats.MismatchError, match='u: 3 rows, but 4 words'):
        wordvectors.expand({'u': np.zeros((3, 3))}, words, path, tmp_path)


def test_gensim_that_is_missing_is_named(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.partition('.')[0] == 'gensim']:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, 'gensim', None)
    with pytest.raises(ValueError, match=r'gensim is not installed.*storyteller\[expand\]'):
        wordvectors.read_vectors(tmp_path)


def test_an_encoder_reads_words_that_it_was_not_trained_on(tmp_path, monkeypatch, capsys):
    models, folder = tmp_path / 'models', REFERENCE / 'skipthoughts'
    shutil.copytree(folder, models)
    known = [line.strip() for line in formats.read_lines(folder / 'dictionary.txt')]
    rng = np.random.default_rng(0)
    keyed = gensim.models.KeyedVectors(5)
    names = [*dict.fromkeys(word for word in known if ' ' not in word), 'zeppelin', 'a_phrase']
    keyed.add_vectors(names, rng.normal(size=(len(names), 5)).astype(np.float32))
    path = save(keyed, tmp_path / 'vectors.bin')
    arguments = ['--models', models, '--vectors', path, '--out', tmp_path / 'out']
    monkeypatch.setattr(sys, 'argv', ['expand_vocabulary.py', *map(str, arguments)])
    script = REFERENCE.parent.parent / 'scripts' / 'expand_vocabulary.py'
    runpy.run_path(str(script), run_name='__main__')
    assert f'{len(known)} words before, {len(known) + 1} now' in capsys.readouterr().out
    before, after = (skipthoughts.load_model(f, f) for f in (models, tmp_path / 'out'))
    assert 'zeppelin' in after['utable'] and 'zeppelin' not in before['utable']
    text = ['a zeppelin', 'a dog']
    one, two = (skipthoughts.encode(m, text, verbose=False) for m in (before, after))
    np.testing.assert_array_equal(one[1], two[1])
    assert np.abs(one[0] - two[0]).max() > 1e-3
