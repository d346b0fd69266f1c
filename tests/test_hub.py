"""Bundles by name: fetched from a hub, kept, refused, and shared."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import file_server
import hub_server
import numpy as np
import pytest

from storyteller import config, convert, formats, generate, skipthoughts
from storyteller.__main__ import main
from storyteller.formats import MissingFileError, ModelFileError
from storyteller.io import bundle, hub, model_card

huggingface_hub = pytest.importorskip('huggingface_hub')

ROOT = Path(__file__).parent.parent
NAME = 'ada/seaside'
PHOTO = np.tile(np.arange(240, dtype=np.uint8)[:, None, None], (1, 240, 3))
SEARCH = {'k': 3, 'bw': 2, 'maxlen': 8}


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Of our own, and of the hub's client."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'vectors'))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.delenv('HF_TOKEN', raising=False)
    return tmp_path / 'hub'


@pytest.fixture
def server(monkeypatch):
    with file_server.running(hub_server.Server) as server:
        monkeypatch.setenv('HF_ENDPOINT', server.url)
        yield server


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A tiny bundle with a card."""
    theirs, ours = tmp_path_factory.mktemp('theirs'), tmp_path_factory.mktemp('ours')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'scripts'))
        benchmark_models = importlib.import_module('benchmark_models')
    benchmark_models.make_models(theirs, benchmark_models.TINY)
    list(convert.convert(theirs, ours, 'ours'))
    card = model_card.completed(ours) | {'search': SEARCH, 'licence': 'cc0-1.0'}
    card['files']['decoder.safetensors']['learned from'] = 'a novel | or two'
    (ours / bundle.CARD).write_text(json.dumps(card))
    return ours


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def described(*names, **contents):
    """Files and a card that lists them."""
    files = {name: b'x' for name in names} | contents
    facts = {
        name: {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    return files | {bundle.CARD: json.dumps({'format': 1, 'files': facts}).encode()}


def asked_for(server):
    return {line.rpartition('/')[2] for line in server.asked if line.startswith('GET')}


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'name', 'revision'),
    [
        ('hf://ada/sea.side-2', 'ada/sea.side-2', None),
        ('hf://ada/seaside@v1.0', NAME, 'v1.0'),
        ('hf://ada/seaside@refs/pr/1', NAME, 'refs/pr/1'),
        (Path('hf://ada/seaside@v2'), NAME, 'v2'),
    ],
)
def test_an_address_is_read(text, name, revision):
    assert hub.is_address(text)
    assert hub.Address.read(text) == hub.Address(name, revision)


@pytest.mark.parametrize(
    'text', ['hf://', 'hf://ada', 'hf://ada/sea/side', 'hf://ada/s@', 'hf://ada/s@/x', 'hf://a b/c']
)
def test_what_is_no_address_is_refused(text):
    assert hub.is_address(text)
    with pytest.raises(ValueError, match='expected hf://OWNER/NAME or'):
        generate.load_all(text)


@pytest.mark.parametrize('text', ['models', 'hf', './hf:/x', Path('/tmp/hf://a/b')])
def test_folders_are_none(text):
    assert not hub.is_address(text)


def test_nothing_is_imported_or_asked_before_an_address_is(server):
    code = (
        'import sys; from storyteller import config, generate; from storyteller.io import hub; '
        'print(*sys.modules)'
    )
    chosen = {'STORYTELLER_MODELS': f'hf://{NAME}', 'HF_ENDPOINT': server.url}
    done = subprocess.run(
        [sys.executable, '-c', code], env=os.environ | chosen, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 'huggingface_hub' not in done.stdout.split() and server.asked == []


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ValueError, match=r"install 'storyteller\[hub\]'") as refused:
        generate.load_all(f'hf://{NAME}')
    assert '\n' not in str(refused.value)


# --- fetching ------------------------------------------------------------------------------------


def forget_connections():
    """Close those that the client keeps, on which a server answers after it has stopped."""
    old = getattr(huggingface_hub.utils, 'reset_sessions', None)
    (old or huggingface_hub.utils.close_session)()


