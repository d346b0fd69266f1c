"""The pool: read with care, embedded once, searched exactly."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from unittest import mock

import numpy as np
import pytest
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storyteller import captions, embedding, formats
from storyteller.nn import nearest

POOL = REFERENCE / 'story' / 'captions.txt'


@pytest.fixture(scope='module')
def vse():
    return embedding.load_model(REFERENCE / 'embedding' / 'coco_embedding.npz', device='cpu')


@pytest.fixture
def never_embeds(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError('embedded again')

    return lambda: monkeypatch.setattr(captions.embedding, 'encode_sentences', fail)


# --- reading -------------------------------------------------------------------------------------


def test_pool_of_2015():
    pool = captions.load_captions(POOL)
    assert pool == [line.decode('utf-8').strip() for line in POOL.read_bytes().split(b'\n')[:-1]]
    assert len(pool) == 60


def test_white_space_line_ends_mark_and_blank_lines(tmp_path):
    path = tmp_path / 'pool.txt'
    path.write_bytes('\ufeff  a café \r\n\r\n \t\nb\u2028b\nlast'.encode())
    assert captions.load_captions(str(path)) == ['a café', 'b\u2028b', 'last']


@pytest.mark.parametrize('content', [b'', b'\n\n', b' \r\n\t', b'\xef\xbb\xbf'])
def test_file_without_a_caption(tmp_path, content):
    path = tmp_path / 'pool.txt'
    path.write_bytes(content)
    with pytest.raises(formats.ModelFileError, match=r'pool.txt: expected one caption a line'):
        captions.load_captions(path)


def test_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(formats.MissingFileError, match=r'pool.txt'):
        captions.load_captions(tmp_path / 'pool.txt')
    (tmp_path / 'pool.txt').write_bytes(b'a caf\xe9\n')
    with pytest.raises(formats.ModelFileError, match=r'pool.txt.*UTF-8'):
        captions.load_captions(tmp_path / 'pool.txt')


def test_a_pool_whose_stops_hang_on_words_is_warned_of(vse, tmp_path):
    known = [word for word in vse['worddict'] if word.isalpha()][:3]
    hanging, parted = ([f'a {w}{mark}' for w in known] for mark in ('.', ' .'))
    for cache in (False, tmp_path):
        with pytest.warns(UserWarning, match=rf"of 3 captions, 3 end .* '{known[0]}\.'"):
            captions.caption_vectors(vse, hanging, cache=cache)
    with pytest.warns(UserWarning, match='UNK'):  # from the cache as well
        captions.cached_vectors(vse, hanging, cache=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        captions.caption_vectors(vse, parted, cache=tmp_path)
        captions.caption_vectors(vse, ['a zzzqx.', ''], cache=tmp_path)  # unknown in any case
        captions.caption_vectors(vse, [], cache=tmp_path)


# --- the cache -----------------------------------------------------------------------------------


def test_vectors_of_2015_made_and_from_the_cache(vse, tmp_path, never_embeds):
    expected = np.load(REFERENCE / 'story' / 'vectors.npz')['cvec']
    pool = captions.load_captions(POOL)
    made = captions.caption_vectors(vse, pool, cache=tmp_path)
    np.testing.assert_allclose(made, expected, atol=1e-5, rtol=0)
    never_embeds()
    cached = captions.caption_vectors(vse, pool, cache=str(tmp_path))
    np.testing.assert_array_equal(cached, made)
    assert isinstance(cached, np.memmap)
    assert not cached.flags.writeable
    assert len(list(tmp_path.iterdir())) == 1
    many = captions.nearest(made[:3], cached, 5)
    np.testing.assert_array_equal(many[0], captions.nearest(made[:3], np.array(made), 5)[0])
    assert not cached.flags.writeable


def test_cached_file_is_an_ordinary_npy(vse, tmp_path):
    made = captions.caption_vectors(vse, ['a dog', 'a cat'], cache=tmp_path)
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(np.load(path), made)


def test_a_large_pool_is_written_in_blocks(vse, tmp_path, monkeypatch):
    monkeypatch.setattr(captions, 'CAPTIONS_AT_ONCE', 7)
    pool = captions.load_captions(POOL)
    found = captions.caption_vectors(vse, pool, cache=tmp_path)
    np.testing.assert_allclose(found, embedding.encode_sentences(vse, pool), atol=1e-6)


def test_other_captions_or_model_are_other_files(vse, tmp_path):
    other = embedding.load_model(REFERENCE / 'embedding' / 'coco_embedding_bow.npz', device='cpu')
    for model, pool in [(vse, ['a dog', 'a cat']), (vse, ['a cat', 'a dog']),
                        (vse, ['a do', 'ga cat']), (other, ['a dog', 'a cat'])]:  # fmt: skip
        found = captions.caption_vectors(model, pool, cache=tmp_path)
        np.testing.assert_allclose(found, embedding.encode_sentences(model, pool), atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 4


def flip(raw, at):
    return raw[:at] + bytes([raw[at] ^ 0x80]) + raw[at + 1 :]


def test_a_large_pool_goes_on_where_it_was_interrupted(vse, tmp_path, monkeypatch):
    monkeypatch.setattr(captions, 'CAPTIONS_AT_ONCE', 7)
    monkeypatch.setattr(captions, 'LARGE_POOL', 20)
    pool, encode, embedded = captions.load_captions(POOL)[:40], embedding.encode_sentences, []

    def interrupted(model, block):
        if len(embedded) == 3:
            raise KeyboardInterrupt
        embedded.append(list(block))
        return encode(model, block)

    monkeypatch.setattr(captions.embedding, 'encode_sentences', interrupted)
    with pytest.raises(KeyboardInterrupt):
        captions.caption_vectors(vse, pool, cache=tmp_path)
    assert captions.cached_vectors(vse, pool, cache=tmp_path) is None
    (parts,) = tmp_path.glob('*.parts')
    (parts / '7.npy').write_bytes(b'damaged')
    seen = []
    monkeypatch.setattr(
        captions.embedding, 'encode_sentences', lambda m, b: seen.append(list(b)) or encode(m, b)
    )
    vectors = captions.caption_vectors(vse, pool, cache=tmp_path)
    assert seen == [pool[7:14], pool[21:28], pool[28:35], pool[35:]]
    np.testing.assert_allclose(vectors, encode(vse, pool), atol=1e-6)
    assert [path.suffix for path in tmp_path.iterdir()] == ['.npy']
    np.testing.assert_array_equal(captions.cached_vectors(vse, pool, cache=tmp_path), vectors)


def test_blocks_that_another_process_clears_away_are_no_failure(vse, tmp_path, monkeypatch):
    monkeypatch.setattr(captions, 'CAPTIONS_AT_ONCE', 7)
    monkeypatch.setattr(captions, 'LARGE_POOL', 20)
    pool, write, encode = captions.load_captions(POOL)[:40], captions._write_cached, []

    def cleared(path, shape, blocks):
        if path.parent.suffix == '.parts' and path.name != '0.npy':
            raise FileNotFoundError(path)
        write(path, shape, blocks)

    expected, original = embedding.encode_sentences(vse, pool), embedding.encode_sentences
    monkeypatch.setattr(captions, '_write_cached', cleared)
    monkeypatch.setattr(
        captions.embedding, 'encode_sentences', lambda m, b: encode.extend(b) or original(m, b)
    )
    found = captions.caption_vectors(vse, pool, cache=tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert encode == pool  # each once
    np.testing.assert_array_equal(captions.cached_vectors(vse, pool, cache=tmp_path), found)


def test_two_processes_make_one_cache(vse, tmp_path, monkeypatch):
    monkeypatch.setattr(captions, 'CAPTIONS_AT_ONCE', 3)  # it goes into the name of the file
    program = f"""
