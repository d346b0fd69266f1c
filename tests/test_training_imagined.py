"""Classes imagined as photos, for classes that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from storyteller.layers import unit_rows
from storyteller.nn.efficientnet import Eyes
from storyteller.training.data import imagined
from storyteller.training.data.imagined import ImaginedPhotos

N_CLASSES, WIDTH, EYES = 6, 12, Eyes(temperature=2.0, class_weight=0.5)
N_PHOTOS = 20_000
SETTINGS = np.arange(0, N_PHOTOS, 3), np.arange(1, N_PHOTOS, 3)  # a third is of neither kind


def world(seed: int = 0):
    """Photos of known covariance, the means of classes, and the best linear classifier for them.

    The photos lie about one point far from 0 and scatter at right angles to its direction, so that
    their lengths hardly differ.
    """
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
    centre, axes = 50 * axes[0], axes[1:]  # right angles: (11, 12)
    scales = np.geomspace(0.4, 3, WIDTH - 1)
    covariance = axes.T @ np.diag(scales**2) @ axes
    photos = centre + (rng.normal(size=(N_PHOTOS, WIDTH - 1)) * scales) @ axes
    means = rng.normal(size=(N_CLASSES, WIDTH - 1)) @ axes
    means -= means.mean(0)
    weights = means @ np.linalg.pinv(covariance)
    logits = rng.normal(size=(len(photos), N_CLASSES))
    return photos, logits, means, weights


@pytest.fixture(scope='module')
def known():
    return world()


@pytest.fixture(scope='module')
def classes(known):
    photos, logits, _, weights = known
    given = photos.astype('f4'), logits.astype('f2'), weights.astype('f4')
    return ImaginedPhotos(*given, SETTINGS, EYES)


def cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return (unit_rows(one) * unit_rows(two)).sum(1)


def drawn(classes, rows, seed=0):
    torch.manual_seed(seed)
    return classes[np.asarray(rows)]


def test_classes_lie_where_their_means_are(known, classes):
    means, weights = known[2:]
    assert len(classes) == 2 * N_CLASSES and classes.towards.shape == (N_CLASSES, WIDTH)
    assert cosines(classes.towards, means).min() > 0.995
    assert cosines(weights, means).max() < 0.9  # the weights alone do not say


def test_what_all_classes_share_moves_nothing(known, classes):
    photos, logits, _, weights = known
    shifted = ImaginedPhotos(photos, logits, weights + np.arange(WIDTH), SETTINGS, EYES)
    np.testing.assert_allclose(shifted.towards, classes.towards, atol=0.01)


def test_imagined_photos_of_a_class_lie_about_its_mean(known, classes):
    means = known[2]
    for c in range(N_CLASSES):
        rows = drawn(classes, [c, c + N_CLASSES] * 2000)[:, :WIDTH]
        moved = unit_rows(rows).mean(0) - classes.mean
        along = moved - (moved @ classes.mean) * classes.mean / (classes.mean @ classes.mean)
        assert cosines(along[None], means[c : c + 1])[0] > 0.98


def test_rows_are_unit(classes):
    rows = drawn(classes, [0, 3, 9, 11])
    assert rows.shape == (4, WIDTH + N_CLASSES) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_each_draw_is_another_photo(classes):
    rows = drawn(classes, [2] * 50)
    assert len(np.unique(rows, axis=0)) == 50


def test_draws_are_those_of_torch(classes):
    rows = drawn(classes, [1, 4, 0], seed=3)
    np.random.seed(0)
    np.testing.assert_array_equal(drawn(classes, [1, 4, 0], seed=3), rows)
    assert not np.array_equal(classes[np.array([1, 4, 0])], rows)  # it goes on
    assert not np.array_equal(drawn(classes, [1, 4, 0], seed=4), rows)
    state = torch.get_rng_state()
    following = classes[np.array([5])]
    torch.set_rng_state(state)
    np.testing.assert_array_equal(classes[np.array([5])], following)


def test_the_class_part_names_the_class(classes, monkeypatch):
    """Sure of it, its probability is by far the largest; not at all, what was seen is left."""
    wanted = np.arange(2 * N_CLASSES).repeat(100)
    monkeypatch.setattr(imagined, 'SURE', (0.6, 1.0))
    named = drawn(classes, wanted)[:, WIDTH:]
    assert (named >= 0).all() and (named.argmax(1) == wanted % N_CLASSES).all()
    monkeypatch.setattr(imagined, 'SURE', (0.0, 0.0))
    assert (drawn(classes, wanted)[:, WIDTH:].argmax(1) == wanted % N_CLASSES).mean() < 0.5


def test_only_photos_of_the_setting_are_moved(known, monkeypatch):
    photos, logits, _, weights = known
    for bound, value in (('ACTIVATIONS', 0.0), ('SETTING', 1.0), ('SURE', 0.0)):
        monkeypatch.setattr(imagined, bound, (value, value))  # they stay what they are
    kinds = np.array([4, 70, 9]), np.array([12]), np.arange(100, 120)
    some = ImaginedPhotos(photos[:200], logits[:200], weights, kinds, EYES)
    assert len(some) == 3 * N_CLASSES
    for kind, rows in enumerate(kinds):
        found = drawn(some, [kind * N_CLASSES + 2] * 300)[:, :WIDTH]
        nearest = (unit_rows(found) @ unit_rows(photos[:200]).T).argmax(1)
        assert set(nearest.tolist()) == set(rows.tolist())


def test_an_imagined_photo_is_a_photo_that_was_moved(known, classes):
    """One by one, with the draws in their order."""
    photos, logits, _, _ = known
    wanted = [3, 6, 9, 5]  # classes 3, 0, 3, 5; the two in the middle in the second setting
    torch.manual_seed(7)
    kinds = [SETTINGS[i // N_CLASSES] for i in wanted]
    chosen = [kind[int(x * len(kind))] for kind, x in zip(kinds, torch.rand(4), strict=True)]
    drawn_at = [torch.rand(4, 1).numpy()[:, 0] for _ in range(3)]
    bounds = imagined.ACTIVATIONS, imagined.SETTING, imagined.SURE
    far, left, sure = (
        a + (b - a) * x.astype(np.float64) for (a, b), x in zip(bounds, drawn_at, strict=True)
    )
    found = drawn(classes, wanted, seed=7)
    seen = photos / np.linalg.norm(photos, axis=1, keepdims=True)
    for row, c in enumerate(i % N_CLASSES for i in wanted):
        activations = seen.mean(0) + far[row] * classes.towards[c]
        activations = activations + left[row] * (seen[chosen[row]] - seen.mean(0))
        p = np.exp(logits[chosen[row]].astype('f2') / EYES.temperature)
        p = (1 - sure[row]) * p / p.sum() + sure[row] * np.eye(N_CLASSES)[c]
        length = EYES.class_weight * np.sqrt(p.max())
        both = activations / np.linalg.norm(activations), length * p / np.linalg.norm(p)
        expected = np.concatenate(both)
        np.testing.assert_allclose(found[row], expected / np.linalg.norm(expected), atol=1e-3)


def test_without_a_class_part_the_activations_are_left(known):
    photos, logits, _, weights = known
    rows = drawn(ImaginedPhotos(photos, logits, weights, SETTINGS, Eyes(class_weight=0)), [1, 7])
    assert not rows[:, WIDTH:].any()
    np.testing.assert_allclose(np.linalg.norm(rows[:, :WIDTH], axis=1), 1, rtol=1e-5)