def test_a_bundle_is_loaded_by_name_and_again_without_the_server(server, folder):
    server.push(NAME, files_of(folder) | {'notes.txt': b'aside', 'old.pkl': b'cos\n'})
    here = generate.load_all(folder)
    z = generate.load_all(f'hf://{NAME}')
    assert z['search'].bw == 2
    (told,), (same,) = (generate.stories(each, [PHOTO]) for each in (z, here))
    assert told.passage == same.passage
    listed = set(json.loads((folder / bundle.CARD).read_text())['files'])
    assert asked_for(server) == listed | {bundle.CARD}

    server.shutdown()
    server.server_close()
    forget_connections()
    server.asked.clear()
    (again,) = generate.stories(generate.load_all(f'hf://{NAME}'), [PHOTO])
    assert again.passage == told.passage and server.asked == []


def test_a_commit_that_is_there_is_asked_for_no_more(server):
    commit = server.push(NAME, described('a.txt'))
    fetched = hub.fetch(f'hf://{NAME}@{commit}')
    server.asked.clear()
    assert hub.fetch(f'hf://{NAME}@{commit}') == fetched and server.asked == []


def test_a_pinned_revision_stays(server):
    first = server.push(NAME, described(**{'a.txt': b'first'}))
    server.branches[NAME]['v1'] = first
    server.push(NAME, described(**{'a.txt': b'second'}))
    for revision, words in (('', b'second'), (f'@{first}', b'first'), ('@v1', b'first')):
        assert (hub.fetch(f'hf://{NAME}{revision}') / 'a.txt').read_bytes() == words
    third = server.push(NAME, described(**{'a.txt': b'third'}))
    fetched = hub.fetch(f'hf://{NAME}')
    assert (fetched.name, (fetched / 'a.txt').read_bytes()) == (third, b'third')


def test_all_files_are_of_one_commit(server, monkeypatch):
    """Even if another is pushed between two of them."""
    server.push(NAME, described(**{'a.txt': b'1', 'b.txt': b'1'}))
    get = hub._get

    def pushing(address, file, revision):
        path = get(address, file, revision)
        server.push(NAME, described(**{'a.txt': b'2', 'b.txt': b'2'}))
        return path

    monkeypatch.setattr(hub, '_get', pushing)
    fetched = hub.fetch(f'hf://{NAME}')
    assert [(fetched / name).read_bytes() for name in ('a.txt', 'b.txt')] == [b'1', b'1']


@pytest.mark.parametrize(
    'name',
    ['romance_dictionary.pkl', 'romance.npz', 'a.bin', 'a.pt', 'a.py', 'a.PKL', 'a', 'a.txt.gz'],
)
def test_a_card_that_lists_anything_else_is_refused_before_it_is_fetched(server, caches, name):
    server.push(NAME, described('captions.txt', name))
    with pytest.raises(ModelFileError, match=rf"hf://{NAME}: its bundle.json lists '{name}'"):
        generate.load_all(f'hf://{NAME}')
    assert asked_for(server) == {bundle.CARD}
    assert [path.name for path in caches.glob('models--*/snapshots/*/*')] == [bundle.CARD]


@pytest.mark.parametrize(
    'card', [b'no', b'{"format": 2}', b'{"format": 1, "files": {"../a.txt": {}}}']
)
def test_a_card_that_is_none_is_refused(server, card):
    server.push(NAME, {bundle.CARD: card})
    with pytest.raises(ModelFileError, match=f'hf://{NAME}: .*{bundle.CARD}'):
        hub.fetch(f'hf://{NAME}')
    assert asked_for(server) == {bundle.CARD}


def test_a_file_that_the_card_does_not_describe_is_refused_each_time(server):
    server.push(NAME, described(**{'a.txt': b'right'}) | {'a.txt': b'wrong'})
    for _ in range(2):
        with pytest.raises(ModelFileError, match=f'hf://{NAME}: a.txt: its SHA-256 is not'):
            hub.fetch(f'hf://{NAME}')


def test_after_a_broken_push_the_one_before_is_named(server, monkeypatch):
    good = server.push(NAME, described(**{'a.txt': b'right'}))
    hub.fetch(f'hf://{NAME}')
    server.push(NAME, described(**{'a.txt': b'newer'}) | {'a.txt': b'wrong'})
    whole = f'the cache holds a whole one, hf://{NAME}@{good}'
    with pytest.raises(ModelFileError, match=f'a.txt: its SHA-256 is not .*; {whole}'):
        hub.fetch(f'hf://{NAME}')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(MissingFileError, match=f'cannot be reached; {whole}'):
        hub.fetch(f'hf://{NAME}')
    assert (hub.fetch(f'hf://{NAME}@{good}') / 'a.txt').read_bytes() == b'right'


