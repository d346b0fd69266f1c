"""The joint space: vectors equal to those of 2015, for both sentence encoders and for images."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller import embedding, formats
from storyteller.nn.sequences import last_states, states_by_prefix

FOLDER = REFERENCE / 'embedding'
CAPTIONS = json.loads((FOLDER / 'captions.json').read_text(encoding='utf-8'))
FILES = {'gru': FOLDER / 'coco_embedding.npz', 'bow': FOLDER / 'coco_embedding_bow.npz'}


@pytest.fixture(scope='module', params=['gru', 'bow'])
def encoder(request):
    return request.param


@pytest.fixture(scope='module')
def model(encoder):
    return embedding.load_model(FILES[encoder], device='cpu')


@pytest.fixture(scope='module')
def vectors(encoder):
    return np.load(FOLDER / f'vectors_{encoder}.npz')


@pytest.fixture
def gru():
    return embedding.load_model(FILES['gru'], device='cpu')


@pytest.fixture
def parts():
    """Parameters, options and dictionary of the reference model."""
    params, options = formats.read_model(FILES['gru'])
    return params, options, formats.load_dictionary(f'{FILES["gru"]}.dictionary.pkl')


def save_ours(folder, params, options, dictionary, dtype='float32'):
    words = ['<eos>', 'UNK', *dictionary]
    (folder / 'embedding_dictionary.txt').write_text('\n'.join(words) + '\n', encoding='utf-8')
    formats.write_model(folder / 'embedding.safetensors', params, options, dtype=dtype)
    return folder / 'embedding.safetensors'


# --- the numbers of 2015 -------------------------------------------------------------------------


def test_sentences_of_2015(model, vectors):
    found = embedding.encode_sentences(model, CAPTIONS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors['sentences'], atol=1e-5, rtol=0)


def test_images_of_2015(model, vectors):
    found = embedding.encode_images(model, vectors['images_in'])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors['images'], atol=1e-5, rtol=0)


def test_fc7_of_2015(model, vectors):
    names = ('landscape', 'portrait', 'grey')
    fc7 = np.stack([np.load(REFERENCE / 'vgg' / 'vgg.npz')[f'fc7_{name}'] for name in names])
    fc7 /= np.linalg.norm(fc7, axis=1, keepdims=True)
    found = embedding.encode_images(model, fc7)
    np.testing.assert_allclose(found, vectors['images_fc7'], atol=1e-5, rtol=0)


def test_unusual_input_of_2015(model, encoder):
    noted = json.loads((FOLDER / f'behaviours_{encoder}.json').read_text())
    found = embedding.encode_sentences(model, [''])
    np.testing.assert_allclose(found[0, :4], noted['empty caption'], atol=1e-5)
    assert list(embedding.encode_sentences(model, []).shape) == noted['empty list']


def test_caption_pool_of_the_story_of_2015(gru):
    captions = (REFERENCE / 'story' / 'captions.txt').read_text(encoding='utf-8').split('\n')[:-1]
    found = embedding.encode_sentences(gru, [caption.strip() for caption in captions])
    expected = np.load(REFERENCE / 'story' / 'vectors.npz')['cvec']
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_model_dict_of_2015(gru):
    pairs = json.loads((FOLDER / 'dictionary.json').read_text(encoding='utf-8'))
    assert gru['worddict'] == dict(map(tuple, pairs))
    expected = {index: word for word, index in pairs} | {0: '<eos>', 1: 'UNK'}
    assert gru['word_idict'] == expected
    assert gru['options']['dim'] == 32


# --- sentences -----------------------------------------------------------------------------------


@pytest.mark.parametrize('batch_size', [1, 3, 1000])
def test_batch_size_changes_nothing(model, vectors, batch_size):
    found = embedding.encode_sentences(model, CAPTIONS, batch_size=batch_size)
    np.testing.assert_allclose(found, vectors['sentences'], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=40), max_size=6))
def test_whatever_is_read_each_sentence_has_its_own_unit_vector(model, texts):
    found = embedding.encode_sentences(model, texts, batch_size=2)
    assert found.shape == (len(texts), embedding.width(model)) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_allclose(embedding.encode_sentences(model, text), vector, atol=1e-6)


def test_one_sentence_gives_one_vector(model, vectors):
    found = embedding.encode_sentences(model, CAPTIONS[2])
    assert found.ndim == 1
    np.testing.assert_allclose(found, vectors['sentences'][2], atol=1e-5)


def test_rows_are_unit_rows(model):
    found = embedding.encode_sentences(model, CAPTIONS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_unknown_and_rare_words_are_unk(model):
    n_words = model['options']['n_words']
    rare = [word for word, index in model['worddict'].items() if index >= n_words]
    assert rare  # the trainer of 2015 counted two words too few
    texts = ['a qwertyuiop dog', f'a {rare[0]} dog', 'a UNK dog', 'a man dog']
    found = embedding.encode_sentences(model, texts)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    assert abs(found[0] - found[3]).max() > 1e-3


def test_no_tokeniser_and_only_ascii_white_space(gru):
    found = embedding.encode_sentences(gru, ['a dog.', 'a UNK', 'a\xa0dog', 'UNK', 'a \t dog\n.'])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[2], found[3], atol=1e-6)
    np.testing.assert_allclose(found[4], embedding.encode_sentences(gru, 'a dog .'), atol=1e-6)


@pytest.mark.parametrize('wrong', [b'a dog', None, 3])
def test_anything_but_text_is_refused_by_its_index(model, wrong):
    with pytest.raises(TypeError, match=r'X\[1\]: expected str'):
        embedding.encode_sentences(model, ['a dog', wrong])


def test_progress_goes_to_stderr_only_if_asked(model, capfd):
    embedding.encode_sentences(model, CAPTIONS)
    assert capfd.readouterr() == ('', '')
    embedding.encode_sentences(model, CAPTIONS, verbose=True)
    out, err = capfd.readouterr()
    assert out == ''
    assert '40/40' in err


def test_a_bag_that_sums_to_zero_is_finite(tmp_path, parts):
    params, options, dictionary = parts
    params = {'Wemb': np.zeros_like(params['Wemb'][:, :32]), 'ff_image_W': params['ff_image_W'],
              'ff_image_b': params['ff_image_b']}  # fmt: skip
    params['Wemb'] = np.zeros((237, 32), np.float32)
    path = save_ours(tmp_path, params, options | {'encoder': 'bow'}, dictionary)
    found = embedding.encode_sentences(embedding.load_model(path), ['a dog'])
    np.testing.assert_array_equal(found, np.zeros((1, 32)))


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize('key', ['Wemb', 'encoder_U', 'ff_image_W', 'ff_image_b'])
def test_parameters_that_are_no_numbers(tmp_path, parts, key):
    params, options, dictionary = parts
    params[key] = params[key] * np.nan
    path = save_ours(tmp_path, params, options, dictionary)
    with pytest.raises(formats.ModelFileError, match=f'{path.name}: .*{key}.* NaN'):
        embedding.load_model(path)


def test_one_image_gives_one_vector(model, vectors):
    found = embedding.encode_images(model, vectors['images_in'][3])
    np.testing.assert_allclose(found, vectors['images'][3], atol=1e-5)


def test_no_image(model, vectors):
    shape = (0, vectors['images'].shape[1])
    assert embedding.encode_images(model, np.zeros((0, 4096))).shape == shape


def test_an_image_at_the_origin_is_finite(tmp_path, parts):
    params, options, dictionary = parts
    params['ff_image_b'] = np.zeros(32, np.float32)
    path = save_ours(tmp_path, params, options, dictionary)
    found = embedding.encode_images(embedding.load_model(path), np.zeros((1, 4096)))
    np.testing.assert_array_equal(found, np.zeros((1, 32)))


@pytest.mark.parametrize('shape', [(3, 512), (4096, 1), (), (1, 1, 4096)])
def test_features_of_a_wrong_width(gru, shape):
    with pytest.raises(formats.MismatchError, match=r'F = 4096, found shape \('):
        embedding.encode_images(gru, np.zeros(shape))


def test_features_that_are_not_finite(gru):
    with pytest.raises(ValueError, match='not finite'):
        embedding.encode_images(gru, np.full((1, 4096), np.nan))


def test_two_convnets_in_one_file(tmp_path, parts):
    params, options, dictionary = parts
    rng = np.random.default_rng(0)
    params['ff_image_vgg19_W'], params['ff_image_vgg19_b'] = (
        params['ff_image_W'],
        params['ff_image_b'],
    )
    params['ff_image_W'] = rng.standard_normal((10, 32)).astype(np.float32)
    params['ff_image_b'] = rng.standard_normal(32).astype(np.float32)
    model = embedding.load_model(save_ours(tmp_path, params, options, dictionary))
    small, large = rng.standard_normal((2, 10)), rng.standard_normal((2, 4096))
    for features, name in ((small, 'ff_image'), (large, 'ff_image_vgg19')):
        expected = features @ params[f'{name}_W'] + params[f'{name}_b']
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(embedding.encode_images(model, features), expected, atol=1e-5)
    with pytest.raises(formats.MismatchError, match='F = 10 or 4096'):
        embedding.encode_images(model, np.zeros((1, 11)))
    params['ff_image_W'] = params['ff_image_vgg19_W']
    with pytest.raises(formats.ModelFileError, match='same width'):
        embedding.load_model(save_ours(tmp_path, params, options, dictionary))


# --- loading -------------------------------------------------------------------------------------


def test_our_format_gives_the_same_vectors(tmp_path, parts):
    params, options, dictionary = parts
    model = embedding.load_model(save_ours(tmp_path, params, options, dictionary, dtype='float16'))
    vectors = np.load(FOLDER / 'vectors_gru.npz')
    found = embedding.encode_sentences(model, CAPTIONS)
    np.testing.assert_allclose(found, vectors['sentences'], atol=5e-3)
    np.testing.assert_allclose(
        embedding.encode_images(model, vectors['images_in']), vectors['images'], atol=5e-3
    )


def test_suffix_of_2015_may_be_left_out():
    model = embedding.load_model(FOLDER / 'coco_embedding', device='cpu')
    assert len(model['worddict']) == 237


def test_dictionary_as_a_plain_dict(tmp_path):
    for suffix in ('', '.pkl'):
        shutil.copyfile(f'{FILES["gru"]}{suffix}', tmp_path / f'm.npz{suffix}')
    shutil.copyfile(FOLDER / 'dictionary_plain_protocol2.pkl', tmp_path / 'm.npz.dictionary.pkl')
    found = embedding.encode_sentences(embedding.load_model(tmp_path / 'm.npz'), CAPTIONS)
    expected = np.load(FOLDER / 'vectors_gru.npz')['sentences']
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('suffix', ['', '.pkl', '.dictionary.pkl'])
def test_missing_file(tmp_path, suffix):
    for present in {'', '.pkl', '.dictionary.pkl'} - {suffix}:
        shutil.copyfile(f'{FILES["gru"]}{present}', tmp_path / f'm.npz{present}')
    with pytest.raises(formats.MissingFileError, match=f'm.npz{suffix}'):
        embedding.load_model(tmp_path / 'm.npz')


@pytest.mark.parametrize(
    ('options', 'message'),
    [({'encoder': 'lstm'}, "found 'lstm'"), ({'n_words': 238}, 'n_words is 238'),
     ({'n_words': 0}, 'n_words is 0'), ({'n_words': 'many'}, 'n_words')],
)  # fmt: skip
def test_wrong_options(tmp_path, parts, options, message):
    path = save_ours(tmp_path, parts[0], parts[1] | options, parts[2])
    with pytest.raises(formats.ModelFileError, match=f'embedding.safetensors: .*{message}'):
        embedding.load_model(path)


@pytest.mark.parametrize('name', ['Wemb', 'encoder_U', 'encoder_bx', 'ff_image_W', 'ff_image_b'])
def test_parameters_that_are_missing_or_of_a_wrong_shape(tmp_path, parts, name):
    params, options, dictionary = parts
    short = params | {name: params[name][..., :-1]}
    gone = {key: value for key, value in params.items() if key != name}
    for broken in (short, gone):
        path = save_ours(tmp_path, broken, options, dictionary)
        with pytest.raises(formats.ModelFileError, match=r'embedding.safetensors: parameter'):
            embedding.load_model(path)


# --- fingerprint ---------------------------------------------------------------------------------


def test_fingerprint_follows_all_that_a_sentence_depends_on(tmp_path, parts, gru):
    params, options, dictionary = parts

    def fingerprint(**changes):
        path = save_ours(
            tmp_path, params | changes.get('params', {}), options | changes.get('options', {}),
            changes.get('dictionary', dictionary),
        )  # fmt: skip
        return embedding.fingerprint(embedding.load_model(path))

    plain = fingerprint()
    assert plain == fingerprint()
    assert plain == fingerprint(params={'ff_image_W': params['ff_image_W'] * 2})
    assert embedding.fingerprint(gru) == embedding.fingerprint(gru)
    assert plain != fingerprint(params={'Wemb': params['Wemb'] * 2})
    assert plain != fingerprint(params={'encoder_Ux': params['encoder_Ux'] * 2})
    assert plain != fingerprint(options={'n_words': 200})
    assert plain != fingerprint(dictionary=list(dictionary)[::-1])


# --- many captions that begin alike --------------------------------------------------------------


def test_many_captions_are_read_as_each_alone(gru, monkeypatch):
    """Beginnings that captions share are read once; long texts among them by themselves."""
    rng, words = np.random.default_rng(0), list(gru['worddict'])[:9]
    texts = [' '.join(rng.choice(words, rng.integers(0, 6))) for _ in range(200)]
    texts += ['', 'unheard of', ' '.join(words * 9), 'a ' * 70]
    alone = embedding.encode_sentences(gru, texts)
    monkeypatch.setattr(embedding, 'MANY', 8)
    for at_once in (7, 64, 1000):
        monkeypatch.setattr(embedding, 'AT_ONCE', at_once)
        together = embedding.encode_sentences(gru, texts)
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_equal_beginnings_are_read_once(gru, monkeypatch):
    if not hasattr(gru['_gru'], 'step'):
        pytest.skip('no packed GRU here')
    read, step = [], gru['_gru'].step

    def counted(projected, state):
        read.append(len(state))
        return step(projected, state)

    monkeypatch.setattr(gru['_gru'], 'step', counted)
    sequences = [np.array(ids) for ids in ([2, 3, 4, 0], [2, 3, 5, 0], [2, 3, 4, 6, 0], [7, 0])]
    found = states_by_prefix(gru['_gru'], sequences, gru['_words'].__getitem__)
    beginnings = {
        tuple(s[: n + 1]) for s in map(np.ndarray.tolist, sequences) for n in range(len(s))
    }
    assert sum(read) == len(beginnings) == 10
    monkeypatch.undo()
    for sequence, state in zip(sequences, found, strict=True):
        (alone,) = last_states(gru['_gru'], [sequence], gru['_words'].__getitem__)
        np.testing.assert_allclose(state, alone, rtol=0, atol=1e-6)
