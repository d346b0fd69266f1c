"""Nearest captions by an index, against the exact search."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE

from storyteller import captions, embedding, generate
from storyteller.captions import index as caption_index
from storyteller.formats import MismatchError, MissingFileError, ModelFileError
from storyteller.layers import unit_rows

pytest.importorskip('faiss')


@pytest.fixture(scope='module')
def vectors():
    """Clusters, as captions form them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, 16))
    rows = centres[rng.integers(0, 200, 12_000)] + 0.5 * rng.normal(size=(12_000, 16))
    return unit_rows(rows).astype(np.float32)


@pytest.fixture(scope='module')
def queries(vectors):
    rng = np.random.default_rng(1)
    return unit_rows(vectors[::400] + 0.05 * rng.normal(size=(30, 16))).astype(np.float32)


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
    with pytest.raises(MismatchError, match=r'a\.faiss: .*12000 x 16.*100 x 16'):
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


@pytest.mark.filterwarnings('ignore:k=')
@pytest.mark.parametrize('n', [1, 10, 38, 39, 1000])
@pytest.mark.parametrize('kind', ['flat', 'ivf', 'hnsw'])
def test_few_captions_make_an_index_too(vectors, queries, capfd, kind, n):
    few = vectors[:n]
    index = caption_index.build(few, kind, verbose=False)
    found, exact = (captions.nearest(queries, pool, 5)[0] for pool in (index, few))
    np.testing.assert_array_equal(found, exact)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ''  # faiss complains there of lists with few vectors
    with pytest.raises(ValueError, match='at least one'):
        caption_index.build(vectors[:0], kind)


# --- of which pool an index is -------------------------------------------------------------------


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The models of the reference by entries, with captions that may be edited."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    for path in (REFERENCE / 'embedding').iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    texts = [f'a dog runs on beach {number}' for number in 'abcdefghijklmnopqrst']
    (tmp_path / 'captions.txt').write_text('\n'.join(texts), encoding='utf-8')
    return tmp_path


def pool_of(folder):
    """Vectors of a folder's captions, and what they are made of, as `load_all` takes them."""
    vse = embedding.load_model(folder / 'coco_embedding.npz')
    texts = captions.load_captions(folder / 'captions.txt')
    return captions.caption_vectors(vse, texts), captions.made_of(vse, texts)


def edit(change):
    """What rewrites the captions of a folder by a function of their list."""

    def rewrite(folder):
        path = folder / 'captions.txt'
        path.write_text('\n'.join(change(path.read_text().splitlines())), encoding='utf-8')

    return rewrite


def retrain(folder):
    with np.load(folder / 'coco_embedding.npz') as file:
        params = dict(file)
    np.savez(folder / 'coco_embedding.npz', **params | {'Wemb': params['Wemb'] * np.float32(1.1)})


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (edit(lambda lines: lines[::-1]), 'other captions, or in another order'),
        (edit(lambda lines: [*lines[:-1], 'a cat sleeps']), 'other captions'),
        (edit(lambda lines: [*lines, 'a cat sleeps']), '20 x .*21 x'),
        (retrain, 'another embedding'),
    ],
)
def test_an_index_of_another_pool_is_refused(models, change, words):
    vectors, made_of = pool_of(models)
    path = models / 'a.faiss'
    caption_index.build(vectors, 'flat', verbose=False, made_of=made_of).save(path)
    assert caption_index.load(path, vectors, made_of).made_of['captions'] == made_of['captions']
    caption_index.load(path, vectors)  # by the vectors alone
    nearly = vectors + np.float32(1e-7)  # as another machine computes them
    caption_index.load(path, nearly, made_of)
    change(models)
    vectors, made_of = pool_of(models)
    with pytest.raises(MismatchError, match=rf'a\.faiss: .*{words}.*build_caption_index'):
        caption_index.load(path, vectors, made_of)
    with pytest.raises(MismatchError, match=r'a\.faiss: '):
        caption_index.load(path, vectors)


def test_loading_all_refuses_the_index_of_another_pool(models, monkeypatch):
    reference, story = REFERENCE, REFERENCE / 'story'
    monkeypatch.setattr(
        'storyteller.loading.build_convnet', lambda path, device=None: {'dim': 4096}
    )
    paths = {
        'skmodels': reference / 'skipthoughts',
        'sktables': reference / 'skipthoughts',
        'decmodel': reference / 'decoder' / 'romance.npz',
        'dictionary': reference / 'decoder' / 'romance_dictionary.pkl',
        'vgg': models / 'vgg19.pkl',
        'vsemodel': models / 'coco_embedding.npz',
        'captions': models / 'captions.txt',
        'negbias': story / 'caption_style.npy',
        'posbias': story / 'romance_style.npy',
    }
    vectors, made_of = pool_of(models)
    path = models / 'a.faiss'
    caption_index.build(vectors, 'flat', verbose=False, made_of=made_of).save(path)
    assert len(generate.load_all(paths, caption_index=path)['cvec']) == 20
    edit(sorted)(models)
    assert len(generate.load_all(paths, caption_index=path)['cvec']) == 20  # sorted already
    edit(lambda lines: sorted(lines, reverse=True))(models)
    with pytest.raises(MismatchError, match=r'a\.faiss: .*another order'):
        generate.load_all(paths, caption_index=path)


def test_an_index_without_a_word_on_its_pool_is_refused(vectors, tmp_path):
    path, card = tmp_path / 'a.faiss', tmp_path / 'a.faiss.json'
    caption_index.build(vectors, 'flat', verbose=False).save(path)
    facts = json.loads(card.read_text())
    del facts['made_of']
    card.write_text(json.dumps(facts))
    with pytest.raises(MismatchError, match='does not say of which captions'):
        caption_index.load(path, vectors)
    card.write_text(json.dumps(facts | {'made_of': 3}))
    with pytest.raises(ModelFileError, match=r'a\.faiss'):
        caption_index.load(path, vectors)


def test_a_card_never_stays_beside_another_index(vectors, tmp_path, monkeypatch):
    path = tmp_path / 'a.faiss'
    index = caption_index.build(vectors, 'flat', verbose=False)
    index.save(path)
    monkeypatch.setattr(caption_index, '_hash', lambda vectors: 1 / 0)  # stopped between the files
    with pytest.raises(ZeroDivisionError):
        index.save(path)
    monkeypatch.undo()
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