def test_arrays_of_objects_are_refused(server, tmp_path):
    np.save(tmp_path / 'a.npy', np.array([{}, None]), allow_pickle=True)
    server.push(NAME, described(**{'a.npy': (tmp_path / 'a.npy').read_bytes()}))
    with pytest.raises(ModelFileError, match=r'a\.npy: not a plain array'):
        hub.fetch(f'hf://{NAME}')


@pytest.mark.parametrize(
    ('address', 'words'),
    [
        ('hf://ada/nothing', 'no such repository'),
        (f'hf://{NAME}@v9', 'no such revision'),
        (f'hf://{NAME}', 'no bundle.json there'),
        (f'hf://{NAME}@partly', 'no a.txt there'),
    ],
)
def test_what_is_not_there_is_said_in_a_line(server, address, words):
    server.push(NAME, {'x.txt': b''})
    card = described('a.txt')
    server.push(NAME, {bundle.CARD: card[bundle.CARD]}, 'partly')
    with pytest.raises(MissingFileError, match=f'^{address}: {words}') as refused:
        generate.load_all(address)
    assert '\n' not in str(refused.value)


def test_the_default_models_may_have_an_address(server, folder, monkeypatch):
    server.push(NAME, files_of(folder))
    monkeypatch.setenv('STORYTELLER_MODELS', f'hf://{NAME}')
    monkeypatch.setattr(config, 'paths', config.folder_paths(config.default_folder()))
    assert Path(config.local(None), 'captions.txt').is_file()
    assert generate.load_all()['search'].bw == 2
    own = {'captions': str(folder / 'captions.txt')}
    assert config.resolve(own)['captions'] == own['captions']
    assert Path(config.resolve(own)['vgg']).is_file()
    server.asked.clear()
    everything = config.folder_paths(folder)
    assert config.resolve(everything) == everything and server.asked == []


# --- commands ------------------------------------------------------------------------------------


