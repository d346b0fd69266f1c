"""The table of what was published, and the script that fetches it."""

from __future__ import annotations

import itertools
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REFERENCE
from file_server import archive, running

from storyteller import config, generate, loading
from storyteller.io import published
from storyteller.io.published import PARTS, STORYTELLER, VGG, Published

SCRIPT = Path(__file__).parent.parent / 'scripts' / 'download_models.py'

bundle = pytest.mark.skipif(
    not (config.default_folder() / 'bundle.json').is_file(),
    reason='the default bundle is not there: models/bundle.json is missing',
)


def test_the_table():
    names = [file.name for part in PARTS for file in part.files]
    assert len(set(names)) == len(names) == 13
    assert [part.name for part in PARTS] == ['skip-thoughts', 'vgg', 'storyteller']
    for part in PARTS:
        for file in part.files:
            for source in file.sources:
                assert source.endswith(f'/{file.name}'), source
    skipthoughts, vgg, _ = PARTS
    assert all(file.digest.startswith('sha256:') for file in skipthoughts.files)
    assert all('mirror.nubenum.de' in file.sources[1] for file in skipthoughts.files)
    assert vgg.files[0].name == 'vgg19.pkl' and 'other weights' in vgg.files[-1].note
    for file in vgg.files:
        if file.name.endswith('.pth'):  # of such a name the end is the beginning of the sum
            assert file.digest.startswith(f'sha256:{file.name[6:14]}')


def test_the_archive_holds_what_a_folder_of_2015_needs(tmp_path):
    for name in STORYTELLER.files[0].holds:
        (tmp_path / name).touch()
    entries = config.folder_paths(tmp_path)
    for key in ('decmodel', 'dictionary', 'vsemodel', 'captions', 'negbias', 'posbias'):
        assert Path(entries[key]).is_file(), key


@pytest.mark.parametrize('fields', [{'sources': ()}, {'name': ''}, {'digest': 'crc:12345678'}])
def test_a_row_checks_itself(fields):
    with pytest.raises(ValueError, match='expected'):
        Published(**{'name': 'x', 'sources': ('http://x.invalid/x',), 'size': 1} | fields)


def test_parts_and_files_are_chosen_by_name():
    assert published.chosen(['vgg']) == (VGG,)
    assert published.chosen(['storyteller', 'vgg']) == (VGG, STORYTELLER)
    (part,) = published.chosen(['vgg19-d01eb7cb.pth'])
    assert part.one and [file.name for file in part.files] == ['vgg19-d01eb7cb.pth']
    with pytest.raises(ValueError, match="'vgg16' is none of skip-thoughts, "):
        published.chosen(['vgg', 'vgg16'])


def test_each_combination_of_parts_is_good_for_something(tmp_path):
    for name in (*STORYTELLER.files[0].holds, *(form.name for form in VGG.files[1:])):
        (tmp_path / name).touch()
    for count in range(len(PARTS) + 1):
        for had in itertools.combinations([part.name for part in PARTS], count):
            text = published.uses(tmp_path, had)
            named = {name for line in text.splitlines()[::2] for name in line.split(':')[0].split()}
            assert named - {'+'} == set(had) or not had, text  # everything is of use
    whole = published.uses(tmp_path, ['storyteller', 'vgg', 'skip-thoughts'])
    assert whole.count('\n') == 1 and f'--models {tmp_path} PHOTO' in whole
    mixed = published.uses(tmp_path, ['storyteller', 'skip-thoughts'])
    assert 'romance.npz' in mixed and 'vgg' not in mixed
    alone = published.uses(tmp_path, ['vgg'])
    assert f"generate.load_all({{'vgg': '{tmp_path / VGG.files[1].name}'}})" in alone
    assert 'none of these files' in published.uses(tmp_path, [])


@bundle
@pytest.mark.slow
@pytest.mark.parametrize('had', ['skip-thoughts storyteller', 'vgg storyteller', 'vgg'])
def test_the_lines_that_load_load(had, tmp_path, monkeypatch):
    """Small files of 2015 beside our bundle; VGG-19 alone is not made, but its width is right."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    patterns = ('skipthoughts/*', 'decoder/romance*', 'embedding/coco_*', 'story/*_style.npy')
    for pattern in patterns:
        for file in REFERENCE.glob(pattern):
            shutil.copy(file, tmp_path / file.name)
    shutil.copy(REFERENCE / 'story' / 'captions.txt', tmp_path / 'coco_train_caps.txt')
    (tmp_path / VGG.files[0].name).touch()
    build = loading.build_convnet

    def network(path, device=None):
        return {'dim': 4096} if Path(path).parent == tmp_path else build(path, device=device)

    monkeypatch.setattr(loading, 'build_convnet', network)
    line = published.uses(tmp_path, had.split()).splitlines()[1].strip()
    z = eval(line, {'generate': generate})
    assert ('vgg' in had) == (set(z['net']) == {'dim'})
    assert z['stv'] and len(z['styles']) >= 2


# --- the script ----------------------------------------------------------------------------------


@pytest.fixture
def server():
    with running() as found:
        yield found


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding='utf-8', timeout=120)


def test_list_needs_no_network(monkeypatch, capsys):
    def none(*_, **__):
        raise AssertionError('the network was used')

    monkeypatch.setattr(socket, 'socket', none)
    monkeypatch.setattr(sys, 'argv', [str(SCRIPT), '--list', '--only', 'vgg', 'storyteller'])
    runpy.run_path(str(SCRIPT), run_name='__main__')
    printed = capsys.readouterr().out
    for file in (*VGG.files, *STORYTELLER.files):
        assert f'  {file.name}: ' in printed and f'{file.size:,} bytes' in printed
        assert all(f'    {source}\n' in printed for source in file.sources)
    assert 'no sum of it is known' in printed and 'utable.npy' not in printed
    assert 'MD5 cbe5617147190e668d6c5d5026f83318' in printed


def test_all_refused(server, tmp_path):
    done = run('--out', tmp_path / 'new', '--mirror', server.url(''))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == len(server.names) == 13
    assert all(': 404 ' in line for line in done.stderr.splitlines())
    skipthoughts, vgg, storyteller, *rest = done.stdout.splitlines()
    assert skipthoughts.startswith('skip-thoughts: 0 of 7 files; not had: dictionary.txt, ')
    assert vgg == 'vgg: not had, in none of its forms'
    assert storyteller == 'storyteller: 0 of 1 files; not had: neural_storyteller.zip'
    assert 'our own models need none of these files' in rest[-1]
    assert not list((tmp_path / 'new').iterdir())


def test_some_had(server, tmp_path):
    held = STORYTELLER.files[0].holds
    server.content['neural_storyteller.zip'] = archive(**{name: b'x' for name in held})
    server.content['dictionary.txt'] = b'the\n'
    names = ('dictionary.txt', 'storyteller')
    done = run('--out', tmp_path, '--mirror', server.url(''), '--only', *names)
    assert done.returncode == 1 and 'expected 7,996,547' in done.stderr
    assert 'not had: dictionary.txt' in done.stdout and 'storyteller: all there' in done.stdout
    assert 'embedding.load_model' in done.stdout and 'load_all' not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == set(held)
    assert 'goes on' not in done.stdout
    again = run('--out', tmp_path, '--mirror', server.url(''), '--only', 'storyteller')
    assert again.returncode == 0 and not again.stderr


def test_what_is_wrong_with_the_arguments():
    assert run('--only', 'x', '--list').returncode == 2
    without = run()
    assert without.returncode == 2 and '--out' in without.stderr
