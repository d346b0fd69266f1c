from __future__ import annotations

import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import REFERENCE
from PIL import Image

import storyteller
from storyteller import config, generate, loading
from storyteller.__main__ import main

CHECKOUT = pathlib.Path(__file__).parent.parent
PHOTO = REFERENCE / 'vgg' / 'grey.png'
EXPECTED = json.loads((REFERENCE / 'story' / 'story.json').read_text())['images']
SMALL = ['-k', '10', '--bw', '5']

bundle = pytest.mark.skipif(
    not (config.default_folder() / 'bundle.json').is_file(),
    reason='the default bundle is not there: models/bundle.json is missing',
)


@pytest.fixture
def reference(monkeypatch, tmp_path):
    """The models of the reference in place of the bundle, and for VGG-19 the features it gave."""
    story, recorded = REFERENCE / 'story', np.load(REFERENCE / 'vgg' / 'vgg.npz')
    paths = {
        'skmodels': REFERENCE / 'skipthoughts',
        'sktables': REFERENCE / 'skipthoughts',
        'decmodel': REFERENCE / 'decoder' / 'romance.npz',
        'dictionary': REFERENCE / 'decoder' / 'romance_dictionary.pkl',
        'vsemodel': REFERENCE / 'embedding' / 'coco_embedding.npz',
        'captions': story / 'captions.txt',
        'negbias': story / 'caption_style.npy',
        'posbias': story / 'romance_style.npy',
    }
    monkeypatch.setattr(config, 'paths', config.paths | {k: str(v) for k, v in paths.items()})
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(loading, 'build_convnet', lambda path, device=None: {'dim': 4096})
    fc7 = np.tile(recorded['fc7_grey'], (1, 1))
    monkeypatch.setattr(generate, 'compute_features', lambda net, im: np.repeat(fc7, len(im), 0))


