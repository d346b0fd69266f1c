"""Between the files of 2015 and ours: the same numbers, and files that Python 2 could read."""

from __future__ import annotations

import pickle
import pickletools
import shutil

import numpy as np
import pytest
from conftest import REFERENCE

from storyteller import convert, convnet, embedding, formats, skipthoughts
from storyteller.nn import efficientnet

PARTS = ('decoder', 'embedding', 'skipthoughts', 'story')
SMALL_VGG = convnet.Architecture(
    blocks=((2,) * 2, (3,) * 2, (3,) * 4, (4,) * 4, (4,) * 4), fc=(5, 6)
)


def random_params(architecture, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in architecture.shapes().items()
    }


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
    """A folder of files of 2015, all parts."""
    folder = tmp_path_factory.mktemp('theirs')
    for part in PARTS:
        shutil.copytree(REFERENCE / part, folder, dirs_exist_ok=True)
    (folder / 'captions.txt').rename(folder / 'coco_train_caps.txt')
    values = [*random_params(SMALL_VGG).values(), np.zeros((6, 1000)), np.zeros(1000)]
    formats.write_pickle(folder / 'vgg19.pkl', {'param values': values})
    return folder


@pytest.fixture(scope='module')
def ours(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp('ours')
    list(convert.convert(theirs, folder, 'ours'))
    return folder


@pytest.fixture(scope='module')
def back(ours, tmp_path_factory):
    folder = tmp_path_factory.mktemp('back')
    list(convert.convert(ours, folder, '2015'))
    return folder


def raw(path):
    """What stands in an archive, unchanged."""
    with np.load(path, allow_pickle=True) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize('name', ['uni_skip', 'bi_skip', 'romance', 'coco_embedding'])
def test_there_and_back_is_exact(theirs, back, name):
    before, after = raw(theirs / f'{name}.npz'), raw(back / f'{name}.npz')
    assert after.keys() | {'history_errs'} == before.keys() | {'history_errs'}
    assert ('history_errs' in after) == (name != 'coco_embedding')
    for key in before.keys() - {'history_errs'}:
        assert (after[key].dtype, after[key].shape) == (before[key].dtype, before[key].shape)
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)
    kept = formats.read_model(theirs / f'{name}.npz')[1]
    assert kept.items() <= formats.read_model(back / f'{name}.npz')[1].items()


# What the loaders and trainers of 2015 read, in the order of their own lists.
READ_2015 = {
    'uni_skip.npz.pkl': (
        'n_words_src dim_word dim encoder decoder max_epochs dispFreq decay_c grad_clip n_words '
        'maxlen_w optimizer batch_size saveto dictionary saveFreq reload_'
    ),
    'romance.npz.pkl': (
        'dimctx dim_word dim encoder decoder doutput max_epochs dispFreq decay_c grad_clip n_words '
        'maxlen_w optimizer batch_size saveto dictionary embeddings saveFreq sampleFreq reload_'
    ),
    'coco_embedding.npz.pkl': (
        'data margin dim dim_image dim_word encoder max_epochs dispFreq decay_c grad_clip maxlen_w '
        'optimizer batch_size saveto validFreq lrate reload_ n_words'
    ),
}
READ_2015['bi_skip.npz.pkl'] = READ_2015['uni_skip.npz.pkl']


def test_the_lists_of_options_are_those_of_files_of_2015():
    for file, names in READ_2015.items():
        (path,) = REFERENCE.glob(f'*/{file}')
        assert formats.load_pickles(path)[0].keys() == set(names.split())


@pytest.mark.parametrize('file', READ_2015)
def test_every_option_that_2015_reads_is_written_and_no_other(tmp_path, file):
    """By a model that has none of them, and some that are only ours."""
    stem = file.removesuffix('.npz.pkl')
    source, out = tmp_path / 'a', tmp_path / 'b'
    (path,) = REFERENCE.glob(f'*/{stem}.npz')
    ours = {'romance': 'decoder', 'coco_embedding': 'embedding'}.get(stem, stem)
    params, true = formats.read_model(path)
    own = {'word_dropout': 0.25, 'bfloat16': True, 'batch_size': 512}
    formats.write_model(source / f'{ours}.safetensors', params, own)
    for name in ('decoder', 'embedding'):
        (source / f'{name}_dictionary.txt').write_text('<eos>\nUNK\na\ndog\n')
    list(convert.convert(source, out, '2015'))
    (found,) = formats.load_pickles(out / file)
    assert found.keys() == set(READ_2015[file].split())
    assert found['batch_size'] == 512 and found['saveto'] == f'{stem}.npz'
    sizes = ('dim', 'dim_word', 'n_words', 'dimctx', 'dim_image')
    kept = {name: found[name] for name in sizes if name in found}
    assert kept == {name: len(params['Wemb']) if name == 'n_words' else true[name] for name in kept}
    # The trainers' defaults, as in the files of 2015; those of the trainers, not of a set-up.
    alike = ('encoder', 'optimizer', 'grad_clip', 'decay_c', 'maxlen_w', 'reload_', 'max_epochs')
    assert {name: found[name] for name in alike} == {name: true[name] for name in alike}


def test_tables_dictionaries_captions_and_styles_stay(theirs, back):
    for name in ('utable.npy', 'btable.npy'):
        np.testing.assert_array_equal(np.load(back / name), np.load(theirs / name))
    for name in ('romance_dictionary.pkl', 'coco_embedding.npz.dictionary.pkl'):
        words = formats.load_dictionary(theirs / name)
        assert words.items() <= formats.load_dictionary(back / name).items()
    same = ('dictionary.txt', 'coco_train_caps.txt', 'caption_style.npy', 'romance_style.npy')
    for name in same:
        assert (back / name).read_bytes() == (theirs / name).read_bytes()


