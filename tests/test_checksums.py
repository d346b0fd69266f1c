"""Sums of files: reckoned once, and again as soon as a file is another."""

from __future__ import annotations

import json
import os

import pytest
from test_bundle_card import card

from storyteller.formats import ModelFileError
from storyteller.io import bundle, checksums

AT_ONCE, NEVER = -(10**20), 10**20  # when a file counts as settled


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The files that were read whole, in order."""
    found, plain = [], checksums.sha256
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(checksums, 'SETTLED', AT_ONCE)
    monkeypatch.setattr(checksums, 'sha256', lambda path: found.append(path) or plain(path))
    return found


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'a.npy').write_bytes(b'some bytes')
    return tmp_path / 'a.npy'


def asked(path):
    with checksums.KnownSums() as sums:
        return sums.sha256(path)


def put_in_place(path, content):
    """Another file under the name, with the times of the old one."""
    new, state = path.with_name('new'), path.stat()
    new.write_bytes(content)
    os.utime(new, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(new, path)


def test_a_file_is_read_once(path, read):
    first = asked(path)
    assert first == asked(path) == asked(str(path)) == checksums.sha256(path)
    assert len(read) == 2  # the last of these was asked for by hand


def test_another_file_is_read_again(path, read):
    first = asked(path)
    put_in_place(path, b'some bytez')
    assert asked(path) != first and len(read) == 2
    os.utime(path, ns=(1, 1))
    asked(path)
    assert len(read) == 3


def test_what_may_still_change_is_not_noted(path, read, monkeypatch):
    monkeypatch.setattr(checksums, 'SETTLED', NEVER)
    assert asked(path) == asked(path) and len(read) == 2


def test_all_is_read_again_once_it_is_forgotten(path, read):
    checksums.forget()
    asked(path)
    checksums.forget()
    asked(path)
    assert len(read) == 2


@pytest.mark.parametrize('noted', [b'', b'[]', b'{', b'\xff', b'{"PATH": 3}', b'{"PATH": [1, 2]}'])
def test_notes_that_are_none_do_no_harm(path, read, tmp_path, noted):
    (tmp_path / 'cache').mkdir()
    notes = tmp_path / 'cache' / checksums.NAME
    notes.write_bytes(noted.replace(b'PATH', json.dumps(str(path))[1:-1].encode()))
    assert asked(path) == asked(path) and len(read) == 1


def test_without_a_cache_all_is_read(path, read, monkeypatch, tmp_path):
    monkeypatch.setattr(checksums, 'cache_folder', lambda: None)
    assert asked(path) == asked(path) and len(read) == 2
    checksums.forget()
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(checksums, 'cache_folder', lambda: tmp_path / 'file' / 'below')
    assert asked(path) == asked(path) and len(read) == 4


def test_few_enough_are_noted(tmp_path, read, monkeypatch):
    monkeypatch.setattr(checksums, 'MOST', 2)
    for name in 'abc':
        (tmp_path / name).write_text(name)
        asked(tmp_path / name)
    asked(tmp_path / 'c')
    assert len(read) == 3
    asked(tmp_path / 'a')
    assert len(read) == 4


def test_a_bundle_is_read_when_it_is_new_or_changed(tmp_path, read):
    folder = tmp_path / 'models'
    folder.mkdir()
    (folder / 'a.npy').write_bytes(b'some bytes')
    facts = card(folder)['files']['a.npy']
    before = len(read)
    for _ in range(3):
        bundle.check([folder])
    assert len(read) == before + 1
    put_in_place(folder / 'a.npy', b'some bytez')
    with pytest.raises(ModelFileError, match='SHA-256'):
        bundle.check([folder])
    assert 'SHA-256' in bundle.problem(folder, 'a.npy', facts)
