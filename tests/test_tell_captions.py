from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from PIL import Image

from storyteller import generate
from storyteller.errors import ImageError
from storyteller.training.data.marked import read_marked

pytestmark = pytest.mark.usefixtures('scripts')
SEARCH = '--search-2015', '-k', '5', '--bw', '6', '--candidates', '6', '--around', '9'


@pytest.fixture(scope='module')
def small(small_paths):
    return generate.load_all(small_paths)


@pytest.fixture
def script(small, monkeypatch):
    monkeypatch.setattr(generate, 'load_all', lambda *_, **__: small)
    return importlib.import_module('tell_captions')


def run(script, monkeypatch, out, *arguments):
    command = ['tell_captions.py', '--out', str(out), *SEARCH, *map(str, arguments)]
    monkeypatch.setattr(sys, 'argv', command)
    script.main()
    return out.read_text(encoding='utf-8').splitlines()


def written(told, marked):
    """The file of a reader who finds every story middling."""
    text = told.read_text(encoding='utf-8').replace('\t? ', '\t3 ')
    marked.write_text(text, encoding='utf-8')
    return marked


def test_captions_come_with_stories_to_mark(script, small, monkeypatch, tmp_path):
    out = tmp_path / 'told.txt'
    lines = run(script, monkeypatch, out, '--count', 5, '--texts', 3)
    assert len(lines) == 5
    for line in lines:
        caption, *texts = line.split('\t')
        assert caption in small['cap']
        assert 1 <= len(texts) == len(set(texts)) <= 3
        assert all(text.startswith('? ') for text in texts)
    marked = read_marked(written(out, tmp_path / 'marked.txt'))
    assert [captions for captions, _ in marked] == [[line.split('\t')[0]] for line in lines]


def test_it_goes_on_where_it_stopped(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, 'BATCH', 2)
    whole = run(script, monkeypatch, tmp_path / 'whole.txt', '--count', 5, '--texts', 2)
    part = tmp_path / 'part.txt'
    part.write_text('\n'.join(whole[:2]) + '\n', encoding='utf-8')
    assert run(script, monkeypatch, part, '--count', 5, '--texts', 2) == whole


def test_an_empty_file_is_begun(script, monkeypatch, tmp_path):
    whole = run(script, monkeypatch, tmp_path / 'whole.txt', '--count', 3, '--texts', 2)
    (empty := tmp_path / 'empty.txt').touch()
    assert run(script, monkeypatch, empty, '--count', 3, '--texts', 2) == whole


def test_a_file_of_something_else_is_left_alone(script, monkeypatch, tmp_path):
    told = tmp_path / 'told.txt'
    first = run(script, monkeypatch, told, '--count', 2, '--texts', 1)
    with pytest.raises(ValueError, match=r'told\.txt: line 1: expected .*--seed'):
        run(script, monkeypatch, told, '--count', 4, '--texts', 1, '--seed', 1)
    assert told.read_text(encoding='utf-8').splitlines() == first
    told.write_text(first[0], encoding='utf-8')
    with pytest.raises(ValueError, match=r'told\.txt: line 1: expected an end of line'):
        run(script, monkeypatch, told, '--count', 4, '--texts', 1)


@pytest.fixture
def photos(tmp_path):
    """Four photos, and one that is none."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in 'abcd':
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f'{name}.png')
    (folder / 'e.jpg').write_bytes(b'no photo')
    return folder


def test_photos_come_with_the_captions_that_they_are_told_of(
    script, small, monkeypatch, tmp_path, photos, capsys
):
    told = ['--photos', photos, '--texts', 2]
    lines = run(script, monkeypatch, tmp_path / 'told.txt', *told)
    assert 'left out' in capsys.readouterr().err
    own = {
        tuple(text for text, _ in story.captions)
        for story in generate.stories(small, [photos / f'{n}.png' for n in 'abcd'], k=5, bw=2)
    }
    marked = read_marked(written(tmp_path / 'told.txt', tmp_path / 'marked.txt'))
    assert len(lines) == 4 and {tuple(captions) for captions, _ in marked} == own
    # Moved, they are told of others; nothing but the seed makes the difference between two runs.
    moved = [*told, '--moved', 5]
    first, again, other = (
        run(script, monkeypatch, tmp_path / name, *moved, '--seed', seed)
        for name, seed in (('1.txt', 1), ('2.txt', 1), ('3.txt', 2))
    )
    assert first == again and set(first) != set(lines) and set(first) != set(other)


def test_a_folder_without_photos_is_refused(script, monkeypatch, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'no photo')
    with pytest.raises(ImageError, match='no photo in it could be read'):
        run(script, monkeypatch, tmp_path / 'told.txt', '--photos', tmp_path)


def test_each_seed_tells_of_other_captions(script, monkeypatch, tmp_path):
    told = [
        {line.split('\t')[0] for line in run(script, monkeypatch, tmp_path / f'{seed}.txt',
                                             '--count', 4, '--texts', 1, '--seed', seed)}
        for seed in (0, 1)
    ]  # fmt: skip
    assert told[0] != told[1]


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (('--texts', 7), '--texts 7: expected as many --candidates'),
        (('--count', 0), '--count: .* found 0'),
        (('--moved', 'nan'), '--moved: expected 0 or more, found nan'),
        (('--moved', 'inf'), '--moved: expected 0 or more, found inf'),
        (('--moved', 0.5), '--moved: expected --photos'),
        (('--seed', -1), '--seed: expected 0 or more, found -1'),
    ],
)
def test_what_cannot_be_told_is_refused(script, monkeypatch, tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        run(script, monkeypatch, tmp_path / 'told.txt', *given)
    assert not (tmp_path / 'told.txt').exists()
