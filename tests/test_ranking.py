"""Ranking: the measures of 2015, for any number of captions, without the whole score matrix."""

from __future__ import annotations

import json
from unittest import mock

import numpy as np
import pytest
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller import formats
from storyteller.captions import ranking
from storyteller.captions.ranking import i2t, in_folds, t2i

ARRAYS = np.load(REFERENCE / 'embedding' / 'evaluation.npz')
EXPECTED = json.loads((REFERENCE / 'embedding' / 'evaluation.json').read_text())
IMAGES, CAPTIONS = ARRAYS['images'], ARRAYS['captions']


@pytest.mark.parametrize('search', [i2t, t2i])
@pytest.mark.parametrize('repeated', [True, False])
def test_measures_of_2015(search, repeated):
    images = IMAGES if repeated else IMAGES[::5]
    name = search.__name__
    np.testing.assert_allclose(search(images, CAPTIONS)[:4], EXPECTED[name])
    np.testing.assert_allclose(search(images, CAPTIONS, npts=10)[:4], EXPECTED[f'{name}_npts10'])


def ranks_by_sorting(scores, targets):
    """Zero-based place of the best placed target of each row, by a reversed stable sort."""
    order = np.argsort(scores, axis=1, kind='stable')[:, ::-1]
    return [
        min(np.flatnonzero(row == t)[0] for t in wanted)
        for row, wanted in zip(order, targets, strict=True)
    ]


@settings(deadline=None)
@given(st.data())
def test_equals_sorting_in_any_band_and_with_any_number_of_captions(data):
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    images = rng.integers(-1, 2, (len(counts), 2))  # many ties
    captions = rng.integers(-1, 2, (sum(counts), 2))
    owner = np.repeat(np.arange(len(counts)), counts)
    scores = images @ captions.T
    with mock.patch.object(ranking, 'SCORES_AT_ONCE', data.draw(st.integers(1, 30))):
        forward = i2t(images, captions, captions_per_image=counts)
        backward = t2i(images, captions, captions_per_image=counts)
    for found, expected in (
        (forward, ranks_by_sorting(scores, [np.flatnonzero(owner == i) for i in set(owner)])),
        (backward, ranks_by_sorting(scores.T, owner[:, None])),
    ):
        assert found.mean == pytest.approx(np.mean(expected) + 1)
        assert found.median == np.floor(np.median(expected)) + 1
        assert found.r1 == pytest.approx(100 * np.mean(np.array(expected) < 1))
        assert found.r5 == pytest.approx(100 * np.mean(np.array(expected) < 5))


def test_perfect_vectors():
    images = np.eye(20)
    for search in (i2t, t2i):
        found = search(images, np.repeat(images, 3, axis=0), captions_per_image=3)
        assert found == (100, 100, 100, 1, 1)


def test_one_caption_an_image():
    scores = i2t(np.eye(3), np.eye(3)[[0, 2, 1]], captions_per_image=1)
    assert scores.r1 == pytest.approx(100 / 3)


def test_collapsed_vectors_rank_by_chance():
    for search in (i2t, t2i):
        found = search(np.ones((100, 4)), np.ones((500, 4)))
        assert found.r1 == 1
        assert found.mean > 40


def test_npts_beyond_all():
    assert i2t(IMAGES, CAPTIONS, npts=1000) == i2t(IMAGES, CAPTIONS)


@pytest.mark.parametrize(
    ('images', 'captions', 'each'),
    [((4, 3), (20, 2), 5), ((3, 3), (20, 3), 5), ((4, 3), (21, 3), 5), ((21, 3), (21, 3), 5),
     ((2, 3), (4, 3), [1, 2]), ((4,), (20, 3), 5)],
)  # fmt: skip
def test_arrays_that_do_not_fit(images, captions, each):
    for search in (i2t, t2i):
        with pytest.raises(formats.MismatchError):
            search(np.zeros(images), np.zeros(captions), captions_per_image=each)


def test_wrong_values():
    with pytest.raises(ValueError, match='captions: a value is not finite'):
        i2t(np.eye(2), np.full((2, 2), np.nan), captions_per_image=1)
    with pytest.raises(ValueError, match='no image'):
        t2i(np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match='npts'):
        i2t(IMAGES, CAPTIONS, npts=0)
    for each in (0, -1, [5, 0], 2.5):
        with pytest.raises(ValueError, match='captions_per_image'):
            i2t(IMAGES, CAPTIONS, captions_per_image=each)


@pytest.mark.parametrize('search', [i2t, t2i])
def test_folds_are_searched_apart_and_averaged(search):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 4, 12)
    images, captions = rng.normal(size=(12, 3)), rng.normal(size=(counts.sum(), 3))
    found, ends = [], np.cumsum(counts)
    for start in (0, 4, 8):
        rows = slice(ends[start] - counts[start], ends[start + 3])
        part = counts[start : start + 4]
        found.append(search(images[start : start + 4], captions[rows], captions_per_image=part))
    averaged = in_folds(search, images, captions, 3, captions_per_image=counts)
    np.testing.assert_allclose(averaged, np.mean(found, axis=0))
    whole = in_folds(search, images, captions, 1, captions_per_image=counts)
    np.testing.assert_allclose(whole, search(images, captions, captions_per_image=counts))


def test_folds_must_divide_the_images():
    with pytest.raises(ValueError, match='folds: 10 images'):
        in_folds(i2t, np.ones((10, 2)), np.ones((50, 2)), 3)