def complaint(capsys, arguments: list[str]) -> str:
    """The one line on stderr that a command which cannot be followed gives."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.count('\n') == 1 and printed.err.endswith('\n')
    assert printed.err.startswith('storyteller: ')
    return printed.err


@pytest.mark.parametrize('lyric', [False, True])
def test_prints_what_2015_printed(reference, capsys, lyric):
    assert main([str(PHOTO), *SMALL, *(['--lyric'] if lyric else [])]) == 0
    printed = capsys.readouterr()
    assert printed.out == EXPECTED['grey.png']['stdout_lyric' if lyric else 'stdout']
    assert printed.err == ''


def test_photos_are_told_one_after_the_other(reference, capsys, tmp_path):
    missing = tmp_path / 'missing.jpg'
    assert main([str(PHOTO), str(missing), str(PHOTO), *SMALL]) == 2
    printed, story = capsys.readouterr(), EXPECTED['grey.png']['stdout']
    named = f'{PHOTO}\n{story}', f'{missing}\nNOT TOLD: no such file\n', f'{PHOTO}\n{story}'
    assert printed.out == '\n'.join(named)
    assert printed.err.count('\n') == 1 and 'missing.jpg' in printed.err


@pytest.mark.parametrize('count', [1, 2])
def test_json_is_a_line_for_each_photo(reference, capsys, tmp_path, count):
    missing = tmp_path / 'a\nb\u20ac.jpg'
    assert main([*count * [str(PHOTO)], str(missing), '--json', *SMALL]) == 2
    printed = capsys.readouterr()
    *told, failed = map(json.loads, printed.out.splitlines())
    assert failed == {'image': str(missing), 'error': 'no such file'} and printed.out.isascii()
    assert printed.err.count('\n') == 1 and 'no such file' in printed.err
    assert [row['image'] for row in told] == count * [str(PHOTO)]
    assert all(row['passage'] == EXPECTED['grey.png']['passage'] for row in told)
    assert len(told[0]['captions']) == 10 and told[0]['settings']['bw'] == 5


@pytest.mark.parametrize(
    'options', [['--banned', 'love'], ['--required', 'the'], ['--lyric'], ['--models', '.']]
)
def test_no_option_takes_a_photo_for_a_value(reference, monkeypatch, options):
    told = []
    monkeypatch.setattr(generate, 'story', lambda z, photo, **_: told.append(photo))
    monkeypatch.setattr(generate, 'stories', lambda *_, **__: [])
    monkeypatch.setattr(generate, 'load_all', lambda *_, **__: {})
    assert main(['a.jpg', *options, 'b.jpg', *SMALL, 'c.jpg']) == 0
    assert told == ['a.jpg', 'b.jpg', 'c.jpg']


def test_options_reach_the_story(reference, capsys):
    def told(*options):
        assert main([str(PHOTO), *SMALL, *options]) == 0
        return capsys.readouterr().out

    style = REFERENCE / 'story' / 'caption_style.npy'
    assert told('--style', 'caption') == told('--style', str(style)) == told('--strength', '0')
    assert told('--strength', '1') == told()
    assert told('--seed', '3') == told('--seed', '3')


@pytest.mark.parametrize(
    ('content', 'words'),
    [(None, 'no such file'), ('folder', 'a folder'), ('text', 'not a picture'), ('', 'empty')],
)
def test_what_is_no_photo_is_named(reference, capsys, tmp_path, content, words):
    photo = tmp_path / 'photo.jpg'
    if content == 'folder':
        photo.mkdir()
    elif content is not None:
        photo.write_text(content)
    line = complaint(capsys, [str(photo), *SMALL])
    assert str(photo) in line and words in line


def test_how_large_a_photo_may_be_is_an_option(reference, capsys, tmp_path):
    photo = tmp_path / 'photo.png'
    Image.new('L', (30, 20)).save(photo)
    line = complaint(capsys, [str(photo), *SMALL, '--max-pixels', '599'])
    assert '30x20 is more than 599 pixels' in line and '--max-pixels' in line
    assert main([str(photo), *SMALL, '--max-pixels', '600']) == 0
    capsys.readouterr()
    assert 'max_pixels: expected 1 or more' in complaint(capsys, [str(photo), '--max-pixels', '0'])


@pytest.mark.parametrize('style', ['gothic', 'gothic.npy'])
def test_a_style_that_is_not_there_is_named(reference, capsys, style):
    line = complaint(capsys, [str(PHOTO), *SMALL, '--style', style])
    assert repr(style) in line and 'caption, romance' in line


def test_a_style_of_another_width_is_named(reference, capsys, tmp_path):
    np.save(tmp_path / 'wide.npy', np.zeros(4800, np.float32))
    line = complaint(capsys, [str(PHOTO), *SMALL, '--style', str(tmp_path / 'wide.npy')])
    assert 'wide.npy' in line and '48' in line and '4800' in line


@pytest.mark.parametrize('option', ['-k', '--bw'])
@pytest.mark.parametrize('value', ['0', '-3'])
def test_counts_below_one_are_refused_before_models_are_loaded(capsys, monkeypatch, option, value):
    monkeypatch.setattr(generate, 'load_all', lambda *_, **__: pytest.fail('models were loaded'))
    line = complaint(capsys, [str(PHOTO), option, value])
    assert f'{option.strip("-")}: expected 1 or more, found {value}' in line


def test_the_precision_is_that_of_the_models(reference, monkeypatch):
    asked, load = [], generate.load_all
    monkeypatch.setattr(
        generate, 'load_all', lambda *a, precision, **b: asked.append(precision) or load(*a, **b)
    )
    assert main([str(PHOTO), *SMALL]) == main([str(PHOTO), *SMALL, '--precision', 'bfloat16']) == 0
    assert asked == ['float32', 'bfloat16']


@pytest.mark.parametrize('options', [['--strength', 'nan'], ['--seed', '-1']])
def test_numbers_out_of_range_are_named(reference, capsys, options):
    assert options[0].strip('-') in complaint(capsys, [str(PHOTO), *SMALL, *options])


def test_a_folder_of_models_that_is_not_there_is_named(capsys, tmp_path):
    line = complaint(capsys, [str(PHOTO), '--models', str(tmp_path / 'nowhere')])
    assert str(tmp_path / 'nowhere') in line


def test_a_missing_model_file_is_named(capsys, tmp_path):
    line = complaint(capsys, [str(PHOTO), '--models', str(tmp_path)])
    assert str(tmp_path) in line and 'uni_skip.safetensors' in line


def test_a_damaged_model_file_is_named(capsys, tmp_path):
    folder = shutil.copytree(REFERENCE / 'skipthoughts', tmp_path / 'models')
    whole = (folder / 'bi_skip.npz').read_bytes()
    (folder / 'bi_skip.npz').write_bytes(whole[: len(whole) // 2])
    line = complaint(capsys, [str(PHOTO), '--models', str(folder)])
    assert 'bi_skip.npz' in line


@pytest.mark.parametrize(
    'arguments', [[], ['--bw', 'wide', 'x.jpg'], ['--colour', 'x.jpg'], ['--check', '--json']]
)
def test_a_command_line_that_cannot_be_read_ends_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.startswith('usage: python -m storyteller')


@pytest.mark.parametrize(
    ('called', 'name'),
    [
        ('/usr/bin/storyteller', 'storyteller'),
        ('storyteller.exe', 'storyteller'),
        ('/packages/storyteller/__main__.py', 'python -m storyteller'),
        ('', 'python -m storyteller'),
    ],
)
def test_the_usage_names_the_command_that_was_called(monkeypatch, capsys, called, name):
    monkeypatch.setattr(sys, 'argv', [called, '--help'])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: {name} [-h]')


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['--version'])
    assert stopped.value.code == 0
    assert capsys.readouterr() == (f'storyteller {storyteller.__version__}\n', '')


# --- as a program --------------------------------------------------------------------------------

# Any use of the network, also one that a library would swallow, ends the program at once.
OFFLINE = """
import os, runpy, sys
def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'):
        os.write(2, f'network: {event} {arguments}'.encode())
        os._exit(99)