def run(*arguments, code=0, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, encoding='utf-8',
        env=os.environ | {'PYTHONPATH': str(ROOT)} | environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_main_job_takes_an_address(server, folder, tmp_path, capsys):
    commit = server.push(NAME, files_of(folder))
    known = {'HF_HUB_CACHE': str(tmp_path / 'hub')}
    asked = '-m', 'storyteller', 'images/ex1.jpg', '--models'
    printed = run(*asked, f'hf://{NAME}@{commit}', **known)
    assert 'OUTPUT:' in printed
    assert main([str(ROOT / 'images' / 'ex1.jpg'), '--models', str(folder)]) == 0
    assert capsys.readouterr().out == printed
    error = run(*asked, 'hf://ada/nothing', code=2, **known)
    assert error.splitlines()[-1].startswith('storyteller: hf://ada/nothing: no such repository')


# --- sharing -------------------------------------------------------------------------------------


def share(folder, *arguments, code=0, **environment):
    return run('scripts/share_models.py', folder, *arguments, code=code, **environment)


@pytest.mark.parametrize('large', [1 << 62, 2000])
def test_what_is_shared_is_what_is_loaded(server, folder, large):
    server.large = large
    address = share(folder, NAME, HF_HUB_DISABLE_XET='1').strip()  # as by LFS
    commit = server.branches[NAME]['main']
    assert address == f'hf://{NAME}@{commit}'
    shared = server.commits[NAME][commit]
    for name, data in files_of(folder).items():
        assert name == bundle.CARD or shared[name] == data
    assert json.loads(shared[bundle.CARD]) == bundle.read_card(folder)
    assert set(shared) == set(files_of(folder)) | {'README.md'}
    assert bool(server.stored) == (large == 2000)
    (told,), (same,) = (
        generate.stories(generate.load_all(each), [PHOTO]) for each in (address, folder)
    )
    assert told.passage == same.passage


def test_a_branch_of_its_own(server, folder):
    server.push(NAME, {'README.md': b'before'})
    before = server.branches[NAME]['main']
    address = share(folder, NAME, '--revision', 'trial').strip()
    assert server.branches[NAME]['main'] == before
    assert server.branches[NAME]['trial'] == hub.Address.read(address).revision


def test_the_page_says_what_the_card_knows(folder):
    card = bundle.read_card(folder)
    card['figures'] = {'perplexity': 31.5}
    card['files']['decoder.safetensors']['made'] = {'dim': 16}
    page = model_card.page(card, NAME, more='---\nlicense: mit\n---\n\nMore of it.\n')
    assert page.startswith('---\nlicense: cc0-1.0\n') and page.count('license:') == 1
    assert f"generate.load_all('hf://{NAME}')" in page and '# seaside' in page
    assert '| `decoder.safetensors` | story decoder | a novel \\| or two | ' in page
    for line in ('- search that suits: k 3, bw 2, maxlen 8', '- perplexity: 31.5', 'dim 16'):
        assert line in page
    assert page.endswith('More of it.\n')
    assert 'license: other\n' in model_card.page(card, NAME, 'other')
    for wrong in (None, '', 'mit\nx: y', 3):
        with pytest.raises(ValueError, match='licence: expected a short name'):
            model_card.page(card | {'licence': wrong}, NAME)


def copied(folder, to):
    to.mkdir()
    for name, data in files_of(folder).items():
        (to / name).write_bytes(data)
    return to


def test_files_that_were_made_anew_come_into_the_card(folder, tmp_path):
    mine = copied(folder, tmp_path / 'mine')
    bundle.strike(mine / 'decoder.safetensors')
    params, options = formats.read_model(mine / 'decoder.safetensors')
    formats.write_model(mine / 'decoder.safetensors', params, options | {'more': 1})
    (mine / 'notes.txt').write_text('for me alone')
    (mine / 'sea_style.npy').write_bytes((mine / 'romance_style.npy').read_bytes())
    card = model_card.completed(mine)
    assert 'search' not in card and card['files'].keys() >= {'decoder.safetensors', 'sea_style.npy'}
    assert 'notes.txt' not in card['files']
    for name, facts in card['files'].items():
        assert bundle.problem(mine, name, facts) is None
    (mine / bundle.CARD).unlink()
    assert model_card.completed(mine)['files'].keys() == card['files'].keys()


def test_what_cannot_be_shared_is_refused(server, scripts, folder, tmp_path, monkeypatch):
    upload = importlib.import_module('share_models').main

    def refusal(*arguments):
        monkeypatch.setattr(sys, 'argv', ['share_models.py', *map(str, arguments)])
        with pytest.raises((ValueError, OSError)) as error:
            upload()
        return str(error.value)

    mine = copied(folder, tmp_path / 'mine')
    formats.write_pickle(mine / 'vgg19.pkl', {})
    (mine / 'convnet.safetensors').unlink()
    assert 'vgg19.pkl' in refusal(mine, NAME)
    (mine / 'vgg19.pkl').unlink()
    assert 'convnet.json' in refusal(mine, NAME)  # not whole
    (mine / 'captions.txt').write_text('others\n')
    assert 'captions.txt: 7 bytes, expected' in refusal(mine, NAME)
    (mine / bundle.CARD).unlink()
    np.save(mine / 'utable.npy', np.array([{}]), allow_pickle=True)
    assert 'utable.npy: not a plain array' in refusal(mine, NAME)
    assert 'expected hf://OWNER/NAME' in share(folder, 'seaside', code=2)
    assert server.asked == []


def test_a_refusal_is_one_line(server, folder):
    server.refuses = True
    error = share(folder, NAME, code=2).splitlines()
    assert f'hf://{NAME}: not uploaded: ' in error[-1] and '403' in error[-1]
    assert not any('Traceback' in line for line in error)


def test_a_dry_run_asks_nobody(server, folder):
    printed = share(folder, NAME, '--dry-run')
    assert '# seaside' in printed and 'utable.npy' in printed.splitlines()[-1]
    assert server.asked == []


# --- other commands ------------------------------------------------------------------------------


def test_a_style_for_the_encoder_of_a_bundle_by_name(server, folder, tmp_path):
    server.push(NAME, files_of(folder))
    pool, out = tmp_path / 'pool.txt', tmp_path / 'own_style.npy'
    pool.write_text('a dog runs\na cat sleeps .\n')
    asked = 'scripts/make_style.py', '--models', f'hf://{NAME}', '--captions', pool, '--out', out
    run(*asked, HF_HUB_CACHE=str(tmp_path / 'hub'))
    encoder = skipthoughts.Encoder(skipthoughts.load_model(folder, folder))
    mean = encoder.encode(['a dog runs', 'a cat sleeps .'], verbose=False).mean(0)
    np.testing.assert_allclose(np.load(out), mean, atol=1e-6)
