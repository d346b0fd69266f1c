from __future__ import annotations

import importlib
import sys

import pytest

from storyteller import generate
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


def test_captions_come_with_stories_to_mark(script, small, monkeypatch, tmp_path):
    out = tmp_path / 'told.txt'
    lines = run(script, monkeypatch, out, '--count', 5, '--texts', 3)
    assert len(lines) == 5
    for line in lines:
        caption, *texts = line.split('\t')
        assert caption in small['cap']
        assert 1 <= len(texts) == len(set(texts)) <= 3
        assert all(text.startswith('? ') for text in texts)
    marked = out.read_text(encoding='utf-8').replace('\t? ', '\t3 ')
    out.write_text(marked, encoding='utf-8')
    assert [caption for caption, _ in read_marked(out)] == [line.split('\t')[0] for line in lines]


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
        (('--seed', -1), '--seed: expected 0 or more, found -1'),
    ],
)
def test_what_cannot_be_told_is_refused(script, monkeypatch, tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        run(script, monkeypatch, tmp_path / 'told.txt', *given)
    assert not (tmp_path / 'told.txt').exists()