sys.addaudithook(watch)
sys.argv[0] = 'storyteller'
runpy.run_module('storyteller', run_name='__main__', alter_sys=True)
"""


def run(tmp_path: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        'PYTHONPATH': str(CHECKOUT),
        'STORYTELLER_CACHE': str(tmp_path / 'cache'),
    }
    return subprocess.run(
        [sys.executable, '-c', OFFLINE, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
    )


def test_the_watch_on_the_network_sees_a_connection():
    used = OFFLINE.split('sys.argv')[0] + 'import socket; socket.create_connection(("::1", 9))'
    done = subprocess.run([sys.executable, '-c', used], capture_output=True, text=True)
    assert done.returncode == 99 and done.stderr.startswith('network: ')


def test_as_a_program_an_error_is_one_line_and_no_traceback(tmp_path):
    done = run(tmp_path, str(PHOTO), '--models', str(tmp_path / 'nowhere'))
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == f'storyteller: {tmp_path / "nowhere"}: no such folder of models\n'


def test_garbage_is_looked_for_again_in_the_end(reference, capsys):
    assert main([str(PHOTO), *SMALL]) == 0
    assert gc.isenabled() and gc.get_freeze_count() == 0


IMPORTED = """
import sys
import storyteller, storyteller.cli.arguments, storyteller.config, storyteller.io.bundle
print(*sys.modules)
import storyteller.generate
print(*sys.modules)
"""


def test_what_a_story_does_not_need_is_not_imported():
    done = subprocess.run(
        [sys.executable, '-c', IMPORTED],
        env=os.environ | {'PYTHONPATH': str(CHECKOUT)},
        capture_output=True, encoding='utf-8', timeout=300, check=True,
    )  # fmt: skip
    light, whole = (set(line.split()) for line in done.stdout.splitlines())
    assert 'torch' not in light and 'torch' in whole
    others = {'nltk', 'scipy', 'skimage', 'sklearn', 'sympy', 'pooch', 'requests', 'torch._dynamo'}
    assert not others & whole
    assert not any(name.startswith('storyteller.training') for name in whole)


@bundle
@pytest.mark.slow
def test_main_job_offline_with_the_default_bundle(tmp_path):
    done = run(tmp_path, str(CHECKOUT / 'images' / 'ex1.jpg'))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == 'NEAREST-CAPTIONS: ' and lines[6:8] == ['', 'OUTPUT: ']
    assert len(set(lines[1:6])) == 5 and all(lines[1:6])
    story = ' '.join(lines[8:]).split()
    assert len(story) >= 20 and sum(word in '.!?' for word in story) >= 2
    assert 'UNK' not in story and '<eos>' not in story
    assert not set(lines[8:]) & set(done.stderr.splitlines())


@bundle
def test_default_bundle_loads_and_a_missing_photo_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    line = complaint(capsys, [str(tmp_path / 'missing.jpg')])
    assert 'missing.jpg: no such file' in line
