"""Thought vectors: equal to those of 2015, whatever the batch, and from tables left on disk."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller import formats, skipthoughts

FOLDER = REFERENCE / 'skipthoughts'
VECTORS = np.load(FOLDER / 'vectors.npz')
SENTENCES = json.loads((FOLDER / 'sentences.json').read_text(encoding='utf-8'))
TOKENISED = json.loads((FOLDER / 'tokenised.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def model():
    return skipthoughts.load_model(FOLDER, f'{FOLDER}/', device='cpu')


def encode(model, X, **options):
    return skipthoughts.encode(model, X, verbose=False, **options)


@pytest.fixture
def folder(tmp_path):
    """A copy of the reference models that a test may spoil."""
    for path in FOLDER.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


# --- the numbers of 2015 -------------------------------------------------------------------------


@pytest.mark.parametrize('use_eos', [False, True])
@pytest.mark.parametrize('use_norm', [False, True])
def test_vectors_of_2015(model, use_norm, use_eos):
    expected = VECTORS[f'norm{use_norm:d}_eos{use_eos:d}']
    found = encode(model, TOKENISED, use_norm=use_norm, use_eos=use_eos, tokenised=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('use_eos', [False, True])
@pytest.mark.parametrize('use_norm', [False, True])
def test_vectors_of_2015_from_raw_text(model, use_norm, use_eos):
    # Today's NLTK parts a dash between words, which that of 2015 did not.
    rows = [i for i, sentence in enumerate(SENTENCES) if '—' not in sentence]
    assert len(rows) >= len(SENTENCES) - 1
    expected = VECTORS[f'norm{use_norm:d}_eos{use_eos:d}'][rows]
    found = encode(model, [SENTENCES[i] for i in rows], use_norm=use_norm, use_eos=use_eos)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_captions_of_2015(model):
    captions = json.loads((FOLDER / 'captions.json').read_text(encoding='utf-8'))
    expected = VECTORS['captions_norm1_eos0']
    np.testing.assert_allclose(encode(model, captions), expected, atol=1e-5, rtol=0)


def test_empty_text_with_eos_of_2015(model):
    expected = VECTORS['empty_norm1_eos1']
    np.testing.assert_allclose(encode(model, [''], use_eos=True), expected, atol=1e-5, rtol=0)


def gru_by_hand(params, prefix, words):
    """One GRU of 2015, a step at a time, in float64."""
    W, U, b, Wx, Ux, bx = (
        params[f'{prefix}_{name}'].astype(np.float64) for name in ('W', 'U', 'b', 'Wx', 'Ux', 'bx')
    )
    h = np.zeros(len(Ux))
    for x in words:
        r, u = np.split(1 / (1 + np.exp(-(h @ U + x @ W + b))), 2)
        h = u * h + (1 - u) * np.tanh((h @ Ux) * r + x @ Wx + bx)
    return h


def test_equals_a_slow_gru(model):
    words = ['A', 'man', 'UNK', 'on', 'the', 'beach', '.']
    uni, bi = (formats.read_model(FOLDER / f'{name}_skip.npz')[0] for name in ('uni', 'bi'))
    utable, btable = ([model[t][word] for word in words] for t in ('utable', 'btable'))
    expected = np.concatenate(
        [
            gru_by_hand(uni, 'encoder', utable),
            gru_by_hand(bi, 'encoder', btable),
            gru_by_hand(bi, 'encoder_r', btable[::-1]),
        ]
    )
    found = encode(model, 'A man zyzzyva on the beach .', use_norm=False)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


# --- what encode promises ------------------------------------------------------------------------


def test_each_part_has_length_one(model):
    vectors = encode(model, SENTENCES)
    width = model['uoptions']['dim']
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :width], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, width:], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize('batch_size', [1, 3, 1000])
def test_batch_size_changes_nothing(model, batch_size):
    found = encode(model, SENTENCES, batch_size=batch_size)
    np.testing.assert_allclose(found, encode(model, SENTENCES), atol=1e-6, rtol=0)


def test_one_text_gives_one_vector(model):
    found = encode(model, SENTENCES[0])
    assert found.shape == (48,)
    np.testing.assert_allclose(found, encode(model, SENTENCES)[0], atol=1e-6)


def test_empty_list(model):
    found = encode(model, [])
    assert found.shape == (0, 48)
    assert found.dtype == np.float32


@pytest.mark.parametrize('blank', ['', '   ', '\n\t'])
@pytest.mark.parametrize('use_norm', [False, True])
def test_text_without_a_word_is_read_as_eos(model, blank, use_norm):
    found = encode(model, ['a dog', blank], use_norm=use_norm)
    expected = encode(model, [''], use_norm=use_norm, use_eos=True)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1], expected, atol=1e-6)


def test_unknown_words_are_read_as_unk_and_case_counts(model):
    found = encode(model, ['zyzzyva', 'UNK', 'hello', 'Hello'])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert abs(found[2] - found[3]).max() > 1e-3


def test_equal_texts_are_encoded_once(model, monkeypatch):
    read = []
    real = skipthoughts._encode
    monkeypatch.setattr(
        skipthoughts, '_encode', lambda m, sequences: read.extend(sequences) or real(m, sequences)
    )
    found = encode(model, ['a dog', 'a cat', 'a dog'])
    assert len(read) == 2
    np.testing.assert_array_equal(found[0], found[2])


def test_any_iterable_will_do(model):
    found = encode(model, (text for text in SENTENCES))
    np.testing.assert_array_equal(found, encode(model, SENTENCES))


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
FEW_WORDS = st.lists(st.sampled_from(['the', 'man', 'a', '.', ',', 'zork']), max_size=12)
WAYS = 'use_eos', 'tokenised'
TEXTS = st.lists(ANY_TEXT | FEW_WORDS.map(' '.join), max_size=6)


@settings(deadline=None, max_examples=40)
@given(TEXTS, st.integers(1, 4), st.fixed_dictionaries({name: st.booleans() for name in WAYS}))
def test_whatever_is_read_each_text_has_its_own_vector(model, texts, batch_size, how):
    """Finite, of length one in both parts, and the same alone as among others in any order."""
    found = encode(model, texts, batch_size=batch_size, **how)
    uni = model['_uni'].hidden_size
    assert found.dtype == np.float32 and np.isfinite(found).all()
    for part in (found[:, :uni], found[:, uni:]):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encode(model, texts[::-1], **how)[::-1], found, atol=1e-6)
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_allclose(encode(model, text, **how), vector, atol=1e-6)


@pytest.mark.parametrize('wrong', [b'a dog', None, 3, ['a', 'dog']])
def test_anything_but_text_is_refused_by_its_index(model, wrong):
    with pytest.raises(TypeError, match=r'X\[1\]: expected str, found ' + type(wrong).__name__):
        encode(model, ['a dog', wrong])


@pytest.mark.parametrize('batch_size', [0, -1, True, 1.5])
def test_wrong_batch_size(model, batch_size):
    with pytest.raises(ValueError, match='batch_size'):
        encode(model, ['a dog'], batch_size=batch_size)


def test_a_very_long_text_is_read_in_pieces(model, monkeypatch):
    text = ' '.join(['a dog runs on the beach .'] * 40)
    expected = encode(model, [text, 'a dog'], tokenised=True)
    monkeypatch.setattr('storyteller.nn.sequences.WORDS_AT_ONCE', 7)
    found = encode(model, [text, 'a dog'], tokenised=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_tokenised_text_is_not_tokenised_again(model):
    pair = encode(model, ["don't", "do n't"], tokenised=True)
    assert abs(pair[0] - pair[1]).max() > 1e-3
    np.testing.assert_allclose(encode(model, "don't"), pair[1], atol=1e-6)


def test_progress_goes_to_stderr_only_if_asked(model, capfd):
    encode(model, SENTENCES)
    assert capfd.readouterr() == ('', '')
    skipthoughts.encode(model, SENTENCES)
    out, err = capfd.readouterr()
    assert out == ''
    assert f'{len(SENTENCES)}/{len(SENTENCES)}' in err


def test_encoder_is_encode_with_the_model_held(model):
    found = skipthoughts.Encoder(model).encode(SENTENCES, False, False, 5, True)
    expected = encode(model, SENTENCES, use_norm=False, use_eos=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- loading -------------------------------------------------------------------------------------


def test_tables_are_mappings_in_the_order_of_the_dictionary(model):
    lines = (FOLDER / 'dictionary.txt').read_bytes().decode('utf-8').split('\n')[:-1]
    table, rows = model['utable'], np.load(FOLDER / 'utable.npy')
    assert len(lines) == len(rows) == 443
    assert len(table) == 442
    assert list(table.keys()) == list(dict.fromkeys(line.strip() for line in lines))
    assert 'café' in table
    assert 'zyzzyva' not in table
    np.testing.assert_array_equal(table['café'], rows[lines.index('café')])
    first, later = (i for i, line in enumerate(lines) if line == 'dog')
    np.testing.assert_array_equal(table['dog'], rows[later])
    assert abs(rows[first] - rows[later]).max() > 0
    with pytest.raises(KeyError):
        table['zyzzyva']
    with pytest.raises(TypeError):
        table['dog'] = rows[0]


def test_a_vector_from_a_table_can_be_changed_without_harm(model):
    before = model['utable']['dog']
    model['utable']['dog'][:] = 0
    np.testing.assert_array_equal(model['utable']['dog'], before)


def test_dictionary_lines_end_at_newlines_only(folder, model):
    # The separators that str.splitlines() knows may stand within a word.
    lines = (folder / 'dictionary.txt').read_text(encoding='utf-8').split('\n')
    lines[3], lines[4] = 'two\u2028words', ' padded\t\r'
    (folder / 'dictionary.txt').write_bytes('\n'.join(lines).encode('utf-8'))
    table = skipthoughts.load_model(folder, folder)['utable']
    rows = np.load(folder / 'utable.npy')
    np.testing.assert_array_equal(table['two\u2028words'], rows[3])
    np.testing.assert_array_equal(table['padded'], rows[4])


def test_our_files_in_half_precision(folder, model):
    for name in ('uni_skip', 'bi_skip'):
        params, options = formats.read_model(folder / f'{name}.npz')
        formats.write_model(folder / f'{name}.safetensors', params, options, dtype='float16')
        (folder / f'{name}.npz').unlink()
        (folder / f'{name}.npz.pkl').unlink()
    for name in ('utable', 'btable'):
        np.save(folder / f'{name}.npy', np.load(folder / f'{name}.npy').astype(np.float16))
    ours = skipthoughts.load_model(folder, folder)
    assert ours['utable']['dog'].dtype == np.float32
    found = encode(ours, TOKENISED, tokenised=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, VECTORS['norm1_eos0'], atol=5e-3)


def test_models_and_tables_may_lie_apart(folder, tmp_path):
    tables = tmp_path / 'tables'
    tables.mkdir()
    for name in ('utable.npy', 'btable.npy', 'dictionary.txt'):
        (folder / name).rename(tables / name)
    model = skipthoughts.load_model(f'{folder}/', str(tables))
    np.testing.assert_allclose(
        encode(model, TOKENISED, tokenised=True), VECTORS['norm1_eos0'], atol=1e-5
    )


@pytest.mark.parametrize(
    'name', ['uni_skip.npz', 'bi_skip.npz.pkl', 'btable.npy', 'dictionary.txt']
)
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(formats.MissingFileError, match=name):
        skipthoughts.load_model(folder, folder)


@pytest.mark.parametrize('word', ['UNK', '<eos>'])
def test_special_words_are_required(folder, word):
    path = folder / 'dictionary.txt'
    lines = path.read_text(encoding='utf-8').split('\n')
    lines[lines.index(word)] = 'something'
    path.write_text('\n'.join(lines), encoding='utf-8')
    with pytest.raises(formats.ModelFileError, match=f"dictionary.txt: the word '{word}'"):
        skipthoughts.load_model(folder, folder)


def test_table_and_dictionary_of_different_lengths(folder):
    with open(folder / 'dictionary.txt', 'a', encoding='utf-8') as file:
        file.write('onemore\n')
    with pytest.raises(
        formats.ModelFileError, match=r'utable.npy has 443 .*dictionary.txt has 444'
    ):
        skipthoughts.load_model(folder, folder)


def test_tables_of_another_width(folder):
    np.save(folder / 'btable.npy', np.zeros((443, 19), np.float32))
    with pytest.raises(formats.MismatchError, match=r'bi_skip.npz reads .* 20, but .* 19 wide'):
        skipthoughts.load_model(folder, folder)


@pytest.mark.parametrize(('name', 'key'), [('uni', 'encoder_U'), ('bi', 'encoder_r_bx')])
def test_weights_that_are_no_numbers(folder, name, key):
    params, options = formats.read_model(folder / f'{name}_skip.npz')
    params[key] = params[key] * np.nan
    formats.write_model(folder / f'{name}_skip.npz', params, options)
    with pytest.raises(formats.ModelFileError, match=f'{name}_skip.npz: .*{key}.* NaN'):
        skipthoughts.load_model(folder, folder)


@pytest.mark.parametrize('name', ['utable.npy', 'btable.npy'])
def test_word_vectors_that_are_no_numbers(folder, name):
    table, model = np.load(folder / name), skipthoughts.load_model(folder, folder)
    table[model['utable'].index['dog']] = np.nan
    np.save(folder / name, table)
    model = skipthoughts.load_model(folder, folder)
    assert np.isfinite(skipthoughts.encode(model, ['a man'], verbose=False)).all()
    with pytest.raises(formats.ModelFileError, match=f"{name}: the vector of 'dog' holds NaN"):
        skipthoughts.encode(model, ['a man', 'a dog'], verbose=False)


def test_weights_of_a_wrong_shape(folder):
    params, options = formats.read_model(folder / 'uni_skip.npz')
    params['encoder_U'] = params['encoder_U'][:, :-1]
    formats.write_model(folder / 'uni_skip.npz', params, options)
    with pytest.raises(formats.ModelFileError, match=r"uni_skip.npz: parameter 'encoder_U'"):
        skipthoughts.load_model(folder, folder)


def test_half_width_products_are_near(model):
    coarse = skipthoughts.load_model(FOLDER, FOLDER, device='cpu', precision='bfloat16')
    expected = encode(model, SENTENCES)
    np.testing.assert_allclose(encode(coarse, SENTENCES), expected, atol=0.02)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision: expected 'float32' or 'bfloat16', found"):
        skipthoughts.load_model(FOLDER, FOLDER, precision='int8')


# --- neighbours ----------------------------------------------------------------------------------


def test_nearest_texts(model):
    vectors = 7 * encode(model, SENTENCES, use_norm=False)  # the length of a vector does not count
    query = encode(model, SENTENCES[4])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = skipthoughts.nn(model, SENTENCES, encode(model, SENTENCES), SENTENCES[4], k=6)
    assert found[0][:2] == (SENTENCES[4], 4)
    assert found[0][2] == pytest.approx(1, abs=1e-6)
    scores = [score for _, _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert len(found) == 6
    for text, i, score in skipthoughts.nn(model, SENTENCES, vectors, SENTENCES[4]):
        assert text == SENTENCES[i]
        assert score == pytest.approx(unit[i] @ query / np.linalg.norm(query), abs=1e-5)


def test_nearest_texts_checks_its_arguments(model):
    vectors = encode(model, SENTENCES)
    with pytest.raises(formats.MismatchError, match='vectors: expected'):
        skipthoughts.nn(model, SENTENCES[:-1], vectors, 'a dog')
    with pytest.raises(ValueError, match='k: expected'):
        skipthoughts.nn(model, SENTENCES, vectors, 'a dog', k=0)


def test_word_features_are_unit_rows_in_the_order_of_the_keys(model):
    table = model['utable']
    features = skipthoughts.word_features(table)
    assert features.shape == (442, 20)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    row = list(table).index('dog')
    np.testing.assert_allclose(
        features[row], table['dog'] / np.linalg.norm(table['dog']), atol=1e-6
    )


def test_nearest_words(model):
    table = model['btable']
    features = skipthoughts.word_features(table)
    found = skipthoughts.nn_words(table, features, 'beach', k=4)
    query = features[list(table).index('beach')]
    best = np.argsort(features @ query)[::-1][:4]
    assert [i for _, i, _ in found] == best.tolist()
    assert [word for word, _, _ in found] == [list(table)[i] for i in best]
    with pytest.raises(KeyError, match='zyzzyva'):
        skipthoughts.nn_words(table, features, 'zyzzyva')
    with pytest.raises(formats.MismatchError, match='wordvecs'):
        skipthoughts.nn_words(table, features[1:], 'beach')


# --- tables of the published size ----------------------------------------------------------------

MEASURE = """
import re, sys
def anonymous():
    status = open('/proc/self/status').read()
    return int(re.search(r'RssAnon:\\s+(\\d+)', status)[1]) / 1024
