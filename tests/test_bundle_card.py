"""The card of a bundle, and the self-check."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from storyteller import config, generate
from storyteller.__main__ import main
from storyteller.cli import check
from storyteller.formats import ModelFileError
from storyteller.io import bundle


def card(folder, **changes):
    files = {
        path.name: {'bytes': path.stat().st_size, 'sha256': bundle.sha256(path)}
        for path in folder.iterdir()
        if path.name != bundle.CARD
    }
    content = {'format': 1, 'files': files} | changes
    (folder / bundle.CARD).write_text(json.dumps(content))
    return content


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'a.npy').write_bytes(b'some bytes')
    (tmp_path / 'b.txt').write_text('words\n')
    card(tmp_path)
    return tmp_path


def test_a_whole_bundle_is_fine(folder):
    bundle.check([folder, folder])
    assert set(bundle.read_card(folder)['files']) == {'a.npy', 'b.txt'}


def test_a_folder_without_a_card_is_taken_as_it_is(tmp_path):
    assert bundle.read_card(tmp_path) is None
    bundle.check([tmp_path])


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'some bytez', 'SHA-256'),
        (b'some', '4 bytes, expected 10'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'lfs pull'),
    ],
)
def test_a_changed_file_is_named(folder, content, words):
    (folder / 'a.npy').write_bytes(content)
    with pytest.raises(ModelFileError, match=rf'a\.npy: .*{words}'):
        bundle.check([folder])


def test_a_file_that_will_be_replaced_leaves_the_card(folder):
    card(folder, known={'thought': [0.0]}, widths={'D': 4})
    bundle.strike(folder / 'a.npy', folder / 'a_dictionary.txt')
    (folder / 'a.npy').write_bytes(b'ours')
    bundle.check([folder])
    left = bundle.read_card(folder)
    assert set(left['files']) == {'b.txt'} and left['widths'] == {'D': 4} and 'known' not in left
    (folder / 'b.txt').write_text('others\n')
    with pytest.raises(ModelFileError, match=r'b\.txt'):
        bundle.check([folder])


def test_a_card_of_no_files_goes(folder):
    bundle.strike(folder / 'a.npy', folder / 'b.txt', folder / 'c.npy')
    assert sorted(path.name for path in folder.iterdir()) == ['a.npy', 'b.txt']


def test_striking_nothing_changes_nothing(folder, tmp_path_factory):
    before = (folder / bundle.CARD).read_bytes()
    bundle.strike(folder / 'new.npy', tmp_path_factory.mktemp('bare') / 'a.npy')
    assert (folder / bundle.CARD).read_bytes() == before


def test_a_missing_file_is_left_to_its_loader(folder):
    (folder / 'a.npy').unlink()
    bundle.check([folder])
    facts = bundle.read_card(folder)['files']['a.npy']
    assert bundle.problem(folder, 'a.npy', facts) == 'missing'


def test_large_files_are_hashed_only_when_asked(folder, monkeypatch):
    monkeypatch.setattr(bundle, 'HASHED_AT_LOAD', 5)
    (folder / 'a.npy').write_bytes(b'some bytez')
    bundle.check([folder])
    facts = bundle.read_card(folder)['files']['a.npy']
    assert 'SHA-256' in bundle.problem(folder, 'a.npy', facts)


GOOD = {'bytes': 1, 'sha256': '0' * 64}


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'format': 2}, 'found 2'),
        ({'files': {}}, 'files'),
        ({'files': ['a']}, 'files'),
        ({'files': {'../a': GOOD}}, 'plain name'),
        ({'files': {'/etc/passwd': GOOD}}, 'plain name'),
        ({'files': {'a\\b': GOOD}}, 'plain name'),
        ({'files': {'.hidden': GOOD}}, 'plain name'),
        ({'files': {'bundle.json': GOOD}}, 'plain name'),
        ({'files': {'a': 3}}, 'a: expected'),
        ({'files': {'a': GOOD | {'bytes': -1}}}, 'a: expected'),
        ({'files': {'a': GOOD | {'bytes': True}}}, 'a: expected'),
        ({'files': {'a': GOOD | {'sha256': 'x'}}}, 'a: expected'),
    ],
)
def test_a_bad_card_is_refused(folder, changes, words):
    card(folder, **changes)
    with pytest.raises(ModelFileError, match=rf'bundle\.json.*{words}'):
        bundle.check([folder])


@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'\xff', b'[' * 100_000, b'<html>'])
def test_what_is_no_card_is_refused(folder, content):
    (folder / bundle.CARD).write_bytes(content)
    with pytest.raises(ModelFileError, match=r'bundle\.json'):
        bundle.check([folder])


def test_fingerprints_tell_models_apart(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    shutil.copytree(folder, other, dirs_exist_ok=True)
    assert bundle.fingerprint([folder]) == bundle.fingerprint([other])
    for place in (folder, other):
        (place / bundle.CARD).unlink()
    assert bundle.fingerprint([folder]) == bundle.fingerprint([other])
    (other / 'a.npy').write_bytes(b'other bytes')
    assert bundle.fingerprint([folder]) != bundle.fingerprint([other])
    (other / 'a.npy').write_bytes((folder / 'a.npy').read_bytes())
    assert bundle.fingerprint([folder]) == bundle.fingerprint([other])
    (other / 'convnet.json').write_text('{}')  # settings of a network are part of the models
    assert bundle.fingerprint([folder]) != bundle.fingerprint([other])


# --- the self-check ------------------------------------------------------------------------------

MODELS = config.default_folder()


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    """The default bundle, in a place where it may be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('STORYTELLER_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield shutil.copytree(MODELS, tmp_path_factory.mktemp('models') / 'copy')


def test_the_default_bundle_is_well(copy, capsys):
    assert main(['--check', '--models', str(copy)]) == 0
    printed = capsys.readouterr().out
    assert 'WRONG' not in printed
    for word in ('torch', 'products', 'decoder.safetensors', 'loading', 'a story'):
        assert word in printed


def test_known_vectors_are_compared(copy):
    before = (copy / bundle.CARD).read_text()
    content = json.loads(before)
    content['known'] = check.known_vectors(generate.load_all(copy))
    (copy / bundle.CARD).write_text(json.dumps(content))
    found = {f.what.split(' by ')[0]: f for f in check.check(copy)}
    assert all(found[name].fine for name in ('thought', 'sentence', 'picture'))
    content['known']['picture'][3] += 0.01
    (copy / bundle.CARD).write_text(json.dumps(content))
    found = {f.what.split(' by ')[0]: f for f in check.check(copy)}
    assert found['thought'].fine and not found['picture'].fine
    assert '1.0e-02' in found['picture'].detail
    for known in ({'picture': ['a']}, {'other': [1.0]}, [1.0]):
        (copy / bundle.CARD).write_text(json.dumps(content | {'known': known}))
        found = {f.what.split(' by ')[0]: f for f in check.check(copy)}
        assert not found['picture'].fine and 'no such vector' in found['picture'].detail
    (copy / bundle.CARD).write_text(before)


def test_what_is_broken_is_found(copy, capsys):
    vector = np.load(copy / 'romance_style.npy')
    np.save(copy / 'romance_style.npy', vector + 1)
    assert main(['--check', '--models', str(copy)]) == 2
    printed = capsys.readouterr().out
    assert printed.count('WRONG') == 2 and 'romance_style.npy: its SHA-256' in printed
    (copy / 'romance_style.npy').unlink()
    assert main(['--check', '--models', str(copy)]) == 2
    assert 'romance_style.npy: missing' in capsys.readouterr().out


def test_check_is_for_itself(capsys):
    for arguments in ([], ['--check', 'a.jpg']):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2 and 'photos' in capsys.readouterr().err
