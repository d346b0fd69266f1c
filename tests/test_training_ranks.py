"""Two processes that train one model make the steps that one would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest
import torch

from storyteller.training import ranks

PROGRAM = textwrap.dedent("""
    import sys
    import numpy as np
    import torch
    from torch import nn
    from storyteller.training import ranks
    from storyteller.training.loop import TrainOptions, train

    out, epochs = sys.argv[1], int(sys.argv[2])
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    unused = nn.Linear(2, 2)

    def batches(epoch):
        rng = np.random.default_rng(epoch)
        return [torch.tensor(rng.normal(size=(9, 4)), dtype=torch.float32) for _ in range(7)]

    def cost(batch):
        x = ranks.part(batch)
        return (net(x)[:, 0] - x.sum(1)).square().sum(), len(x)

    options = TrainOptions(epochs=epochs, lr=0.01, clip=1.0, decay=True, minutes=10)
    train(nn.ModuleList([net, unused]), batches, cost, options, out + '/a.pt')
    torch.save(net.state_dict(), f'{out}/{ranks.number()}.pt')
""")


def run(folder, epochs, processes):
    """Train as torchrun would start it; the weights that each process ends with."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        port = found.getsockname()[1]
    started = []
    for number in range(processes):
        meeting = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'OMP_NUM_THREADS': '1'}
        meeting |= {'WORLD_SIZE': str(processes), 'RANK': str(number)}
        command = [sys.executable, '-c', PROGRAM, str(folder), str(epochs)]
        started.append(
            subprocess.Popen(
                command, env=os.environ | meeting, stderr=subprocess.PIPE, encoding='utf-8'
            )
        )
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [torch.load(folder / f'{n}.pt', weights_only=True) for n in range(processes)]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp('alone'), 3, 1)[0]


def assert_close(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_two_processes_learn_what_one_does(tmp_path, alone):
    for weights in run(tmp_path, 3, 2):
        assert_close(weights, alone)
    rows = (tmp_path / 'a.jsonl').read_text(encoding='utf-8').splitlines()
    assert [json.loads(row)['steps'] for row in rows] == [21]  # one of them writes


@pytest.mark.slow
@pytest.mark.parametrize(('before', 'after'), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(tmp_path, alone, before, after):
    run(tmp_path, 2, before)
    assert torch.load(tmp_path / 'a.pt', weights_only=True)['position'] == [2, 0, 14]
    for weights in run(tmp_path, 3, after):
        for name, value in alone.items():  # the rate fell faster to the end of two epochs
            assert (weights[name] - value).abs().max() < 0.2, name


def test_one_process_has_all(tmp_path):
    assert (ranks.count(), ranks.number(), ranks.agree(2.5)) == (1, 0, 2.5)
    assert ranks.part([1, 2, 3]) == [1, 2, 3]
    with pytest.raises(ValueError, match='batch of 0'):
        ranks.part([])