import storyteller.skipthoughts as s
before, calls = anonymous(), 0
def count(frame, event, argument):
    global calls
    calls += event in ('call', 'c_call')
sys.setprofile(count)
model = s.load_model(sys.argv[1], sys.argv[1], device='cpu')
sys.setprofile(None)
vectors = s.encode(model, ['w12 w929000 nowhere', 'w5'], verbose=False)
print(anonymous() - before, calls, vectors.shape[1], len(model['utable']))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
def test_published_tables_load_with_little_work_and_memory(tmp_path):
    V, W, D = 930_913, 620, 8
    words = ['<eos>', 'UNK', *(f'w{i}' for i in range(V - 2))]
    (tmp_path / 'dictionary.txt').write_text('\n'.join(words) + '\n', encoding='utf-8')
    rng = np.random.default_rng(0)
    for name in ('utable.npy', 'btable.npy'):
        rows = np.lib.format.open_memmap(
            tmp_path / name, mode='w+', dtype=np.float32, shape=(V, W)
        )  # sparse: 2.3 GB of which little is written
        rows[::1000] = rng.standard_normal((len(rows[::1000]), W))
        del rows
    shapes = {'W': (W, 2 * D), 'U': (D, 2 * D), 'b': 2 * D, 'Wx': (W, D), 'Ux': (D, D), 'bx': D}
    params = {
        f'{prefix}_{name}': rng.standard_normal(shape).astype(np.float32)
        for prefix in ('encoder', 'encoder_r')
        for name, shape in shapes.items()
    }
    for name in ('uni_skip', 'bi_skip'):
        formats.write_model(tmp_path / f'{name}.safetensors', params, {'dim': D})
    root = pathlib.Path(skipthoughts.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, '-c', MEASURE, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=root,
    )  # fmt: skip
    megabytes, calls, width, n_words = map(float, run.stdout.split())
    assert (width, n_words) == (3 * D, V)
    assert megabytes < 300
    assert calls < 4 * V