import numpy as np
from storyteller import captions, embedding
captions.CAPTIONS_AT_ONCE, captions.LARGE_POOL = 3, 5
vse = embedding.load_model({str(REFERENCE / 'embedding' / 'coco_embedding.npz')!r}, device='cpu')
pool = captions.load_captions({str(POOL)!r})
print('ready', flush=True)
input()
found = captions.caption_vectors(vse, pool, cache={str(tmp_path)!r})
assert abs(found - embedding.encode_sentences(vse, pool)).max() < 1e-6
"""
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen([sys.executable, '-c', program], stdin=pipe, stdout=pipe, text=True)
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout.readline() == 'ready\n'
    for process in started:  # both begin now
        process.stdin.write('\n')
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=120)
        assert process.returncode == 0
    pool = captions.load_captions(POOL)
    found = captions.cached_vectors(vse, pool, cache=tmp_path)
    np.testing.assert_allclose(found, embedding.encode_sentences(vse, pool), atol=1e-6)
    assert not list(tmp_path.glob('*.parts'))


def test_without_a_terminal_progress_is_shown_only_if_asked(vse, tmp_path, capfd):
    for verbose in (None, False):
        captions.caption_vectors(vse, ['a dog'], cache=False, verbose=verbose)
        captions.caption_vectors(vse, ['a cat'], cache=tmp_path / str(verbose), verbose=verbose)
    assert capfd.readouterr().err == ''
    captions.caption_vectors(vse, ['a bird'], cache=tmp_path, verbose=True)
    assert '1/1' in capfd.readouterr().err


@pytest.mark.parametrize(
    'damage',
    [
        lambda raw: b'',
        lambda raw: b'not an array',
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-4],
        lambda raw: raw + b'\0',
        lambda raw: flip(raw, 300),  # one bit, the sign of a number
        lambda raw: flip(raw, len(raw) - 1),
        lambda raw: raw.replace(b'(60, 32)', b'(32, 60)'),
        lambda raw: raw.replace(b'<f4', b'<i4'),
        lambda raw: raw.replace(b'<f4', b'|O4'),
    ],
)
def test_damaged_cache_is_made_anew(vse, tmp_path, damage):
    pool = captions.load_captions(POOL)
    made = np.array(captions.caption_vectors(vse, pool, cache=tmp_path))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    np.testing.assert_array_equal(captions.caption_vectors(vse, pool, cache=tmp_path), made)
    assert path.read_bytes() == whole


@pytest.fixture
def counted(monkeypatch):
    """How many captions are embedded."""
    counts, encode = [], embedding.encode_sentences

    def counting(model, texts, *rest, **options):
        counts.append(len(texts))
        return encode(model, texts, *rest, **options)

    monkeypatch.setattr(embedding, 'encode_sentences', counting)
    return counts


def test_folder_that_cannot_be_written_is_no_failure(vse, tmp_path, counted):
    (tmp_path / 'file').write_text('in the way')
    with pytest.warns(UserWarning, match='file.*read anew each time; STORYTELLER_CACHE'):
        found = captions.caption_vectors(vse, ['a dog'], cache=tmp_path / 'file' / 'cache')
    assert counted == [1]
    np.testing.assert_allclose(found, embedding.encode_sentences(vse, ['a dog']), atol=1e-6)


@pytest.mark.parametrize('large', [False, True])
def test_full_disk_is_no_failure_and_leaves_nothing(vse, tmp_path, monkeypatch, counted, large):
    pool = captions.load_captions(POOL)
    monkeypatch.setattr(captions, 'CAPTIONS_AT_ONCE', 7)
    monkeypatch.setattr(captions, 'LARGE_POOL', 10 if large else 100)
    full = mock.patch.object(captions.zlib, 'crc32', side_effect=OSError(28, 'No space left'))
    with full, pytest.warns(UserWarning, match='No space left.*read anew'):
        found = captions.caption_vectors(vse, pool, cache=tmp_path)
    assert large or sum(counted) == len(pool)  # each once
    np.testing.assert_allclose(found, embedding.encode_sentences(vse, pool), atol=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_seen_before_it_is_full(vse, tmp_path, monkeypatch, counted):
    pool = captions.load_captions(POOL)
    usage = captions.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(captions.shutil, 'disk_usage', lambda path: usage._replace(free=99))
    monkeypatch.setattr(captions, '_write_cached', lambda *_: pytest.fail('it was begun'))
    with pytest.warns(UserWarning, match='0 MB are needed, 0 are left.*read anew'):
        found = captions.caption_vectors(vse, pool, cache=tmp_path)
    assert counted == [len(pool)] and found.shape == (len(pool), 32)


@pytest.mark.parametrize('cache', [None, False])
def test_no_cache_when_none_is_wanted(vse, tmp_path, monkeypatch, cache):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    assert captions.caption_vectors(vse, ['a dog'], cache=cache).shape == (1, 32)
    assert list(tmp_path.iterdir()) == []


def test_default_folder(vse, tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'mine'))
    captions.caption_vectors(vse, ['a dog'])
    assert len(list((tmp_path / 'mine').iterdir())) == 1
    monkeypatch.delenv('STORYTELLER_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'user'))
    assert captions.cache_folder().name == 'storyteller'


@pytest.mark.parametrize('home', [RuntimeError('no home'), '~/.cache/storyteller'])
def test_a_user_without_a_home_has_no_cache(vse, monkeypatch, home):
    def user_cache_dir(_):
        if isinstance(home, Exception):
            raise home
        return home

    monkeypatch.delenv('STORYTELLER_CACHE', raising=False)
    monkeypatch.setattr('platformdirs.user_cache_dir', user_cache_dir)
    assert captions.cache_folder() is None
    with pytest.warns(UserWarning, match='no folder for a cache.*STORYTELLER_CACHE'):
        assert captions.caption_vectors(vse, ['a dog']).shape == (1, embedding.width(vse))


def test_empty_pool_has_no_vectors(vse, tmp_path):
    assert captions.caption_vectors(vse, [], cache=tmp_path).shape == (0, 32)


# --- searching -----------------------------------------------------------------------------------


def by_full_sort(queries, vectors, k):
    """2015: the ascending sort reversed, here with a stable sort."""
    scores = queries @ vectors.T
    order = np.argsort(scores, axis=1, kind='stable')[:, ::-1][:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


# Small whole numbers: sums are exact and ties many.
numbers = st.integers(-2, 2).map(np.float32)


@settings(deadline=None)
@given(st.data())
def test_equals_a_full_sort(data):
    B, N, E = (data.draw(st.integers(1, most)) for most in (4, 40, 3))
    queries = data.draw(arrays.arrays(np.float32, (B, E), elements=numbers))
    vectors = data.draw(arrays.arrays(np.float32, (N, E), elements=numbers))
    k = data.draw(st.integers(1, N))
    with mock.patch.object(nearest, 'SCORES_AT_ONCE', data.draw(st.integers(1, 100))):
        indices, scores = captions.nearest(queries, vectors, k)
    expected_indices, expected_scores = by_full_sort(queries, vectors, k)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(scores, expected_scores)
    assert scores.dtype == np.float32


def test_large_random_pool_equals_a_full_sort():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((5, 16)).astype(np.float32)
    vectors = rng.standard_normal((20_000, 16)).astype(np.float32)
    indices, scores = captions.nearest(queries, vectors, 100)
    expected_indices, expected_scores = by_full_sort(queries, vectors, 100)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)


@pytest.mark.parametrize('name', ['landscape', 'portrait', 'grey'])
def test_nearest_captions_of_2015(name):
    story = json.loads((REFERENCE / 'story' / 'story.json').read_text(encoding='utf-8'))
    vectors = np.load(REFERENCE / 'story' / 'vectors.npz')
    image = next(v for k, v in story['images'].items() if k.startswith(name))
    indices, _ = captions.nearest(vectors[f'im_{name}'], vectors['cvec'], 10)
    assert indices[0].tolist() == image['nearest_index']


def test_scores_of_every_size_come_back_unchanged():
    vectors = np.array([[0.0], [-0.0], [-1e-40], [1e-40], [-3e38], [3e38], [-1], [1]], np.float32)
    indices, scores = captions.nearest([1.0], vectors, 8)
    assert indices.tolist() == [5, 7, 3, 1, 0, 2, 6, 4]
    np.testing.assert_array_equal(scores, vectors[indices, 0])


def test_half_precision_and_mapped_vectors(tmp_path):
    vectors = np.eye(4, dtype=np.float16)
    np.save(tmp_path / 'v.npy', vectors)
    mapped = np.load(tmp_path / 'v.npy', mmap_mode='r')
    indices, scores = captions.nearest(np.eye(4)[2], mapped, 1)
    assert indices.tolist() == [2]
    assert scores.tolist() == [1]


@pytest.mark.parametrize('queries', [2, 5])
def test_many_queries_find_what_each_finds_in_rows_of_any_kind(queries):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 33)).astype(np.float32)
    many = rng.normal(size=(queries, 33)).astype(np.float32)
    read_only = vectors.copy()
    read_only.flags.writeable = False
    expected = [captions.nearest(query, vectors, 20) for query in many]
    for rows in (vectors, read_only, np.asfortranarray(vectors), vectors.astype(np.float64)):
        indices, scores = captions.nearest(many, rows, 20)
        np.testing.assert_array_equal(indices, [found for found, _ in expected])
        np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-5)


def test_more_than_there_are_gives_all_with_a_warning():
    with pytest.warns(UserWarning, match='k=9, but there are only 2'):
        indices, scores = captions.nearest(np.ones((1, 1)), np.ones((2, 1)), 9)
    assert indices.tolist() == [[1, 0]]
    assert scores.shape == (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        captions.nearest(np.ones((1, 1)), np.ones((2, 1)), 2)


@pytest.mark.parametrize('k', [0, -1, True, 1.5, None, '3'])
def test_wrong_k(k):
    with pytest.raises(ValueError, match='k: expected a whole number'):
        captions.nearest(np.ones((1, 1)), np.ones((2, 1)), k)


def test_arguments_that_do_not_fit():
    with pytest.raises(formats.MismatchError, match=r'\(1, 3\) and \(2, 4\)'):
        captions.nearest(np.ones((1, 3)), np.ones((2, 4)), 1)
    with pytest.raises(ValueError, match='at least one row'):
        captions.nearest(np.ones((1, 3)), np.ones((0, 3)), 1)
    with pytest.raises(ValueError, match='queries: a value is not finite'):
        captions.nearest(np.full((1, 3), np.nan), np.ones((2, 3)), 1)
    with pytest.raises(ValueError, match='vectors: a value is not finite'):
        captions.nearest(np.ones((1, 1)), np.array([[1.0], [np.nan]]), 1)


def test_no_query():
    indices, scores = captions.nearest(np.ones((0, 3)), np.ones((5, 3)), 2)
    assert indices.shape == scores.shape == (0, 2)
