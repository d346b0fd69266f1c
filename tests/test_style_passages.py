"""Passages of a style: kept in bytes, found by direction, and told beside F(x)."""

from __future__ import annotations

import numpy as np
import pytest

from storyteller import generate, style_passages, writing
from storyteller.errors import MismatchError, ModelFileError
from storyteller.options import StoryOptions, Telling
from storyteller.style_passages import StylePassages

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=12).astype(np.float32)
VECTORS = (MEAN + RNG.normal(size=(40, 12))).astype(np.float32)
KNOWN = StylePassages.of(VECTORS, MEAN)


def slowly_towards(thought, n, blend):
    """F(x), then its n nearest passages by the cosine of differences from the mean."""
    kept = KNOWN.vectors(np.arange(len(VECTORS)))
    away = kept - MEAN
    cosines = [
        row @ (thought - MEAN) / np.linalg.norm(row) / np.linalg.norm(thought - MEAN)
        for row in away
    ]
    nearest = sorted(range(len(VECTORS)), key=lambda i: -cosines[i])[:n]
    return [thought, *(blend * kept[i] + (1 - blend) * thought for i in nearest)]


@pytest.mark.parametrize('blend', [0.0, 0.6, 1.0])
@pytest.mark.parametrize('n', [1, 5])
def test_equals_a_slow_version(n, blend):
    thoughts = (MEAN + RNG.normal(size=(3, 12))).astype(np.float32)
    found = KNOWN.towards(thoughts, n, blend)
    assert found.shape == (3, 1 + n, 12) and found.dtype == np.float32
    for row, thought in zip(found, thoughts, strict=True):
        np.testing.assert_allclose(row, slowly_towards(thought, n, blend), atol=1e-4)


def test_a_byte_keeps_a_passage_to_a_254th_of_its_largest_difference():
    largest = np.abs(VECTORS - MEAN).max(1, keepdims=True)
    off = np.abs(KNOWN.vectors(np.arange(40)) - VECTORS)
    assert (off <= largest / 254 + 1e-6).all()


def test_there_may_be_fewer_than_are_asked_for():
    assert KNOWN.towards(VECTORS[:1], 99).shape == (1, 41, 12)


def test_a_passage_that_is_the_mean_is_kept():
    known = StylePassages.of(np.stack([MEAN, MEAN + 1]), MEAN)
    np.testing.assert_allclose(known.vectors(np.array([0])), MEAN[None])
    assert np.isfinite(known.towards(VECTORS[:1], 2)).all()


def test_a_file_gives_back_what_was_written(tmp_path):
    style_passages.write(tmp_path / 'p.safetensors', {'sea': KNOWN, 'song': KNOWN})
    found = style_passages.read(tmp_path / 'p.safetensors', 12)
    assert list(found) == ['sea', 'song']
    for part in ('mean', 'codes', 'scales'):
        np.testing.assert_array_equal(getattr(found['sea'], part), getattr(KNOWN, part))


def test_without_a_file_there_are_none(tmp_path):
    assert style_passages.read(tmp_path / 'none.safetensors', 12) == {}


def test_another_width_is_refused(tmp_path):
    style_passages.write(tmp_path / 'p.safetensors', {'sea': KNOWN})
    with pytest.raises(MismatchError, match=r'p\.safetensors: sea: .*width 12.* 4800'):
        style_passages.read(tmp_path / 'p.safetensors', 4800)


@pytest.mark.parametrize(
    'changed',
    [
        {'mean': np.full(12, np.nan, np.float32)},
        {'scales': KNOWN.scales[:3]},
        {'codes': KNOWN.codes.astype(np.int16)},
        {'codes': KNOWN.codes[:0], 'scales': KNOWN.scales[:0]},
        {'mean': MEAN[:5]},
    ],
)
def test_what_is_no_such_file_is_refused_by_name(tmp_path, changed):
    parts = {'mean': MEAN, 'codes': KNOWN.codes, 'scales': KNOWN.scales} | changed
    style_passages.write(tmp_path / 'p.safetensors', {'sea': StylePassages(**parts)})
    with pytest.raises(ModelFileError, match=r'p\.safetensors: sea: expected'):
        style_passages.read(tmp_path / 'p.safetensors', 12)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / 'p.safetensors'
    style_passages.write(path, {'sea': KNOWN})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFileError, match='not a readable file of passages'):
        style_passages.read(path, 12)


def test_only_the_style_itself_has_passages():
    known = {'sea': KNOWN}
    assert style_passages.of_style(known, MEAN) is KNOWN
    assert style_passages.of_style(known, MEAN + 1) is None
    assert style_passages.of_style(known, MEAN[:5]) is None
    assert style_passages.of_style(known, None) is None


@pytest.mark.parametrize('wrong', [{'passages': -1}, {'passages': 1.5}, {'blend': 1.1}])
def test_options_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Telling(**wrong)


@pytest.fixture(scope='module')
def z():
    return generate.load_all()


def texts(z, thoughts, style, **changes):
    way = Telling(length_penalty=1.0, n_best=50, **changes)
    return writing.texts_of(z, thoughts, StoryOptions(bw=2, maxlen=20, telling=way), style)


def test_what_passages_tell_is_compared_with_what_the_shifted_thought_tells(z):
    b = z['styles']['romance']
    thoughts = np.stack([b + 0.5 * (v - b) for v in z['passages']['romance'].vectors(np.arange(2))])
    contexts = z['passages']['romance'].towards(thoughts, 3, 0.7)
    together = texts(z, thoughts, b, passages=3, blend=0.7, candidates=2)
    for i in range(2):
        each = texts(z, contexts[i], b, candidates=2)
        assert {t for t, _ in together[i]} == {t for texts in each for t, _ in texts}


def test_a_style_without_passages_is_told_as_ever(z):
    mixture = (z['styles']['romance'] + z['styles']['lyric']) / 2
    plain = texts(z, mixture[None], mixture, candidates=2)
    assert texts(z, mixture[None], mixture, candidates=2, passages=3) == plain
