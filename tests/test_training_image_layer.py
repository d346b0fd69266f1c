"""An image layer that leads features to where sentences are."""

from __future__ import annotations

import numpy as np
import pytest

from storyteller.captions import ranking
from storyteller.formats import MismatchError
from storyteller.layers import unit_rows
from storyteller.training.image_layer import ImageLayerOptions, fit_image_layer
from storyteller.training.options import TrainOptions

PHOTOS = np.repeat(np.arange(40), [3, 5] * 20)
OPTIONS = ImageLayerOptions(dropout=0.1, batch_size=16)


@pytest.fixture
def space():
    """Features of forty photos, of the first thirty mirrored, and sentences near their places."""
    rng = np.random.default_rng(0)
    places, view = rng.normal(size=(40, 8)), rng.normal(size=(8, 24))
    sentences = unit_rows(places[PHOTOS] + 0.2 * rng.normal(size=(len(PHOTOS), 8)))
    features = unit_rows(places @ view + 0.1 * rng.normal(size=(40, 24)))
    mirrored = unit_rows(places[:30] @ view + 0.1 * rng.normal(size=(30, 24)))
    return [features, mirrored], sentences


def learn(space, folder, epochs):
    views, sentences = space
    training = TrainOptions(epochs=epochs, lr=1e-2, decay=True)
    return fit_image_layer(views, sentences, PHOTOS, training, folder / 'layer.pt', OPTIONS)


def recall(layer, space):
    (features, _), sentences = space
    weight, bias = layer
    places = unit_rows(features @ weight + bias)
    return ranking.i2t(places, sentences, captions_per_image=np.bincount(PHOTOS))[0]


def test_photos_find_their_captions(space, tmp_path):
    before, after = (learn(space, tmp_path / str(n), n) for n in (1, 60))
    assert after[0].shape == (24, 8) and after[1].shape == (8,)
    assert recall(before, space) < 50 and recall(after, space) > 80


def test_it_goes_on_where_it_stopped(space, tmp_path, monkeypatch):
    whole, draw = learn(space, tmp_path / 'whole', epochs=4), np.random.default_rng

    def stop_in_the_third_epoch(seed):
        if seed[1] == 2:
            raise KeyboardInterrupt
        return draw(seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np.random, 'default_rng', stop_in_the_third_epoch)
        learn(space, tmp_path / 'stopped', epochs=4)
    again = learn(space, tmp_path / 'stopped', epochs=4)
    for one, two in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_does_not_fit_is_refused(space, tmp_path):
    views, sentences = space
    training = TrainOptions(epochs=1)
    with pytest.raises(MismatchError, match='3 sentences, but 160 numbers'):
        fit_image_layer(views, sentences[:3], PHOTOS, training, tmp_path / 'a.pt')
    with pytest.raises(MismatchError, match='photos 0 to 39, but 30 photos'):
        fit_image_layer(views[1:], sentences, PHOTOS, training, tmp_path / 'a.pt')


@pytest.mark.parametrize(
    ('name', 'value'), [('temperature', 0), ('dropout', 1), ('dropout', -0.1), ('batch_size', 1)]
)
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=name):
        ImageLayerOptions(**{name: value})
