"""The style shift: the formula of 2015, means over any stream of texts, mixtures, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import REFERENCE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storyteller import formats, skipthoughts, style

STORY = np.load(REFERENCE / 'story' / 'vectors.npz')


class Counting:
    """An encoder whose vectors are (characters, words), and that notes its blocks."""

    def __init__(self):
        self.blocks = []

    def encode(self, X, *, verbose):
        assert verbose is False
        self.blocks.append(len(X))
        return np.array([[len(x), len(x.split())] for x in X], dtype=np.float32)


# --- shift ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['landscape', 'portrait', 'grey'])
def test_shift_of_2015(name):
    found = style.shift(STORY[f'svecs_{name}'].mean(axis=0), STORY['bneg'], STORY['bpos'])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, STORY[f'shift_{name}'], atol=1e-6)


@pytest.mark.parametrize('strength', [0, 0.5, 1, -1, 3])
def test_strength(strength):
    x, c, b = np.random.default_rng(0).standard_normal((3, 8))
    found = style.shift(x, c, b, strength)
    np.testing.assert_allclose(found, x - strength * (c - b), atol=1e-6)


NUMBERS = st.floats(-100, 100, width=32)
VECTORS = st.tuples(*[arrays.arrays(np.float32, 5, elements=NUMBERS)] * 3)


@given(VECTORS, st.floats(-3, 3), st.floats(-3, 3))
def test_shifts_add_up(vectors, one, two):
    """To go a way in two steps is to go it at once, and a style shifted back is where it was."""
    x, c, b = vectors
    at_once = style.shift(x, c, b, one + two)
    in_steps = style.shift(style.shift(x, c, b, one), c, b, two)
    np.testing.assert_allclose(in_steps, at_once, atol=1e-2)
    np.testing.assert_allclose(style.shift(style.shift(x, c, b), b, c), x, atol=1e-3)
    np.testing.assert_array_equal(style.shift(x, c, b, 0), x)
    np.testing.assert_allclose(style.shift(c, c, b), b, atol=1e-3)


def test_shift_of_many():
    x = np.random.default_rng(0).standard_normal((5, 8))
    found = style.shift(x, x[0], x[1])
    np.testing.assert_allclose(found[3], style.shift(x[3], x[0], x[1]))


@pytest.mark.parametrize('shapes', [((4,), (4,), (5,)), ((4,), (1, 4), (4,)), ((), (), ())])
def test_shift_of_vectors_that_do_not_fit(shapes):
    with pytest.raises(formats.MismatchError, match='must share D'):
        style.shift(*(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize('strength', [np.nan, np.inf])
def test_strength_that_is_not_finite(strength):
    with pytest.raises(ValueError, match='strength'):
        style.shift(np.zeros(2), np.zeros(2), np.zeros(2), strength)


# --- mean ----------------------------------------------------------------------------------------


def test_mean_over_a_stream_in_blocks(monkeypatch):
    monkeypatch.setattr(style, 'PASSAGES_AT_ONCE', 3)
    passages = [' '.join(['ab'] * n) for n in range(1, 9)]
    encoder = Counting()
    found = style.mean_vector(encoder, iter(passages))
    np.testing.assert_allclose(found, [np.mean([len(p) for p in passages]), 4.5])
    assert found.dtype == np.float32
    assert encoder.blocks == [3, 3, 2]


def test_short_passages_are_left_out_before_the_encoder_sees_them():
    encoder = Counting()
    passages = ['a', 'a b c', '  a\tb  ', 'a b c d']
    found = style.mean_vector(encoder, passages, min_words=3)
    np.testing.assert_allclose(found, [6, 3.5])
    assert encoder.blocks == [2]


def test_mean_of_thoughts():
    folder = REFERENCE / 'skipthoughts'
    encoder = skipthoughts.Encoder(skipthoughts.load_model(folder, folder, device='cpu'))
    captions = json.loads((folder / 'captions.json').read_text(encoding='utf-8'))
    expected = np.load(folder / 'vectors.npz')['captions_norm1_eos0'].mean(axis=0)
    np.testing.assert_allclose(style.mean_vector(encoder, captions), expected, atol=1e-5)


@pytest.mark.parametrize(('passages', 'min_words'), [([], 0), (['a b'], 3)])
def test_nothing_left(passages, min_words):
    with pytest.raises(ValueError, match=f'no passage of at least {min_words} words'):
        style.mean_vector(Counting(), passages, min_words=min_words)


def test_passages_that_are_no_texts():
    with pytest.raises(TypeError, match='expected many texts, found one'):
        style.mean_vector(Counting(), 'a passage')
    with pytest.raises(TypeError, match=r'passages\[1\]: expected str, found bytes'):
        style.mean_vector(Counting(), ['a', b'b'])


def test_encoder_that_gives_nan():
    class Broken:
        def encode(self, X, *, verbose):
            return np.full((len(X), 2), np.nan)

    with pytest.raises(ValueError, match='not finite'):
        style.mean_vector(Broken(), ['a'])


# --- mix -----------------------------------------------------------------------------------------

STYLES = {'romance': np.array([1.0, 0.0]), 'lyric': np.array([0.0, 1.0]), 'law': np.zeros(3)}


def test_mixture_is_the_weighted_mean():
    found = style.mix(STYLES, {'romance': 1, 'lyric': 3})
    np.testing.assert_allclose(found, [0.25, 0.75])
    assert found.dtype == np.float32
    np.testing.assert_allclose(style.mix(STYLES, {'romance': 10, 'lyric': 30}), found)


def test_mixture_of_one_is_that_style():
    np.testing.assert_array_equal(style.mix(STYLES, {'lyric': 0.3, 'romance': 0}), STYLES['lyric'])


@pytest.mark.parametrize(
    'weights',
    [{}, {'romance': 0, 'lyric': 0}, {'romance': -1, 'lyric': 2}, {'romance': np.nan},
     {'romance': np.inf}, {'romance': None}, {'romance': 'much'}],
)  # fmt: skip
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match='weights'):
        style.mix(STYLES, weights)


def test_unknown_style_names_those_there_are():
    with pytest.raises(ValueError, match="no style called 'horror'; there are law, lyric, romance"):
        style.mix(STYLES, {'horror': 1})


def test_styles_of_different_widths():
    with pytest.raises(formats.MismatchError, match=r'romance \(2,\), law \(3,\)'):
        style.mix(STYLES, {'romance': 1, 'law': 1})


# --- files ---------------------------------------------------------------------------------------


def test_style_files_of_2015():
    path = REFERENCE / 'story' / 'romance_style.npy'
    np.testing.assert_array_equal(style.load_style(path, 48), STORY['bpos'])


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', '>f4', 'int32'])
@pytest.mark.parametrize('shape', [(3,), (1, 3)])
def test_vectors_of_any_number_type(tmp_path, dtype, shape):
    np.save(tmp_path / 's.npy', np.array([1, 2, 3], dtype=dtype).reshape(shape))
    found = style.load_style(str(tmp_path / 's.npy'), 3)
    assert found.dtype == np.float32
    assert found.tolist() == [1, 2, 3]


def test_style_of_another_width():
    path = REFERENCE / 'story' / 'romance_style.npy'
    with pytest.raises(formats.MismatchError, match=r'romance_style.npy: .*width 4800, found 48'):
        style.load_style(path, 4800)


@pytest.mark.parametrize(
    'array',
    [np.zeros((2, 3)), np.zeros((3, 1)), np.zeros(()), np.array([1, np.nan, 3]),
     np.array([1, 1e300, 3]), np.array(['a', 'b', 'c']), np.array([{'a': 1}, 2, 3], dtype=object)],
)  # fmt: skip
def test_arrays_that_are_no_style(tmp_path, array):
    np.save(tmp_path / 's.npy', array, allow_pickle=True)
    with pytest.raises(formats.ModelFileError, match=r's.npy: '):
        style.load_style(tmp_path / 's.npy', 3)


@pytest.mark.parametrize('content', [b'', b'hello', b'version https://git-lfs.github.com/spec/v1'])
def test_files_that_are_no_arrays(tmp_path, content):
    (tmp_path / 's.npy').write_bytes(content)
    with pytest.raises(formats.ModelFileError, match=r's.npy: '):
        style.load_style(tmp_path / 's.npy', 3)


def test_missing_style_file(tmp_path):
    with pytest.raises(formats.MissingFileError, match=r's.npy'):
        style.load_style(tmp_path / 's.npy', 3)
