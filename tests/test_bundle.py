"""The bundle that comes with the package."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from storyteller import config, convnet, embedding, formats, generate
from storyteller.nn import efficientnet
from storyteller.text import preprocess

MODELS = config.default_folder()
IMAGES = sorted((MODELS.parent / 'images').glob('ex*.jpg'))


@pytest.fixture(scope='module')
def z(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('STORYTELLER_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield generate.load_all()


def test_files_are_those_that_the_card_describes():
    card = json.loads((MODELS / 'bundle.json').read_text(encoding='utf-8'))
    total = 0
    for name, entry in card['files'].items():
        content = (MODELS / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry['sha256'], name
        assert len(content) == entry['bytes'], name
        total += len(content)
    assert total <= 95e6
    models = ('.safetensors', '.npy', '.json')
    kept = {path.name for path in MODELS.iterdir() if path.suffix in models}
    assert kept - {'bundle.json'} <= set(card['files'])


def test_both_sentence_encoders_know_the_words_of_the_pool(z):
    for table, captions in (
        (z['stv']['utable'], preprocess(z['cap'])),
        (z['vse']['worddict'], z['cap']),
    ):
        words = [word for caption in captions for word in caption.split()]
        assert sum(word not in table for word in words) / len(words) <= 0.005


def test_styles_are_there_and_differ(z):
    assert {'caption', 'romance', 'lyric'} <= set(z['styles'])
    np.testing.assert_array_equal(z['bneg'], z['styles']['caption'])
    np.testing.assert_array_equal(z['bpos'], z['styles']['romance'])
    far = np.linalg.norm(z['bpos'] - z['bneg'])
    assert far > np.linalg.norm(z['bpos'] - z['styles']['lyric']) > 0


@pytest.mark.parametrize('photo', IMAGES, ids=lambda path: path.name)
def test_each_sample_photo_gets_a_story_of_several_sentences(z, photo):
    (told,) = generate.stories(z, [photo])
    words = told.passage.split()
    assert len(words) >= 20
    assert sum(word in '.!?' for word in words) >= 2
    assert 'UNK' not in words


def test_sample_photos_get_stories_of_their_own(z):
    told = generate.stories(z, IMAGES)
    assert len({story.passage for story in told}) == len(IMAGES) >= 7


# --- folders with one network or the other -------------------------------------------------------

SMALL_VGG = convnet.Architecture(blocks=((4,), (6, 6), (8,)), fc=(12, 20), input_size=32)


def write_network(folder, name, rng):
    """A network in a folder; the width of its features."""
    if name == 'convnet.json':
        efficientnet.write_eyes(folder / name, efficientnet.Eyes(class_weight=0.5))
        return 2280
    params = {
        key: rng.normal(0, 0.3, shape).astype('f4') for key, shape in SMALL_VGG.shapes().items()
    }
    formats.write_model(folder / name, params, SMALL_VGG.options())
    return SMALL_VGG.dim


@pytest.fixture(params=['convnet.json', 'convnet.safetensors'])
def folder(request, tmp_path, monkeypatch):
    """The bundle with another network, and an image layer for that; few captions, no card."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    models, rng = tmp_path / 'models', np.random.default_rng(0)
    models.mkdir()
    for path in MODELS.iterdir():
        other = path.name.startswith(('convnet', 'embedding', 'captions.', 'bundle'))
        if path.suffix in ('.safetensors', '.npy', '.txt') and not other:
            (models / path.name).symlink_to(path.absolute())
    width = write_network(models, request.param, rng)
    params, options = formats.read_model(MODELS / 'embedding.safetensors')
    joint = params['ff_image_W'].shape[1]
    params['ff_image_W'] = rng.normal(size=(width, joint)).astype('f4')
    formats.write_model(models / 'embedding.safetensors', params, options | {'dim_image': width})
    words = (MODELS / 'embedding_dictionary.txt').read_bytes()
    (models / 'embedding_dictionary.txt').write_bytes(words)
    some = (MODELS / 'captions.txt').read_text(encoding='utf-8').splitlines()[::400]
    (models / 'captions.txt').write_text('\n'.join(some), encoding='utf-8')
    return models


def test_a_folder_tells_through_the_network_that_it_holds(folder):
    """Such as a VGG network of any width, which earlier bundles had."""
    z = generate.load_all(folder)
    assert z['net']['side'] == (260 if (folder / 'convnet.json').exists() else None)
    assert z['net']['dim'] in embedding.feature_widths(z['vse'])
    told = generate.stories(z, IMAGES[:2], k=5, bw=2, maxlen=30)
    for photo, story in zip(IMAGES, told, strict=False):
        assert len(story.passage.split()) >= 3 and len(story.captions) == 5
        (alone,) = generate.stories(z, [photo], k=5, bw=2, maxlen=30)
        assert [caption for caption, _ in alone.captions] == [c for c, _ in story.captions]


def test_a_network_that_the_joint_space_does_not_know_is_named(folder):
    """As when an earlier bundle's network lies beside the image layer of another."""
    here, there = 'convnet.json', 'convnet.safetensors'
    if not (folder / here).exists():
        here, there = there, here
    (folder / here).unlink()
    write_network(folder, there, np.random.default_rng(1))
    with pytest.raises(formats.MismatchError, match=rf'(?s){there}.*width.*embedding'):
        generate.load_all(folder)
