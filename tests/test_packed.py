from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_layers import random_gru, slow_gru
from torch import nn

from storyteller.nn import packed


@pytest.fixture(params=['packed', 'plain'])
def way(request, monkeypatch):
    """Both roads: with oneDNN, and on a machine that has none."""
    if request.param == 'plain':
        monkeypatch.setattr(packed, 'can_pack', lambda weight: False)
    elif not packed.can_pack(torch.zeros(1, 1)):
        pytest.skip('no oneDNN here')
    return request.param


@pytest.mark.parametrize('shape', [(0, 5), (1, 5), (3, 5), (70, 5), (2, 3, 5)])
@pytest.mark.parametrize('bias', [True, False])
@torch.inference_mode()
def test_a_product_is_that_of_the_plain_layer(way, shape, bias):
    layer, x = nn.Linear(5, 9, bias=bias), torch.randn(shape)
    found = packed.Linear(layer.weight, layer.bias)(x)
    assert found.shape == (*shape[:-1], 9)
    torch.testing.assert_close(found, layer(x), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_inputs_need_not_be_contiguous(way):
    layer, x = nn.Linear(5, 9), torch.randn(5, 4).t()
    found = packed.Linear(layer.weight, layer.bias)(x)
    torch.testing.assert_close(found, layer(x), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_layers_can_be_copied_and_pickled(way):
    layer, x = nn.Linear(5, 9), torch.randn(4, 5)
    ours = packed.Linear(layer.weight, layer.bias)
    conv, photo = packed.Conv2d(3, 8, 3, padding=1), torch.randn(1, 3, 8, 8)
    found = ours(x), conv(photo)
    for again in (copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(ours)(x), found[0])
        assert torch.equal(again(conv)(photo), found[1])
    assert torch.equal(ours(x), found[0])


def test_a_convolution_follows_its_weight(way):
    conv, photo = packed.Conv2d(3, 8, 3, padding=1), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        conv(photo)
        conv.weight.zero_()
        torch.testing.assert_close(conv(photo)[0, :, 0, 0], conv.bias)


def test_a_processor_without_half_width_takes_the_plain_layer(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    assert not packed.can_pack(torch.zeros(1, 1, dtype=torch.bfloat16))
    module = packed.gru_for(random_gru(), 'encoder', torch.device('cpu'), torch.bfloat16)
    assert isinstance(module, nn.GRU)


@pytest.mark.parametrize('fault', ['missing', 'other arguments', 'other numbers'])
@pytest.mark.parametrize('name', ['_linear_pointwise', '_reorder_convolution_weight'])
def test_with_a_torch_whose_operators_changed_layers_are_plain_ones(monkeypatch, name, fault):
    operator = getattr(torch.ops.mkldnn, name, None)
    if operator is None:
        pytest.skip('no oneDNN here')

    class Changed:
        def __getattr__(self, asked):
            if asked != name:
                return getattr(torch.ops.mkldnn, asked)
            if fault == 'missing':
                raise AttributeError(asked)
            ours = {'other arguments': lambda x: x, 'other numbers': lambda *x: 2 * operator(*x)}
            return ours[fault]

    ops = SimpleNamespace(mkldnn=Changed())
    ours = SimpleNamespace(ops=ops, **{n: v for n, v in vars(torch).items() if n != 'ops'})
    monkeypatch.setattr(packed, 'torch', ours)
    packed._operators_work.cache_clear()
    try:
        assert not packed.can_pack(torch.ones(1, 1))
    finally:
        packed._operators_work.cache_clear()


@torch.inference_mode()
def test_half_width_is_near(way):
    layer, x = nn.Linear(50, 9), torch.randn(4, 50)
    found = packed.Linear(layer.weight.bfloat16(), layer.bias.bfloat16())(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, layer(x), atol=0.03, rtol=0)


@torch.inference_mode()
def test_a_gru_steps_as_in_2015(way):
    rng, params = np.random.default_rng(0), random_gru()
    x = rng.normal(size=(9, 4, 5)).astype(np.float32)
    h = rng.normal(size=(4, 7)).astype(np.float32)
    expected = slow_gru(params, 'encoder', x, h)
    module, state = packed.GRU(params, 'encoder'), torch.tensor(h)
    for inputs, wanted in zip(module.project(torch.tensor(x)), expected, strict=True):
        state = module.step(inputs, state)
        np.testing.assert_allclose(state.numpy(), wanted, atol=2e-6)


def test_a_step_leaves_its_arguments_alone(way):
    module = packed.GRU(random_gru(), 'encoder')
    inputs, state = torch.randn(4, 21), torch.randn(4, 7)
    kept = inputs.clone(), state.clone()
    with torch.inference_mode():
        module.step(inputs, state)
    assert torch.equal(inputs, kept[0]) and torch.equal(state, kept[1])


@pytest.mark.parametrize('size', [1, 3])
def test_a_convolution_is_that_of_the_plain_layer(way, size):
    plain, ours = nn.Conv2d(3, 8, 3, padding=1), packed.Conv2d(3, 8, 3, padding=1)
    ours.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        for x in (torch.randn(size, 3, 20, 12), torch.randn(size + 1, 3, 8, 8)):
            torch.testing.assert_close(ours(x), plain(x), atol=1e-5, rtol=0)


def test_a_convolution_still_learns(way):
    layer = packed.Conv2d(3, 2, 3, padding=1)
    layer(torch.randn(1, 3, 5, 5)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


# Megabytes that a process takes more after products of 800 shapes than after 300.
SHAPES = """
import torch
from storyteller.nn import packed

def taken():
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) / 1000 for line in file if line.startswith('VmRSS'))

layer = packed.Linear(torch.ones(2400, 600))
with torch.inference_mode():
    for rows in range(1, 801):
        layer(torch.ones(rows, 600))
        if rows == 300:
            before = taken()
print(taken() - before)
"""


def _grown(**kept: str) -> float:
    clean = {name: value for name, value in os.environ.items() if name not in packed.KEPT}
    done = subprocess.run(
        [sys.executable, '-c', SHAPES],
        env=clean | {'PYTHONPATH': str(Path(__file__).parent.parent)} | kept,
        capture_output=True, encoding='utf-8', timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='no such account of memory')
def test_memory_does_not_grow_with_the_number_of_shapes():
    if not packed.can_pack(torch.zeros(1, 1)):
        pytest.skip('no oneDNN here')
    # What a shape takes, and what is given back to the system, differ from machine to machine.
    assert _grown() < 0.6 * _grown(**dict.fromkeys(packed.KEPT, '1024'))


SAID = """
import importlib, os, sys
before = dict(os.environ)
from storyteller.nn import packed
for name in sys.argv[1:]:
    os.environ.clear()
    os.environ.update(before, **{name: '7'})
    importlib.reload(packed)
    print(*map(os.environ.get, packed.KEPT))
"""


def test_a_user_may_say_how_many_are_kept():
    said = {
        'LRU_CACHE_CAPACITY': '64 7',
        'ONEDNN_PRIMITIVE_CACHE_CAPACITY': '7 64',
        'DNNL_PRIMITIVE_CACHE_CAPACITY': 'None None',
    }
    clean = {key: value for key, value in os.environ.items() if key not in packed.KEPT}
    done = subprocess.run(
        [sys.executable, '-c', SAID, *said],
        env=clean | {'PYTHONPATH': str(Path(__file__).parent.parent)},
        capture_output=True, encoding='utf-8', timeout=180, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == list(said.values())