def test_lasagne_s_list_of_vgg_19(theirs, back):
    record = formats.load_pickles(back / 'vgg19.pkl')[0]
    values = record['param values']
    assert len(values) == 38 and values[-2].shape == (6, 1000)
    for found, true in zip(values, random_params(SMALL_VGG).values(), strict=False):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, true)
    assert convnet.read_params(back / 'vgg19.pkl')[0] == SMALL_VGG


def test_the_same_vectors(theirs, ours, back):
    texts = ['a dog runs on the grass', 'two men stand in the snow']
    vectors = [
        skipthoughts.encode(skipthoughts.load_model(folder, folder), texts, verbose=False)
        for folder in (theirs, ours, back)
    ]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    files = theirs / 'coco_embedding.npz', ours / 'embedding.safetensors'
    one, two = (embedding.encode_sentences(embedding.load_model(file), texts) for file in files)
    np.testing.assert_array_equal(one, two)


def test_pickles_are_those_of_python_2_and_numpy_1(back):
    files = sorted(back.glob('*.pkl'))
    assert len(files) == 7
    for file in files:
        seen = list(pickletools.genops(file.read_bytes()))
        assert max(opcode.proto for opcode, _, _ in seen) <= 2
        names = {argument for opcode, argument, _ in seen if opcode.name == 'GLOBAL'}
        array = {'numpy.core.multiarray _reconstruct', 'numpy ndarray', 'numpy dtype'}
        assert names == (array if file.name == 'vgg19.pkl' else set())
        text = {opcode.name for opcode, _, _ in seen if 'UNICODE' in opcode.name}
        assert not text  # byte strings, as Python 2 has them


def test_arrays_are_read_by_any_numpy(tmp_path):
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype='>i4'),
        np.array([True, False]),
        np.zeros((0, 3), np.uint8),
        np.array(2.5),
    ]
    formats.write_pickle(tmp_path / 'a.pkl', arrays)
    found = pickle.loads((tmp_path / 'a.pkl').read_bytes(), encoding='latin1')
    for one, two, safe in zip(
        arrays, found, formats.load_pickles(tmp_path / 'a.pkl')[0], strict=True
    ):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, safe)
        assert two.shape == one.shape and two.dtype == one.dtype.newbyteorder('<')


@pytest.mark.parametrize('value', [object(), {'a': [open]}, np.array([None]), 1j])
def test_what_is_not_plain_is_not_written(tmp_path, value):
    with pytest.raises(pickle.PicklingError):
        formats.write_pickle(tmp_path / 'a.pkl', value)
    assert not list(tmp_path.iterdir())


def test_of_two_image_layers_2015_gets_the_one_for_vgg_19(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {'Wemb': (5, 3), 'ff_image_W': (7, 3), 'ff_image_b': (3,)}
    shapes |= {'ff_image_vgg19_W': (4096, 3), 'ff_image_vgg19_b': (3,)}
    params = {name: rng.normal(size=shape).astype('f4') for name, shape in shapes.items()}
    options = {'encoder': 'bow', 'dim_image': 7, 'dim': 3, 'dim_word': 3, 'n_words': 5}
    formats.write_model(tmp_path / 'a' / 'embedding.safetensors', params, options)
    (tmp_path / 'a' / 'embedding_dictionary.txt').write_text('<eos>\nUNK\na\ndog\ncafé\n')
    list(convert.convert(tmp_path / 'a', tmp_path / 'b', '2015'))
    found, kept = formats.read_model(tmp_path / 'b' / 'coco_embedding.npz')
    np.testing.assert_array_equal(found['ff_image_W'], params['ff_image_vgg19_W'])
    assert kept['dim_image'] == 4096
    list(convert.convert(tmp_path / 'b', tmp_path / 'c', 'ours'))
    again, kept = formats.read_model(tmp_path / 'c' / 'embedding.safetensors')
    assert again.keys() == params.keys() and options.items() <= kept.items()
    for name, value in params.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_network_that_2015_cannot_build_is_left_out(tmp_path):
    small = convnet.Architecture(blocks=((2,), (3,)), fc=(4, 5), input_size=32)
    path = tmp_path / 'a' / 'convnet.safetensors'
    formats.write_model(path, random_params(small), small.options())
    (line,) = convert.convert(tmp_path / 'a', tmp_path / 'b', '2015')
    assert line.startswith('left out: convnet.safetensors')


def test_settings_of_a_published_network_stay_ours(tmp_path):
    path, eyes = tmp_path / 'a' / 'convnet.json', efficientnet.Eyes(2.0, 0.5)
    efficientnet.write_eyes(path, eyes)
    (line,) = convert.convert(tmp_path / 'a', tmp_path / 'b', '2015')
    assert line.startswith('left out: convnet.json') and not (tmp_path / 'b').exists()
    assert list(convert.convert(tmp_path / 'a', tmp_path / 'c', 'ours')) == ['convnet.json']
    assert efficientnet.read_eyes(tmp_path / 'c' / 'convnet.json') == eyes
    path.write_text('{}')
    with pytest.raises(formats.ModelFileError, match=r'convnet\.json'):
        list(convert.convert(tmp_path / 'a', tmp_path / 'd', 'ours'))


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(formats.MissingFileError, match='found no model'):
        list(convert.convert(tmp_path, tmp_path / 'b', 'ours'))
    with pytest.raises(ValueError, match='another folder'):
        list(convert.convert(tmp_path, tmp_path, 'ours'))
