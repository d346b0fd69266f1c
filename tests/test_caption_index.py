"""Nearest captions by an index, against the exact search."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storyteller import caption_index, captions
from storyteller.formats import MismatchError, MissingFileError, ModelFileError
from storyteller.layers import unit_rows

pytest.importorskip('faiss')


@pytest.fixture(scope='module')
def vectors():
    """Clusters, as captions form them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, 32))
    rows = centres[rng.integers(0, 200, 12_000)] + 0.5 * rng.normal(size=(12_000, 32))
    return unit_rows(rows).astype(np.float32)


@pytest.fixture(scope='module')
def queries(vectors):
    rng = np.random.default_rng(1)
    return unit_rows(vectors[::400] + 0.05 * rng.normal(size=(30, 32))).astype(np.float32)


@pytest.mark.parametrize(
    ('kind', 'least'), [('flat', 1.0), ('ivf', 0.9), ('hnsw', 0.9), ('opq', 0.8)]
)
def test_an_index_finds_what_the_exact_search_finds(vectors, queries, tmp_path, kind, least):
    index = caption_index.build(vectors, kind, verbose=False)
    assert caption_index.recall(index, queries, 20) >= least
    found, scores = captions.nearest(queries, index, 20)
    exact = np.einsum('bke,be->bk', vectors[found], queries)
    np.testing.assert_allclose(scores, exact, rtol=1e-5)  # re-ranked: scores are true
    assert (np.diff(scores) <= 0).all() and len(np.unique(found[0])) == 20
    one, score = captions.nearest(queries[0], index, 20)
    np.testing.assert_array_equal(one, found[0])
    np.testing.assert_allclose(score, scores[0])
    index.save(tmp_path / 'a.faiss')
    again = caption_index.load(tmp_path / 'a.faiss', vectors)
    np.testing.assert_array_equal(captions.nearest(queries, again, 20)[0], found)


def test_more_effort_finds_more(vectors, queries):
    index = caption_index.build(vectors, 'ivf', verbose=False)
    found = []
    for index.effort in (1, 8, 1000):
        found.append(caption_index.recall(index, queries, 50))
    assert found == sorted(found) and found[-1] == 1.0


def test_with_little_effort_there_are_still_k(vectors, queries):
    index = caption_index.build(vectors, 'ivf', verbose=False)
    index.effort = 1
    assert captions.nearest(queries, index, 2000)[0].shape == (30, 2000)


def test_flat_is_the_exact_search(vectors, queries):
    index = caption_index.build(vectors, 'flat', verbose=False)
    for mine, exact in zip(
        captions.nearest(queries, index, 10), captions.nearest(queries, vectors, 10), strict=True
    ):
        np.testing.assert_allclose(mine, exact, rtol=1e-5)


def test_bad_arguments_are_named(vectors, queries):
    with pytest.raises(ValueError, match=r"kind: .*'tree'"):
        caption_index.build(vectors, 'tree')
    with pytest.raises(ValueError, match='10,000'):
        caption_index.build(vectors[:100], 'opq')
    index = caption_index.build(vectors, 'flat', verbose=False)
    with pytest.raises(ValueError, match='k: '):
        captions.nearest(queries, index, 0)
    with pytest.raises(MismatchError):
        captions.nearest(queries[:, :5], index, 3)
    with pytest.warns(UserWarning, match='only 12000'):
        assert captions.nearest(queries[0], index, 20_000)[0].shape == (12_000,)


def test_bad_files_are_named(vectors, tmp_path):
    path = tmp_path / 'a.faiss'
    with pytest.raises(MissingFileError, match=r'a\.faiss'):
        caption_index.load(path, vectors)
    caption_index.build(vectors, 'flat', verbose=False).save(path)
    with pytest.raises(MismatchError, match=r'a\.faiss: .*12000 x 32.*100 x 32'):
        caption_index.load(path, vectors[:100])
    (tmp_path / 'a.faiss.json').write_text('{"kind": "tree", "effort": 3}')
    with pytest.raises(ModelFileError, match='tree'):
        caption_index.load(path, vectors)
    caption_index.build(vectors, 'flat', verbose=False).save(path)
    path.write_bytes(b'not an index')
    with pytest.raises(ModelFileError, match=r'a\.faiss'):
        caption_index.load(path, vectors)
    (tmp_path / 'a.faiss.json').unlink()
    with pytest.raises(MissingFileError, match=r'a\.faiss\.json'):
        caption_index.load(path, vectors)


def test_the_script(vectors, tmp_path):
    np.save(tmp_path / 'v.npy', vectors)
    script = Path(__file__).parent.parent / 'scripts' / 'build_caption_index.py'
    command = [sys.executable, str(script), '--vectors', str(tmp_path / 'v.npy'), '--queries', '9']
    done = subprocess.run(
        [*command, '--out', str(tmp_path / 'a.faiss'), '--k', '10'],
        capture_output=True, encoding='utf-8', timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'recall at 10: ' in done.stdout and 'ms a photo' in done.stdout
    assert len(caption_index.load(tmp_path / 'a.faiss', vectors)) == 12_000
