"""The bundle that comes with the package."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from storyteller import config, generate
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
    assert total <= 60e6
    kept = {path.name for path in MODELS.iterdir() if path.suffix in ('.safetensors', '.npy')}
    assert kept <= set(card['files'])


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
