"""How many threads compute, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import tell, write_models

from storyteller import generate
from storyteller.__main__ import main
from storyteller.cli.arguments import THREADS, WAITING

ROOT = Path(__file__).parent.parent
NAMES = WAITING + THREADS
# What a command has set when it asks for torch, which reads it as it is loaded.
SCRIPT = """
import os, runpy, sys
from storyteller.cli import arguments as command_line

use = command_line.use_threads

def noting(count=None):
    assert 'torch' not in sys.modules
    use(count)
    print(*(os.environ.get(name) for name in {names}))
    sys.exit(0)

command_line.use_threads = noting
sys.argv = {argv}
runpy.run_path(sys.argv[0], run_name='__main__') if sys.argv[0].endswith('.py') else (
    runpy.run_module(sys.argv[0], run_name='__main__')
)
"""


@pytest.mark.parametrize(
    'command',
    ['storyteller', *(str(ROOT / 'scripts' / f'{n}.py') for n in ('story_folder', 'demo'))],
)
@pytest.mark.parametrize(
    ('given', 'arguments', 'found'),
    [
        ({}, (), ['PASSIVE', None, None, None, None]),
        ({}, ('--threads', '3'), ['PASSIVE', None, None, '3', '3']),
        ({'OMP_WAIT_POLICY': 'ACTIVE'}, (), ['ACTIVE', None, None, None, None]),
        ({'GOMP_SPINCOUNT': '9'}, (), [None, '9', None, None, None]),
        ({'KMP_BLOCKTIME': '9'}, (), [None, None, '9', None, None]),
        ({'OMP_NUM_THREADS': '1'}, (), ['PASSIVE', None, None, '1', None]),
    ],
)
def test_commands_say_how_threads_wait_before_torch_is_there(command, given, arguments, found):
    words = {'storyteller': ['a.jpg'], 'demo': []}.get(Path(command).stem, ['a.jpg', '--out', 'b'])
    assert set_by([command, *words, *arguments], given) == [str(value) for value in found]


@pytest.mark.parametrize(
    'name',
    sorted(path.name for path in ROOT.glob('scripts/train_*.py') if 'punkt' not in path.name),
)
@pytest.mark.parametrize(
    ('given', 'policy'), [({}, 'PASSIVE'), ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'ACTIVE')]
)
def test_trainers_say_it_too(name, given, policy):
    assert set_by([str(ROOT / 'scripts' / name)], given) == [policy, *['None'] * 4]


def set_by(argv, given):
    """What a command has set, beside what the environment gives."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(names=NAMES, argv=argv)],
        env=clean | {'PYTHONPATH': str(ROOT)} | given,
        capture_output=True, encoding='utf-8', timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_models_are_told_with_how_many(tmp_path, monkeypatch, threads):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    paths = write_models(tmp_path)
    expected = []
    for count in (1, 3):
        expected.append(tell(generate.load_all(paths, threads=count)))
        assert torch.get_num_threads() == count
    generate.load_all(paths)
    assert torch.get_num_threads() == 3 and expected[0] == expected[1]


@pytest.mark.parametrize('count', [0, -1, 1.5, True, '2'])
def test_a_wrong_number_is_refused_before_anything_is_loaded(count, threads):
    with pytest.raises(ValueError, match='threads: expected an integer from 1 up'):
        generate.load_all('/nowhere', threads=count)


def test_the_command_refuses_it_in_a_line(capsys):
    assert main(['a.jpg', '--threads', '0']) == 2
    assert 'threads: expected an integer from 1 up' in capsys.readouterr().err
