"""Two processes that train one model make the steps that one would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from storyteller import formats
from storyteller.training import distributed

PROGRAM = Path(__file__).parent / 'training' / 'together.py'
TRAINERS = ['skipthoughts', 'decoder', 'embedding', 'contrastive', 'averaged']
EPOCHS = {'skipthoughts': 3}  # others 2


# Trains as PROGRAM does, and says which threads are left when everything else has ended.
WATCHED = """
import atexit, os, runpy, sys
TASKS = '/proc/self/task'
def tell():
    names = [open(f'{TASKS}/{task}/comm').read().strip() for task in os.listdir(TASKS)]
    print(*names, sep='\\n', file=open(f'threads{os.environ["RANK"]}', 'w'))
atexit.register(tell)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def start(command, processes):
    """Run a command as torchrun would start it."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        port = found.getsockname()[1]
    started = []
    for number in range(processes):
        meeting = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'OMP_NUM_THREADS': '1'}
        meeting |= {'WORLD_SIZE': str(processes), 'RANK': str(number)}
        started.append(
            subprocess.Popen(
                [sys.executable, *command],
                env=os.environ | meeting,
                stderr=subprocess.PIPE,
                encoding='utf-8',
            )
        )
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def run(trainer, folder, epochs, processes):
    """Train as torchrun would start it; the metrics, and the weights that were written."""
    folder.mkdir(exist_ok=True)
    start([str(PROGRAM), trainer, str(folder), str(epochs)], processes)
    rows = (folder / 'a.jsonl').read_text(encoding='utf-8').splitlines()
    return [json.loads(row) for row in rows], formats.read_model(folder / 'out.npz')[0]


@pytest.mark.slow
@pytest.mark.parametrize('trainer', TRAINERS)
def test_two_processes_learn_what_one_does(tmp_path, trainer):
    epochs = EPOCHS.get(trainer, 2)
    rows, weights = run(trainer, tmp_path / 'one', epochs, 1)
    rows_of_two, weights_of_two = run(trainer, tmp_path / 'two', epochs, 2)
    assert len(rows_of_two) == 1  # one of them writes
    assert rows_of_two[0]['steps'] == rows[0]['steps'] >= 20
    assert rows_of_two[0]['cost'] == pytest.approx(rows[0]['cost'], rel=1e-5)
    assert weights_of_two.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(weights_of_two[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(('before', 'after'), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(tmp_path, before, after):
    run('embedding', tmp_path / 'a', 1, before)
    middle = torch.load(tmp_path / 'a' / 'a.pt', weights_only=True)['position']
    rows, weights = run('embedding', tmp_path / 'a', 2, after)
    run('embedding', tmp_path / 'b', 1, 1)
    _, expected = run('embedding', tmp_path / 'b', 2, 1)
    assert middle[0] == 1 and rows[-1]['steps'] > middle[2] > 0
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='no list of threads')
def test_none_of_their_threads_outlives_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(PROGRAM.parents[2]))
    start(['-c', WATCHED, str(PROGRAM), 'embedding', str(tmp_path), '1'], 2)
    for number in range(2):
        threads = (tmp_path / f'threads{number}').read_text(encoding='utf-8').splitlines()
        assert threads and not [name for name in threads if 'gloo' in name or 'store' in name]


def test_one_process_has_all():
    assert (distributed.count(), distributed.number()) == (1, 0)
    assert distributed.agree(2.5) == 2.5 and distributed.summed(1, 2) == [1, 2]
    assert (
        distributed.part([1, 2, 3]) == [1, 2, 3]
        and distributed.enough([1])
        and not distributed.enough([])
    )
    rows = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(rows) is rows
    assert distributed.once(rows.sum()).item() == 6
    with pytest.raises(ValueError, match='batch of 0'):
        distributed.part([])
