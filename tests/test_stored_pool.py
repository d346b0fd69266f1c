"""The vectors of a pool in bytes: what is found is what the exact ones would give."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import tell, write_models
from test_global_state import SURROUNDINGS

from storyteller import captions, config, embedding, generate
from storyteller.captions import stored as stored_pool
from storyteller.formats import ModelFileError
from storyteller.layers import unit_rows
from storyteller.nn import nearest

POOL = captions.load_captions(REFERENCE / 'story' / 'captions.txt')


@pytest.fixture(scope='module')
def vse():
    return embedding.load_model(REFERENCE / 'embedding' / 'coco_embedding.npz', device='cpu')


@pytest.fixture(scope='module')
def exact(vse):
    return embedding.encode_sentences(vse, POOL)


@pytest.fixture
def path(tmp_path, vse, exact):
    stored_pool.write(tmp_path / 'v.safetensors', vse, POOL, exact)
    return tmp_path / 'v.safetensors'


def test_what_is_lost_is_known():
    vectors = np.random.default_rng(0).normal(size=(50, 24)).astype('f4')
    vectors[3] = 0
    parts = stored_pool.packed(vectors)
    assert parts['codes'].dtype == np.int8 and np.abs(parts['codes']).max() == 127
    back = parts['codes'] * parts['scales'][:, None]
    away = np.linalg.norm(vectors - back, axis=1)
    np.testing.assert_allclose(parts['away'], away, rtol=1e-4)
    assert parts['away'].max() < 0.03 * np.linalg.norm(vectors, axis=1).max()


@given(seed=st.integers(0, 1000), k=st.integers(1, 70), alike=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_same_are_found_as_among_exact_vectors(vse, exact, seed, k, alike):
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(20, exact.shape[1])).astype('f4')
    if alike:  # many scores close to each other
        queries = queries * 0.01 + exact[:1] * rng.uniform(0.1, 9)
    stored = stored_pool.StoredPool(vse, POOL, stored_pool.packed(exact))
    k = min(k, len(POOL))
    indices, scores = nearest.nearest(queries, stored, k)
    their = nearest.nearest(queries, exact, k)[1]
    np.testing.assert_allclose(scores, their, atol=1e-5)
    of_ours = np.take_along_axis(queries @ exact.T, indices, axis=1)
    np.testing.assert_allclose(of_ours, their, atol=1e-5)  # others only where scores are equal
    one, score = nearest.nearest(queries[0], stored, k)
    assert one.tolist() == indices[0].tolist() and score.shape == (k,)


def test_only_what_may_be_near_is_led_into_the_joint_space(vse, exact, monkeypatch):
    stored, seen = stored_pool.StoredPool(vse, POOL, stored_pool.packed(exact)), []
    encode = embedding.encode_sentences
    monkeypatch.setattr(
        stored_pool.embedding, 'encode_sentences', lambda m, X: seen.extend(X) or encode(m, X)
    )
    nearest.nearest(exact[7], stored, 3)
    assert POOL[7] in seen and len(seen) < len(POOL) / 2
    before = len(seen)
    nearest.nearest(exact[7], stored, 3)
    assert len(seen) == before  # they stay


def test_taken_for_an_array_it_is_the_exact_one(vse, exact, tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    stored = stored_pool.StoredPool(vse, POOL, stored_pool.packed(exact))
    assert stored.shape == exact.shape and stored.dtype == np.float32 and len(stored) == len(POOL)
    np.testing.assert_allclose(np.dot(exact[:2], stored.T), exact[:2] @ exact.T, atol=1e-6)
    np.testing.assert_allclose(stored[3:5], exact[3:5], atol=1e-6)
    assert nearest.nearest(exact[3], stored, 1)[0].tolist() == [3]


@pytest.mark.parametrize('around', SURROUNDINGS)
@pytest.mark.filterwarnings('ignore:Anomaly')
def test_what_is_set_around_changes_nothing(vse, exact, around):
    expected = nearest.nearest(exact[:3], exact, 9)[0].tolist()
    with SURROUNDINGS[around]():
        stored = stored_pool.StoredPool(vse, POOL, stored_pool.packed(exact))
        assert nearest.nearest(exact[:3], stored, 9)[0].tolist() == expected


def test_wrong_queries_are_refused_as_ever(vse, exact):
    stored = stored_pool.StoredPool(vse, POOL, stored_pool.packed(exact))
    with pytest.raises(ValueError, match='k: expected'):
        nearest.nearest(exact[0], stored, 0)
    with pytest.raises(ValueError, match='must share E'):
        nearest.nearest(exact[0, :-1], stored, 1)
    with pytest.warns(UserWarning, match='only 60'):
        assert len(nearest.nearest(exact[0], stored, 61)[0]) == 60


def test_a_file_of_others_is_not_taken(vse, exact, path, tmp_path):
    assert stored_pool.read(path, vse, POOL).shape == exact.shape
    assert stored_pool.read(tmp_path / 'none', vse, POOL) is None
    assert stored_pool.read(path, vse, [*POOL[:-1], 'another one']) is None
    assert stored_pool.read(path, vse, POOL[::-1]) is None
    assert stored_pool.read(path, vse | {'_fingerprint': 'another'}, POOL) is None


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'codes': np.zeros((59, 4), np.int8)}, 'codes'),
        ({'codes': np.zeros((60, 24), np.float32)}, 'codes'),
        ({'scales': np.full(60, np.nan, np.float32)}, 'scales'),
        ({'away': np.full(60, -1, np.float32)}, 'away'),
        ({'away': None}, 'not readable'),
    ],
)
def test_what_is_no_such_file_is_refused(vse, exact, path, changes, words):
    parts = stored_pool.packed(exact) | changes
    parts = {name: array for name, array in parts.items() if array is not None}
    safetensors.numpy.save_file(parts, path, stored_pool._made_of(vse, POOL))
    with pytest.raises(ModelFileError, match=rf'v\.safetensors: .*{words}'):
        stored_pool.read(path, vse, POOL)
    path.write_bytes(b'something else')
    with pytest.raises(ModelFileError, match='not readable'):
        stored_pool.read(path, vse, POOL)


def test_stories_are_the_same_with_and_without(tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    paths = write_models(tmp_path)
    paths['captions'] = shutil.copy(paths['captions'], tmp_path)
    z = generate.load_all(paths)
    expected = tell(z)
    stored_pool.write(tmp_path / stored_pool.FILE, z['vse'], z['cap'], z['cvec'])
    shutil.rmtree(tmp_path / 'cache')
    z = generate.load_all(paths)
    assert isinstance(z['cvec'], stored_pool.StoredPool)
    assert tell(z) == expected and not (tmp_path / 'cache').exists()
    (tmp_path / 'captions.txt').write_text('A dog runs .\n')
    assert isinstance(generate.load_all(paths)['cvec'], np.ndarray)


def test_those_of_our_bundle_are_of_its_captions_and_its_embedding():
    folder = config.default_folder()
    model = embedding.load_model(folder / 'embedding.safetensors', device='cpu')
    pool = captions.load_captions(folder / 'captions.txt')
    stored = stored_pool.read(folder / stored_pool.FILE, model, pool)
    rows = np.arange(0, len(pool), 997)
    rough = unit_rows(stored.codes[rows] * stored.scales[rows, None])
    exact = embedding.encode_sentences(model, [pool[row] for row in rows])
    assert (np.linalg.norm(rough - exact, axis=1) < 0.03).all()
    lost = exact - stored.codes[rows] * stored.scales[rows, None]
    assert (np.linalg.norm(lost, axis=1) < stored.away[rows] + 1e-5).all()
    assert stored_pool.FILE in json.loads((folder / 'bundle.json').read_text())['files']


def test_notebooks_may_take_it_for_the_array_that_it_was(vse, exact):
    def stored():
        return stored_pool.StoredPool(vse, POOL, stored_pool.packed(exact))

    query = exact[3]
    for take in (
        lambda pool: pool @ query,
        lambda pool: query @ pool.T,
        lambda pool: np.dot(pool, query),
        lambda pool: pool.dot(query),
        lambda pool: pool.mean(0),
        lambda pool: 2 * pool - query,
        lambda pool: np.linalg.norm(pool, axis=1),
        lambda pool: pool[2:5],
        lambda pool: pool.astype('f8').sum(),
        lambda pool: np.add.reduce(pool, axis=0),
        lambda pool: copy.deepcopy(pool)[0],
    ):
        np.testing.assert_allclose(take(stored()), take(exact), rtol=1e-4, atol=1e-5)
    with pytest.raises(AttributeError, match='no_such'):
        _ = stored().no_such
